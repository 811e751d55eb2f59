// Files that were opened before something was mounted over the directory in which they are, and files that
// are open on several mounts of one file system: each is on the mount on which it was opened.
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include "mounts.h"

using namespace mounts;

namespace {

// `around` is on a disk, or in the program's own file system in memory.
void files_beneath(const std::string& around) {
  const std::string covered = around + "/covered";
  make_directory(covered);
  make_directory(covered + "/deep");
  write_file(covered + "/file", "beneath");
  write_file(covered + "/deep/removed", "removed");
  MUST(mkfifo((covered + "/fifo").c_str(), 0600) == 0);
  MUST(mknod((covered + "/null").c_str(), S_IFCHR | 0600, makedev(1, 3)) == 0);
  int file = open((covered + "/file").c_str(), O_RDWR);
  int fifo = open((covered + "/fifo").c_str(), O_RDWR);
  int null = open((covered + "/null").c_str(), O_RDWR);
  int deep = open((covered + "/deep").c_str(), O_RDONLY | O_DIRECTORY);
  int removed = open((covered + "/deep/removed").c_str(), O_RDWR);
  MUST(file >= 0 && fifo >= 0 && null >= 0 && deep >= 0 && removed >= 0 && write(fifo, "in it", 5) == 5);
  MUST(unlink((covered + "/deep/removed").c_str()) == 0 && chdir((covered + "/deep").c_str()) == 0);
  // The nearer one first, so that both hide it.
  tmpfs(covered + "/deep");
  tmpfs(covered);
  write_file(covered + "/file", "above");
  for (int fd : {file, fifo, null, deep, removed}) MUST(mount_of(fd) == mount_at(around));
  const auto before = tree_below(around);
  subject::hold();
  expect_tree(around, before);
  for (int fd : {file, fifo, null, deep, removed}) CHECK_EQ(mount_of(fd), mount_at(around));
  CHECK_EQ(mount_at("."), mount_at(around));
  expect_file(covered + "/file", "above");
  expect_text(file, "beneath");
  CHECK_EQ(pwrite(file, "B", 1, 0), 1);
  char text[8] = {};
  CHECK_EQ(read(fifo, text, sizeof text), 5);
  CHECK_EQ(strcmp(text, "in it"), 0);
  expect_text(removed, "removed");
  // Nothing but the program holds any of these mounts.
  CHECK_EQ(umount(covered.c_str()), 0);
  expect_file(covered + "/file", "Beneath");
  CHECK_EQ(umount((covered + "/deep").c_str()), 0);
  struct stat here = {}, there = {};
  CHECK_EQ(stat(".", &here), 0);
  CHECK_EQ(stat((covered + "/deep").c_str(), &there), 0);
  CHECK_EQ(here.st_ino, there.st_ino);
  CHECK_EQ(faccessat(deep, "../file", F_OK, 0), 0);
}

}  // namespace

CASE(files_beneath_in_the_session) {
  need_root();
  files_beneath(subject::g_dir);
}
CASE(files_beneath_in_a_namespace) {
  need_root();
  own_namespace();
  files_beneath(subject::g_dir);
}
CASE(files_beneath_in_memory) {
  need_root();
  make_directory(in_dir("memory"));
  tmpfs(in_dir("memory"));
  files_beneath(in_dir("memory"));
}
// The kernel shows on which mount each was opened, also when the file has no name any more.
CASE(removed_file_on_two_mounts) {
  need_root();
  const std::string all = in_dir("all"), one = in_dir("one"), other = in_dir("other");
  for (const auto& directory : {all, one, other}) make_directory(directory);
  tmpfs(all);
  make_directory(all + "/1");
  make_directory(all + "/2");
  bind(all + "/1", one);
  bind(all + "/2", other);
  write_file(one + "/file", "removed");
  MUST(link((all + "/1/file").c_str(), (all + "/2/file").c_str()) == 0);
  int first = open((one + "/file").c_str(), O_RDWR), second = open((other + "/file").c_str(), O_RDONLY);
  MUST(first >= 0 && second >= 0);
  MUST(unlink((all + "/1/file").c_str()) == 0 && unlink((all + "/2/file").c_str()) == 0);
  subject::hold();
  CHECK_EQ(mount_of(first), mount_at(one));
  CHECK_EQ(mount_of(second), mount_at(other));
  CHECK_EQ(pwrite(first, "R", 1, 0), 1);
  expect_text(second, "Removed");
  struct stat status = {};
  CHECK_EQ(fstat(second, &status), 0);
  CHECK_EQ(status.st_nlink, 0u);
}

CASE_WITH(name_elsewhere, subject::kBusy) {
  need_root();
  file_with_a_name_elsewhere();
}
CASE_WITH(name_elsewhere_in_a_namespace, subject::kBusy) {
  need_root();
  own_namespace();
  file_with_a_name_elsewhere();
}

// The session's /proc comes late; what is bound from beneath something that is mounted on it comes from a
// copy.
CASE(bound_from_beneath_in_proc) {
  need_root();
  bind("/proc/sys", "/proc/sys");
  bind("/proc/sys/net", "/proc/sys/net");
  change("/proc/sys", MS_BIND | MS_REMOUNT | MS_RDONLY);
  const auto before = tree_below("/proc/sys");
  const std::string here = link_of("/proc/self/cwd");
  subject::hold();
  expect_tree("/proc/sys", before);
  CHECK(link_of("/proc/self/cwd") == here);
  CHECK_EQ(access("/proc/sys/net/ipv4/ip_forward", W_OK), 0);
  CHECK_EQ(access("/proc/sys/kernel/hostname", W_OK), -1);
  CHECK_EQ(errno, EROFS);
}

// The socket holds what it was bound through, and not what was mounted there later.
CASE(socket_beneath) {
  need_root();
  const std::string covered = std::string(subject::g_dir) + "/covered";
  make_directory(covered);
  MUST(chdir(subject::g_dir) == 0);
  const auto listener_at = [](const char* path) {
    sockaddr_un name = {};
    name.sun_family = AF_UNIX;
    MUST(strlen(path) < sizeof name.sun_path);
    strcpy(name.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    MUST(bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof name) == 0 && listen(fd, 1) == 0);
    return fd;
  };
  int relative = listener_at("covered/relative"), absolute = listener_at((covered + "/absolute").c_str());
  MUST(relative >= 0 && absolute >= 0);
  tmpfs(covered);
  subject::hold();
  CHECK_EQ(access("covered/relative", F_OK), -1);
  CHECK_EQ(umount(covered.c_str()), 0);
  CHECK_EQ(access("covered/relative", F_OK), 0);
  CHECK_EQ(access("covered/absolute", F_OK), 0);
  sockaddr_un name = {};
  socklen_t size = sizeof name;
  CHECK_EQ(getsockname(relative, reinterpret_cast<sockaddr*>(&name), &size), 0);
  CHECK_EQ(strcmp(name.sun_path, "covered/relative"), 0);
  size = sizeof name;
  CHECK_EQ(getsockname(absolute, reinterpret_cast<sockaddr*>(&name), &size), 0);
  CHECK_EQ(strcmp(name.sun_path, (covered + "/absolute").c_str()), 0);
}

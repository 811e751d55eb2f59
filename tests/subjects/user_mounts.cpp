// Mount namespaces that belong to a user namespace of the program's: what is mounted there, and with which
// rights.
#include <arpa/inet.h>
#include <grp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <string>

#include "mounts.h"

namespace {

using mounts::bind;
using mounts::change;
using mounts::expect_file;
using mounts::in_dir;
using mounts::make_directory;
using mounts::tmpfs;
using mounts::write_file;

void put(const char* name, const char* text) {
  const int fd = open(name, O_WRONLY | O_CLOEXEC);
  MUST(fd >= 0 && write(fd, text, strlen(text)) == static_cast<ssize_t>(strlen(text)));
  close(fd);
}
// unshare -U --mount, with our ids as these. What is mounted elsewhere comes to none of it.
void enter(unsigned user, unsigned group, int flags = 0) {
  const unsigned own_user = geteuid(), own_group = getegid();
  char text[64];
  if (unshare(CLONE_NEWUSER | CLONE_NEWNS | flags) != 0 && errno == EPERM) SKIP("no user namespaces here");
  put("/proc/self/setgroups", "deny");
  snprintf(text, sizeof text, "%u %u 1", user, own_user);
  put("/proc/self/uid_map", text);
  snprintf(text, sizeof text, "%u %u 1", group, own_group);
  put("/proc/self/gid_map", text);
  change("/", MS_REC | MS_PRIVATE);
}
// As somebody who has no rights outside.
void become_ordinary() {
  if (geteuid() != 0) return;
  MUST(chmod(subject::path(".").text, 0777) == 0);
  MUST(setgroups(0, nullptr) == 0 && setresgid(65534, 65534, 65534) == 0 &&
       setresuid(65534, 65534, 65534) == 0);
  MUST(prctl(PR_SET_DUMPABLE, 1) == 0);
}
std::string owner_of(const std::string& name) {
  struct stat status = {};
  return lstat(name.c_str(), &status) == 0
             ? std::to_string(status.st_uid) + ":" + std::to_string(status.st_gid)
             : strerror(errno);
}
int remount(const std::string& at, unsigned long flags, const char* options = nullptr) {
  return mount(nullptr, at.c_str(), nullptr, MS_REMOUNT | flags, options) == 0 ? 0 : errno;
}
int unmount(const std::string& at) { return umount2(at.c_str(), 0) == 0 ? 0 : errno; }

}  // namespace

CASE(memory) {
  const std::string at = in_dir("memory");
  make_directory(at);
  enter(0, 0);
  tmpfs(at, "size=1m,mode=0750,uid=0");
  write_file(at + "/file", "in memory");
  make_directory(at + "/directory");
  MUST(symlink("file", (at + "/link").c_str()) == 0);
  const auto tree = mounts::tree_below(at);
  const int fd = open((at + "/file").c_str(), O_RDWR);
  subject::hold();
  mounts::expect_tree(at, tree);
  expect_file(at + "/file", "in memory");
  expect_file(at + "/link", "in memory");
  mounts::expect_text(fd, "in memory");
  CHECK(owner_of(at + "/file") == "0:0");
  CHECK(owner_of(at) == "0:0");
  // It is its own: the file system, too, takes its rights from this user namespace.
  CHECK_EQ(remount(at, 0, "size=2m"), 0);
  CHECK_EQ(chown((at + "/file").c_str(), 0, 0), 0);
  close(fd);
  CHECK_EQ(unmount(at), 0);
  close(fd);
}

CASE(memory_of_somebody) {
  const std::string at = in_dir("memory");
  make_directory(at);
  enter(7, 8);
  tmpfs(at, "size=1m");
  write_file(at + "/file", "of seven");
  MUST(chmod((at + "/file").c_str(), 0600) == 0);
  CHECK(owner_of(at + "/file") == "7:8");
  const auto tree = mounts::tree_below(at);
  subject::hold();
  mounts::expect_tree(at, tree);
  CHECK(owner_of(at + "/file") == "7:8");
  expect_file(at + "/file", "of seven");
}

CASE_WITH(name_elsewhere, subject::kBusy) {
  enter(0, 0);
  mounts::file_with_a_name_elsewhere();
}

CASE(hidden) {
  const std::string at = in_dir("hidden");
  make_directory(at);
  enter(0, 0);
  tmpfs(at);
  write_file(at + "/lower", "hidden");
  make_directory(at + "/under");
  tmpfs(at + "/under");
  write_file(at + "/under/file", "further down");
  tmpfs(at, "size=64k", "upper");
  write_file(at + "/upper", "seen");
  const auto tree = mounts::tree_below(at);
  subject::hold();
  mounts::expect_tree(at, tree);
  expect_file(at + "/upper", "seen");
  CHECK_EQ(unmount(at), 0);
  expect_file(at + "/lower", "hidden");
  expect_file(at + "/under/file", "further down");
}

CASE(overlay) {
  const std::string at = in_dir("overlay");
  make_directory(at);
  enter(0, 0);
  tmpfs(at);
  for (const char* name : {"/lower", "/upper", "/work", "/merged"}) make_directory(at + name);
  write_file(at + "/lower/file", "lower");
  const std::string options =
      "lowerdir=" + at + "/lower,upperdir=" + at + "/upper,workdir=" + at + "/work,userxattr";
  if (mount("overlay", (at + "/merged").c_str(), "overlay", 0, options.c_str()) != 0)
    SKIP("no overlay in a user namespace");
  write_file(at + "/merged/new", "upper");
  const auto tree = mounts::tree_below(at);
  subject::hold();
  mounts::expect_tree(at, tree);
  expect_file(at + "/merged/file", "lower");
  expect_file(at + "/upper/new", "upper");
  write_file(at + "/merged/file", "changed");
  expect_file(at + "/lower/file", "lower");
}

// What is read-only for all stays so for those who have all rights in a user namespace only.
CASE(locked) {
  if (geteuid() != 0) SKIP("not root");
  const std::string source = in_dir("source"), file = in_dir("file"), at = in_dir("at"), on = in_dir("on");
  for (const auto& name : {source, at}) make_directory(name);
  for (const auto& name : {file, on}) write_file(name, "");
  for (const auto& name : {source, file}) {
    bind(name, name);
    CHECK_EQ(remount(name, MS_BIND | MS_RDONLY | MS_NOSUID), 0);
  }
  const pid_t pid = subject::child([&] {
    become_ordinary();
    enter(0, 0);
    bind(source, at, MS_REC);
    bind(file, on);
    tmpfs(at, nullptr, "own");
    const auto expect_locks = [&] {
      CHECK_EQ(remount(source, MS_BIND), EPERM);
      CHECK_EQ(remount(source, MS_BIND | MS_RDONLY), EPERM);
      CHECK_EQ(unmount(source), EINVAL);
      CHECK_EQ(remount(on, MS_BIND), EPERM);
      CHECK_EQ(remount(on, MS_BIND | MS_RDONLY | MS_NOSUID), 0);
    };
    expect_locks();
    const auto tree = mounts::tree_below(subject::path(".").text);
    while (!subject::told_to_go()) subject::pass(5);
    mounts::expect_tree(subject::path(".").text, tree);
    expect_locks();
    CHECK_EQ(unmount(at), 0);
    CHECK_EQ(remount(at, MS_BIND), EPERM);
    CHECK_EQ(remount(at, MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC), 0);
    CHECK_EQ(unmount(at), 0);
    CHECK_EQ(unmount(on), 0);
  });
  subject::hold();
  JOIN(pid);
  CHECK_EQ(unmount(source), 0);
  CHECK_EQ(unmount(file), 0);
}

// What the kernel does not let a restart do is refused before the program is stopped.
CASE_WITH(root_shared_by_two, subject::kMayRefuse) {
  const pid_t pid = subject::child([&] {
    become_ordinary();
    enter(0, 0);
    MUST(mount(nullptr, "/", nullptr, MS_SHARED, nullptr) == 0);
    const std::string at = in_dir("at");
    make_directory(at);
    const pid_t other = subject::child([&] {
      MUST(unshare(CLONE_NEWNS) == 0);
      subject::mark("apart");
      while (!subject::marked("mounted")) subject::pass(5);
      CHECK_EQ(access((at + "/file").c_str(), F_OK), 0);
    });
    while (!subject::marked("apart")) subject::pass(5);
    while (!subject::told_to_go()) subject::pass(5);
    tmpfs(at, nullptr, "own");
    write_file(at + "/file", "there");
    subject::mark("mounted");
    JOIN(other);
  });
  while (!subject::marked("apart")) subject::pass(5);
  subject::hold();
  JOIN(pid);
}

CASE(other_root) {
  const std::string root = in_dir("root");
  make_directory(root);
  const std::string here = subject::g_dir;
  enter(0, 0);
  tmpfs(root);
  for (const char* name : {"/usr", "/dir"}) make_directory(root + name);
  bind("/usr", root + "/usr", MS_REC);
  bind(here, root + "/dir", MS_REC);
  for (size_t slash = 1; slash != std::string::npos;) {
    slash = here.find('/', slash + 1);
    make_directory(root + here.substr(0, slash));
  }
  bind(here, root + here, MS_REC);
  write_file(root + "/file", "at the top");
  if (chdir(root.c_str()) != 0 || syscall(SYS_pivot_root, ".", ".") != 0 || umount2(".", MNT_DETACH) != 0)
    SKIP("no pivot_root here");
  MUST(chdir("/usr") == 0);
  struct stat before = {}, now = {};
  MUST(stat("/usr", &before) == 0);
  subject::hold();
  expect_file("/file", "at the top");
  CHECK(stat("/usr", &now) == 0 && now.st_ino == before.st_ino);
  char directory[64] = {};
  CHECK(getcwd(directory, sizeof directory) != nullptr && strcmp(directory, "/usr") == 0);
  CHECK(access("/etc", F_OK) != 0);
  CHECK_EQ(umount2("/dir", MNT_DETACH), 0);
  CHECK(chdir("/") == 0);
}

// A /proc of a pid namespace, also a part of it elsewhere, shared with a namespace that was copied.
CASE(proc_in_a_group) {
  const std::string at = in_dir("proc"), part = in_dir("part");
  for (const auto& name : {at, part}) make_directory(name);
  int ready[2];
  MUST(pipe(ready) == 0);
  enter(0, 0, CLONE_NEWPID);
  const pid_t pid = subject::child([&] {
    // In the session's the next one to mount it has to see one.
    tmpfs(at, nullptr, "shared");
    change(at, MS_SHARED);
    make_directory(at + "/here");
    MUST(unshare(CLONE_NEWNS) == 0);
    if (mount("proc", (at + "/here").c_str(), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=2") != 0) {
      MUST(write(ready[1], "-", 1) == 1);
      subject::leave();
    }
    bind(at + "/here/sys", part);
    CHECK_EQ(remount(part, MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC), 0);
    const int status = open((at + "/here/self/status").c_str(), O_RDONLY);
    MUST(status >= 0);
    const auto tree = mounts::tree_below(subject::path(".").text);
    MUST(write(ready[1], "+", 1) == 1);
    while (!subject::told_to_go()) subject::pass(5);
    mounts::expect_tree(subject::path(".").text, tree);
    CHECK(mounts::link_of((at + "/here/self").c_str()) == "1");
    CHECK_EQ(access((part + "/kernel").c_str(), F_OK), 0);
    char text[4096] = {};
    CHECK(pread(status, text, sizeof text - 1, 0) > 0);
    CHECK(strstr(text, "\nPid:\t1\n") != nullptr);
  });
  char answer = 0;
  MUST(read(ready[0], &answer, 1) == 1);
  if (answer == '-') {
    JOIN(pid);
    SKIP("/proc cannot be mounted here");
  }
  const auto tree = mounts::tree_below(subject::path(".").text);
  subject::hold();
  mounts::expect_tree(subject::path(".").text, tree);
  // To this one it came by itself, and it shows the same.
  CHECK(mounts::is_mounted(at + "/here"));
  CHECK(!mounts::is_mounted(part));
  JOIN(pid);
}

// Sockets in a network that belongs to it.
CASE(network) {
  enter(0, 0, CLONE_NEWNET);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  ifreq request = {};
  strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP;
  MUST(ioctl(fd, SIOCSIFFLAGS, &request) == 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(80);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  MUST(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 && listen(fd, 5) == 0);
  int client = socket(AF_INET, SOCK_STREAM, 0);
  MUST(connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  const int server = accept(fd, nullptr, nullptr);
  MUST(server >= 0 && write(client, "before", 6) == 6);
  int datagrams = socket(AF_INET, SOCK_DGRAM, 0);
  MUST(bind(datagrams, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  const std::string at = in_dir("sys");
  make_directory(at);
  const bool mounted = mount("sysfs", at.c_str(), "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) == 0;
  subject::hold();
  char text[16] = {};
  CHECK_EQ(read(server, text, sizeof text), 6);
  CHECK_EQ(strcmp(text, "before"), 0);
  CHECK_EQ(write(server, "after", 5), 5);
  CHECK_EQ(read(client, text, 5), 5);
  const int other = socket(AF_INET, SOCK_STREAM, 0);
  CHECK_EQ(connect(other, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  CHECK_EQ(sendto(datagrams, "x", 1, 0, reinterpret_cast<sockaddr*>(&address), sizeof address), 1);
  CHECK_EQ(read(datagrams, text, sizeof text), 1);
  if (mounted) CHECK_EQ(access((at + "/class/net/lo").c_str(), F_OK), 0);
}

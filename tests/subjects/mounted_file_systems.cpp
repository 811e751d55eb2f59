// File systems that a program mounts: those in memory with all that they can hold, the kernel's own,
// terminals, disks.
#include <dirent.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>

#include <set>
#include <string>

#include "mounts.h"

using namespace mounts;

static void attribute(const char* name, const char* key, const char* value, size_t size) {
  MUST(lsetxattr(in_dir(name).c_str(), key, value, size, 0) == 0);
}

CASE(memory_with_everything) {
  need_root();
  make_directory(in_dir("m"));
  tmpfs(in_dir("m"), "size=64m");
  make_directory(in_dir("m/one"));
  make_directory(in_dir("m/two"));
  write_file(in_dir("m/one/file"), "content");
  MUST(link(in_dir("m/one/file").c_str(), in_dir("m/two/same").c_str()) == 0);
  MUST(symlink("../one/file", in_dir("m/two/link").c_str()) == 0);
  MUST(lchown(in_dir("m/two/link").c_str(), 7, 8) == 0);
  MUST(mkfifo(in_dir("m/fifo").c_str(), 0640) == 0);
  MUST(mknod(in_dir("m/null").c_str(), S_IFCHR | 0666, makedev(1, 3)) == 0);
  MUST(mknod(in_dir("m/block").c_str(), S_IFBLK | 0600, makedev(7, 99)) == 0);
  MUST(mknod(in_dir("m/stale").c_str(), S_IFSOCK | 0700, 0) == 0);
  write_file(in_dir("m/program"), "#!");
  MUST(chown(in_dir("m/program").c_str(), 12, 34) == 0 && chmod(in_dir("m/program").c_str(), 06755) == 0);
  MUST(chmod(in_dir("m/one").c_str(), 01777) == 0 && chmod(in_dir("m/two").c_str(), 02750) == 0);
  attribute("m/one/file", "trusted.key", "value\0with", 10);
  attribute("m/one", "security.note", "x", 1);
  attribute("m/two/link", "trusted.of-a-link", "y", 1);
  // user::rw-, user:12:r--, group::r--, mask::r--, other::---
  const unsigned char acl[] = {2, 0,  0,   0,   1,   0,   6,  0, 255, 255, 255, 255, 2,   0,  4,
                               0, 12, 0,   0,   0,   4,   0,  4, 0,   255, 255, 255, 255, 16, 0,
                               4, 0,  255, 255, 255, 255, 32, 0, 0,   0,   255, 255, 255, 255};
  attribute("m/one/file", "system.posix_acl_access", reinterpret_cast<const char*>(acl), sizeof acl);
  int sparse = open(in_dir("m/sparse").c_str(), O_RDWR | O_CREAT, 0600);
  MUST(ftruncate(sparse, off_t{1} << 34) == 0 && pwrite(sparse, "middle", 6, off_t{1} << 33) == 6);
  int removed = open(in_dir("m/removed").c_str(), O_RDWR | O_CREAT, 0600);
  MUST(write(removed, "gone", 4) == 4 && unlink(in_dir("m/removed").c_str()) == 0);
  int unnamed = open(in_dir("m").c_str(), O_RDWR | O_TMPFILE, 0600);
  MUST(unnamed >= 0 && write(unnamed, "unnamed", 7) == 7);
  int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  MUST(in_dir("m/socket").size() < sizeof name.sun_path);
  strcpy(name.sun_path, in_dir("m/socket").c_str());
  MUST(bind(listener, reinterpret_cast<sockaddr*>(&name), sizeof name) == 0 && listen(listener, 4) == 0);
  const timespec times[2] = {{1000000000, 11}, {1100000000, 22}};
  for (const char* old : {"m/one/file", "m/program", "m/one", "m/two/link", "m/null"})
    MUST(utimensat(AT_FDCWD, in_dir(old).c_str(), times, AT_SYMLINK_NOFOLLOW) == 0);
  const char* const names[] = {"m",          "m/one",    "m/two",   "m/one/file", "m/two/same",
                               "m/two/link", "m/fifo",   "m/null",  "m/block",    "m/stale",
                               "m/program",  "m/sparse", "m/socket"};
  constexpr int kNames = sizeof names / sizeof *names;
  struct stat before[kNames] = {};
  for (int i = 0; i < kNames; ++i) MUST(lstat(in_dir(names[i]).c_str(), &before[i]) == 0);
  subject::hold();
  for (int i = 0; i < kNames; ++i) {
    struct stat now = {};
    CHECK_EQ(lstat(in_dir(names[i]).c_str(), &now), 0);
    const struct stat& was = before[i];
    const bool same = now.st_mode == was.st_mode && now.st_uid == was.st_uid && now.st_gid == was.st_gid &&
                      now.st_rdev == was.st_rdev && now.st_size == was.st_size &&
                      now.st_nlink == was.st_nlink;
    const bool times_same =
        now.st_mtim.tv_sec == was.st_mtim.tv_sec && now.st_mtim.tv_nsec == was.st_mtim.tv_nsec &&
        now.st_atim.tv_sec == was.st_atim.tv_sec && now.st_atim.tv_nsec == was.st_atim.tv_nsec;
    if (!same || !times_same)
      subject::say("%s differs: mode %o, nlink %ld", names[i], now.st_mode, static_cast<long>(now.st_nlink));
    CHECK(same);
    // Who binds a socket makes it anew, in its directory.
    CHECK(times_same || S_ISSOCK(now.st_mode) || strcmp(names[i], "m") == 0);
  }
  char value[64] = {};
  CHECK_EQ(lgetxattr(in_dir("m/two/same").c_str(), "trusted.key", value, sizeof value), 10);
  CHECK_EQ(memcmp(value, "value\0with", 10), 0);
  CHECK_EQ(lgetxattr(in_dir("m/one").c_str(), "security.note", value, sizeof value), 1);
  CHECK_EQ(lgetxattr(in_dir("m/two/link").c_str(), "trusted.of-a-link", value, sizeof value), 1);
  char back[sizeof acl] = {};
  CHECK_EQ(lgetxattr(in_dir("m/one/file").c_str(), "system.posix_acl_access", back, sizeof back),
           static_cast<ssize_t>(sizeof acl));
  CHECK_EQ(memcmp(back, acl, sizeof acl), 0);
  struct stat status = {};
  CHECK_EQ(fstat(sparse, &status), 0);
  CHECK(status.st_blocks < 100);
  CHECK_EQ(pread(sparse, value, 6, off_t{1} << 33), 6);
  CHECK_EQ(memcmp(value, "middle", 6), 0);
  expect_text(removed, "gone");
  expect_text(unnamed, "unnamed");
  int client = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK_EQ(connect(client, reinterpret_cast<sockaddr*>(&name), sizeof name), 0);
  CHECK_EQ(connect(socket(AF_UNIX, SOCK_STREAM, 0), reinterpret_cast<sockaddr*>(&name), sizeof name), 0);
}
CASE(file_systems_of_the_kernel) {
  need_root();
  own_namespace();
  struct {
    const char* type;
    const char* options;
  } const all[] = {{"sysfs", nullptr},      {"mqueue", nullptr},
                   {"ramfs", "mode=711"},   {"cgroup2", nullptr},
                   {"debugfs", nullptr},    {"tracefs", nullptr},
                   {"securityfs", nullptr}, {"binfmt_misc", nullptr},
                   {"devtmpfs", nullptr},   {"devpts", "newinstance,ptmxmode=0666,mode=620,gid=5"}};
  std::set<std::string> mounted;
  for (const auto& one : all) {
    make_directory(in_dir(one.type));
    if (mount(one.type, in_dir(one.type).c_str(), one.type, 0, one.options) == 0) mounted.insert(one.type);
  }
  if (mounted.count("ramfs") != 0) write_file(in_dir("ramfs/file"), "in memory");
  const auto before = tree_below(subject::g_dir);
  subject::hold();
  expect_tree(subject::g_dir, before);
  CHECK(mounted.count("ramfs") != 0 && mounted.count("sysfs") != 0 && mounted.count("devpts") != 0);
  expect_file(in_dir("ramfs/file"), "in memory");
  CHECK_EQ(access(in_dir("devpts/ptmx").c_str(), R_OK | W_OK), 0);
  CHECK_EQ(access(in_dir("sysfs/kernel").c_str(), F_OK), 0);
}
// They show what is of the namespace in which they were mounted.
CASE(of_other_namespaces) {
  need_root();
  pid_t pid = subject::child([] {
    MUST(unshare(CLONE_NEWNET | CLONE_NEWIPC) == 0);
    own_namespace();
    for (const char* name : {"sysfs", "mqueue"}) {
      make_directory(in_dir(name));
      MUST(mount(name, in_dir(name).c_str(), name, 0, nullptr) == 0);
    }
    const auto before = tree_below(subject::g_dir);
    subject::mark("set");
    subject::await("go");
    expect_tree(subject::g_dir, before);
    MUST(access(in_dir("sysfs/class/net/lo").c_str(), F_OK) == 0);
    int others = 0;
    DIR* list = opendir(in_dir("sysfs/class/net").c_str());
    while (const dirent* entry = readdir(list)) others += strncmp(entry->d_name, "eth", 3) == 0;
    closedir(list);
    CHECK_EQ(others, 0);
  });
  subject::await("set");
  subject::hold();
  JOIN(pid);
}
// Each numbers its own terminals.
CASE(terminals_of_ones_own) {
  need_root();
  own_namespace();
  int masters[2], slaves[2];
  for (int i = 0; i < 2; ++i) {
    const std::string at = in_dir("pts") + std::to_string(i);
    make_directory(at);
    MUST(mount("devpts", at.c_str(), "devpts", MS_NOSUID,
               i == 0 ? "newinstance,ptmxmode=0666" : "newinstance,mode=620,gid=5") == 0);
    masters[i] = open((at + "/ptmx").c_str(), O_RDWR | O_NOCTTY);
    int unlocked = 0;
    MUST(masters[i] >= 0 && ioctl(masters[i], TIOCSPTLCK, &unlocked) == 0);
    slaves[i] = open((at + "/0").c_str(), O_RDWR | O_NOCTTY);
    MUST(slaves[i] >= 0);
  }
  int number = -1;
  MUST(write(slaves[0], "of the first", 12) == 12 && write(slaves[1], "of the second", 13) == 13);
  const auto before = tree_below(subject::g_dir);
  subject::hold();
  expect_tree(subject::g_dir, before);
  for (int i = 0; i < 2; ++i) {
    CHECK_EQ(ioctl(masters[i], TIOCGPTN, &number), 0);
    CHECK_EQ(number, 0);
    char text[32] = {};
    CHECK_EQ(read(masters[i], text, sizeof text), i == 0 ? 12 : 13);
    CHECK_EQ(strcmp(text, i == 0 ? "of the first" : "of the second"), 0);
    struct stat one = {}, other = {};
    CHECK_EQ(fstat(slaves[i], &one), 0);
    CHECK_EQ(stat((in_dir("pts") + std::to_string(i) + "/0").c_str(), &other), 0);
    CHECK(one.st_ino == other.st_ino && one.st_dev == other.st_dev);
    CHECK_EQ(write(masters[i], "typed\n", 6), 6);
    CHECK_EQ(read(slaves[i], text, sizeof text), 6);
  }
}
// A file system on a disk is mounted again from that; here one in a file.
CASE(disk) {
  need_root();
  own_namespace();
  const std::string image = in_dir("image");
  const std::string command = "truncate -s 8M " + image + " && mkfs.ext4 -q -F " + image;
  if (access("/sbin/mkfs.ext4", X_OK) != 0 || access("/dev/loop-control", F_OK) != 0 ||
      system(command.c_str()) != 0)
    SKIP("no ext4, or no loop devices");
  int control = open("/dev/loop-control", O_RDWR), file = open(image.c_str(), O_RDWR);
  MUST(control >= 0 && file >= 0);
  char device[64];
  int loop = -1;
  for (int tries = 0; tries < 20 && loop < 0; ++tries) {
    snprintf(device, sizeof device, "/dev/loop%d", ioctl(control, LOOP_CTL_GET_FREE));
    loop = open(device, O_RDWR);
    if (loop >= 0 && ioctl(loop, LOOP_SET_FD, file) != 0) {
      close(loop);
      loop = -1;
    }
  }
  if (loop < 0) SKIP("no loop device is free");
  for (int fd : {control, file, loop}) close(fd);
  make_directory(in_dir("disk"));
  if (mount(device, in_dir("disk").c_str(), "ext4", MS_NODEV, nullptr) != 0) SKIP("ext4 cannot be mounted");
  write_file(in_dir("disk/file"), "on the disk");
  int open_file = open(in_dir("disk/file").c_str(), O_RDONLY);
  const auto before = tree_below(subject::g_dir);
  subject::hold();
  expect_tree(subject::g_dir, before);
  expect_file(in_dir("disk/file"), "on the disk");
  expect_text(open_file, "on the disk");
  close(open_file);
  CHECK_EQ(umount(in_dir("disk").c_str()), 0);
  loop = open(device, O_RDWR);
  CHECK_EQ(ioctl(loop, LOOP_CLR_FD, 0), 0);
}

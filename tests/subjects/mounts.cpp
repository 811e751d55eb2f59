// What a program mounts, in the session's mount namespace and in ones of its own: the tree, what hides
// beneath it, and who gets what is mounted elsewhere.
#include "mounts.h"

#include <dirent.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include <map>
#include <string>

using namespace mounts;

namespace {

// --- a container made by hand

// A new root directory as bubblewrap makes it: a file system in memory into which directories of the host are
// bound. SUBJECT_DIR is where it was.
std::string furnish(const char* name) {
  const std::string root = in_dir(name);
  make_directory(root);
  tmpfs(root, "mode=755", "newroot");
  for (const char* directory : {"usr", "etc"}) {
    make_directory(root + "/" + directory);
    bind(std::string("/") + directory, root + "/" + directory);
    change(root + "/" + directory, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID);
  }
  for (const char* directory : {"bin", "lib", "lib64"})
    MUST(symlink((std::string("usr/") + directory).c_str(), (root + "/" + directory).c_str()) == 0);
  make_directory(root + "/dev");
  tmpfs(root + "/dev", "mode=755,size=64k", "dev");
  for (const char* device : {"null", "zero"}) {
    write_file(root + "/dev/" + device, "");
    bind(std::string("/dev/") + device, root + "/dev/" + device);
  }
  make_directory(root + "/proc");
  MUST(mount("proc", (root + "/proc").c_str(), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) == 0);
  make_directory(root + "/proc-tmp");
  make_directory(root + "/tmp");
  tmpfs(root + "/tmp", "mode=1777,nr_inodes=1000", "tmp");
  std::string way = root;
  for (char* at = subject::g_dir + 1; at != nullptr;) {
    char* slash = strchr(at, '/');
    way += "/" + (slash != nullptr ? std::string(at, slash) : std::string(at));
    make_directory(way);
    at = slash != nullptr ? slash + 1 : nullptr;
  }
  bind(subject::g_dir, way);
  return root;
}

void leave_old_root(const std::string& root) {
  make_directory(root + "/old");
  MUST(chdir(root.c_str()) == 0 && syscall(SYS_pivot_root, ".", "old") == 0 && chdir("/") == 0);
  MUST(umount2("/old", MNT_DETACH) == 0 && rmdir("/old") == 0);
}

}  // namespace

CASE(pivot_root_into_binds) {
  need_root();
  own_namespace();
  write_file(in_dir("before"), "opened before");
  const std::string above = subject::g_dir;
  int file = open(in_dir("before").c_str(), O_RDWR), directory = open(above.c_str(), O_RDONLY | O_DIRECTORY);
  MUST(file >= 0 && directory >= 0);
  const std::string root = furnish("root");
  leave_old_root(root);
  write_file("/tmp/inside", "inside");
  int inside = open("/tmp/inside", O_RDWR), null = open("/dev/null", O_RDWR),
      host = open("/etc/passwd", O_RDONLY);
  MUST(inside >= 0 && null >= 0 && host >= 0 && chdir("/tmp") == 0);
  uint8_t* mapped = subject::map(4096, PROT_READ | PROT_WRITE, MAP_SHARED, inside);
  const auto before = tree_below("/");
  const std::string executable = link_of("/proc/self/exe"), shown_file = shown(file),
                    shown_directory = shown(directory);
  MUST(!is_listed(mount_of(file)) && mount_of(file) == mount_of(directory));
  subject::hold();
  expect_tree("/", before);
  CHECK_EQ(link_of("/proc/self/exe") == executable, true);
  CHECK_EQ(link_of("/proc/self/root") == "/", true);
  CHECK_EQ(link_of("/proc/self/cwd") == "/tmp", true);
  CHECK_EQ(shown(file) == shown_file, true);
  CHECK_EQ(shown(directory) == shown_directory, true);
  CHECK(!is_listed(mount_of(file)));
  CHECK_EQ(mount_of(file), mount_of(directory));
  expect_text(file, "opened before");
  // The old root is there for who has a way to it, with nothing on it.
  CHECK_EQ(fchdir(directory), 0);
  for (int i = 0; i < 20; ++i) CHECK_EQ(chdir(".."), 0);
  struct stat old = {}, now = {};
  CHECK_EQ(stat("usr", &old), 0);
  CHECK_EQ(stat("/usr", &now), 0);
  CHECK_EQ(old.st_ino, now.st_ino);
  CHECK_EQ(mount_at("."), mount_of(file));
  CHECK_EQ(chdir("/tmp"), 0);
  mapped[0] = 'I';
  expect_file("inside", "Inside");
  CHECK_EQ(mount_of(inside), mount_at("/tmp"));
  CHECK_EQ(mount_of(null), mount_at("/dev/null"));
  CHECK_EQ(mount_of(host), mount_at("/etc/passwd"));
  CHECK_EQ(open("/etc/new", O_WRONLY | O_CREAT, 0600), -1);
  CHECK_EQ(errno, EROFS);
  CHECK_EQ(access("/root", F_OK), -1);
  CHECK_EQ(mkdir("/made", 0755), 0);
  pid_t pid = fork();
  if (pid == 0) {
    execl("/bin/true", "true", nullptr);
    _exit(9);
  }
  JOIN(pid);
}
// Its mount point is the root directory itself, and the root of its file system is not to be seen.
CASE(pivot_root_on_itself) {
  need_root();
  own_namespace();
  make_directory(in_dir("base"));
  tmpfs(in_dir("base"), "mode=755");
  make_directory(in_dir("base/newroot"));
  write_file(in_dir("base/out of reach"), "nobody sees it");
  const std::string root = furnish("base/newroot");
  MUST(chdir(root.c_str()) == 0);
  write_file("file", "of the new root");
  MUST(link("file", "tmp-link") == 0);
  MUST(syscall(SYS_pivot_root, ".", ".") == 0 && umount2(".", MNT_DETACH) == 0 && chdir("/") == 0);
  int file = open("/file", O_RDWR);
  MUST(file >= 0);
  const auto before = tree_below("/");
  subject::hold();
  expect_tree("/", before);
  expect_text(file, "of the new root");
  struct stat one = {}, other = {};
  CHECK_EQ(fstat(file, &one), 0);
  CHECK_EQ(stat("/tmp-link", &other), 0);
  CHECK_EQ(one.st_ino, other.st_ino);
  CHECK_EQ(mount_of(file), mount_at("/"));
}
CASE(pivot_root_into_overlay) {
  need_root();
  own_namespace();
  for (const char* name : {"lower", "upper", "work", "merged"}) make_directory(in_dir(name));
  for (const char* name : {"usr", "proc", "tmp"}) make_directory(in_dir("lower/") + name);
  write_file(in_dir("lower/file"), "lower");
  const std::string options =
      "lowerdir=" + in_dir("lower") + ",upperdir=" + in_dir("upper") + ",workdir=" + in_dir("work");
  const std::string root = in_dir("merged");
  if (mount("overlay", root.c_str(), "overlay", 0, options.c_str()) != 0) SKIP("no overlay here");
  bind("/usr", root + "/usr");
  MUST(mount("proc", (root + "/proc").c_str(), "proc", 0, nullptr) == 0);
  std::string way = root;
  for (std::string rest = subject::g_dir + 1; !rest.empty();) {
    const size_t slash = rest.find('/');
    way += "/" + rest.substr(0, slash);
    make_directory(way);
    rest = slash == std::string::npos ? "" : rest.substr(slash + 1);
  }
  bind(subject::g_dir, way);
  leave_old_root(root);
  write_file("/written", "upper");
  int lower = open("/file", O_RDONLY), upper = open("/written", O_RDWR);
  MUST(lower >= 0 && upper >= 0);
  const auto before = tree_below("/");
  subject::hold();
  expect_tree("/", before);
  expect_text(lower, "lower");
  expect_text(upper, "upper");
  CHECK_EQ(mount_of(upper), mount_at("/"));
  write_file("/file", "changed");
  expect_file("/file", "changed");
  expect_file(in_dir("upper/file"), "changed");
  expect_file(in_dir("lower/file"), "lower");
}
// Several processes, each with another root directory in one namespace.
CASE(chroots_in_a_namespace) {
  need_root();
  own_namespace();
  const std::string root = furnish("root");
  leave_old_root(root);
  make_directory("/jail");
  make_directory("/jail/inner");
  write_file("/jail/inner/file", "in the jail");
  const auto before = tree_below("/");
  pid_t pid = subject::child([] {
    int way = open(in_dir("").c_str(), O_PATH | O_DIRECTORY), listener = socket(AF_UNIX, SOCK_STREAM, 0);
    MUST(way >= 0 && chroot("/jail") == 0 && chdir("/inner") == 0);
    sockaddr_un name = {};
    name.sun_family = AF_UNIX;
    strcpy(name.sun_path, "/socket");
    MUST(bind(listener, reinterpret_cast<sockaddr*>(&name), sizeof name) == 0 && listen(listener, 4) == 0);
    int file = open("/inner/file", O_RDONLY);
    MUST(file >= 0 && mknodat(way, "set", S_IFREG | 0600, 0) == 0);
    while (faccessat(way, "go", F_OK, 0) != 0) subject::pass(2);
    expect_file("file", "in the jail");
    expect_file("/inner/file", "in the jail");
    expect_text(file, "in the jail");
    CHECK_EQ(access("/jail", F_OK), -1);
    int client = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK_EQ(connect(client, reinterpret_cast<sockaddr*>(&name), sizeof name), 0);
    CHECK(accept(listener, nullptr, nullptr) >= 0);
  });
  subject::await("set");
  subject::hold();
  expect_tree("/", before);
  JOIN(pid);
}
// A process that has stayed behind, one that was born in the new root, and descriptors of each in the other.
CASE(files_of_two_namespaces) {
  need_root();
  write_file(in_dir("ours"), "of the session");
  int ours = open(in_dir("ours").c_str(), O_RDWR);
  MUST(ours >= 0);
  int ends[2];
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  pid_t pid = subject::child([=] {
    own_namespace();
    const std::string root = furnish("root");
    leave_old_root(root);
    write_file("/tmp/theirs", "of the namespace");
    int theirs = open("/tmp/theirs", O_RDWR);
    char space[CMSG_SPACE(sizeof(int))] = {}, byte = 'x';
    iovec data = {&byte, 1};
    msghdr message = {};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = space;
    message.msg_controllen = sizeof space;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &theirs, sizeof theirs);
    MUST(sendmsg(ends[1], &message, 0) == 1);
    subject::await("go");
    expect_text(ours, "of the session");
    expect_text(theirs, "of the namespace");
    CHECK(!is_listed(mount_of(ours)));
    CHECK_EQ(mount_of(theirs), mount_at("/tmp"));
  });
  char space[CMSG_SPACE(sizeof(int))] = {}, byte = 0;
  iovec data = {&byte, 1};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = space;
  message.msg_controllen = sizeof space;
  MUST(recvmsg(ends[0], &message, 0) == 1);
  int theirs = -1;
  memcpy(&theirs, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof theirs);
  subject::hold();
  expect_text(ours, "of the session");
  expect_text(theirs, "of the namespace");
  CHECK_EQ(mount_of(ours), mount_at(in_dir("ours")));
  CHECK(!is_listed(mount_of(theirs)));
  JOIN(pid);
}

// --- what is hidden

void pile(const std::string& at) {
  make_directory(at);
  tmpfs(at, "size=1m", "lowest");
  write_file(at + "/file", "lowest");
  make_directory(at + "/inner");
  tmpfs(at + "/inner", nullptr, "inner");
  write_file(at + "/inner/file", "inner");
}

void hidden_beneath_others() {
  const std::string at = in_dir("pile"), around = in_dir("around");
  pile(at);
  int lowest = open((at + "/file").c_str(), O_RDWR), inner = open((at + "/inner/file").c_str(), O_RDWR);
  MUST(lowest >= 0 && inner >= 0 && chdir((at + "/inner").c_str()) == 0);
  tmpfs(at, nullptr, "middle");
  write_file(at + "/file", "middle");
  int removed = open((at + "/removed").c_str(), O_RDWR | O_CREAT, 0600),
      middle = open((at + "/file").c_str(), O_RDONLY);
  MUST(write(removed, "gone", 4) == 4 && unlink((at + "/removed").c_str()) == 0);
  tmpfs(at, nullptr, "highest");
  write_file(at + "/file", "highest");
  // A whole directory with mounts in it is covered.
  make_directory(around);
  make_directory(around + "/below");
  tmpfs(around + "/below", nullptr, "covered");
  write_file(around + "/below/file", "covered");
  int covered = open((around + "/below").c_str(), O_PATH | O_DIRECTORY);
  tmpfs(around, nullptr, "cover");
  const auto before = tree_below(subject::g_dir);
  const uint64_t ids[] = {mount_of(lowest), mount_of(inner), mount_of(middle), mount_of(removed)};
  MUST(ids[2] == ids[3]);
  subject::hold();
  expect_tree(subject::g_dir, before);
  expect_text(lowest, "lowest");
  expect_text(inner, "inner");
  expect_text(middle, "middle");
  expect_text(removed, "gone");
  expect_file("file", "inner");
  expect_file(at + "/file", "highest");
  CHECK_EQ(mount_of(middle), mount_of(removed));
  for (int fd : {lowest, inner, middle, covered}) {
    CHECK(is_listed(mount_of(fd)));
    CHECK(mount_of(fd) != mount_at(at));
  }
  int again = openat(covered, "file", O_RDONLY);
  CHECK(again >= 0);
  expect_text(again, "covered");
  CHECK_EQ(umount2(at.c_str(), MNT_DETACH), 0);
  expect_file(at + "/file", "middle");
  CHECK_EQ(umount2(at.c_str(), MNT_DETACH), 0);
  expect_file(at + "/file", "lowest");
  expect_file(at + "/inner/file", "inner");
  CHECK_EQ(umount2(around.c_str(), MNT_DETACH), 0);
  expect_file(around + "/below/file", "covered");
}

CASE(hidden_in_the_session) {
  need_root();
  hidden_beneath_others();
}
CASE(hidden_in_a_namespace) {
  need_root();
  own_namespace();
  hidden_beneath_others();
}
CASE(root_overmounted) {
  need_root();
  own_namespace();
  leave_old_root(furnish("root"));
  write_file("/beneath", "beneath");
  int beneath = open("/beneath", O_RDONLY), old = open("/", O_PATH | O_DIRECTORY);
  // As a second pivot_root would leave it.
  tmpfs("/", "mode=755", "above");
  MUST(chdir("/..") == 0);
  write_file("above", "above");
  make_directory("proc");
  MUST(mount("proc", "proc", "proc", 0, nullptr) == 0);
  pid_t pid = subject::child([=] {
    MUST(chroot(".") == 0);
    MUST(mknodat(old, (in_dir("set").c_str() + 1), S_IFREG | 0600, 0) == 0);
    while (faccessat(old, in_dir("go").c_str() + 1, F_OK, 0) != 0) subject::pass(2);
    expect_file("/above", "above");
    CHECK_EQ(access("/beneath", F_OK), -1);
    expect_text(beneath, "beneath");
    CHECK_EQ(read_mounts().size(), 2u);
  });
  subject::await("set");
  const auto before = tree_below("/");
  subject::hold();
  expect_tree("/", before);
  expect_file("above", "above");
  expect_file("/beneath", "beneath");
  expect_text(beneath, "beneath");
  CHECK_EQ(mount_of(beneath), mount_at("/"));
  JOIN(pid);
}
// What was bound has no name any more.
CASE(removed_sources) {
  need_root();
  own_namespace();
  make_directory(in_dir("memory"));
  tmpfs(in_dir("memory"));
  for (const char* place : {"", "memory/"}) {
    const std::string directory = in_dir(place) + "directory", file = in_dir(place) + "file";
    make_directory(directory);
    write_file(file, "removed");
    for (const char* point : {"at-directory", "at-file"}) {
      if (strcmp(point, "at-directory") == 0) {
        make_directory(in_dir(place) + point);
      } else {
        write_file(in_dir(place) + point, "");
      }
    }
    bind(directory, in_dir(place) + "at-directory");
    bind(file, in_dir(place) + "at-file");
    MUST(rmdir(directory.c_str()) == 0 && unlink(file.c_str()) == 0);
  }
  int file = open(in_dir("at-file").c_str(), O_RDWR);
  MUST(file >= 0);
  const auto before = tree_below(subject::g_dir);
  subject::hold();
  expect_tree(subject::g_dir, before);
  for (const char* place : {"", "memory/"}) {
    expect_file(in_dir(place) + "at-file", "removed");
    CHECK_EQ(open((in_dir(place) + "at-directory/new").c_str(), O_WRONLY | O_CREAT, 0600), -1);
    CHECK_EQ(errno, ENOENT);
  }
  expect_text(file, "removed");
  CHECK_EQ(pwrite(file, "R", 1, 0), 1);
  expect_file(in_dir("at-file"), "Removed");
}
CASE(mounts_on_files_of_all_types) {
  need_root();
  own_namespace();
  write_file(in_dir("source"), "bound");
  write_file(in_dir("file"), "");
  MUST(mkfifo(in_dir("fifo").c_str(), 0600) == 0);
  MUST(mknod(in_dir("device").c_str(), S_IFCHR | 0600, makedev(1, 3)) == 0);
  int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  MUST(in_dir("socket").size() < sizeof name.sun_path);
  strcpy(name.sun_path, in_dir("socket").c_str());
  MUST(bind(listener, reinterpret_cast<sockaddr*>(&name), sizeof name) == 0);
  for (const char* point : {"file", "fifo", "device", "socket"}) bind(in_dir("source"), in_dir(point));
  write_file(in_dir("other"), "");
  bind(in_dir("fifo"), in_dir("other"));
  const auto before = tree_below(subject::g_dir);
  subject::hold();
  expect_tree(subject::g_dir, before);
  for (const char* point : {"file", "fifo", "device", "socket"}) expect_file(in_dir(point), "bound");
  for (const char* point : {"file", "fifo", "device", "socket"}) CHECK_EQ(umount(in_dir(point).c_str()), 0);
  struct stat status = {};
  CHECK_EQ(stat(in_dir("fifo").c_str(), &status), 0);
  CHECK(S_ISFIFO(status.st_mode));
}

// Unmounted while they are in use: only who has something open gets there.
// The file that is alone there has no name any more after a restart.
CASE_WITH(unmounted_while_in_use, subject::kBusy) {
  need_root();
  const auto at = [](const char* name) { return in_dir(name); };
  for (const char* name : {"memory", "other", "source", "source/below", "bound"}) make_directory(at(name));
  tmpfs(at("memory"), "size=1m,mode=700");
  make_directory(at("memory/inner"));
  write_file(at("memory/inner/file"), "in memory");
  tmpfs(at("other"));
  write_file(at("other/file"), "alone");
  write_file(at("source/below/file"), "bound");
  bind(at("source/below"), at("bound"));
  int directory = open(at("memory/inner").c_str(), O_RDONLY | O_DIRECTORY),
      file = open(at("memory/inner/file").c_str(), O_RDWR);
  int alone = open(at("other/file").c_str(), O_RDWR), bound = open(at("bound/file").c_str(), O_RDWR);
  MUST(directory >= 0 && file >= 0 && alone >= 0 && bound >= 0 && chdir(at("memory").c_str()) == 0);
  for (const char* name : {"memory", "other", "bound"}) MUST(umount2(at(name).c_str(), MNT_DETACH) == 0);
  const std::string shown_bound = shown(bound), shown_file = shown(file);
  subject::hold();
  CHECK_EQ(shown(bound) == shown_bound, true);
  CHECK_EQ(shown(file) == shown_file, true);
  for (int fd : {directory, file, bound}) CHECK(!is_listed(mount_of(fd)));
  CHECK_EQ(mount_of(directory), mount_of(file));
  CHECK_EQ(mount_at("."), mount_of(file));
  expect_text(file, "in memory");
  expect_text(alone, "alone");
  expect_text(bound, "bound");
  expect_file("inner/file", "in memory");
  int again = openat(directory, "file", O_RDWR);
  CHECK_EQ(pwrite(again, "I", 1, 0), 1);
  expect_text(file, "In memory");
  CHECK_EQ(pwrite(bound, "B", 1, 0), 1);
  expect_file(at("source/below/file"), "Bound");
  CHECK_EQ(chdir(".."), 0);
  struct stat status = {};
  CHECK_EQ(stat(".", &status), 0);
  CHECK_EQ(status.st_mode & 07777, 0700u);
}

// --- who gets what is mounted elsewhere

CASE(groups_in_a_namespace) {
  need_root();
  own_namespace();
  const auto at = [](const char* name) { return in_dir(name); };
  for (const char* name : {"first", "peer", "part", "slave", "both", "below", "unbindable", "private"})
    make_directory(at(name));
  tmpfs(at("first"));
  for (const char* name : {"first/a", "first/b", "first/sub", "first/sub/c"}) make_directory(at(name));
  change(at("first"), MS_SHARED);
  bind(at("first"), at("peer"));
  bind(at("first/sub"), at("part"));
  bind(at("first"), at("slave"));
  change(at("slave"), MS_SLAVE);
  bind(at("first"), at("both"));
  change(at("both"), MS_SLAVE);
  change(at("both"), MS_SHARED);
  bind(at("both"), at("below"));
  change(at("below"), MS_SLAVE);
  bind(at("first"), at("private"));
  change(at("private"), MS_PRIVATE);
  bind(at("first"), at("unbindable"));
  change(at("unbindable"), MS_UNBINDABLE);
  tmpfs(at("first/a"), nullptr, "everywhere");
  MUST(is_mounted(at("peer/a")) && is_mounted(at("below/a")) && !is_mounted(at("private/a")));
  // Members that differ in what is on them.
  change(at("peer/a"), MS_PRIVATE);
  change(at("peer"), MS_PRIVATE);
  MUST(umount(at("peer/a").c_str()) == 0);
  constexpr unsigned kSetGroup = 0x100;
  if (syscall(SYS_move_mount, AT_FDCWD, at("first").c_str(), AT_FDCWD, at("peer").c_str(), kSetGroup) != 0)
    SKIP("no MOVE_MOUNT_SET_GROUP");
  const auto before = tree_below(subject::g_dir);
  subject::hold();
  expect_tree(subject::g_dir, before);
  tmpfs(at("peer/b"), nullptr, "later");
  for (const char* name : {"first/b", "slave/b", "both/b", "below/b"}) CHECK(is_mounted(at(name)));
  for (const char* name : {"private/b", "unbindable/b"}) CHECK(!is_mounted(at(name)));
  tmpfs(at("part/c"), nullptr, "later");
  for (const char* name : {"first/sub/c", "peer/sub/c", "slave/sub/c", "below/sub/c"})
    CHECK(is_mounted(at(name)));
  CHECK_EQ(umount(at("first/b").c_str()), 0);
  CHECK(!is_mounted(at("below/b")));
  tmpfs(at("both/b"), nullptr, "later");
  CHECK(is_mounted(at("below/b")) && !is_mounted(at("first/b")));
  CHECK_EQ(mount(at("unbindable").c_str(), at("private").c_str(), nullptr, MS_BIND, nullptr), -1);
}
CASE(groups_across_namespaces) {
  need_root();
  own_namespace();
  make_directory(in_dir("shared"));
  tmpfs(in_dir("shared"));
  for (const char* name : {"shared/a", "shared/b", "shared/c"}) make_directory(in_dir(name));
  change(in_dir("shared"), MS_SHARED);
  const auto run = [](const char* name, auto prepare, auto check) {
    return subject::child([=] {
      MUST(unshare(CLONE_NEWNS) == 0);
      prepare();
      const auto before = tree_below(subject::g_dir);
      subject::mark((std::string(name) + "-ready").c_str());
      subject::await("mounted");
      CHECK(is_mounted(in_dir("shared/b")));
      subject::mark((std::string(name) + "-saw").c_str());
      subject::await("unmounted");
      expect_tree(subject::g_dir, before);
      subject::mark((std::string(name) + "-compared").c_str());
      check();
    });
  };
  pid_t peer = run(
      "peer", [] {},
      [] {
        subject::await("slave-compared");
        tmpfs(in_dir("shared/c"), nullptr, "of the peer");
        subject::mark("peer-mounted");
      });
  pid_t slave = run(
      "slave", [] { change(in_dir("shared"), MS_SLAVE); },
      [] {
        subject::await("peer-mounted");
        CHECK(is_mounted(in_dir("shared/c")));
        tmpfs(in_dir("shared/a"), nullptr, "of the slave");
        subject::mark("slave-mounted");
      });
  subject::await("peer-ready");
  subject::await("slave-ready");
  subject::hold();
  tmpfs(in_dir("shared/b"), nullptr, "ours");
  subject::mark("mounted");
  subject::await("peer-saw");
  subject::await("slave-saw");
  CHECK_EQ(umount(in_dir("shared/b").c_str()), 0);
  subject::mark("unmounted");
  subject::await("slave-mounted");
  CHECK(is_mounted(in_dir("shared/c")));
  CHECK(!is_mounted(in_dir("shared/a")));
  JOIN(peer);
  JOIN(slave);
}
// What is the session's: its mounts are shared, and a namespace is made of them.
CASE(session_shared_with_a_namespace) {
  need_root();
  change("/", MS_REC | MS_SHARED);
  make_directory(in_dir("a"));
  make_directory(in_dir("b"));
  pid_t pid = subject::child([] {
    MUST(unshare(CLONE_NEWNS) == 0);
    subject::mark("set");
    subject::await("mounted");
    CHECK(is_mounted(in_dir("a")));
    tmpfs(in_dir("b"));
    subject::mark("answered");
  });
  subject::await("set");
  subject::hold();
  tmpfs(in_dir("a"));
  subject::mark("mounted");
  subject::await("answered");
  CHECK(is_mounted(in_dir("b")));
  JOIN(pid);
}
CASE(flags_and_options) {
  need_root();
  own_namespace();
  struct {
    const char* name;
    unsigned long flags;
    const char* options;
  } const all[] = {{"plain", 0, nullptr},
                   {"nosuid", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=8k"},
                   {"noatime", MS_NOATIME, "nr_inodes=12"},
                   {"strictatime", MS_STRICTATIME | MS_NODIRATIME, "mode=1700,uid=12,gid=34"},
                   {"nosymfollow", 256, "huge=never"},
                   {"read-only", MS_RDONLY, nullptr}};
  for (const auto& one : all) {
    make_directory(in_dir(one.name));
    MUST(mount(one.name, in_dir(one.name).c_str(), "tmpfs", one.flags, one.options) == 0);
    make_directory(in_dir("copy-of-") + one.name);
    bind(in_dir(one.name), in_dir("copy-of-") + one.name);
  }
  change(in_dir("copy-of-plain"), MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV);
  write_file(in_dir("nosymfollow/file"), "x");
  MUST(symlink("file", in_dir("nosymfollow/link").c_str()) == 0);
  for (const char* name : {"proc", "hidden", "subset"}) make_directory(in_dir(name));
  MUST(mount("proc", in_dir("proc").c_str(), "proc", MS_NOSUID, nullptr) == 0);
  MUST(mount("proc", in_dir("hidden").c_str(), "proc", 0, "hidepid=2,gid=5") == 0);
  MUST(mount("proc", in_dir("subset").c_str(), "proc", 0, "subset=pid") == 0);
  const auto before = tree_below(subject::g_dir);
  struct stat status = {};
  subject::hold();
  expect_tree(subject::g_dir, before);
  CHECK_EQ(stat(in_dir("strictatime").c_str(), &status), 0);
  CHECK(status.st_uid == 12 && status.st_gid == 34 && (status.st_mode & 07777) == 01700);
  CHECK_EQ(open(in_dir("nosymfollow/link").c_str(), O_RDONLY), -1);
  CHECK_EQ(errno, ELOOP);
  CHECK_EQ(open(in_dir("copy-of-plain/x").c_str(), O_WRONLY | O_CREAT, 0600), -1);
  write_file(in_dir("plain/x"), "x");
  CHECK_EQ(access(in_dir("subset/meminfo").c_str(), F_OK), -1);
  char name[64], text[64];
  snprintf(name, sizeof name, "proc/%d/comm", getpid());
  CHECK(subject::slurp(in_dir(name).c_str(), text, sizeof text) > 0);
}

// What the host has mounted is there once, and what is bound from it is the host's.
CASE(mounts_of_the_host) {
  need_root();
  const auto count = [] {
    std::map<std::string, int> points;
    for (const Line& line : read_mounts()) ++points[line.point + " " + line.root];
    return points;
  };
  const auto session = count();
  pid_t pid = subject::child([=] {
    MUST(unshare(CLONE_NEWNS) == 0);
    const auto before = count();
    MUST(before == session);
    subject::mark("set");
    subject::await("go");
    CHECK(count() == before);
  });
  subject::await("set");
  subject::hold();
  CHECK(count() == session);
  JOIN(pid);
}

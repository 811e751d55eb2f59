// What a program mounts, in the session's mount namespace and in ones of its own: the tree, what hides
// beneath it, who gets what is mounted elsewhere, and all that file systems in memory can hold.
#include <dirent.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "subject.h"

namespace {

void need_root() {
  if (geteuid() != 0) SKIP("not root");
}

std::string in_dir(const char* name) { return subject::path(name).text; }

void make_directory(const std::string& name) { MUST(mkdir(name.c_str(), 0755) == 0 || errno == EEXIST); }
void write_file(const std::string& name, const char* text) {
  int fd = open(name.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0640);
  MUST(fd >= 0 && write(fd, text, strlen(text)) == static_cast<ssize_t>(strlen(text)));
  close(fd);
}
void expect_text(int fd, const char* text) {
  char back[256] = {};
  ssize_t n = pread(fd, back, sizeof back - 1, 0);
  if (n < 0 || strcmp(back, text) != 0) subject::say("expected '%s', found '%s' (%zd)", text, back, n);
  CHECK_EQ(n, static_cast<ssize_t>(strlen(text)));
  CHECK_EQ(strcmp(back, text), 0);
}
void expect_file(const std::string& name, const char* text) {
  int fd = open(name.c_str(), O_RDONLY);
  if (fd < 0) subject::say("%s: %s", name.c_str(), strerror(errno));
  CHECK(fd >= 0);
  if (fd < 0) return;
  expect_text(fd, text);
  close(fd);
}
void bind(const std::string& from, const std::string& to, unsigned long flags = 0) {
  if (mount(from.c_str(), to.c_str(), nullptr, MS_BIND | flags, nullptr) != 0) {
    subject::say("%s on %s: %s", from.c_str(), to.c_str(), strerror(errno));
    MUST(!"bind");
  }
}
void tmpfs(const std::string& at, const char* options = nullptr, const char* name = "memory") {
  MUST(mount(name, at.c_str(), "tmpfs", 0, options) == 0);
}
void change(const std::string& at, unsigned long flags) {
  MUST(mount(nullptr, at.c_str(), nullptr, flags, nullptr) == 0);
}
void own_namespace() {
  MUST(unshare(CLONE_NEWNS) == 0);
  change("/", MS_REC | MS_PRIVATE);
}

// --- the tree, with names instead of numbers

struct Line {
  int id = 0, parent = 0, shared = 0, master = 0;
  std::string device, root, point, options, optional, type, source, super;
};

std::vector<Line> read_mounts(const char* file = "/proc/self/mountinfo") {
  static char text[1 << 20];
  std::vector<Line> lines;
  if (subject::slurp(file, text, sizeof text) < 0) return lines;
  for (char* next = text; char* line = strsep(&next, "\n");) {
    if (*line == 0) continue;
    std::vector<std::string> words;
    for (char* word; (word = strsep(&line, " ")) != nullptr;) words.push_back(word);
    Line one;
    one.id = atoi(words[0].c_str());
    one.parent = atoi(words[1].c_str());
    one.device = words[2];
    one.root = words[3];
    one.point = words[4];
    one.options = words[5];
    size_t at = 6;
    for (; words[at] != "-"; ++at) {
      if (words[at].compare(0, 7, "shared:") == 0) {
        one.shared = atoi(words[at].c_str() + 7);
      } else if (words[at].compare(0, 7, "master:") == 0) {
        one.master = atoi(words[at].c_str() + 7);
      } else if (words[at] == "unbindable") {
        one.optional = "unbindable";
      }
    }
    one.type = words[at + 1];
    one.source = words[at + 2];
    one.super = words[at + 3];
    lines.push_back(one);
  }
  return lines;
}

// Each mount at or below a directory in one line; a line tells what it is on, how deep it is in a pile, and
// by which of them its file system and its groups go.
std::set<std::string> tree_below(const std::string& directory) {
  const auto lines = read_mounts();
  std::map<int, const Line*> by_id;
  for (const Line& line : lines) by_id[line.id] = &line;
  const auto depth = [&](const Line& line) {
    int count = 0;
    for (const Line* at = &line; by_id.count(at->parent) != 0 && at->parent != at->id; ++count)
      at = by_id[at->parent];
    return count;
  };
  const auto name = [&](const Line& line) { return line.point + "^" + std::to_string(depth(line)); };
  std::map<int, std::string> groups;
  std::map<std::string, std::string> devices;
  for (const Line& line : lines) {
    const auto note = [&](std::string& first) {
      if (first.empty() || name(line) < first) first = name(line);
    };
    if (line.shared != 0) note(groups[line.shared]);
    note(devices[line.device]);
  }
  std::set<std::string> result;
  for (const Line& line : lines) {
    const bool below = directory == "/" || line.point == directory ||
                       line.point.compare(0, directory.size() + 1, directory + "/") == 0;
    if (!below) continue;
    const auto parent = by_id.find(line.parent);
    std::string super = line.super;
    result.insert(name(line) + " on " +
                  (parent == by_id.end() || line.parent == line.id ? "nothing" : name(*parent->second)) +
                  " shows " + line.root + " of " + devices[line.device] + " (" + line.type + "," +
                  line.source + "," + super + ") " + line.options + " " + line.optional +
                  (line.shared != 0 ? " peer of " + groups[line.shared] : "") +
                  (line.master == 0                 ? ""
                   : groups.count(line.master) != 0 ? " slave of " + groups[line.master]
                                                    : " slave of an outside group"));
  }
  return result;
}

void expect_tree(const std::string& directory, const std::set<std::string>& before) {
  const auto now = tree_below(directory);
  for (const auto& line : before) {
    if (now.count(line) == 0) subject::say("[%d] was:  %s", getpid(), line.c_str());
  }
  for (const auto& line : now) {
    if (before.count(line) == 0) subject::say("[%d] is:   %s", getpid(), line.c_str());
  }
  CHECK(now == before);
}

bool is_mounted(const std::string& point) {
  for (const Line& line : read_mounts()) {
    if (line.point == point) return true;
  }
  return false;
}

uint64_t mount_of(int fd) {
  struct statx status = {};
  CHECK_EQ(statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | 0x1000, &status), 0);
  return status.stx_mnt_id;
}
uint64_t mount_at(const std::string& path) {
  int fd = open(path.c_str(), O_PATH);
  const uint64_t id = fd >= 0 ? mount_of(fd) : 0;
  close(fd);
  return id;
}
bool is_listed(uint64_t id) {
  for (const Line& line : read_mounts()) {
    if (static_cast<uint64_t>(line.id) == id) return true;
  }
  return false;
}
std::string link_of(const char* name) {
  char text[4096] = {};
  return readlink(name, text, sizeof text - 1) >= 0 ? text : strerror(errno);
}
std::string shown(int fd) { return link_of(("/proc/self/fd/" + std::to_string(fd)).c_str()); }

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
  CHECK_EQ(access("/work", F_OK), -1);
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

// --- file systems

void attribute(const char* name, const char* key, const char* value, size_t size) {
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

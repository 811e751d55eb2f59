// Namespaces and mounts that the program makes for itself inside the session.
#include <linux/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/utsname.h>

#include "subject.h"

namespace {

void need_root() {
  if (geteuid() != 0) SKIP("not root");
}
void make_directory(const char* name) { MUST(mkdir(subject::path(name), 0755) == 0 || errno == EEXIST); }
void write_file(const char* name, const char* text) {
  int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0640);
  MUST(fd >= 0 && write(fd, text, strlen(text)) == static_cast<ssize_t>(strlen(text)));
  close(fd);
}
void expect_file(const char* name, const char* text) {
  char back[256] = {};
  ssize_t n = subject::slurp(name, back, sizeof back);
  if (n < 0) subject::say("%s: %s", name, strerror(errno));
  CHECK_EQ(n, static_cast<ssize_t>(strlen(text)));
  CHECK_EQ(strcmp(back, text), 0);
}
// The first line of /proc/self/mountinfo that has all of these, or nothing.
bool is_mounted(const char* point, const char* what = "") {
  static char text[1 << 20];
  if (subject::slurp("/proc/self/mountinfo", text, sizeof text) < 0) return false;
  char wanted[800];
  snprintf(wanted, sizeof wanted, " %s ", point);
  for (char* line = strtok(text, "\n"); line != nullptr; line = strtok(nullptr, "\n")) {
    if (strstr(line, wanted) != nullptr && strstr(line, what) != nullptr) return true;
  }
  return false;
}
int count_mounts(const char* point) {
  static char text[1 << 20];
  int found = 0;
  if (subject::slurp("/proc/self/mountinfo", text, sizeof text) < 0) return -1;
  char wanted[800];
  snprintf(wanted, sizeof wanted, " %s ", point);
  for (char* at = text; (at = strstr(at, wanted)) != nullptr; ++at) ++found;
  return found;
}

// A file system in memory with a bit of everything, one of which is open.
void tmpfs_with_content() {
  make_directory("mnt");
  MUST(mount("memory", subject::path("mnt"), "tmpfs", MS_NOSUID, "size=4m,mode=711") == 0);
  write_file(subject::path("mnt/file"), "content");
  MUST(mkdir(subject::path("mnt/directory"), 0750) == 0);
  write_file(subject::path("mnt/directory/below"), "deeper");
  MUST(symlink("file", subject::path("mnt/link")) == 0);
  MUST(link(subject::path("mnt/file"), subject::path("mnt/second")) == 0);
  MUST(mkfifo(subject::path("mnt/fifo"), 0600) == 0 && chown(subject::path("mnt/fifo"), 12, 34) == 0);
  int open_file = open(subject::path("mnt/file"), O_RDWR),
      removed = open(subject::path("mnt/removed"), O_RDWR | O_CREAT, 0600);
  MUST(write(removed, "gone", 4) == 4 && unlink(subject::path("mnt/removed")) == 0);
  MUST(chdir(subject::path("mnt/directory")) == 0);
  uint8_t* mapped = subject::map(4096, PROT_READ | PROT_WRITE, MAP_SHARED, open_file);
  struct stat before = {};
  MUST(stat(subject::path("mnt/file"), &before) == 0);
  subject::hold();
  CHECK(is_mounted(subject::path("mnt"), "nosuid"));
  CHECK(is_mounted(subject::path("mnt"), "size=4096k"));
  CHECK_EQ(count_mounts(subject::path("mnt")), 1);
  expect_file(subject::path("mnt/file"), "content");
  expect_file("below", "deeper");
  expect_file(subject::path("mnt/link"), "content");
  struct stat st = {}, other = {};
  CHECK_EQ(stat(subject::path("mnt/second"), &st), 0);
  CHECK_EQ(fstat(open_file, &other), 0);
  CHECK_EQ(st.st_ino, other.st_ino);
  CHECK_EQ(st.st_nlink, 2u);
  CHECK_EQ(st.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
  CHECK_EQ(st.st_mode, before.st_mode);
  CHECK_EQ(stat(subject::path("mnt/fifo"), &st), 0);
  CHECK(S_ISFIFO(st.st_mode) && st.st_uid == 12 && st.st_gid == 34);
  CHECK_EQ(stat(subject::path("mnt"), &st), 0);
  CHECK_EQ(st.st_mode & 07777, 0711u);
  mapped[0] = 'C';
  expect_file(subject::path("mnt/second"), "Content");
  char back[8] = {};
  CHECK_EQ(pread(removed, back, 8, 0), 4);
  CHECK_EQ(umount2(subject::path("mnt"), MNT_DETACH), 0);
}

}  // namespace

CASE(tmpfs_in_the_session) {
  need_root();
  tmpfs_with_content();
}
CASE(tmpfs_in_a_mount_namespace) {
  need_root();
  MUST(unshare(CLONE_NEWNS) == 0 && mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
  tmpfs_with_content();
}
CASE(bind_mounts) {
  need_root();
  for (const char* name : {"source", "source/inner", "target", "memory", "copy"}) make_directory(name);
  write_file(subject::path("source/inner/file"), "bound");
  write_file(subject::path("plain"), "a file");
  write_file(subject::path("covered"), "x");
  MUST(mount(subject::path("source/inner"), subject::path("target"), nullptr, MS_BIND, nullptr) == 0);
  MUST(mount(nullptr, subject::path("target"), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) == 0);
  MUST(mount(subject::path("plain"), subject::path("covered"), nullptr, MS_BIND, nullptr) == 0);
  MUST(mount("memory", subject::path("memory"), "tmpfs", 0, nullptr) == 0);
  make_directory("memory/below");
  write_file(subject::path("memory/below/file"), "in memory");
  MUST(mount(subject::path("memory/below"), subject::path("copy"), nullptr, MS_BIND, nullptr) == 0);
  make_directory("memory/nested");
  MUST(mount("nested", subject::path("memory/nested"), "tmpfs", 0, nullptr) == 0);
  write_file(subject::path("memory/nested/file"), "nested");
  int held = open(subject::path("target/file"), O_RDONLY);
  subject::hold();
  expect_file(subject::path("target/file"), "bound");
  CHECK_EQ(open(subject::path("target/new"), O_WRONLY | O_CREAT, 0600), -1);
  CHECK_EQ(errno, EROFS);
  expect_file(subject::path("covered"), "a file");
  expect_file(subject::path("copy/file"), "in memory");
  expect_file(subject::path("memory/nested/file"), "nested");
  write_file(subject::path("copy/another"), "seen in both");
  expect_file(subject::path("memory/below/another"), "seen in both");
  char back[8] = {};
  CHECK_EQ(read(held, back, 8), 5);
  for (const char* name : {"memory/nested", "copy", "memory", "covered", "target"})
    CHECK_EQ(umount2(subject::path(name), MNT_DETACH), 0);
}
CASE(shared_and_slave_mounts) {
  need_root();
  MUST(unshare(CLONE_NEWNS) == 0 && mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
  for (const char* name : {"first", "peer", "slave"}) make_directory(name);
  MUST(mount("memory", subject::path("first"), "tmpfs", 0, nullptr) == 0);
  MUST(mount(nullptr, subject::path("first"), nullptr, MS_SHARED, nullptr) == 0);
  for (const char* name : {"peer", "slave"})
    MUST(mount(subject::path("first"), subject::path(name), nullptr, MS_BIND, nullptr) == 0);
  MUST(mount(nullptr, subject::path("slave"), nullptr, MS_SLAVE, nullptr) == 0);
  make_directory("first/before");
  make_directory("first/after");
  MUST(mount("before", subject::path("first/before"), "tmpfs", 0, nullptr) == 0);
  MUST(is_mounted(subject::path("peer/before")) && is_mounted(subject::path("slave/before")));
  subject::hold();
  for (const char* name : {"first/before", "peer/before", "slave/before"})
    CHECK_EQ(count_mounts(subject::path(name)), 1);
  CHECK_EQ(mount("after", subject::path("peer/after"), "tmpfs", 0, nullptr), 0);
  CHECK(is_mounted(subject::path("first/after")) && is_mounted(subject::path("slave/after")));
  CHECK_EQ(umount(subject::path("first/after")), 0);
  CHECK(!is_mounted(subject::path("peer/after")) && !is_mounted(subject::path("slave/after")));
  CHECK_EQ(mount("after", subject::path("slave/after"), "tmpfs", 0, nullptr), 0);
  CHECK(!is_mounted(subject::path("first/after")));
}
CASE(proc_and_overlay) {
  need_root();
  MUST(unshare(CLONE_NEWNS) == 0 && mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
  for (const char* name : {"proc", "lower", "memory", "merged"}) make_directory(name);
  MUST(mount("proc", subject::path("proc"), "proc", 0, nullptr) == 0);
  write_file(subject::path("lower/below"), "lower");
  MUST(mount("memory", subject::path("memory"), "tmpfs", 0, nullptr) == 0);
  make_directory("memory/upper");
  make_directory("memory/work");
  char options[3000];
  snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s", subject::path("lower").text,
           subject::path("memory/upper").text, subject::path("memory/work").text);
  bool overlay = mount("overlay", subject::path("merged"), "overlay", 0, options) == 0;
  if (overlay) write_file(subject::path("merged/above"), "upper");
  subject::hold();
  char name[64], back[64] = {};
  snprintf(name, sizeof name, "proc/%d/comm", getpid());
  CHECK(subject::slurp(subject::path(name), back, sizeof back) > 0);
  snprintf(name, sizeof name, "/proc/%d/comm", getpid());
  CHECK(subject::slurp(name, back, sizeof back) > 0);
  if (!overlay) return;
  expect_file(subject::path("merged/below"), "lower");
  expect_file(subject::path("merged/above"), "upper");
  expect_file(subject::path("memory/upper/above"), "upper");
}
CASE(host_names) {
  need_root();
  MUST(unshare(CLONE_NEWUTS) == 0 && sethostname("first", 5) == 0 && setdomainname("there", 5) == 0);
  pid_t pid = subject::child([] {
    MUST(unshare(CLONE_NEWUTS) == 0 && sethostname("second", 6) == 0);
    subject::mark("set");
    subject::await("go");
    utsname names = {};
    uname(&names);
    CHECK_EQ(strcmp(names.nodename, "second"), 0);
  });
  subject::await("set");
  subject::hold();
  utsname names = {};
  uname(&names);
  CHECK_EQ(strcmp(names.nodename, "first"), 0);
  CHECK_EQ(strcmp(names.domainname, "there"), 0);
  JOIN(pid);
}
CASE(network_of_ones_own) {
  need_root();
  MUST(unshare(CLONE_NEWNET) == 0);
  int control = socket(AF_INET, SOCK_DGRAM, 0);
  ifreq request = {};
  strcpy(request.ifr_name, "lo");
  MUST(ioctl(control, SIOCGIFFLAGS, &request) == 0);
  request.ifr_flags |= IFF_UP;
  MUST(ioctl(control, SIOCSIFFLAGS, &request) == 0);
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(80);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* plain = reinterpret_cast<sockaddr*>(&address);
  MUST(bind(listener, plain, sizeof address) == 0 && listen(listener, 4) == 0);
  int client = socket(AF_INET, SOCK_STREAM, 0);
  MUST(connect(client, plain, sizeof address) == 0 && write(client, "hello", 5) == 5);
  int server = accept(listener, nullptr, nullptr);
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  strcpy(name.sun_path + 1, "stasis-subject-network");
  int abstract = socket(AF_UNIX, SOCK_STREAM, 0), other = socket(AF_UNIX, SOCK_STREAM, 0);
  auto* named = reinterpret_cast<sockaddr*>(&name);
  MUST(bind(abstract, named, sizeof name) == 0 && listen(abstract, 4) == 0);
  MUST(connect(other, named, sizeof name) == 0);
  int accepted = accept(abstract, nullptr, nullptr);
  pid_t pid = subject::child([=] {
    close(client);
    subject::await("go");
    char back[8] = {};
    CHECK_EQ(read(server, back, 8), 5);
  });
  subject::hold();
  JOIN(pid);
  CHECK_EQ(write(client, "again", 5), 5);
  char back[8] = {};
  CHECK_EQ(read(server, back, 8), 5);
  CHECK_EQ(write(other, "x", 1), 1);
  CHECK_EQ(read(accepted, back, 8), 1);
  int second = socket(AF_INET, SOCK_STREAM, 0);
  CHECK_EQ(connect(second, plain, sizeof address), 0);
  CHECK_EQ(ioctl(control, SIOCGIFFLAGS, &request), 0);
  CHECK((request.ifr_flags & IFF_UP) != 0);
}
CASE(descriptors_of_namespaces) {
  need_root();
  int session = open("/proc/self/ns/uts", O_RDONLY);
  MUST(session >= 0);
  pid_t pid = subject::child([=] {
    MUST(unshare(CLONE_NEWUTS | CLONE_NEWIPC) == 0 && sethostname("inside", 6) == 0);
    close(session);
    subject::mark("set");
    subject::await("go");
    subject::await("entered");
  });
  subject::await("set");
  char name[64];
  snprintf(name, sizeof name, "/proc/%d/ns/uts", pid);
  int other = open(name, O_RDONLY);
  MUST(other >= 0);
  subject::hold();
  utsname names = {};
  CHECK_EQ(setns(other, CLONE_NEWUTS), 0);
  uname(&names);
  CHECK_EQ(strcmp(names.nodename, "inside"), 0);
  CHECK_EQ(setns(session, CLONE_NEWUTS), 0);
  uname(&names);
  CHECK(strcmp(names.nodename, "inside") != 0);
  subject::mark("entered");
  JOIN(pid);
}
// What it had mapped is not to be found from its root, and becomes memory.
CASE_WITH(chroot_with_a_socket, subject::kBusy) {
  need_root();
  make_directory("root");
  make_directory("root/inner");
  write_file(subject::path("root/inner/file"), "in the root");
  pid_t pid = subject::child([] {
    MUST(chroot(subject::path("root")) == 0 && chdir("/inner") == 0);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), file = open("/inner/file", O_RDONLY);
    sockaddr_un name = {};
    name.sun_family = AF_UNIX;
    strcpy(name.sun_path, "/sock");
    auto* named = reinterpret_cast<sockaddr*>(&name);
    MUST(file >= 0 && bind(listener, named, sizeof name) == 0 && listen(listener, 4) == 0);
    int out = open("/set", O_WRONLY | O_CREAT, 0600);
    MUST(out >= 0);
    while (access("/go", F_OK) != 0) subject::pass(2);
    expect_file("/inner/file", "in the root");
    expect_file("file", "in the root");
    CHECK_EQ(access(subject::g_dir, F_OK), -1);
    char back[32] = {};
    CHECK_EQ(read(file, back, sizeof back), 11);
    int client = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK_EQ(connect(client, named, sizeof name), 0);
    CHECK(accept(listener, nullptr, nullptr) >= 0);
  });
  subject::await("root/set");
  subject::hold();
  write_file(subject::path("root/go"), "");
  JOIN(pid);
}

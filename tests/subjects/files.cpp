// Descriptors of files, directories and devices: offsets, flags, sharing, numbers.
#include <dirent.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "subject.h"

namespace {
int open_with(const char* name, const char* content, int flags = O_RDWR) {
  int fd = open(subject::path(name), flags | O_CREAT, 0640);
  MUST(fd >= 0);
  if (content != nullptr) {
    int writing = open(subject::path(name), O_WRONLY);
    MUST(write(writing, content, strlen(content)) == static_cast<ssize_t>(strlen(content)));
    close(writing);
  }
  return fd;
}
}  // namespace

CASE(offset) {
  int fd = open_with("file", "0123456789");
  MUST(lseek(fd, 4, SEEK_SET) == 4);
  subject::hold();
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 4);
  char c = 0;
  CHECK_EQ(read(fd, &c, 1), 1);
  CHECK_EQ(c, '4');
  CHECK_EQ(write(fd, "X", 1), 1);
  CHECK_EQ(pread(fd, &c, 1, 5), 1);
  CHECK_EQ(c, 'X');
}

CASE(beyond_the_end) {
  int fd = open_with("file", "0123456789");
  MUST(lseek(fd, 1000000, SEEK_SET) == 1000000);
  subject::hold();
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 1000000);
}

CASE(append) {
  int fd = open_with("file", "begin", O_WRONLY | O_APPEND);
  subject::hold();
  CHECK_EQ(fcntl(fd, F_GETFL) & (O_APPEND | O_ACCMODE), O_APPEND | O_WRONLY);
  CHECK_EQ(write(fd, "end", 3), 3);
  char text[16] = {};
  CHECK_EQ(subject::slurp(subject::path("file"), text, sizeof text), 8);
  CHECK_EQ(strcmp(text, "beginend"), 0);
}

CASE(modes_and_flags) {
  const int flags[] = {O_RDONLY,
                       O_WRONLY,
                       O_RDWR,
                       O_RDWR | O_NONBLOCK,
                       O_RDONLY | O_CLOEXEC,
                       O_WRONLY | O_SYNC,
                       O_RDONLY | O_NOFOLLOW,
                       O_WRONLY | O_DSYNC | O_APPEND,
                       O_PATH,
                       O_RDONLY | O_NOATIME};
  constexpr int kCount = sizeof flags / sizeof flags[0];
  int fds[kCount], status[kCount], descriptor[kCount];
  close(open_with("file", "text"));
  for (int i = 0; i < kCount; ++i) {
    fds[i] = open(subject::path("file"), flags[i]);
    MUST(fds[i] >= 0);
    status[i] = fcntl(fds[i], F_GETFL);
    descriptor[i] = fcntl(fds[i], F_GETFD);
  }
  subject::hold();
  for (int i = 0; i < kCount; ++i) {
    CHECK_EQ(fcntl(fds[i], F_GETFL), status[i]);
    CHECK_EQ(fcntl(fds[i], F_GETFD), descriptor[i]);
  }
}

// O_TRUNC, O_CREAT and O_EXCL did their work once; they must not do it again.
CASE(created_with_truncation) {
  int fd = open(subject::path("file"), O_RDWR | O_CREAT | O_EXCL | O_TRUNC, 0600);
  MUST(fd >= 0 && write(fd, "kept", 4) == 4);
  subject::hold();
  char back[8] = {};
  CHECK_EQ(pread(fd, back, 8, 0), 4);
  CHECK_EQ(strcmp(back, "kept"), 0);
}

CASE(duplicates_share_the_offset) {
  int fd = open_with("file", "0123456789");
  int copy = dup(fd);
  int separate = open(subject::path("file"), O_RDWR);
  MUST(copy >= 0 && separate >= 0);
  subject::hold();
  CHECK_EQ(lseek(fd, 7, SEEK_SET), 7);
  CHECK_EQ(lseek(copy, 0, SEEK_CUR), 7);
  CHECK_EQ(lseek(separate, 0, SEEK_CUR), 0);
}

CASE(shared_across_fork) {
  int fd = open_with("file", "0123456789");
  pid_t pid = subject::child([=] {
    subject::mark("born");
    subject::await("moved");
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 3);
    CHECK_EQ(lseek(fd, 2, SEEK_CUR), 5);
    subject::mark("answered");
  });
  subject::await("born");
  subject::hold();
  CHECK_EQ(lseek(fd, 3, SEEK_SET), 3);
  subject::mark("moved");
  subject::await("answered");
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 5);
  JOIN(pid);
}

CASE(tables_shared_by_clone) {
  int fd = open_with("file", "0123456789");
  alignas(16) static char stack[65536];
  pid_t pid = clone(
      [](void*) -> int {
        subject::mark("born");
        subject::await("opened");
        return fcntl(700, F_GETFD) == 0 ? 0 : 1;
      },
      stack + sizeof stack, CLONE_FILES | SIGCHLD, nullptr);
  MUST(pid > 0);
  subject::await("born");
  subject::hold();
  CHECK_EQ(dup2(fd, 700), 700);
  subject::mark("opened");
  JOIN(pid);
}

// Over two generations, with a lock that belongs to the table, and a descriptor that only one of them has
// seen.
CASE(tables_and_directories_shared_by_clone) {
  int fd = open_with("file", "0123456789");
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_len = 5;
  alignas(16) static char stack[2][65536];
  static int number = fd;
  pid_t pid = clone(
      [](void*) -> int {
        pid_t grandchild = clone(
            [](void*) -> int {
              MUST(fcntl(number, F_SETFD, FD_CLOEXEC) == 0 && dup2(number, 750) == 750);
              subject::mark("grandchild");
              subject::await("moved");
              char where[256] = {};
              CHECK(getcwd(where, sizeof where) != nullptr);
              CHECK_EQ(strcmp(where, "/proc"), 0);
              CHECK_EQ(umask(0), 0123u);
              CHECK_EQ(fcntl(701, F_GETFD), 0);
              CHECK_EQ(fcntl(750, F_GETFD), 0);
              close(750);
              subject::leave();
            },
            stack[1] + sizeof stack[1], CLONE_FILES | CLONE_FS | SIGCHLD, nullptr);
        MUST(grandchild > 0);
        subject::mark("child");
        JOIN(grandchild);
        subject::leave();
      },
      stack[0] + sizeof stack[0], CLONE_FILES | CLONE_FS | SIGCHLD, nullptr);
  MUST(pid > 0);
  subject::await("grandchild");
  subject::await("child");
  pid_t alone = subject::child([=] {
    subject::await("moved");
    CHECK_EQ(fcntl(701, F_GETFD), -1);
    umask(0777);
  });
  MUST(fcntl(fd, F_SETLK, &lock) == 0);
  subject::hold();
  CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(dup2(fd, 701), 701);
  CHECK_EQ(chdir("/proc"), 0);
  umask(0123);
  subject::mark("moved");
  JOIN(alone);
  JOIN(pid);
  CHECK_EQ(fcntl(750, F_GETFD), -1);
  CHECK_EQ(umask(0), 0u);
}

CASE(numbers_and_gaps) {
  int fd = open_with("file", "x");
  MUST(dup2(fd, 20) == 20 && dup2(fd, 900) == 900);
  MUST(close(fd) == 0);
  subject::hold();
  CHECK_EQ(fcntl(fd, F_GETFD), -1);
  CHECK_EQ(fcntl(19, F_GETFD), -1);
  CHECK_EQ(fcntl(900, F_GETFD), 0);
  CHECK_EQ(dup(20), fd);  // the lowest free number is where it was
}

CASE(three_hundred) {
  int fds[300];
  for (int i = 0; i < 300; ++i) {
    char name[16];
    snprintf(name, sizeof name, "f%d", i % 100);
    fds[i] = open(subject::path(name), O_RDWR | O_CREAT, 0600);
    MUST(fds[i] >= 0);
    MUST(lseek(fds[i], i, SEEK_SET) == i);
  }
  subject::hold();
  for (int i = 0; i < 300; ++i) CHECK_EQ(lseek(fds[i], 0, SEEK_CUR), i);
}

CASE(unlinked) {
  int fd = open_with("file", "only here");
  MUST(lseek(fd, 5, SEEK_SET) == 5);
  MUST(unlink(subject::path("file")) == 0);
  subject::hold();
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 5);
  char back[16] = {};
  CHECK_EQ(pread(fd, back, 16, 0), 9);
  CHECK_EQ(strcmp(back, "only here"), 0);
  struct stat st;
  CHECK_EQ(fstat(fd, &st), 0);
  CHECK_EQ(st.st_nlink, 0u);
  CHECK_EQ(st.st_mode & 0777, 0640u);
  CHECK_EQ(access(subject::path("file"), F_OK), -1);
  CHECK_EQ(ftruncate(fd, 100000), 0);
}

CASE(unlinked_shared_by_two) {
  int first = open_with("file", "both see this");
  int second = open(subject::path("file"), O_RDWR);
  MUST(second >= 0 && unlink(subject::path("file")) == 0);
  subject::hold();
  CHECK_EQ(pwrite(first, "BOTH", 4, 0), 4);
  char back[5] = {};
  CHECK_EQ(pread(second, back, 4, 0), 4);
  CHECK_EQ(strcmp(back, "BOTH"), 0);
}

CASE(unlinked_and_replaced) {
  int fd = open_with("file", "old");
  MUST(unlink(subject::path("file")) == 0);
  close(open_with("file", "new"));
  subject::hold();
  char back[4] = {};
  CHECK_EQ(pread(fd, back, 3, 0), 3);
  CHECK_EQ(strcmp(back, "old"), 0);
  CHECK_EQ(subject::slurp(subject::path("file"), back, sizeof back), 3);
  CHECK_EQ(strcmp(back, "new"), 0);
}

CASE(unlinked_sparse) {
  int fd = open_with("file", nullptr);
  MUST(pwrite(fd, "far", 3, 3ll << 30) == 3);
  MUST(unlink(subject::path("file")) == 0);
  subject::hold();
  struct stat st;
  CHECK_EQ(fstat(fd, &st), 0);
  CHECK_EQ(st.st_size, (3ll << 30) + 3);
  CHECK(st.st_blocks < 1000);  // it must not have become 3 GiB of zeros
  char back[4] = {};
  CHECK_EQ(pread(fd, back, 3, 3ll << 30), 3);
  CHECK_EQ(strcmp(back, "far"), 0);
}

// The name is gone, the file is not: another name leads to it. That it is the same file may be lost (there is
// a warning then), what is in it may not. When the other name was found, /proc shows that one afterwards.
CASE_WITH(unlinked_hard_link, subject::kBusy) {
  int fd = open_with("file", "linked");
  MUST(link(subject::path("file"), subject::path("other")) == 0);
  MUST(unlink(subject::path("file")) == 0);
  subject::hold();
  char back[16] = {};
  CHECK_EQ(pread(fd, back, 16, 0), 6);
  CHECK_EQ(strcmp(back, "linked"), 0);
  CHECK_EQ(pwrite(fd, "LINKED", 6, 0), 6);
}

CASE(renamed) {
  int fd = open_with("file", "moved");
  MUST(rename(subject::path("file"), subject::path("elsewhere")) == 0);
  subject::hold();
  CHECK_EQ(pwrite(fd, "MOVED", 5, 0), 5);
  char back[16];
  CHECK_EQ(subject::slurp(subject::path("elsewhere"), back, sizeof back), 5);
  CHECK_EQ(strcmp(back, "MOVED"), 0);
}

CASE(temporary_without_a_name) {
  int fd = open(subject::path("."), O_TMPFILE | O_RDWR, 0600);
  if (fd < 0) SKIP("this file system has no O_TMPFILE");
  MUST(write(fd, "nameless", 8) == 8);
  subject::hold();
  char back[16] = {};
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 8);
  CHECK_EQ(pread(fd, back, 16, 0), 8);
  CHECK_EQ(strcmp(back, "nameless"), 0);
}

CASE(strange_names) {
  int fd = open_with("a b\tc (deleted)", "odd");
  int second = open_with("new\nline \\012 \xff\xfe", "odder");
  subject::hold();
  char back[8] = {};
  CHECK_EQ(pread(fd, back, 8, 0), 3);
  CHECK_EQ(pread(second, back, 8, 0), 5);
  CHECK_EQ(strcmp(back, "odder"), 0);
}

CASE(directory) {
  for (int i = 0; i < 40; ++i) {
    char name[32];
    snprintf(name, sizeof name, "sub%d", i);
    MUST(mkdir(subject::path(name), 0700) == 0);
  }
  DIR* dir = opendir(subject::path("."));
  MUST(dir != nullptr);
  int fd = open(subject::path("sub7"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int raw = open(subject::path("."), O_RDONLY | O_DIRECTORY);
  MUST(fd >= 0 && raw >= 0);
  char entries[256];
  MUST(syscall(SYS_getdents64, raw, entries, sizeof entries) > 0);
  off_t position = lseek(raw, 0, SEEK_CUR);
  subject::hold();
  int seen = 0;
  while (readdir(dir) != nullptr) ++seen;
  CHECK(seen >= 42);
  int inside = openat(fd, "made", O_CREAT | O_WRONLY, 0600);
  CHECK(inside >= 0);
  CHECK_EQ(access(subject::path("sub7/made"), F_OK), 0);
  CHECK_EQ(lseek(raw, 0, SEEK_CUR), position);
  CHECK(syscall(SYS_getdents64, raw, entries, sizeof entries) > 0);
}

CASE(devices) {
  int null = open("/dev/null", O_RDWR), zero = open("/dev/zero", O_RDONLY),
      random = open("/dev/urandom", O_RDONLY), full = open("/dev/full", O_WRONLY);
  MUST(null >= 0 && zero >= 0 && random >= 0 && full >= 0);
  subject::hold();
  uint64_t word = 1, other = 0;
  CHECK_EQ(write(null, "x", 1), 1);
  CHECK_EQ(read(null, &word, 1), 0);
  CHECK_EQ(read(zero, &word, 8), 8);
  CHECK_EQ(word, 0u);
  CHECK_EQ(read(random, &word, 8), 8);
  CHECK_EQ(read(random, &other, 8), 8);
  CHECK(word != other);
  CHECK_EQ(write(full, "x", 1), -1);
  CHECK_EQ(errno, ENOSPC);
}

CASE(proc_of_oneself) {
  int status = open("/proc/self/status", O_RDONLY), directory = open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
  int host = open("/proc/sys/kernel/hostname", O_RDONLY);
  MUST(status >= 0 && directory >= 0 && host >= 0);
  subject::hold();
  static char text[8192];
  CHECK(pread(status, text, sizeof text - 1, 0) > 0);
  const char* line = strstr(text, "\nPid:\t");
  CHECK(line != nullptr && atoi(line + 6) == getpid());
  CHECK_EQ(faccessat(directory, "0", F_OK, AT_SYMLINK_NOFOLLOW), 0);
  CHECK(pread(host, text, sizeof text, 0) > 0);
}

CASE(close_on_exec) {
  int stays = open_with("file", "x"), goes = open(subject::path("file"), O_RDONLY | O_CLOEXEC);
  pid_t pid = subject::child([=] {
    subject::mark("born");
    subject::await("go");
    char command[128];
    snprintf(command, sizeof command, "[ -e /proc/self/fd/%d ] && [ ! -e /proc/self/fd/%d ]", stays, goes);
    execl("/bin/sh", "sh", "-c", command, nullptr);
    _exit(1);
  });
  subject::await("born");
  subject::hold();
  JOIN(pid);
}

CASE(owner_and_signal) {
  int fds[2];
  MUST(pipe(fds) == 0);
  MUST(fcntl(fds[0], F_SETOWN, getpid()) == 0 && fcntl(fds[0], F_SETSIG, SIGRTMIN + 1) == 0);
  MUST(fcntl(fds[0], F_SETFL, O_ASYNC | O_NONBLOCK) == 0);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 1);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  subject::hold();
  CHECK_EQ(fcntl(fds[0], F_GETOWN), getpid());
  CHECK_EQ(fcntl(fds[0], F_GETSIG), SIGRTMIN + 1);
  CHECK_EQ(fcntl(fds[0], F_GETFL) & O_ASYNC, O_ASYNC);
  timespec none = {};
  CHECK_EQ(sigtimedwait(&set, nullptr, &none), -1);  // nothing may have been sent by the restoring itself
  CHECK_EQ(write(fds[1], "x", 1), 1);
  timespec second = {1, 0};
  siginfo_t info = {};
  CHECK_EQ(sigtimedwait(&set, &info, &second), SIGRTMIN + 1);
  CHECK_EQ(info.si_fd, fds[0]);
}

// Owners of every sort: a thread, a process group, a child; of a socket and of a terminal.
CASE(owners_of_every_sort) {
  int sockets[2], terminal = posix_openpt(O_RDWR | O_NOCTTY);
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0 && terminal >= 0);
  MUST(setpgid(0, 0) == 0 || getpgrp() == getpid());
  pid_t child = subject::child([] {
    subject::mark("born");
    subject::await("end");
  });
  subject::await("born");
  f_owner_ex thread = {F_OWNER_TID, subject::tid()}, group = {F_OWNER_PGRP, getpgrp()}, now = {};
  MUST(fcntl(sockets[0], F_SETOWN_EX, &thread) == 0 && fcntl(sockets[0], F_SETSIG, SIGRTMIN + 2) == 0);
  MUST(fcntl(sockets[0], F_SETFL, O_ASYNC) == 0);
  MUST(fcntl(sockets[1], F_SETOWN, child) == 0);  // of urgent data, without O_ASYNC
  MUST(fcntl(terminal, F_SETOWN_EX, &group) == 0 && fcntl(terminal, F_SETFL, O_RDWR | O_ASYNC) == 0);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 2);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  subject::hold();
  CHECK_EQ(fcntl(sockets[0], F_GETOWN_EX, &now), 0);
  CHECK_EQ(now.type, F_OWNER_TID);
  CHECK_EQ(now.pid, subject::tid());
  CHECK_EQ(fcntl(sockets[1], F_GETOWN), child);
  CHECK_EQ(fcntl(sockets[1], F_GETFL) & O_ASYNC, 0);
  CHECK_EQ(fcntl(terminal, F_GETOWN), -getpgrp());
  CHECK_EQ(fcntl(terminal, F_GETFL) & O_ASYNC, O_ASYNC);
  timespec none = {}, second = {1, 0};
  CHECK_EQ(sigtimedwait(&set, nullptr, &none), -1);
  CHECK_EQ(write(sockets[1], "x", 1), 1);
  CHECK_EQ(sigtimedwait(&set, nullptr, &second), SIGRTMIN + 2);
  subject::mark("end");
  JOIN(child);
}

CASE(standard_streams) {
  struct stat before[3], now;
  for (int i = 0; i < 3; ++i) MUST(fstat(i, &before[i]) == 0);
  subject::hold();
  for (int i = 0; i < 3; ++i) {
    CHECK_EQ(fstat(i, &now), 0);
    CHECK_EQ(now.st_ino, before[i].st_ino);
  }
}

CASE(console_by_another_name) {
  if (mknod(subject::path("console"), S_IFCHR | 0600, makedev(5, 1)) != 0) SKIP("only root may make devices");
  int fd = open(subject::path("console"), O_RDONLY | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) SKIP("there is no console here");
  subject::hold();
  struct stat status = {};
  CHECK_EQ(fstat(fd, &status), 0);
  CHECK_EQ(status.st_rdev, makedev(5, 1));
  CHECK_EQ(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
}

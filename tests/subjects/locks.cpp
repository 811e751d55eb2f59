// Locks on files. Each is held by something else: flock and OFD locks by the open file description, fcntl
// locks by the process.
#include <sys/file.h>
#include <sys/mman.h>

#include "subject.h"

namespace {
int opened(const char* name) {
  int fd = open(subject::path(name), O_RDWR | O_CREAT, 0600);
  MUST(fd >= 0);
  return fd;
}
struct flock range(short type, off_t start, off_t length) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_start = start;
  lock.l_len = length;
  return lock;
}
// Who would be in the way, by fcntl; 0 when nobody.
pid_t holder(int fd, off_t start) {
  struct flock lock = range(F_WRLCK, start, 1);
  CHECK_EQ(fcntl(fd, F_GETLK, &lock), 0);
  return lock.l_type == F_UNLCK ? 0 : lock.l_pid;
}
// What /proc shows as the one who took the lock of a descriptor; 0: somebody who is gone; -1: it shows no
// lock.
int shown_holder(int fd, const char* kind) {
  char name[64], text[4096];
  snprintf(name, sizeof name, "/proc/self/fdinfo/%d", fd);
  MUST(subject::slurp(name, text, sizeof text) > 0);
  const char* line = strstr(text, "lock:");
  char shown[16] = "";
  int pid = -1;
  if (line == nullptr || sscanf(line, "lock: %*d: %15s %*s %*s %d", shown, &pid) != 2) return -1;
  return strcmp(shown, kind) == 0 ? pid : -1;
}
}  // namespace

CASE(flock_exclusive) {
  int fd = opened("file");
  MUST(flock(fd, LOCK_EX) == 0);
  subject::hold();
  int other = opened("file");
  CHECK_EQ(flock(other, LOCK_SH | LOCK_NB), -1);
  CHECK_EQ(errno, EWOULDBLOCK);
  CHECK_EQ(flock(fd, LOCK_UN), 0);
  CHECK_EQ(flock(other, LOCK_EX | LOCK_NB), 0);
}
CASE(flock_shared) {
  int fd = opened("file"), second = opened("file");
  MUST(flock(fd, LOCK_SH) == 0 && flock(second, LOCK_SH) == 0);
  subject::hold();
  int other = opened("file");
  CHECK_EQ(flock(other, LOCK_SH | LOCK_NB), 0);
  CHECK_EQ(flock(other, LOCK_EX | LOCK_NB), -1);
  close(fd);
  CHECK_EQ(flock(other, LOCK_EX | LOCK_NB), -1);
  close(second);
  CHECK_EQ(flock(other, LOCK_EX | LOCK_NB), 0);
}
CASE(flock_of_a_duplicate) {
  int fd = opened("file"), copy = dup(fd);
  MUST(flock(fd, LOCK_EX) == 0);
  subject::hold();
  int other = opened("file");
  close(fd);
  CHECK_EQ(flock(other, LOCK_EX | LOCK_NB), -1);
  close(copy);
  CHECK_EQ(flock(other, LOCK_EX | LOCK_NB), 0);
}
CASE(fcntl_ranges) {
  int fd = opened("file");
  struct flock write_part = range(F_WRLCK, 0, 100), read_part = range(F_RDLCK, 200, 50);
  MUST(fcntl(fd, F_SETLK, &write_part) == 0 && fcntl(fd, F_SETLK, &read_part) == 0);
  subject::hold();
  pid_t self = getpid();
  JOIN(subject::child([=] {
    int other = opened("file");
    CHECK_EQ(holder(other, 50), self);
    CHECK_EQ(holder(other, 99), self);
    CHECK_EQ(holder(other, 100), 0);
    CHECK_EQ(holder(other, 220), self);
    struct flock shared = range(F_RDLCK, 220, 1);
    CHECK_EQ(fcntl(other, F_SETLK, &shared), 0);
  }));
  struct flock all = range(F_UNLCK, 0, 0);
  CHECK_EQ(fcntl(fd, F_SETLK, &all), 0);
}
CASE(fcntl_of_two_processes) {
  int fd = opened("file");
  struct flock mine = range(F_WRLCK, 0, 10);
  MUST(fcntl(fd, F_SETLK, &mine) == 0);
  pid_t pid = subject::child([=] {
    int own = opened("file");
    struct flock theirs = range(F_WRLCK, 10, 10);
    MUST(fcntl(own, F_SETLK, &theirs) == 0);
    subject::mark("locked");
    subject::await("go");
    CHECK_EQ(holder(own, 5), getppid());
    subject::await("seen");
  });
  subject::await("locked");
  subject::hold();
  CHECK_EQ(holder(fd, 15), pid);
  subject::mark("seen");
  JOIN(pid);
  CHECK_EQ(holder(fd, 15), 0);
}
CASE(open_file_description_lock) {
  int fd = opened("file");
  struct flock lock = range(F_WRLCK, 0, 10);
  MUST(fcntl(fd, F_OFD_SETLK, &lock) == 0);
  subject::hold();
  int other = opened("file");
  lock = range(F_WRLCK, 5, 1);
  CHECK_EQ(fcntl(other, F_OFD_SETLK, &lock), -1);
  close(fd);
  CHECK_EQ(fcntl(other, F_OFD_SETLK, &lock), 0);
}
// Taken by a descriptor that another process has, too: the lock is that of the one who took it.
CASE(fcntl_by_a_shared_description) {
  int fd = opened("file"), copy = dup(fd);
  MUST(copy >= 0);
  pid_t pid = subject::child([=] {
    struct flock lock = range(F_WRLCK, 20, 10);
    MUST(fcntl(fd, F_SETLK, &lock) == 0);
    subject::mark("locked");
    subject::await("seen");
  });
  subject::await("locked");
  struct flock mine = range(F_RDLCK, 0, 5);
  MUST(fcntl(copy, F_SETLK, &mine) == 0);
  subject::hold();
  CHECK_EQ(holder(fd, 25), pid);
  pid_t self = getpid();
  JOIN(subject::child([=] { CHECK_EQ(holder(fd, 3), self); }));
  subject::mark("seen");
  JOIN(pid);
  CHECK_EQ(holder(fd, 25), 0);
}
// By a file that has no name any more, and by what is no file of a disk at all.
CASE(fcntl_of_nameless_files) {
  int deleted = opened("deleted"), memory = memfd_create("memory", 0);
  MUST(unlink(subject::path("deleted")) == 0 && memory >= 0);
  struct flock lock = range(F_WRLCK, 1, 1);
  MUST(fcntl(deleted, F_SETLK, &lock) == 0 && fcntl(memory, F_SETLK, &lock) == 0);
  subject::hold();
  pid_t self = getpid();
  JOIN(subject::child([=] {
    CHECK_EQ(holder(deleted, 1), self);
    CHECK_EQ(holder(memory, 1), self);
    CHECK_EQ(holder(memory, 2), 0);
  }));
}
CASE(flock_of_a_directory) {
  int fd = open(subject::g_dir, O_RDONLY | O_DIRECTORY);
  MUST(fd >= 0 && flock(fd, LOCK_EX) == 0);
  subject::hold();
  int other = open(subject::g_dir, O_RDONLY | O_DIRECTORY);
  CHECK_EQ(flock(other, LOCK_SH | LOCK_NB), -1);
  CHECK_EQ(errno, EWOULDBLOCK);
  CHECK_EQ(flock(fd, LOCK_UN), 0);
  CHECK_EQ(flock(other, LOCK_SH | LOCK_NB), 0);
}
// One description, two processes: the lock stays until both have let go, and either can give it up.
CASE(locks_of_a_description_that_is_shared) {
  int whole = opened("whole"), part = opened("part");
  struct flock lock = range(F_WRLCK, 0, 10);
  MUST(flock(whole, LOCK_EX) == 0 && fcntl(part, F_OFD_SETLK, &lock) == 0);
  pid_t pid = subject::child([=] {
    subject::mark("born");
    subject::await("closed");
    int other = opened("whole");
    CHECK_EQ(flock(other, LOCK_SH | LOCK_NB), -1);
    CHECK_EQ(flock(whole, LOCK_UN), 0);
    CHECK_EQ(flock(other, LOCK_SH | LOCK_NB), 0);
    other = opened("part");
    struct flock wanted = range(F_WRLCK, 5, 1);
    CHECK_EQ(fcntl(other, F_OFD_SETLK, &wanted), -1);
    close(part);
    CHECK_EQ(fcntl(other, F_OFD_SETLK, &wanted), 0);
  });
  subject::await("born");
  subject::hold();
  close(whole);
  close(part);
  subject::mark("closed");
  JOIN(pid);
}
CASE_WITH(lease, subject::kMayRefuse) {
  int fd = opened("file");
  if (fcntl(fd, F_SETLEASE, F_WRLCK) != 0) SKIP("no leases here");
  subject::hold();
  CHECK_EQ(fcntl(fd, F_GETLEASE), F_WRLCK);
  CHECK_EQ(fcntl(fd, F_SETLEASE, F_UNLCK), 0);
}
// The kernel shows who took a lock, also where that process has closed the file since.
CASE(who_took_a_flock) {
  int own = opened("own"), left = opened("left"), of_child = opened("of_child"), of_dead = opened("of_dead");
  MUST(flock(own, LOCK_SH) == 0 && flock(left, LOCK_EX) == 0);
  const pid_t taker = subject::child([=] {
    MUST(flock(of_child, LOCK_EX) == 0);
    close(of_child);
    subject::mark("taken");
    subject::await("seen");
  });
  // It is there no more, but not yet waited for.
  const pid_t dead = subject::child([=] { MUST(flock(of_dead, LOCK_EX) == 0); });
  siginfo_t ended;
  MUST(waitid(P_PID, dead, &ended, WEXITED | WNOWAIT) == 0);
  const pid_t self = getpid();
  const pid_t heir = subject::child([=] {
    subject::await("closed");
    subject::await("look");
    CHECK_EQ(shown_holder(left, "FLOCK"), self);
    subject::mark("seen");
  });
  close(left);
  subject::mark("closed");
  subject::await("taken");
  MUST(shown_holder(own, "FLOCK") == self && shown_holder(of_child, "FLOCK") == taker);
  MUST(shown_holder(of_dead, "FLOCK") == dead);
  subject::hold();
  CHECK_EQ(shown_holder(own, "FLOCK"), self);
  CHECK_EQ(shown_holder(of_child, "FLOCK"), taker);
  CHECK_EQ(shown_holder(of_dead, "FLOCK"), dead);
  subject::mark("look");
  JOIN(heir);
  JOIN(taker);
  JOIN(dead);
}
// Whoever took it has ended: the kernel has no number for it, and the lock stays.
CASE(flock_of_one_who_is_gone) {
  int fd = opened("file");
  JOIN(subject::child([=] { MUST(flock(fd, LOCK_EX) == 0); }));
  MUST(shown_holder(fd, "FLOCK") == 0);
  subject::hold();
  CHECK_EQ(shown_holder(fd, "FLOCK"), 0);
  int other = opened("file");
  CHECK_EQ(flock(other, LOCK_SH | LOCK_NB), -1);
  close(fd);
  CHECK_EQ(flock(other, LOCK_SH | LOCK_NB), 0);
}
CASE_WITH(who_took_a_lease, subject::kMayRefuse) {
  int fd = opened("file");
  const pid_t taker = subject::child([=] {
    if (fcntl(fd, F_SETLEASE, F_WRLCK) != 0) _exit(77);
    subject::mark("taken");
    subject::await("seen");
  });
  for (int i = 0; i < 1000 && !subject::marked("taken"); ++i) subject::pass(1);
  if (!subject::marked("taken")) SKIP("no leases here");
  MUST(shown_holder(fd, "LEASE") == taker);
  subject::hold();
  CHECK_EQ(shown_holder(fd, "LEASE"), taker);
  CHECK_EQ(fcntl(fd, F_GETLEASE), F_WRLCK);
  subject::mark("seen");
  JOIN(taker);
}

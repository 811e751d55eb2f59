// Handles of processes: pidfds and files of processes in /proc.
#include <dirent.h>
#include <poll.h>

#include "subject.h"

#ifndef PIDFD_NONBLOCK
#define PIDFD_NONBLOCK O_NONBLOCK
#endif
#ifndef P_PIDFD
#define P_PIDFD 3
#endif

namespace {

int handle_of(pid_t pid, unsigned flags = 0) { return static_cast<int>(syscall(SYS_pidfd_open, pid, flags)); }

bool readable(int fd) {
  pollfd entry = {fd, POLLIN, 0};
  return poll(&entry, 1, 0) == 1 && (entry.revents & POLLIN) != 0;
}

pid_t sleeper() {
  return subject::child([] {
    signal(SIGUSR1, [](int) { _exit(6); });
    for (;;) pause();
  });
}

int send(int fd, int signal) {
  return static_cast<int>(syscall(SYS_pidfd_send_signal, fd, signal, nullptr, 0));
}

// "Pid:" of fdinfo: -1 for one that has ended and was reaped.
int shown_pid(int fd) {
  char name[64], text[512];
  snprintf(name, sizeof name, "/proc/self/fdinfo/%d", fd);
  if (subject::slurp(name, text, sizeof text) < 0) return 0;
  const char* line = strstr(text, "\nPid:");
  return line != nullptr ? atoi(line + 5) : 0;
}

int open_of(pid_t pid, const char* what, int flags = O_RDONLY) {
  char name[64];
  snprintf(name, sizeof name, "/proc/%d/%s", pid, what);
  return open(name, flags | O_CLOEXEC);
}

}  // namespace

CASE(pidfd_of_oneself_and_a_child) {
  pid_t pid = sleeper();
  subject::await_asleep(pid);
  int self = handle_of(getpid()), child = handle_of(pid, PIDFD_NONBLOCK);
  MUST(self >= 0 && child >= 0);
  int copy = dup(child);
  subject::hold();
  CHECK_EQ(send(self, 0), 0);
  CHECK_EQ(shown_pid(self), getpid());
  CHECK_EQ(shown_pid(child), pid);
  CHECK_EQ(shown_pid(copy), pid);
  CHECK((fcntl(child, F_GETFL) & O_NONBLOCK) != 0);
  CHECK((fcntl(self, F_GETFL) & O_NONBLOCK) == 0);
  CHECK((fcntl(child, F_GETFD) & FD_CLOEXEC) != 0);
  CHECK(!readable(child));
  siginfo_t info = {};
  CHECK(waitid(static_cast<idtype_t>(P_PIDFD), child, &info, WEXITED) < 0 && errno == EAGAIN);
  CHECK_EQ(send(child, SIGUSR1), 0);
  while (!readable(child)) subject::pass(1);
  CHECK_EQ(waitid(static_cast<idtype_t>(P_PIDFD), copy, &info, WEXITED), 0);
  CHECK_EQ(info.si_status, 6);
}

CASE(pidfd_of_a_parent_and_a_brother) {
  pid_t brother = sleeper();
  pid_t parent = getpid();
  pid_t pid = subject::child([=] {
    int up = handle_of(parent), beside = handle_of(brother);
    MUST(up >= 0 && beside >= 0);
    subject::mark("born");
    subject::await("go");
    CHECK_EQ(shown_pid(up), parent);
    CHECK_EQ(shown_pid(beside), brother);
    CHECK_EQ(send(beside, SIGUSR1), 0);
  });
  subject::await("born");
  subject::hold();
  JOIN(pid);
  int status = 0;
  CHECK_EQ(waitpid(brother, &status, 0), brother);
  CHECK_EQ(WEXITSTATUS(status), 6);
}

CASE(pidfd_of_a_zombie) {
  pid_t pid = subject::child([] { _exit(9); });
  int fd = handle_of(pid);
  MUST(fd >= 0);
  while (subject::state_of(pid) != 'Z') subject::pass(1);
  subject::hold();
  CHECK_EQ(shown_pid(fd), pid);
  CHECK(readable(fd));
  siginfo_t info = {};
  CHECK_EQ(waitid(static_cast<idtype_t>(P_PIDFD), fd, &info, WEXITED), 0);
  CHECK_EQ(info.si_status, 9);
}

CASE(pidfd_of_the_dead) {
  pid_t first = subject::child([] { _exit(0); }), second = sleeper();
  int fd = handle_of(first), again = handle_of(first, PIDFD_NONBLOCK), other = handle_of(second);
  MUST(fd >= 0 && again >= 0 && other >= 0);
  JOIN(first);
  MUST(kill(second, SIGKILL) == 0 && waitpid(second, nullptr, 0) == second);
  subject::hold();
  for (int one : {fd, again, other}) {
    CHECK_EQ(shown_pid(one), -1);
    CHECK(readable(one));
    CHECK(send(one, 0) < 0 && errno == ESRCH);
  }
  CHECK((fcntl(again, F_GETFL) & O_NONBLOCK) != 0);
  struct stat one = {}, two = {}, three = {};
  CHECK(fstat(fd, &one) == 0 && fstat(again, &two) == 0 && fstat(other, &three) == 0);
  // Since Linux 6.9 each process has an inode there.
  CHECK_EQ(one.st_ino, two.st_ino);
  // No process of ours may appear, nor be waited for.
  CHECK(waitpid(-1, nullptr, WNOHANG) < 0 && errno == ECHILD);
}

CASE(pidfd_in_an_epoll_set_and_a_poll) {
  pid_t pid = sleeper();
  subject::await_asleep(pid);
  int fd = handle_of(pid);
  pthread_t waiter = subject::thread([=] {
    pollfd entry = {fd, POLLIN, 0};
    CHECK_EQ(poll(&entry, 1, -1), 1);
  });
  subject::pass(20);
  subject::hold();
  CHECK_EQ(send(fd, SIGUSR1), 0);
  pthread_join(waiter, nullptr);
  int status = 0;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
}

CASE(pidfd_of_a_thread) {
  constexpr unsigned kThread = O_EXCL;  // PIDFD_THREAD, Linux 6.9
  static pid_t id;
  pthread_t t = subject::thread([] {
    id = subject::tid();
    subject::mark("born");
    subject::await("end");
  });
  subject::await("born");
  int fd = handle_of(id, kThread);
  if (fd < 0) SKIP("this kernel has no handles of threads");
  subject::hold();
  CHECK_EQ(shown_pid(fd), id);
  CHECK(!readable(fd));
  CHECK((fcntl(fd, F_GETFL) & kThread) != 0);
  subject::mark("end");
  pthread_join(t, nullptr);
  CHECK(readable(fd));
}

CASE(files_of_oneself) {
  int status = open("/proc/self/status", O_RDONLY), maps = open("/proc/self/maps", O_RDONLY);
  int directory = open("/proc/self", O_RDONLY | O_DIRECTORY),
      fds = open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
  int memory = open("/proc/self/mem", O_RDWR);
  MUST(status >= 0 && maps >= 0 && directory >= 0 && fds >= 0 && memory >= 0);
  static uint64_t word = 77;
  subject::hold();
  char text[256] = {};
  CHECK(pread(status, text, 255, 0) > 0 && strstr(text, "Name:") == text);
  CHECK(pread(maps, text, 255, 0) > 0);
  uint64_t back = 0;
  CHECK_EQ(pread(memory, &back, 8, reinterpret_cast<off_t>(&word)), 8);
  CHECK_EQ(back, 77u);
  int again = openat(directory, "stat", O_RDONLY);
  CHECK(again >= 0);
  CHECK_EQ(faccessat(fds, "0", F_OK, AT_SYMLINK_NOFOLLOW), 0);
}

CASE(files_of_a_child) {
  pid_t pid = sleeper();
  subject::await_asleep(pid);
  int stat = open_of(pid, "stat"), directory = open_of(pid, ".", O_DIRECTORY),
      comm = open_of(pid, "comm", O_RDWR);
  MUST(stat >= 0 && directory >= 0 && comm >= 0);
  subject::hold();
  char text[256] = {};
  CHECK(pread(stat, text, 255, 0) > 0);
  CHECK_EQ(atoi(text), pid);
  int again = openat(directory, "status", O_RDONLY);
  CHECK(again >= 0);
  CHECK(pread(comm, text, 255, 0) > 0);
  CHECK_EQ(kill(pid, SIGKILL), 0);
  CHECK_EQ(waitpid(pid, nullptr, 0), pid);
  CHECK(pread(stat, text, 255, 0) < 0 && errno == ESRCH);
}

CASE(files_of_a_parent_shared_with_a_child) {
  int stat = open("/proc/self/stat", O_RDONLY), task = open("/proc/self/task", O_RDONLY | O_DIRECTORY);
  MUST(stat >= 0 && task >= 0);
  pid_t parent = getpid();
  char start[64] = {};
  MUST(read(stat, start, 5) == 5);
  pid_t pid = subject::child([=] {
    subject::mark("born");
    subject::await("go");
    char text[256] = {};
    CHECK(pread(stat, text, 255, 0) > 0);
    CHECK_EQ(atoi(text), parent);
    CHECK_EQ(lseek(stat, 2, SEEK_SET), 2);
    char name[32];
    snprintf(name, sizeof name, "%d", parent);
    CHECK_EQ(faccessat(task, name, F_OK, 0), 0);
  });
  subject::await("born");
  subject::hold();
  JOIN(pid);
  CHECK_EQ(lseek(stat, 0, SEEK_CUR), 2);
}

CASE(files_of_the_dead) {
  pid_t pid = sleeper();
  subject::await_asleep(pid);
  int stat = open_of(pid, "stat"), directory = open_of(pid, ".", O_DIRECTORY);
  int path = open_of(pid, ".", O_PATH);
  MUST(stat >= 0 && directory >= 0 && path >= 0);
  MUST(kill(pid, SIGKILL) == 0 && waitpid(pid, nullptr, 0) == pid);
  subject::hold();
  char text[256] = {};
  CHECK(pread(stat, text, 255, 0) < 0 && errno == ESRCH);
  CHECK(openat(directory, "status", O_RDONLY) < 0);
  CHECK(openat(path, "status", O_RDONLY) < 0);
  CHECK(waitpid(-1, nullptr, WNOHANG) < 0 && errno == ECHILD);
}

CASE(working_directory_of_the_dead) {
  pid_t pid = sleeper();
  char name[64], before[128] = {}, now[128] = {};
  snprintf(name, sizeof name, "/proc/%d", pid);
  MUST(chdir(name) == 0);
  // Whoever is its child works there, too, until he goes elsewhere.
  pid_t same = subject::child([] {
    subject::await("go");
    CHECK(getcwd(nullptr, 0) == nullptr && errno == ENOENT);
  });
  pid_t elsewhere = subject::child([] {
    MUST(chdir("/") == 0);
    subject::mark("there");
    subject::await("go");
    CHECK_EQ(access("proc", X_OK), 0);
  });
  subject::await("there");
  MUST(kill(pid, SIGKILL) == 0 && waitpid(pid, nullptr, 0) == pid);
  MUST(readlink("/proc/self/cwd", before, sizeof before - 1) > 0);
  subject::hold();
  CHECK(getcwd(now, sizeof now) == nullptr && errno == ENOENT);
  CHECK(readlink("/proc/self/cwd", now, sizeof now - 1) > 0 && strcmp(now, before) == 0);
  CHECK(open("status", O_RDONLY) < 0);
  JOIN(same);
  JOIN(elsewhere);
  CHECK_EQ(chdir("/"), 0);
}

CASE_WITH(working_directories_of_two_dead, subject::kMayRefuse) {
  for (const bool first : {true, false}) {
    pid_t pid = sleeper();
    char name[64];
    snprintf(name, sizeof name, "/proc/%d", pid);
    MUST(chdir(name) == 0);
    if (first) subject::child([] { subject::await("go"); });
    MUST(kill(pid, SIGKILL) == 0 && waitpid(pid, nullptr, 0) == pid);
  }
  subject::hold();
  CHECK(getcwd(nullptr, 0) == nullptr && errno == ENOENT);
  CHECK(wait(nullptr) > 0);
}

CASE(proc_itself) {
  int root = open("/proc", O_RDONLY | O_DIRECTORY), sys = open("/proc/sys/kernel/ostype", O_RDONLY);
  int path = open("/proc/self", O_PATH | O_DIRECTORY);
  MUST(root >= 0 && sys >= 0 && path >= 0);
  subject::hold();
  char text[64] = {};
  CHECK_EQ(pread(sys, text, 63, 0), 6);
  char name[32];
  snprintf(name, sizeof name, "%d/stat", getpid());
  int stat = openat(root, name, O_RDONLY);
  CHECK(stat >= 0);
  CHECK(openat(path, "stat", O_RDONLY) >= 0);
}

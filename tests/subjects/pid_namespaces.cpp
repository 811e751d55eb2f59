// Pid namespaces that the program makes for itself inside the session.
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "subject.h"

namespace {

void need_root() {
  if (geteuid() != 0) SKIP("not root");
}

// What a task is called in each namespace from that of /proc inward: a line of /proc/PID/status.
struct Line {
  int numbers[8] = {};
  int count = 0;
  bool operator==(const Line& other) const {
    return count == other.count && memcmp(numbers, other.numbers, sizeof numbers) == 0;
  }
};
Line line_of(const char* proc, pid_t pid, const char* key) {
  char name[96], text[4096];
  snprintf(name, sizeof name, "%s/%d/status", proc, pid);
  Line line;
  if (subject::slurp(name, text, sizeof text) < 0) return line;
  const char* at = strstr(text, key);
  if (at == nullptr) return line;
  for (at += strlen(key); *at == '\t' && line.count < 8; ++line.count) {
    char* end = nullptr;
    line.numbers[line.count] = static_cast<int>(strtol(at + 1, &end, 10));
    at = end;
  }
  return line;
}
struct Seen {
  Line tgid, pid, group, session;
  bool operator==(const Seen& other) const {
    return tgid == other.tgid && pid == other.pid && group == other.group && session == other.session;
  }
};
Seen see(pid_t pid, const char* proc = "/proc") {
  return {line_of(proc, pid, "NStgid:"), line_of(proc, pid, "NSpid:"), line_of(proc, pid, "NSpgid:"),
          line_of(proc, pid, "NSsid:")};
}
uint64_t namespace_of(pid_t pid, const char* type = "pid") {
  char name[64];
  snprintf(name, sizeof name, "/proc/%d/ns/%s", pid, type);
  struct stat status = {};
  return stat(name, &status) == 0 ? status.st_ino : 0;
}

// A child that is the first process of a new pid namespace.
template <typename F>
pid_t first_process(F run, int more = 0) {
  const auto pid = static_cast<pid_t>(
      syscall(SYS_clone, CLONE_NEWPID | more | SIGCHLD, nullptr, nullptr, nullptr, nullptr));
  MUST(pid >= 0);
  if (pid == 0) {
    run();
    subject::leave();
  }
  return pid;
}

// Waits for the end of the test in a process that is no child of whoever says so.
void stay() {
  while (!subject::told_to_go()) subject::pass(5);
}

struct Shared {
  volatile int ready;
  volatile int looked;
  volatile pid_t pids[16];
};
// ... and until somebody else has looked at it.
void stay(const Shared* shared) {
  while (!shared->looked) subject::pass(1);
}
Shared* share() {
  return reinterpret_cast<Shared*>(
      subject::map(sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS));
}
void arrive(Shared* shared) { __atomic_add_fetch(&shared->ready, 1, __ATOMIC_SEQ_CST); }
void await_arrivals(Shared* shared, int count) {
  while (shared->ready < count) subject::pass(1);
}

}  // namespace

CASE(first_process_is_one) {
  need_root();
  Shared* shared = share();
  const pid_t pid = first_process([&] {
    CHECK_EQ(getpid(), 1);
    CHECK_EQ(getppid(), 0);
    CHECK_EQ(getpgid(0), 0);
    CHECK_EQ(getsid(0), 0);
    arrive(shared);
    stay(shared);
    CHECK_EQ(getpid(), 1);
    CHECK_EQ(subject::tid(), 1);
    CHECK_EQ(getppid(), 0);
    CHECK_EQ(getpgid(0), 0);
    CHECK_EQ(getsid(0), 0);
  });
  await_arrivals(shared, 1);
  const Seen before = see(pid);
  CHECK_EQ(before.pid.count, 2);
  CHECK_EQ(before.group.numbers[0], getpgid(0));
  const uint64_t own = namespace_of(getpid());
  CHECK(namespace_of(pid) != own);
  subject::hold();
  CHECK(see(pid) == before);
  CHECK(namespace_of(pid) != namespace_of(getpid()));
  CHECK_EQ(namespace_of(getpid(), "pid_for_children"), namespace_of(getpid()));
  shared->looked = 1;
  JOIN(pid);
}

CASE(tree_in_a_namespace) {
  need_root();
  Shared* shared = share();
  const pid_t pid = first_process([&] {
    // 2 has a child 3 and ends, so that 3 is ours.
    const pid_t two = fork();
    if (two == 0) {
      const pid_t three = fork();
      if (three == 0) {
        while (getppid() == 2) subject::pass(1);
        MUST(setsid() == 3);
        arrive(shared);
        stay();
        CHECK_EQ(getpid(), 3);
        CHECK_EQ(getppid(), 1);
        CHECK_EQ(getsid(0), 3);
        CHECK_EQ(getpgid(0), 3);
        subject::leave();
      }
      _exit(three == 3 ? 0 : 1);
    }
    MUST(two == 2);
    JOIN(two);
    const pid_t four = subject::child([&] {
      MUST(setpgid(0, 0) == 0);
      arrive(shared);
      stay();
      CHECK_EQ(getpid(), 4);
      CHECK_EQ(getpgid(0), 4);
      CHECK_EQ(getsid(0), 0);
    });
    const pid_t five = subject::child([&] {
      while (setpgid(0, 4) != 0) subject::pass(1);
      arrive(shared);
      stay();
      CHECK_EQ(getpgid(0), 4);
      CHECK_EQ(getpid(), 5);
    });
    MUST(four == 4 && five == 5);
    const pid_t six = subject::child([&] { _exit(7); });
    arrive(shared);
    stay();
    int status = 0;
    CHECK_EQ(waitpid(six, &status, 0), 6);
    CHECK_EQ(WEXITSTATUS(status), 7);
    JOIN(four);
    JOIN(five);
    JOIN(3);
    CHECK_EQ(waitpid(-1, &status, 0), -1);
    CHECK_EQ(errno, ECHILD);
    const pid_t next = subject::child([] { CHECK_EQ(getppid(), 1); });
    CHECK(next > 1);
    JOIN(next);
  });
  await_arrivals(shared, 4);
  subject::hold();
  JOIN(pid);
}

CASE(three_levels) {
  need_root();
  Shared* shared = share();
  const pid_t pid = first_process([&] {
    // Not all numbers are to be 1.
    for (int i = 0; i < 3; ++i) JOIN(subject::child([] {}));
    const pid_t middle = first_process([&] {
      for (int i = 0; i < 5; ++i) JOIN(subject::child([] {}));
      const pid_t inner = first_process([&] {
        JOIN(subject::child([] {}));
        const pid_t innermost = subject::child([&] {
          CHECK_EQ(getpid(), 3);
          arrive(shared);
          stay(shared);
          CHECK_EQ(getpid(), 3);
          CHECK_EQ(getppid(), 1);
        });
        stay(shared);
        JOIN(innermost);
        CHECK_EQ(innermost, 3);
      });
      CHECK_EQ(inner, 7);
      stay(shared);
      JOIN(inner);
      CHECK_EQ(getpid(), 1);
    });
    CHECK_EQ(middle, 5);
    stay(shared);
    JOIN(middle);
  });
  await_arrivals(shared, 1);
  // All that /proc shows of them.
  Seen before[4];
  int count = 0;
  for (int other = getpid() + 1; other < getpid() + 100 && count < 4; ++other) {
    const Seen seen = see(other);
    if (seen.pid.count > 1) before[count++] = seen;
  }
  CHECK_EQ(count, 4);
  CHECK_EQ(before[3].pid.count, 4);
  CHECK_EQ(before[3].pid.numbers[3], 3);
  subject::hold();
  for (const Seen& seen : before) CHECK(see(seen.pid.numbers[0]) == seen);
  shared->looked = 1;
  JOIN(pid);
}

CASE(threads_in_a_namespace) {
  need_root();
  Shared* shared = share();
  const pid_t pid = first_process([&] {
    JOIN(subject::child([] {}));
    pthread_t threads[3];
    for (int i = 0; i < 3; ++i) {
      threads[i] = subject::thread([&, i] {
        const pid_t own = subject::tid();
        shared->pids[i] = own;
        arrive(shared);
        stay();
        CHECK_EQ(subject::tid(), own);
        CHECK_EQ(syscall(SYS_tgkill, 1, own, 0), 0);
      });
    }
    stay();
    for (pthread_t one : threads) pthread_join(one, nullptr);
    for (int i = 0; i < 3; ++i) CHECK_BETWEEN(shared->pids[i], 3, 5);
  });
  await_arrivals(shared, 3);
  subject::hold();
  JOIN(pid);
}

// unshare(1) with --fork: its own pid namespace stays, that of its children is another.
CASE(namespace_of_children) {
  need_root();
  Shared* shared = share();
  const pid_t pid = subject::child([&] {
    MUST(unshare(CLONE_NEWPID) == 0);
    const pid_t first = subject::child([&] {
      CHECK_EQ(getpid(), 1);
      arrive(shared);
      stay();
      CHECK_EQ(getpid(), 1);
      // Both wait for each other's end.
      while (shared->ready < 2) subject::pass(1);
    });
    const uint64_t inside = namespace_of(first);
    MUST(namespace_of(getpid(), "pid_for_children") == inside && inside != namespace_of(getpid()));
    stay();
    CHECK_EQ(namespace_of(getpid(), "pid_for_children"), namespace_of(first));
    CHECK(namespace_of(getpid()) != namespace_of(first));
    const pid_t second = subject::child([&] {
      CHECK(getpid() > 1);
      CHECK_EQ(getppid(), 0);
    });
    CHECK_EQ(namespace_of(second), namespace_of(first));
    JOIN(second);
    arrive(shared);
    JOIN(first);
    // Its namespace has ended.
    CHECK_EQ(fork(), -1);
    CHECK_EQ(errno, ENOMEM);
  });
  await_arrivals(shared, 1);
  subject::hold();
  JOIN(pid);
}

CASE(namespace_of_children_has_ended) {
  need_root();
  Shared* shared = share();
  const pid_t pid = subject::child([&] {
    MUST(unshare(CLONE_NEWPID) == 0);
    JOIN(subject::child([&] {}));
    arrive(shared);
    stay();
    CHECK_EQ(fork(), -1);
    CHECK_EQ(errno, ENOMEM);
    CHECK(namespace_of(getpid(), "pid_for_children") != namespace_of(getpid()));
  });
  await_arrivals(shared, 1);
  subject::hold();
  JOIN(pid);
}

// The whole namespace ends with its first process, also after a restart.
CASE(end_of_the_first_process) {
  need_root();
  Shared* shared = share();
  int ends[2];
  MUST(pipe(ends) == 0);
  const pid_t pid = first_process([&] {
    for (int i = 0; i < 3; ++i) {
      subject::child([&] {
        close(ends[0]);
        arrive(shared);
        for (;;) pause();
      });
    }
    close(ends[1]);
    stay();
    subject::leave();
  });
  close(ends[1]);
  await_arrivals(shared, 3);
  subject::hold();
  JOIN(pid);
  // Nobody is left who could write.
  char byte;
  CHECK_EQ(read(ends[0], &byte, 1), 0);
}

CASE(first_process_is_a_zombie) {
  need_root();
  const pid_t pid = first_process([] { _exit(5); });
  const pid_t killed = first_process([] {
    for (;;) pause();
  });
  kill(killed, SIGKILL);
  while (subject::state_of(pid) != 'Z' || subject::state_of(killed) != 'Z') subject::pass(1);
  const Seen before = see(pid);
  subject::hold();
  CHECK_EQ(subject::state_of(pid), 'Z');
  CHECK(see(pid) == before);
  int status = 0;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK_EQ(WEXITSTATUS(status), 5);
  CHECK_EQ(waitpid(killed, &status, 0), killed);
  CHECK_EQ(WTERMSIG(status), SIGKILL);
}

// Who was in the namespace, and a process from outside that has joined it.
CASE(joined_from_outside) {
  need_root();
  Shared* shared = share();
  const pid_t pid = first_process([&] {
    arrive(shared);
    stay();
    while (shared->ready < 3) subject::pass(1);
  });
  await_arrivals(shared, 1);
  const pid_t joiner = subject::child([&] {
    const int handle = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    MUST(handle >= 0 && setns(handle, CLONE_NEWPID) == 0);
    close(handle);
    const pid_t inside = subject::child([&] {
      const pid_t own = getpid();
      CHECK_BETWEEN(own, 2, 10);
      CHECK_EQ(getppid(), 0);
      arrive(shared);
      stay();
      CHECK_EQ(getpid(), own);
      CHECK_EQ(getppid(), 0);
    });
    stay();
    JOIN(inside);
    arrive(shared);
  });
  await_arrivals(shared, 2);
  subject::hold();
  JOIN(joiner);
  JOIN(pid);
}

// The parent of the first process has ended: it belongs to the session's init.
CASE(first_process_is_an_orphan) {
  need_root();
  Shared* shared = share();
  const pid_t father = subject::child([&] {
    shared->pids[0] = first_process([&] {
      shared->pids[1] = subject::child([&] {
        arrive(shared);
        stay(shared);
        CHECK_EQ(getppid(), 1);
      });
      stay(shared);
      CHECK_EQ(getpid(), 1);
      JOIN(shared->pids[1]);
      if (subject::g_failures != 0) subject::mark("bad");
      arrive(shared);
    });
  });
  JOIN(father);
  await_arrivals(shared, 1);
  const Seen before = see(shared->pids[0]);
  subject::hold();
  CHECK(see(shared->pids[0]) == before);
  shared->looked = 1;
  await_arrivals(shared, 2);
  CHECK(!subject::marked("bad"));
}

// A group whose leader is outside, and one inside whose leader has ended.
CASE(groups_across_namespaces) {
  need_root();
  Shared* shared = share();
  const pid_t outer = subject::child([&] {
    MUST(setpgid(0, 0) == 0);
    const pid_t first = first_process([&] {
      const pid_t leader = subject::child([&] {
        MUST(setpgid(0, 0) == 0);
        stay(shared);
      });
      const pid_t member = subject::child([&] {
        while (setpgid(0, leader) != 0) subject::pass(1);
        arrive(shared);
        stay(shared);
        CHECK_EQ(getpgid(0), leader);
      });
      await_arrivals(shared, 1);
      kill(leader, SIGKILL);
      MUST(waitpid(leader, nullptr, 0) == leader);
      arrive(shared);
      stay(shared);
      CHECK_EQ(getpgid(0), 0);
      CHECK_EQ(getpgid(member), leader);
      JOIN(member);
    });
    shared->pids[0] = first;
    stay(shared);
    CHECK_EQ(getpgid(0), getpid());
    CHECK_EQ(getpgid(first), getpid());
    JOIN(first);
  });
  await_arrivals(shared, 2);
  const Seen before = see(shared->pids[0]);
  subject::hold();
  CHECK_EQ(before.group.numbers[0], outer);
  CHECK(see(shared->pids[0]) == before);
  shared->looked = 1;
  JOIN(outer);
}

// Everything that has a number of a process in it.
CASE(numbers_elsewhere) {
  need_root();
  Shared* shared = share();
  const pid_t pid = first_process([&] {
    const pid_t child = subject::child([&] {
      for (;;) pause();
    });
    const int handle = static_cast<int>(syscall(SYS_pidfd_open, child, 0));
    MUST(handle >= 0);
    // A signal for a thread, a descriptor's owner, a lock, a sender in a siginfo.
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    sigevent event = {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGUSR2;
    event._sigev_un._tid = subject::tid();
    timer_t timer;
    MUST(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    int ends[2];
    MUST(pipe(ends) == 0);
    f_owner_ex owner = {F_OWNER_PID, child};
    MUST(fcntl(ends[0], F_SETOWN_EX, &owner) == 0);
    const int file = open(subject::path("locked"), O_RDWR | O_CREAT, 0600);
    struct flock lock = {};
    lock.l_type = F_WRLCK;
    MUST(file >= 0 && fcntl(file, F_SETLK, &lock) == 0);
    const pid_t sender = subject::child([] { kill(1, SIGUSR1); });
    JOIN(sender);
    arrive(shared);
    stay();
    siginfo_t info;
    const timespec soon = {5, 0};
    CHECK_EQ(sigtimedwait(&set, &info, &soon), SIGUSR1);
    CHECK_EQ(info.si_pid, sender);
    itimerspec value = {{0, 0}, {0, 1000000}};
    MUST(timer_settime(timer, 0, &value, nullptr) == 0);
    CHECK_EQ(sigtimedwait(&set, &info, &soon), SIGUSR2);
    f_owner_ex back = {};
    CHECK_EQ(fcntl(ends[0], F_GETOWN_EX, &back), 0);
    CHECK_EQ(back.pid, child);
    char name[64], text[512];
    snprintf(name, sizeof name, "/proc/self/fdinfo/%d", handle);
    MUST(subject::slurp(name, text, sizeof text) > 0);
    CHECK_EQ(syscall(SYS_pidfd_send_signal, handle, SIGKILL, nullptr, 0), 0);
    int status = 0;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(WTERMSIG(status), SIGKILL);
    const pid_t other = subject::child([&] {
      struct flock wanted = {};
      wanted.l_type = F_WRLCK;
      CHECK_EQ(fcntl(file, F_GETLK, &wanted), 0);
      CHECK_EQ(wanted.l_pid, 1);
    });
    JOIN(other);
  });
  await_arrivals(shared, 1);
  subject::hold();
  JOIN(pid);
}

// No child of a checkpoint is to be seen, and nobody is told of its end.
static volatile sig_atomic_t g_told;
CASE(first_process_has_no_strange_children) {
  need_root();
  Shared* shared = share();
  const pid_t pid = first_process([&] {
    struct sigaction action = {};
    action.sa_handler = [](int) { g_told = g_told + 1; };
    MUST(sigaction(SIGCHLD, &action, nullptr) == 0);
    const pid_t child = subject::child([&] {
      arrive(shared);
      stay();
      while (shared->ready < 2) subject::pass(1);
    });
    stay();
    CHECK_EQ(g_told, 0);
    CHECK_EQ(waitpid(-1, nullptr, WNOHANG), 0);
    arrive(shared);
    JOIN(child);
    CHECK_EQ(waitpid(-1, nullptr, WNOHANG), -1);
    CHECK_EQ(errno, ECHILD);
    CHECK_EQ(g_told, 1);
  });
  await_arrivals(shared, 1);
  subject::hold();
  JOIN(pid);
}

// A handle of somebody outside, whom a process inside cannot name.
CASE_WITH(handle_from_outside, subject::kMayRefuse) {
  need_root();
  Shared* shared = share();
  const int handle = static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0));
  MUST(handle >= 0);
  const pid_t pid = first_process([&] {
    arrive(shared);
    stay();
    CHECK(fcntl(handle, F_GETFD) >= 0);
  });
  close(handle);
  await_arrivals(shared, 1);
  subject::hold();
  JOIN(pid);
}

// unshare --mount-proc
CASE(own_proc) {
  need_root();
  Shared* shared = share();
  const pid_t pid = first_process(
      [&] {
        MUST(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
        MUST(mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) == 0);
        const pid_t child = subject::child([&] {
          arrive(shared);
          stay();
        });
        const int status = open("/proc/self/status", O_RDONLY);
        MUST(status >= 0);
        stay();
        const Seen seen = see(child);
        CHECK_EQ(seen.pid.count, 1);
        CHECK_EQ(seen.pid.numbers[0], 2);
        CHECK_EQ(see(1).pid.count, 1);
        char text[64] = {};
        CHECK(readlink("/proc/self", text, sizeof text - 1) == 1 && text[0] == '1');
        CHECK(pread(status, text, sizeof text - 1, 0) > 0);
        JOIN(child);
      },
      CLONE_NEWNS);
  await_arrivals(shared, 1);
  subject::hold();
  JOIN(pid);
}

CASE(stopped_in_a_namespace) {
  need_root();
  Shared* shared = share();
  const pid_t pid = first_process([&] {
    shared->pids[0] = subject::child([&] {
      arrive(shared);
      stay(shared);
    });
    stay(shared);
    JOIN(shared->pids[0]);
  });
  await_arrivals(shared, 1);
  kill(pid, SIGSTOP);
  MUST(waitpid(pid, nullptr, WUNTRACED) == pid);
  subject::hold();
  CHECK_EQ(subject::state_of(pid), 'T');
  kill(pid, SIGCONT);
  shared->looked = 1;
  JOIN(pid);
}

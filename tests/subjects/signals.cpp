// Signals: actions, masks, what is pending and in which order, and being inside a handler.
#include <sys/resource.h>
#include <ucontext.h>

#include "subject.h"

namespace {

volatile sig_atomic_t g_count;
volatile int g_value, g_code, g_signal;

void note(int signal, siginfo_t* info, void*) {
  g_count = g_count + 1;
  g_signal = signal;
  g_value = info->si_value.sival_int;
  g_code = info->si_code;
}

sigset_t set_of(std::initializer_list<int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (int s : signals) sigaddset(&set, s);
  return set;
}
void block(std::initializer_list<int> signals) {
  sigset_t set = set_of(signals);
  MUST(sigprocmask(SIG_BLOCK, &set, nullptr) == 0);
}
// The next pending one of a set, or 0; never waits.
int take(std::initializer_list<int> signals, siginfo_t* info) {
  sigset_t set = set_of(signals);
  timespec none = {};
  memset(info, 0, sizeof *info);
  // The bare call: the C library's changes SI_TKILL to SI_USER.
  int signal = static_cast<int>(syscall(SYS_rt_sigtimedwait, &set, info, &none, 8));
  return signal < 0 ? 0 : signal;
}

}  // namespace

CASE(actions) {
  struct sigaction set[65] = {};
  for (int s = 1; s < 65; ++s) {
    if (s == SIGKILL || s == SIGSTOP || s == 32 || s == 33 || s == SIGALRM) continue;
    set[s].sa_sigaction = note;
    set[s].sa_flags = SA_SIGINFO | (s % 2 != 0 ? SA_RESTART : 0) | (s % 3 != 0 ? SA_ONSTACK : 0) |
                      (s % 5 == 0 ? SA_NODEFER : 0) | (s % 7 == 0 ? SA_RESETHAND : 0);
    sigemptyset(&set[s].sa_mask);
    sigaddset(&set[s].sa_mask, 1 + (s * 7) % 31);
    if (s == SIGCHLD) set[s].sa_flags |= SA_NOCLDSTOP | SA_NOCLDWAIT;
    MUST(sigaction(s, &set[s], nullptr) == 0);
  }
  subject::hold();
  for (int s = 1; s < 65; ++s) {
    if (set[s].sa_sigaction == nullptr) continue;
    struct sigaction now = {};
    CHECK_EQ(sigaction(s, nullptr, &now), 0);
    CHECK_EQ(reinterpret_cast<void*>(now.sa_sigaction), reinterpret_cast<void*>(set[s].sa_sigaction));
    CHECK_EQ(now.sa_flags & ~0x04000000, set[s].sa_flags);
    for (int m = 1; m < 32; ++m) {
      if (m == SIGKILL || m == SIGSTOP) continue;  // the kernel drops them from every mask
      CHECK_EQ(sigismember(&now.sa_mask, m), sigismember(&set[s].sa_mask, m));
    }
  }
  CHECK_EQ(kill(getpid(), SIGUSR1), 0);
  CHECK_EQ(g_count, 1);
}

CASE(ignored_and_default) {
  signal(SIGHUP, SIG_IGN);
  signal(SIGINT, SIG_IGN);
  subject::hold();
  CHECK_EQ(kill(getpid(), SIGHUP), 0);
  CHECK_EQ(kill(getpid(), SIGINT), 0);
  struct sigaction now = {};
  CHECK_EQ(sigaction(SIGTERM, nullptr, &now), 0);
  CHECK_EQ(reinterpret_cast<void*>(now.sa_handler), reinterpret_cast<void*>(SIG_DFL));
  int status = 0;
  pid_t pid = subject::child([] { raise(SIGTERM); });
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK_EQ(status, SIGTERM);
}

CASE(pending_of_the_process) {
  block({SIGUSR1, SIGUSR2, SIGTERM});
  sigval value;
  value.sival_int = 4711;
  MUST(sigqueue(getpid(), SIGUSR1, value) == 0);
  MUST(kill(getpid(), SIGTERM) == 0);
  subject::hold();
  siginfo_t info;
  CHECK_EQ(take({SIGUSR1}, &info), SIGUSR1);
  CHECK_EQ(info.si_code, SI_QUEUE);
  CHECK_EQ(info.si_value.sival_int, 4711);
  CHECK_EQ(info.si_pid, getpid());
  CHECK_EQ(info.si_uid, getuid());
  CHECK_EQ(take({SIGTERM}, &info), SIGTERM);
  CHECK_EQ(info.si_code, SI_USER);
  CHECK_EQ(info.si_pid, getpid());
  CHECK_EQ(take({SIGUSR1, SIGUSR2, SIGTERM}, &info), 0);
}

CASE(pending_of_a_thread) {
  block({SIGUSR1, SIGUSR2});
  pthread_t t = subject::thread([] {
    MUST(syscall(SYS_tgkill, getpid(), subject::tid(), SIGUSR2) == 0);
    subject::mark("sent");
    subject::await("go");
    sigset_t pending;
    CHECK_EQ(sigpending(&pending), 0);
    CHECK(sigismember(&pending, SIGUSR2) == 1);
    siginfo_t info;
    CHECK_EQ(take({SIGUSR2}, &info), SIGUSR2);
    CHECK_EQ(info.si_code, SI_TKILL);
    CHECK_EQ(take({SIGUSR2}, &info), 0);
  });
  subject::await("sent");
  subject::hold();
  sigset_t pending;
  CHECK_EQ(sigpending(&pending), 0);
  CHECK(sigismember(&pending, SIGUSR2) == 0);  // it belongs to the other thread alone
  pthread_join(t, nullptr);
}

CASE(real_time_queue_keeps_its_order) {
  block({SIGRTMIN + 2, SIGRTMIN + 5});
  sigval value;
  for (int i = 0; i < 50; ++i) {
    value.sival_int = i;
    MUST(sigqueue(getpid(), SIGRTMIN + 5, value) == 0);
    value.sival_int = 1000 + i;
    MUST(sigqueue(getpid(), SIGRTMIN + 2, value) == 0);
  }
  subject::hold();
  siginfo_t info;
  for (int i = 0; i < 50; ++i) {
    CHECK_EQ(take({SIGRTMIN + 5}, &info), SIGRTMIN + 5);
    CHECK_EQ(info.si_value.sival_int, i);
  }
  for (int i = 0; i < 50; ++i) {
    CHECK_EQ(take({SIGRTMIN + 2, SIGRTMIN + 5}, &info), SIGRTMIN + 2);
    CHECK_EQ(info.si_value.sival_int, 1000 + i);
  }
  CHECK_EQ(take({SIGRTMIN + 2, SIGRTMIN + 5}, &info), 0);
}

CASE(pending_death_of_a_child) {
  block({SIGCHLD});
  pid_t pid = subject::child([] { _exit(3); });
  while (subject::state_of(pid) != 'Z') subject::pass(1);
  subject::hold();
  siginfo_t info;
  CHECK_EQ(take({SIGCHLD}, &info), SIGCHLD);
  CHECK_EQ(info.si_code, CLD_EXITED);
  CHECK_EQ(info.si_pid, pid);
  CHECK_EQ(info.si_status, 3);
  CHECK_EQ(take({SIGCHLD}, &info), 0);
}

CASE(delivered_when_unblocked) {
  struct sigaction action = {};
  action.sa_sigaction = note;
  action.sa_flags = SA_SIGINFO;
  MUST(sigaction(SIGUSR1, &action, nullptr) == 0);
  block({SIGUSR1});
  sigval value;
  value.sival_int = 12;
  MUST(sigqueue(getpid(), SIGUSR1, value) == 0);
  subject::hold();
  CHECK_EQ(g_count, 0);
  sigset_t set = set_of({SIGUSR1});
  CHECK_EQ(sigprocmask(SIG_UNBLOCK, &set, nullptr), 0);
  CHECK_EQ(g_count, 1);
  CHECK_EQ(g_value, 12);
}

// The checkpoint finds the program inside a handler, on an alternate stack, with a frame below it that the
// kernel will read when the handler returns.
static volatile double g_float_inside;
CASE(inside_a_handler) {
  stack_t stack = {};
  stack.ss_sp = subject::map(65536);
  stack.ss_size = 65536;
  MUST(sigaltstack(&stack, nullptr) == 0);
  struct sigaction action = {};
  action.sa_flags = SA_ONSTACK | SA_SIGINFO;
  action.sa_sigaction = [](int, siginfo_t*, void* context) {
    auto* frame = static_cast<ucontext_t*>(context);
    uint64_t before = frame->uc_mcontext.gregs[REG_RSP];
    stack_t now = {};
    MUST(sigaltstack(nullptr, &now) == 0 && (now.ss_flags & SS_ONSTACK) != 0);
    subject::hold();
    CHECK_EQ(static_cast<uint64_t>(frame->uc_mcontext.gregs[REG_RSP]), before);
    CHECK_EQ(sigaltstack(nullptr, &now), 0);
    CHECK_EQ(now.ss_flags & SS_ONSTACK, SS_ONSTACK);
    g_float_inside = g_float_inside * 2;
  };
  action.sa_mask = set_of({SIGUSR2});
  MUST(sigaction(SIGUSR1, &action, nullptr) == 0);
  g_float_inside = 1.25;
  double kept[6] = {1.5, 2.5, 3.5, 4.5, 5.5, 6.5};
  asm volatile("" : "+x"(kept[0]), "+x"(kept[1]), "+x"(kept[2]), "+x"(kept[3]), "+x"(kept[4]), "+x"(kept[5]));
  syscall(SYS_kill, getpid(), SIGUSR1);
  asm volatile("" : "+x"(kept[0]), "+x"(kept[1]), "+x"(kept[2]), "+x"(kept[3]), "+x"(kept[4]), "+x"(kept[5]));
  for (int i = 0; i < 6; ++i) CHECK_EQ(kept[i], 1.5 + i);
  CHECK_EQ(g_float_inside, 2.5);
  stack_t now = {};
  CHECK_EQ(sigaltstack(nullptr, &now), 0);
  CHECK_EQ(now.ss_flags, 0);
  sigset_t mask;
  CHECK_EQ(sigprocmask(SIG_BLOCK, nullptr, &mask), 0);
  CHECK_EQ(sigismember(&mask, SIGUSR2), 0);
}

CASE(inside_nested_handlers) {
  struct sigaction action = {};
  action.sa_handler = [](int) { raise(SIGUSR2); };
  MUST(sigaction(SIGUSR1, &action, nullptr) == 0);
  action.sa_handler = [](int) {
    subject::hold();
    g_count = g_count + 1;
  };
  MUST(sigaction(SIGUSR2, &action, nullptr) == 0);
  raise(SIGUSR1);
  CHECK_EQ(g_count, 1);
}

CASE(sigsuspend_waits) {
  static pid_t id;
  struct sigaction action = {};
  action.sa_sigaction = note;
  action.sa_flags = SA_SIGINFO;
  MUST(sigaction(SIGUSR1, &action, nullptr) == 0);
  block({SIGUSR1});
  pthread_t t = subject::thread([] {
    block({SIGUSR1, SIGUSR2});
    id = subject::tid();
    subject::mark("waiting");
    sigset_t wait_mask = set_of({SIGUSR2});
    CHECK_EQ(sigsuspend(&wait_mask), -1);
    CHECK_EQ(errno, EINTR);
    CHECK_EQ(g_count, 1);  // it came back because of the signal and nothing else
    sigset_t mask;
    CHECK_EQ(pthread_sigmask(SIG_BLOCK, nullptr, &mask), 0);
    CHECK_EQ(sigismember(&mask, SIGUSR1), 1);
  });
  subject::await("waiting");
  subject::await_asleep(getpid(), id);
  subject::hold();
  CHECK_EQ(g_count, 0);
  CHECK_EQ(pthread_kill(t, SIGUSR1), 0);
  pthread_join(t, nullptr);
}

CASE(sigwaitinfo_waits) {
  static pid_t id;
  block({SIGUSR1});
  pthread_t t = subject::thread([] {
    id = subject::tid();
    subject::mark("waiting");
    sigset_t set = set_of({SIGUSR1});
    siginfo_t info;
    CHECK_EQ(sigwaitinfo(&set, &info), SIGUSR1);
    CHECK_EQ(info.si_value.sival_int, 99);
  });
  subject::await("waiting");
  subject::await_asleep(getpid(), id);
  subject::hold();
  sigval value;
  value.sival_int = 99;
  CHECK_EQ(sigqueue(getpid(), SIGUSR1, value), 0);
  pthread_join(t, nullptr);
}

CASE(handler_while_blocked_in_a_call) {
  static pid_t id;
  struct sigaction action = {};
  action.sa_sigaction = note;
  action.sa_flags = SA_SIGINFO;  // without SA_RESTART: read must say EINTR, once, because of this signal
  MUST(sigaction(SIGUSR1, &action, nullptr) == 0);
  int fds[2];
  MUST(pipe(fds) == 0);
  pthread_t t = subject::thread([=] {
    id = subject::tid();
    subject::mark("waiting");
    char byte;
    CHECK_EQ(read(fds[0], &byte, 1), -1);
    CHECK_EQ(errno, EINTR);
    CHECK_EQ(g_count, 1);
  });
  subject::await("waiting");
  subject::await_asleep(getpid(), id);
  subject::hold();
  subject::pass(30);
  CHECK_EQ(g_count, 0);
  CHECK_EQ(pthread_kill(t, SIGUSR1), 0);
  pthread_join(t, nullptr);
}

CASE(to_a_group_and_a_stranger) {
  pid_t pid = subject::child([] {
    MUST(setpgid(0, 0) == 0);
    struct sigaction action = {};
    action.sa_sigaction = note;
    action.sa_flags = SA_SIGINFO;
    MUST(sigaction(SIGUSR1, &action, nullptr) == 0);
    subject::mark("born");
    while (g_count == 0) subject::pass(2);
  });
  subject::await("born");
  subject::hold();
  CHECK_EQ(kill(-pid, SIGUSR1), 0);
  JOIN(pid);
}

CASE(core_limit_and_stop_signals_pending) {
  block({SIGTSTP, SIGCONT});
  MUST(kill(getpid(), SIGTSTP) == 0);
  subject::hold();
  siginfo_t info;
  CHECK_EQ(take({SIGTSTP}, &info), SIGTSTP);
}

namespace {

// What a parent would be told of the child now; it stays untold. 0: nothing.
int news_of(pid_t pid, int* status) {
  siginfo_t info = {};
  MUST(waitid(P_PID, pid, &info, WSTOPPED | WCONTINUED | WNOHANG | WNOWAIT) == 0);
  if (status != nullptr) *status = info.si_status;
  return info.si_pid == 0 ? 0 : info.si_code;
}

pid_t child_that_waits() {
  pid_t pid = subject::child([] {
    MUST(setpgid(0, 0) == 0);
    subject::mark("waits");
    subject::await("end");
  });
  subject::await("waits");
  return pid;
}

void stop(pid_t pid, int signal) {
  MUST(kill(pid, signal) == 0);
  while (subject::state_of(pid) != 'T') subject::pass(1);
}

void end(pid_t pid) {
  CHECK_EQ(subject::state_of(pid), 'T');
  subject::mark("end");
  kill(pid, SIGCONT);
  int status = -1;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK_EQ(status, 0);
}

}  // namespace

CASE(stopped_by_the_keyboard_and_nobody_told) {
  pid_t pid = child_that_waits();
  stop(pid, SIGTSTP);
  subject::hold();
  int signal = 0;
  CHECK_EQ(news_of(pid, &signal), CLD_STOPPED);
  CHECK_EQ(signal, SIGTSTP);
  end(pid);
}

CASE(stopped_and_told) {
  pid_t pid = child_that_waits();
  stop(pid, SIGTTIN);
  int status = 0;
  MUST(waitpid(pid, &status, WUNTRACED) == pid && WSTOPSIG(status) == SIGTTIN);
  subject::hold();
  CHECK_EQ(news_of(pid, nullptr), 0);
  end(pid);
}

CASE(stopped_with_threads) {
  pid_t pid = subject::child([] {
    MUST(setpgid(0, 0) == 0);
    pthread_t thread = subject::thread([] { subject::await("end"); });
    subject::mark("waits");
    subject::await("end");
    pthread_join(thread, nullptr);
  });
  subject::await("waits");
  stop(pid, SIGTTOU);
  subject::hold();
  int signal = 0;
  CHECK_EQ(news_of(pid, &signal), CLD_STOPPED);
  CHECK_EQ(signal, SIGTTOU);
  end(pid);
}

// SIGCONT throws the second one away.
CASE(stopped_with_another_stop_pending) {
  pid_t pid = child_that_waits();
  stop(pid, SIGSTOP);
  MUST(kill(pid, SIGSTOP) == 0);
  MUST(syscall(SYS_tkill, pid, SIGSTOP) == 0);
  subject::hold();
  int signal = 0;
  CHECK_EQ(news_of(pid, &signal), CLD_STOPPED);
  CHECK_EQ(signal, SIGSTOP);
  end(pid);
}

CASE(continued_and_nobody_told) {
  pid_t pid = child_that_waits();
  stop(pid, SIGSTOP);
  MUST(kill(pid, SIGCONT) == 0);
  while (news_of(pid, nullptr) != CLD_CONTINUED) subject::pass(1);
  subject::hold();
  CHECK_EQ(news_of(pid, nullptr), CLD_CONTINUED);
  int status = 0;
  CHECK_EQ(waitpid(pid, &status, WCONTINUED), pid);
  CHECK(WIFCONTINUED(status));
  subject::mark("end");
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK_EQ(status, 0);
}

// The debugger's signal is an ordinary one for a program, and may wait like any other.
CASE(trap_pending) {
  struct sigaction action = {}, now = {};
  action.sa_handler = [](int) {};
  MUST(sigaction(SIGTRAP, &action, nullptr) == 0);
  sigset_t trap, pending;
  sigemptyset(&trap);
  sigaddset(&trap, SIGTRAP);
  MUST(sigprocmask(SIG_BLOCK, &trap, nullptr) == 0);
  MUST(kill(getpid(), SIGTRAP) == 0);
  subject::hold();
  CHECK_EQ(sigpending(&pending), 0);
  CHECK_EQ(sigismember(&pending, SIGTRAP), 1);
  CHECK_EQ(sigaction(SIGTRAP, nullptr, &now), 0);
  CHECK(now.sa_handler == action.sa_handler);
  siginfo_t info = {};
  CHECK_EQ(sigwaitinfo(&trap, &info), SIGTRAP);
  CHECK_EQ(info.si_pid, getpid());
}

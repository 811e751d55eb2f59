// What we believe of Linux, about tracing. Each test names who relies on it; one that fails on a new kernel
// says what has to be thought over before a program is harmed.
#include <gtest/gtest.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <time.h>

#include "child.h"

using beliefs::Child;
using beliefs::sleep_for_ever;

namespace {

// Seizes, interrupts and waits for the stop; its status, or -1.
int seize_and_stop(pid_t pid, unsigned long options = 0) {
  if (ptrace(PTRACE_SEIZE, pid, nullptr, options) != 0) return -1;
  if (ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr) != 0) return -1;
  int status = 0;
  return waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status) ? status : -1;
}

user_regs_struct registers(pid_t pid) {
  user_regs_struct regs = {};
  ptrace(PTRACE_GETREGS, pid, nullptr, &regs);
  return regs;
}

char state_of(pid_t pid) {
  char name[64], text[256] = {};
  snprintf(name, sizeof name, "/proc/%d/stat", pid);
  FILE* file = fopen(name, "r");
  if (file == nullptr) return 0;
  size_t n = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[n] = 0;
  const char* end = strrchr(text, ')');
  return end != nullptr ? end[2] : 0;
}

void await_state(pid_t pid, char state) {
  for (int i = 0; i < 1000 && state_of(pid) != state; ++i) usleep(1000);
}

}  // namespace

// freeze/: the stop of a seized task is of its own kind and no signal.
TEST(Tracing, InterruptIsAnEventStop) {
  Child child(sleep_for_ever);
  await_state(child.pid(), 'S');
  int status = seize_and_stop(child.pid());
  ASSERT_NE(status, -1);
  EXPECT_EQ(status >> 16, PTRACE_EVENT_STOP);
  EXPECT_EQ(WSTOPSIG(status), SIGTRAP);
}

// inspect/, restore/: a task in a call that waits shows how the call would be restarted, and its number.
TEST(Tracing, BlockedCallShowsItsRestartKind) {
  Child pauses([] { pause(); });
  Child sleeps([] {
    timespec t = {100, 0};
    nanosleep(&t, nullptr);
  });
  for (const Child* child : {&pauses, &sleeps}) await_state(child->pid(), 'S');
  ASSERT_NE(seize_and_stop(pauses.pid()), -1);
  ASSERT_NE(seize_and_stop(sleeps.pid()), -1);
  EXPECT_EQ(static_cast<long>(registers(pauses.pid()).rax), -514);  // ERESTARTNOHAND
  EXPECT_EQ(registers(pauses.pid()).orig_rax, static_cast<unsigned long>(SYS_pause));
  EXPECT_EQ(static_cast<long>(registers(sleeps.pid()).rax), -516);  // ERESTART_RESTARTBLOCK
}

// freeze/: a task that was stopped and let go while it slept sleeps on, and the sleep takes as long as it
// should.
TEST(Tracing, SleepGoesOnAfterAStop) {
  Child child([] {
    timespec t = {0, 300000000}, before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    int result = nanosleep(&t, nullptr);
    clock_gettime(CLOCK_MONOTONIC, &after);
    Child::tell(result != 0
                    ? -2
                    : (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000);
  });
  await_state(child.pid(), 'S');
  ASSERT_NE(seize_and_stop(child.pid()), -1);
  ASSERT_EQ(ptrace(PTRACE_DETACH, child.pid(), nullptr, nullptr), 0);
  long took = child.told();
  EXPECT_GE(took, 299);
  EXPECT_LT(took, 900);
}

// remote/: with orig_rax at -1 the kernel does no fix-up of its own, so a changed instruction pointer is what
// runs.
TEST(Tracing, NegativeOrigRaxMeansNoRestart) {
  Child child([] { pause(); });
  await_state(child.pid(), 'S');
  ASSERT_NE(seize_and_stop(child.pid()), -1);
  user_regs_struct before = registers(child.pid()), changed = before;
  changed.orig_rax = static_cast<unsigned long long>(-1);
  changed.rax = SYS_getpid;
  changed.rip = before.rip - 2;  // the syscall instruction that it is in
  ASSERT_EQ(ptrace(PTRACE_SETREGS, child.pid(), nullptr, &changed), 0);
  ASSERT_EQ(ptrace(PTRACE_SINGLESTEP, child.pid(), nullptr, nullptr), 0);
  int status = 0;
  ASSERT_EQ(waitpid(child.pid(), &status, __WALL), child.pid());
  EXPECT_EQ(registers(child.pid()).rax, static_cast<unsigned long>(child.pid()));
  before.orig_rax = SYS_pause;
  ASSERT_EQ(ptrace(PTRACE_SETREGS, child.pid(), nullptr, &before), 0);
  ASSERT_EQ(ptrace(PTRACE_DETACH, child.pid(), nullptr, nullptr), 0);
  await_state(child.pid(), 'S');
  EXPECT_EQ(state_of(child.pid()), 'S');
}

// remote/: a tracer that dies leaves its tracees running, unless it asked for EXITKILL.
TEST(Tracing, DeathOfTheTracerLetsTheTraceeGo) {
  Child child(sleep_for_ever);
  await_state(child.pid(), 'S');
  pid_t tracer = fork();
  if (tracer == 0) _exit(seize_and_stop(child.pid()) != -1 ? 0 : 1);
  int status = -1;
  ASSERT_EQ(waitpid(tracer, &status, 0), tracer);
  ASSERT_EQ(status, 0);
  await_state(child.pid(), 'S');
  EXPECT_EQ(state_of(child.pid()), 'S');
}

TEST(Tracing, ExitKillKillsWithTheTracer) {
  Child child(sleep_for_ever);
  await_state(child.pid(), 'S');
  pid_t tracer = fork();
  if (tracer == 0) _exit(seize_and_stop(child.pid(), PTRACE_O_EXITKILL) != -1 ? 0 : 1);
  int status = -1;
  ASSERT_EQ(waitpid(tracer, &status, 0), tracer);
  await_state(child.pid(), 'Z');
  EXPECT_EQ(state_of(child.pid()), 'Z');
}

// freeze/: job control survives: a stopped task that is seized says by which signal it was stopped, and after
// the detach it is stopped still.
TEST(Tracing, StoppedTaskStaysStopped) {
  Child child(sleep_for_ever);
  kill(child.pid(), SIGSTOP);
  await_state(child.pid(), 'T');
  int status = seize_and_stop(child.pid());
  ASSERT_NE(status, -1);
  EXPECT_EQ(status >> 16, PTRACE_EVENT_STOP);
  EXPECT_EQ(WSTOPSIG(status), SIGSTOP);
  ASSERT_EQ(ptrace(PTRACE_DETACH, child.pid(), nullptr, nullptr), 0);
  usleep(20000);
  EXPECT_EQ(state_of(child.pid()), 'T');
}

// remote/ (the snapshot child), restore/: a task made with CLONE_PTRACE is traced by its maker's tracer from
// its first instruction, with the same options, though no PTRACE_O_TRACE* was set.
TEST(Tracing, ClonePtraceInheritsTheTracer) {
  Child child([] {
    Child::await();
    long below = syscall(SYS_clone, CLONE_PTRACE | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
    if (below == 0) sleep_for_ever();
    Child::tell(below);
    sleep_for_ever();
  });
  await_state(child.pid(), 'S');
  ASSERT_NE(seize_and_stop(child.pid(), PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD), -1);
  child.go();
  ASSERT_EQ(ptrace(PTRACE_CONT, child.pid(), nullptr, nullptr), 0);
  auto below = static_cast<pid_t>(child.told());
  ASSERT_GT(below, 0);
  int status = 0;
  ASSERT_EQ(waitpid(below, &status, __WALL), below);
  EXPECT_TRUE(WIFSTOPPED(status));
  EXPECT_EQ(status >> 16, PTRACE_EVENT_STOP);
  // The options are inherited: a system call stop carries the bit of TRACESYSGOOD.
  ASSERT_EQ(ptrace(PTRACE_SYSCALL, below, nullptr, nullptr), 0);
  ASSERT_EQ(waitpid(below, &status, __WALL), below);
  if (WSTOPSIG(status) !=
      (SIGTRAP | 0x80)) {  // the stop at the end of clone itself comes first on some kernels
    ASSERT_EQ(ptrace(PTRACE_SYSCALL, below, nullptr, nullptr), 0);
    ASSERT_EQ(waitpid(below, &status, __WALL), below);
  }
  EXPECT_EQ(WSTOPSIG(status), SIGTRAP | 0x80);
  kill(below, SIGKILL);
  waitpid(below, &status, __WALL);
}

// freeze/, session/: a traced task sees also the signals that it ignores stop it; untraced they are dropped
// at once and do not interrupt its call.
TEST(Tracing, IgnoredSignalsReachTheTracerOnly) {
  Child child([] {
    signal(SIGUSR1, SIG_IGN);
    Child::tell(1);
    sleep_for_ever();
  });
  ASSERT_EQ(child.told(), 1);
  await_state(child.pid(), 'S');
  kill(child.pid(), SIGUSR1);
  usleep(10000);
  EXPECT_EQ(state_of(child.pid()), 'S');
  ASSERT_NE(seize_and_stop(child.pid()), -1);
  ASSERT_EQ(ptrace(PTRACE_CONT, child.pid(), nullptr, nullptr), 0);
  kill(child.pid(), SIGUSR1);
  int status = 0;
  ASSERT_EQ(waitpid(child.pid(), &status, __WALL), child.pid());
  EXPECT_TRUE(WIFSTOPPED(status));
  EXPECT_EQ(WSTOPSIG(status), SIGUSR1);
}

// inspect/: pending signals can be looked at without being taken.
TEST(Tracing, PeekSigInfoLeavesTheQueue) {
  Child child([] {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    for (int i = 0; i < 3; ++i) {
      sigval value;
      value.sival_int = 10 + i;
      sigqueue(getpid(), SIGRTMIN, value);
    }
    Child::tell(1);
    Child::await();
    siginfo_t info;
    sigwaitinfo(&set, &info);
    Child::tell(info.si_value.sival_int);
  });
  ASSERT_EQ(child.told(), 1);
  await_state(child.pid(), 'S');
  ASSERT_NE(seize_and_stop(child.pid()), -1);
  siginfo_t seen[8];
  __ptrace_peeksiginfo_args arguments = {0, PTRACE_PEEKSIGINFO_SHARED, 8};
  ASSERT_EQ(ptrace(PTRACE_PEEKSIGINFO, child.pid(), &arguments, seen), 3);
  EXPECT_EQ(seen[2].si_value.sival_int, 12);
  ASSERT_EQ(ptrace(PTRACE_DETACH, child.pid(), nullptr, nullptr), 0);
  child.go();
  EXPECT_EQ(child.told(), 10);
}

// inspect/, restore/: the registration of restartable sequences can be read of a tracee (Linux 5.13).
TEST(Tracing, RseqConfigurationCanBeRead) {
  Child child(sleep_for_ever);
  await_state(child.pid(), 'S');
  ASSERT_NE(seize_and_stop(child.pid()), -1);
  __ptrace_rseq_configuration configuration = {};
  ASSERT_EQ(ptrace(static_cast<__ptrace_request>(PTRACE_GET_RSEQ_CONFIGURATION), child.pid(),
                   sizeof configuration, &configuration),
            static_cast<long>(sizeof configuration));
  EXPECT_NE(configuration.rseq_abi_pointer, 0u);
}

#include "inspect/thread.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <new>

#include "kernel/proc.h"
#include "kernel/vdso.h"
#include "remote/tracee.h"

namespace stasis::inspect {
namespace {

struct Shared {
  std::atomic<long> rounds = 0, signals = 0, wrong = 0;
};

Shared* shared =
    new (::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Shared;

void ask_for_ever() {
  struct sigaction action = {};
  action.sa_handler = [](int) { ++shared->signals; };
  ::sigaction(SIGUSR1, &action, nullptr);
  timespec last = {};
  for (;;) {
    timespec now = {};
    const bool failed = ::clock_gettime(CLOCK_MONOTONIC, &now) != 0;
    if (failed || now.tv_sec < last.tv_sec || (now.tv_sec == last.tv_sec && now.tv_nsec < last.tv_nsec))
      ++shared->wrong;
    last = now;
    ++shared->rounds;
  }
}

bool inside(const remote::Registers& registers) {
  const auto code = kernel::own_vdso();
  return registers.rip - reinterpret_cast<uint64_t>(code.data()) < code.size();
}

// A program that does nothing but ask what time it is, in a loop.
TEST(Thread, IsTakenOutOfTheVdso) {
  const pid_t pid = ::fork();
  if (pid == 0) ask_for_ever();
  while (shared->rounds == 0) ::usleep(100);
  const HostTid tid{pid};
  remote::Tracee task(tid);
  ASSERT_TRUE(task.seize().ok());
  int taken_out = 0;
  for (int round = 0; round < 3000 && taken_out < 100; ++round) {
    ASSERT_TRUE(task.interrupt().ok());
    ASSERT_TRUE(task.wait().ok());
    auto registers = task.registers();
    ASSERT_TRUE(registers.ok());
    auto status = kernel::read_status(tid);
    ASSERT_TRUE(status.ok());
    const bool was_inside = inside(*registers);
    // It comes while the task is moved.
    if (round % 2 == 0) ::kill(pid, SIGUSR1);
    ASSERT_TRUE(leave_vdso(tid, *status, *status, 0, *registers).ok());
    if (was_inside) {
      EXPECT_FALSE(inside(*registers)) << round;
      ++taken_out;
    }
    auto now = task.registers();
    ASSERT_TRUE(now.ok());
    EXPECT_EQ(now->rip, registers->rip);
    const long rounds = shared->rounds;
    task.detach();
    while (shared->rounds < rounds + 2) ::usleep(100);
    ASSERT_TRUE(task.seize().ok());
  }
  EXPECT_GT(taken_out, 0);
  EXPECT_GT(shared->signals, 0);
  EXPECT_EQ(shared->wrong, 0);
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, __WALL);
}

}  // namespace
}  // namespace stasis::inspect

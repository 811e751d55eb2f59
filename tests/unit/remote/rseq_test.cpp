#include "remote/rseq.h"

#include <gtest/gtest.h>
#include <sys/ptrace.h>
#include <sys/rseq.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "remote/tracee.h"

namespace stasis::remote {
namespace {

// A child that stands still, traced.
class Stopped {
 public:
  Stopped() : pid_(::fork()) {
    if (pid_ == 0) {
      for (;;) ::pause();
    }
    EXPECT_TRUE(Tracee(tid()).seize().ok());
    EXPECT_TRUE(Tracee(tid()).interrupt().ok());
    EXPECT_TRUE(Tracee(tid()).wait().ok());
  }
  Stopped(const Stopped&) = delete;
  Stopped& operator=(const Stopped&) = delete;
  ~Stopped() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, __WALL);
  }
  HostTid tid() const { return HostTid{pid_}; }

 private:
  pid_t pid_;
};

TEST(Rseq, AnAreaIsFoundByItsContentsWhereTheKernelTellsIt) {
  if (__rseq_size == 0) GTEST_SKIP() << "the C library has registered none";
  Stopped child;
  const auto told = registered_rseq(child.tid());
  if (!told) GTEST_SKIP() << "the kernel does not tell";
  auto registers = Tracee(child.tid()).registers();
  ASSERT_TRUE(registers.ok());
  const auto ours = rseq_of_our_library(registers->fs_base);
  EXPECT_EQ(told->address, ours.address);
  EXPECT_EQ(told->size, ours.size);
  EXPECT_EQ(told->signature, ours.signature);
  const auto possible = possible_rseq_areas(child.tid(), registers->fs_base);
  ASSERT_FALSE(possible.empty());
  EXPECT_EQ(possible.front(), told->address);
}

}  // namespace
}  // namespace stasis::remote

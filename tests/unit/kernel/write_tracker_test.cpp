#include "kernel/write_tracker.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/pagemap.h"

namespace stasis::kernel {
namespace {

constexpr uint64_t P = kPageSize;

class WriteTracking : public testing::Test {
 protected:
  void SetUp() override {
    Fd fd(static_cast<int>(::syscall(SYS_userfaultfd, WriteTracker::kFlags)));
    if (!fd) GTEST_SKIP() << "no userfaultfd here";
    auto begun = WriteTracker::begin(std::move(fd));
    if (!begun.ok()) GTEST_SKIP() << "no asynchronous write-protection here";
    tracker_ = std::move(begun).value();
    auto opened = PageMap::open(HostTid{::getpid()});
    ASSERT_TRUE(opened.ok());
    pagemap_.emplace(std::move(opened).value());
  }

  // Small pages, of which the first `filled` have been written to.
  char* map(uint64_t pages, uint64_t filled) {
    void* memory = ::mmap(nullptr, pages * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ::madvise(memory, pages * P, MADV_NOHUGEPAGE);
    auto* begin = static_cast<char*>(memory);
    for (uint64_t i = 0; i < filled; ++i) begin[i * P] = 1;
    return begin;
  }
  static uint64_t at(const char* memory, uint64_t page = 0) {
    return reinterpret_cast<uint64_t>(memory) + page * P;
  }
  void protect(const char* memory, uint64_t pages, std::vector<PageRange>* written = nullptr) {
    ASSERT_TRUE(pagemap_->protect_pages(at(memory), at(memory, pages), written).ok());
  }
  std::vector<PageRange> unwritten(const char* memory, uint64_t pages,
                                   std::vector<PageRange>* all = nullptr) {
    return pagemap_->unwritten_pages(at(memory), at(memory, pages), all).value();
  }

  WriteTracker tracker_;
  std::optional<PageMap> pagemap_;
};

TEST_F(WriteTracking, FindsWhatWasWritten) {
  char* memory = map(16, 16);
  ASSERT_TRUE(tracker_.watch(at(memory), at(memory, 16)));
  EXPECT_TRUE(unwritten(memory, 16).empty());
  protect(memory, 16);
  EXPECT_EQ(unwritten(memory, 16), (std::vector<PageRange>{{at(memory), at(memory, 16)}}));
  memory[3 * P] = 2;
  std::vector<PageRange> all;
  EXPECT_EQ(unwritten(memory, 16, &all),
            (std::vector<PageRange>{{at(memory), at(memory, 3)}, {at(memory, 4), at(memory, 16)}}));
  EXPECT_EQ(all, (std::vector<PageRange>{{at(memory), at(memory, 16)}}));
  std::vector<PageRange> written;
  protect(memory, 16, &written);
  EXPECT_EQ(written, (std::vector<PageRange>{{at(memory, 3), at(memory, 4)}}));
  EXPECT_EQ(unwritten(memory, 16).size(), 1U);
}

TEST_F(WriteTracking, WhatNobodyWatchesIsNotUnwritten) {
  char* memory = map(4, 4);
  protect(memory, 4);
  EXPECT_TRUE(unwritten(memory, 4).empty());
}

// Otherwise a program that reserves much would be full of them.
TEST_F(WriteTracking, MakesNothingOfPagesThatAreNotThere) {
  char* memory = map(4096, 2);
  ASSERT_TRUE(tracker_.watch(at(memory), at(memory, 4096)));
  protect(memory, 4096);
  EXPECT_EQ(pagemap_->own_pages(at(memory), at(memory, 4096)).value(),
            (std::vector<PageRange>{{at(memory), at(memory, 2)}}));
  memory[9 * P] = 1;
  EXPECT_EQ(unwritten(memory, 4096), (std::vector<PageRange>{{at(memory), at(memory, 2)}}));
}

TEST_F(WriteTracking, WhatIsGivenBackIsNotUnwritten) {
  char* memory = map(4, 4);
  ASSERT_TRUE(tracker_.watch(at(memory), at(memory, 4)));
  protect(memory, 4);
  ::madvise(memory, 2 * P, MADV_DONTNEED);
  EXPECT_EQ(unwritten(memory, 4), (std::vector<PageRange>{{at(memory, 2), at(memory, 4)}}));
  memory[0] = 3;
  EXPECT_EQ(unwritten(memory, 4), (std::vector<PageRange>{{at(memory, 2), at(memory, 4)}}));
}

TEST_F(WriteTracking, EndsWithMremapAndMunmap) {
  char* memory = map(4, 4);
  ASSERT_TRUE(tracker_.watch(at(memory), at(memory, 4)));
  protect(memory, 4);
  char* other = map(8, 0);
  ASSERT_EQ(::mremap(memory, 4 * P, 4 * P, MREMAP_MAYMOVE | MREMAP_FIXED, other), other);
  EXPECT_TRUE(unwritten(other, 4).empty());
  void* again = ::mmap(memory, 4 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  ASSERT_EQ(again, memory);
  memory[0] = 1;
  EXPECT_TRUE(unwritten(memory, 4).empty());
}

TEST_F(WriteTracking, IsNotInherited) {
  char* memory = map(4, 4);
  ASSERT_TRUE(tracker_.watch(at(memory), at(memory, 4)));
  protect(memory, 4);
  const pid_t child = ::fork();
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  auto pagemap = PageMap::open(HostTid{child});
  ASSERT_TRUE(pagemap.ok());
  EXPECT_TRUE(pagemap->unwritten_pages(at(memory), at(memory, 4)).value().empty());
  // And the fork leaves the marks of its father as they are.
  EXPECT_EQ(unwritten(memory, 4).size(), 1U);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

TEST_F(WriteTracking, OnlyOneCanWatch) {
  char* memory = map(4, 4);
  Fd fd(static_cast<int>(::syscall(SYS_userfaultfd, WriteTracker::kFlags)));
  auto other = WriteTracker::begin(std::move(fd));
  ASSERT_TRUE(other.ok());
  ASSERT_TRUE(other->watch(at(memory), at(memory, 4)));
  EXPECT_FALSE(tracker_.watch(at(memory), at(memory, 4)));
}

TEST_F(WriteTracking, DiesWithItsAddressSpace) {
  char* memory = map(1, 1);
  EXPECT_FALSE(tracker_.is_dead(at(memory)));
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const long made = ::syscall(SYS_userfaultfd, WriteTracker::kFlags);
    const bool told = ::write(ends[1], &made, sizeof made) == sizeof made;
    ::pause();
    ::_exit(told ? 0 : 1);
  }
  long number = -1;
  ASSERT_EQ(::read(ends[0], &number, sizeof number), static_cast<ssize_t>(sizeof number));
  Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  Fd copy(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), number, 0)));
  ASSERT_TRUE(copy);
  auto tracker = WriteTracker::begin(std::move(copy));
  ASSERT_TRUE(tracker.ok());
  EXPECT_FALSE(tracker->is_dead(at(memory)));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(tracker->is_dead(at(memory)));
}

}  // namespace
}  // namespace stasis::kernel

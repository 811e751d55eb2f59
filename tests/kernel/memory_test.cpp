// What we believe of Linux, about memory.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "child.h"

using beliefs::Child;

namespace {
constexpr size_t kPage = 4096;
uint8_t* anonymous(size_t size) {
  void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return p == MAP_FAILED ? nullptr : static_cast<uint8_t*>(p);
}
}  // namespace

// restore/: MADV_POPULATE_WRITE makes private copies of a file's pages at once (5.14), so that nothing is
// left to come from the file.
TEST(Memory, PopulateWriteDetachesFromTheFile) {
  int fd = memfd_create("belief", 0);
  ASSERT_EQ(ftruncate(fd, 4 * kPage), 0);
  ASSERT_EQ(pwrite(fd, "old", 3, 0), 3);
  auto* memory = static_cast<uint8_t*>(mmap(nullptr, 4 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
  ASSERT_NE(memory, MAP_FAILED);
  ASSERT_EQ(madvise(memory, 4 * kPage, MADV_POPULATE_WRITE), 0);
  ASSERT_EQ(pwrite(fd, "new", 3, 0), 3);
  EXPECT_EQ(memcmp(memory, "old", 3), 0);
  munmap(memory, 4 * kPage);
  close(fd);
}

// restore/ (the trap of a mapped restart): discarding a private page of a file brings the file's content
// back, not zeros; MADV_FREE is refused.
TEST(Memory, DiscardOnAPrivateFileMappingBringsTheFileBack) {
  int fd = memfd_create("belief", 0);
  ASSERT_EQ(ftruncate(fd, kPage), 0);
  ASSERT_EQ(pwrite(fd, "old", 3, 0), 3);
  auto* memory = static_cast<uint8_t*>(mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
  memcpy(memory, "new", 3);
  ASSERT_EQ(madvise(memory, kPage, MADV_DONTNEED), 0);
  EXPECT_EQ(memcmp(memory, "old", 3), 0);
  EXPECT_EQ(madvise(memory, kPage, MADV_FREE), -1);
  EXPECT_EQ(errno, EINVAL);
  munmap(memory, kPage);
  close(fd);
}

// restore/: pages moved with mremap over a file mapping leave anonymous memory behind with its own semantics.
TEST(Memory, MovedAnonymousPagesStayAnonymous) {
  uint8_t* from = anonymous(4 * kPage);
  uint8_t* to = anonymous(4 * kPage);
  memset(from, 7, 4 * kPage);
  ASSERT_EQ(mremap(from, 4 * kPage, 4 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, to), to);
  EXPECT_EQ(to[0], 7);
  ASSERT_EQ(madvise(to, 4 * kPage, MADV_DONTNEED), 0);
  EXPECT_EQ(to[0], 0);
  munmap(to, 4 * kPage);
}

// inspect/: PAGEMAP_SCAN (6.7) or the older pagemap tells pages that were touched from those that were not.
TEST(Memory, PagemapTellsTouchedPages) {
  uint8_t* memory = anonymous(8 * kPage);
  madvise(memory, 8 * kPage, MADV_NOHUGEPAGE);
  memory[2 * kPage] = 1;
  memory[5 * kPage] = 1;
  int fd = open("/proc/self/pagemap", O_RDONLY);
  ASSERT_GE(fd, 0);
  uint64_t entries[8] = {};
  ASSERT_EQ(pread(fd, entries, sizeof entries, reinterpret_cast<uintptr_t>(memory) / kPage * 8),
            static_cast<ssize_t>(sizeof entries));
  for (int i = 0; i < 8; ++i) EXPECT_EQ(entries[i] >> 62 != 0, i == 2 || i == 5) << "page " << i;
  close(fd);
  munmap(memory, 8 * kPage);
}

// checkpoint/: what a fork does not copy.
TEST(Memory, ForkLeavesOutDontForkAndWipes) {
  uint8_t* left_out = anonymous(kPage);
  uint8_t* wiped = anonymous(kPage);
  left_out[0] = wiped[0] = 5;
  ASSERT_EQ(madvise(left_out, kPage, MADV_DONTFORK) | madvise(wiped, kPage, MADV_WIPEONFORK), 0);
  Child child([=] {
    Child::tell(msync(left_out, kPage, MS_ASYNC) == -1 && errno == ENOMEM && wiped[0] == 0 ? 1 : 0);
  });
  EXPECT_EQ(child.told(), 1);
  munmap(left_out, kPage);
  munmap(wiped, kPage);
}

// remote/: /proc/PID/mem writes also where the program itself may not: that is how a stub gets into the vDSO.
TEST(Memory, ProcMemWritesReadOnlyPages) {
  uint8_t* memory = anonymous(kPage);
  mprotect(memory, kPage, PROT_READ | PROT_EXEC);
  int fd = open("/proc/self/mem", O_RDWR);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(pwrite(fd, "stub", 4, reinterpret_cast<off_t>(memory)), 4);
  EXPECT_EQ(memcmp(memory, "stub", 4), 0);
  close(fd);
  munmap(memory, kPage);
}

// restore/: an area that is already there is never mapped over by mistake.
TEST(Memory, MapFixedNoReplaceRefuses) {
  uint8_t* memory = anonymous(kPage);
  EXPECT_EQ(mmap(memory, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0),
            MAP_FAILED);
  EXPECT_EQ(errno, EEXIST);
  munmap(memory, kPage);
}

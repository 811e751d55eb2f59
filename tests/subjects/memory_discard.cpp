// Memory that the program gives back with madvise reads as zeros, also when a restart has mapped it from the
// image: jemalloc, Go and JVMs rely on it, and old data coming back would be corruption.
#include <sys/time.h>
#include <sys/uio.h>

#include "subject.h"

using subject::differs;
using subject::fill;
using subject::nonzero;

namespace {
constexpr size_t kMiB = 1 << 20;
constexpr size_t kSize = 4 * kMiB;
}  // namespace

CASE(at_once) {
  uint8_t* memory = subject::map(kSize);
  fill(memory, kSize, 1);
  subject::hold();
  CHECK_EQ(madvise(memory, kSize / 2, MADV_DONTNEED), 0);
  CHECK_EQ(nonzero(memory, kSize / 2), -1);
  uint8_t* reference = subject::map(kSize);
  fill(reference, kSize, 1);
  CHECK_EQ(memcmp(memory + kSize / 2, reference + kSize / 2, kSize / 2), 0);
}

CASE(after_reading) {
  uint8_t* memory = subject::map(kSize);
  fill(memory, kSize, 2);
  subject::hold();
  CHECK_EQ(differs(memory, kSize, 2), -1);
  CHECK_EQ(madvise(memory, kSize, MADV_DONTNEED), 0);
  CHECK_EQ(nonzero(memory, kSize), -1);
}

CASE(after_writing) {
  uint8_t* memory = subject::map(kSize);
  fill(memory, kSize, 3);
  subject::hold();
  fill(memory, kSize, 4);
  CHECK_EQ(madvise(memory, kSize, MADV_DONTNEED), 0);
  CHECK_EQ(nonzero(memory, kSize), -1);
  fill(memory, kSize, 5);
  CHECK_EQ(differs(memory, kSize, 5), -1);
  CHECK_EQ(madvise(memory, kSize, MADV_DONTNEED), 0);
  CHECK_EQ(nonzero(memory, kSize), -1);
}

CASE(single_pages) {
  uint8_t* memory = subject::map(kSize);
  memset(memory, 0x77, kSize);
  subject::hold();
  for (size_t i = 0; i < kSize; i += 8192) CHECK_EQ(madvise(memory + i, 4096, MADV_DONTNEED), 0);
  for (size_t i = 0; i < kSize; i += 4096) CHECK_EQ(memory[i], i % 8192 == 0 ? 0 : 0x77);
}

CASE(in_a_child) {
  uint8_t* memory = subject::map(kSize);
  fill(memory, kSize, 6);
  subject::hold();
  JOIN(subject::child([&] {
    CHECK_EQ(madvise(memory, kSize, MADV_DONTNEED), 0);
    CHECK_EQ(nonzero(memory, kSize), -1);
  }));
  CHECK_EQ(differs(memory, kSize, 6), -1);
  JOIN(subject::child([&] {
    fill(memory, kSize, 7);
    CHECK_EQ(madvise(memory, kSize, MADV_DONTNEED), 0);
    CHECK_EQ(nonzero(memory, kSize), -1);
    JOIN(subject::child([&] { CHECK_EQ(nonzero(memory, kSize), -1); }));
  }));
}

CASE(in_a_child_of_before) {
  uint8_t* memory = subject::map(kSize);
  fill(memory, kSize, 8);
  pid_t pid = subject::child([&] {
    subject::mark("born");
    subject::await("go");
    CHECK_EQ(differs(memory, kSize, 8), -1);
    CHECK_EQ(madvise(memory, kSize, MADV_DONTNEED), 0);
    CHECK_EQ(nonzero(memory, kSize), -1);
  });
  subject::await("born");
  subject::hold();
  JOIN(pid);
  CHECK_EQ(differs(memory, kSize, 8), -1);
}

CASE(after_mremap) {
  uint8_t* memory = subject::map(kSize);
  fill(memory, kSize, 9);
  subject::hold();
  auto* moved = static_cast<uint8_t*>(mremap(memory, kSize, 2 * kSize, MREMAP_MAYMOVE));
  CHECK(moved != MAP_FAILED);
  CHECK_EQ(differs(moved, kSize, 9), -1);
  CHECK_EQ(nonzero(moved + kSize, kSize), -1);
  CHECK_EQ(madvise(moved, 2 * kSize, MADV_DONTNEED), 0);
  CHECK_EQ(nonzero(moved, 2 * kSize), -1);
}

// Moving the pages and not the area leaves an area whose pages must read as zeros.
CASE(left_behind_by_mremap) {
  uint8_t* memory = subject::map(kSize);
  fill(memory, kSize, 10);
  subject::hold();
  void* moved = mremap(memory, kSize, kSize, MREMAP_MAYMOVE | 4 /* MREMAP_DONTUNMAP */, nullptr);
  CHECK(moved != MAP_FAILED);
  if (moved == MAP_FAILED) return;
  CHECK_EQ(differs(moved, kSize, 10), -1);
  CHECK_EQ(nonzero(memory, kSize), -1);
}

CASE(long_after) {
  uint8_t* memory = subject::map(kSize);
  fill(memory, kSize, 11);
  subject::hold();
  subject::pass(1500);
  CHECK_EQ(differs(memory, kSize, 11), -1);
  CHECK_EQ(madvise(memory, kSize, MADV_DONTNEED), 0);
  CHECK_EQ(nonzero(memory, kSize), -1);
}

// MADV_FREE gives the pages back only under pressure: each page is then either what was written last or zero,
// never what it was before that.
CASE(freed_lazily) {
  uint8_t* memory = subject::map(kSize);
  memset(memory, 0x11, kSize);
  subject::hold();
  memset(memory, 0x22, kSize);
  CHECK_EQ(madvise(memory, kSize, MADV_FREE), 0);
  for (size_t i = 0; i < kSize; i += 512) {
    if (memory[i] != 0x22) CHECK_EQ(memory[i], 0);
  }
  CHECK_EQ(madvise(memory, kSize, MADV_DONTNEED), 0);
  CHECK_EQ(nonzero(memory, kSize), -1);
}

CASE(freed_lazily_at_once) {
  uint8_t* memory = subject::map(kSize);
  memset(memory, 0x33, kSize);
  subject::hold();
  // Valid for anonymous memory only: an area mapped from a file would say EINVAL.
  CHECK_EQ(madvise(memory, kSize, MADV_FREE), 0);
  for (size_t i = 0; i < kSize; i += 512) {
    if (memory[i] != 0x33) CHECK_EQ(memory[i], 0);
  }
}

CASE(freed_before_the_checkpoint) {
  uint8_t* memory = subject::map(kSize);
  memset(memory, 0x44, kSize);
  MUST(madvise(memory, kSize, MADV_FREE) == 0);
  uint8_t* discarded = subject::map(kSize);
  memset(discarded, 0x55, kSize);
  MUST(madvise(discarded, kSize, MADV_DONTNEED) == 0);
  subject::hold();
  for (size_t i = 0; i < kSize; i += 512) {
    if (memory[i] != 0x44) CHECK_EQ(memory[i], 0);
  }
  CHECK_EQ(nonzero(discarded, kSize), -1);
}

CASE(shared_punched) {
  auto* shared = subject::map(kSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  memset(shared, 0x66, kSize);
  subject::hold();
  CHECK_EQ(madvise(shared, kSize / 2, MADV_REMOVE), 0);
  CHECK_EQ(nonzero(shared, kSize / 2), -1);
  CHECK_EQ(shared[kSize / 2], 0x66);
  // DONTNEED on shared memory drops the mapping's pages, not the content.
  CHECK_EQ(madvise(shared, kSize, MADV_DONTNEED), 0);
  CHECK_EQ(shared[kSize / 2], 0x66);
}

CASE(heap_given_back) {
  auto* heap = static_cast<uint8_t*>(sbrk(kSize));
  MUST(heap != reinterpret_cast<uint8_t*>(-1));
  memset(heap, 0x77, kSize);
  subject::hold();
  CHECK(sbrk(-static_cast<intptr_t>(kSize)) != reinterpret_cast<void*>(-1));
  CHECK_EQ(sbrk(kSize), heap);
  CHECK_EQ(nonzero(heap, kSize), -1);
}

CASE(mapped_over) {
  uint8_t* memory = subject::map(kSize);
  memset(memory, 0x78, kSize);
  subject::hold();
  void* again =
      mmap(memory + kMiB, kMiB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  CHECK_EQ(again, memory + kMiB);
  CHECK_EQ(nonzero(memory + kMiB, kMiB), -1);
  CHECK_EQ(memory[0], 0x78);
  CHECK_EQ(memory[2 * kMiB], 0x78);
}

// Many threads discard and write: the allocator's daily life.
CASE(by_many_threads) {
  constexpr int kThreads = 4;
  uint8_t* memory = subject::map(kThreads * kMiB);
  memset(memory, 0x79, kThreads * kMiB);
  subject::hold();
  pthread_t threads[kThreads];
  for (int t = 0; t < kThreads; ++t) {
    threads[t] = subject::thread([=] {
      uint8_t* mine = memory + t * kMiB;
      for (int round = 0; round < 20; ++round) {
        for (size_t i = 0; i < kMiB; i += 65536) {
          CHECK_EQ(madvise(mine + i, 32768, MADV_DONTNEED), 0);
          CHECK_EQ(nonzero(mine + i, 32768), -1);
          memset(mine + i, round + 1, 32768);
          CHECK_EQ(mine[i + 32768], 0x79);
        }
      }
    });
  }
  for (auto t : threads) pthread_join(t, nullptr);
}

// So many single pages that a mapping of its own for each would be too many for the kernel.
CASE(very_many_single_pages) {
  constexpr size_t kLarge = 640 * kMiB;
  uint8_t* memory = subject::map(kLarge);
  for (size_t i = 0; i < kLarge; i += 4096) memory[i] = 0x7a;
  subject::hold();
  for (size_t i = 0; i < kLarge; i += 8192) CHECK_EQ(madvise(memory + i, 4096, MADV_DONTNEED), 0);
  for (size_t i = 0; i < kLarge; i += 4096) CHECK_EQ(memory[i], i % 8192 == 0 ? 0 : 0x7a);
}

// Advice that memory of a file does not take.
CASE(wiped_on_fork_later) {
  uint8_t* memory = subject::map(kSize);
  fill(memory, kSize, 12);
  subject::hold();
  CHECK_EQ(madvise(memory, kSize / 2, MADV_WIPEONFORK), 0);
  CHECK_EQ(differs(memory, kSize, 12), -1);
  JOIN(subject::child([&] { CHECK_EQ(nonzero(memory, kSize / 2), -1); }));
}

CASE(by_process_madvise) {
  uint8_t* memory = subject::map(kSize);
  fill(memory, kSize, 13);
  subject::hold();
  int self = static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0));
  MUST(self >= 0);
  iovec parts[2] = {{memory, kMiB}, {memory + 2 * kMiB, kMiB}};
  long given_back = syscall(SYS_process_madvise, self, parts, 2, MADV_DONTNEED, 0);
  close(self);
  if (given_back < 0) {  // before Linux 6.13 it is not for that
    CHECK_EQ(errno, EINVAL);
    CHECK_EQ(differs(memory, kSize, 13), -1);
    return;
  }
  CHECK_EQ(given_back, 2 * kMiB);
  CHECK_EQ(nonzero(memory, kMiB), -1);
  CHECK_EQ(nonzero(memory + 2 * kMiB, kMiB), -1);
  CHECK(memory[kMiB] != 0 || memory[kMiB + 1] != 0);
}

namespace {
volatile sig_atomic_t alarms = 0;
}

// Signals come while the memory is given back. (A handler without SA_RESTART may make the call fail with
// EINTR after a restart: docs/decisions/0002-mapped-restart.md.)
CASE(interrupted_by_signals) {
  uint8_t* memory = subject::map(16 * kSize);
  memset(memory, 0x7b, 16 * kSize);
  struct sigaction action = {};
  action.sa_handler = [](int) { alarms = alarms + 1; };
  action.sa_flags = SA_RESTART;
  MUST(sigaction(SIGALRM, &action, nullptr) == 0);
  subject::hold();
  itimerval often = {{0, 700}, {0, 700}};
  MUST(setitimer(ITIMER_REAL, &often, nullptr) == 0);
  for (size_t i = 0; i < 16 * kSize; i += 32768) CHECK_EQ(madvise(memory + i, 16384, MADV_DONTNEED), 0);
  itimerval never = {};
  MUST(setitimer(ITIMER_REAL, &never, nullptr) == 0);
  CHECK(alarms > 0);
  for (size_t i = 0; i < 16 * kSize; i += 16384) CHECK_EQ(memory[i], i % 32768 == 0 ? 0 : 0x7b);
}

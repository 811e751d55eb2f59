// Anonymous memory: content, protection, the shape of the address space, growing areas.
#include <setjmp.h>

#include "subject.h"

using subject::fill;
using subject::map;

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kMiB = 1 << 20;

// Whether anything is mapped there; msync does not touch the page.
bool mapped_at(const void* address) { return msync(const_cast<void*>(address), kPage, MS_ASYNC) == 0; }

sigjmp_buf* g_jump;

// True when reading (or writing) the address faults.
bool faults(volatile uint8_t* address, bool writing) {
  sigjmp_buf jump;
  g_jump = &jump;
  struct sigaction catching = {}, before;
  catching.sa_handler = [](int) { siglongjmp(*g_jump, 1); };
  sigaction(SIGSEGV, &catching, &before);
  volatile bool faulted = true;
  if (sigsetjmp(jump, 1) == 0) {
    if (writing) {
      *address = 1;
    } else {
      [[maybe_unused]] uint8_t value = *address;
    }
    faulted = false;
  }
  sigaction(SIGSEGV, &before, nullptr);
  return faulted;
}

}  // namespace

CASE(private_content) {
  uint8_t* memory = map(8 * kMiB);
  fill(memory, 8 * kMiB, 1);
  subject::hold();
  CHECK_EQ(subject::differs(memory, 8 * kMiB, 1), -1);
  fill(memory, 8 * kMiB, 2);
  CHECK_EQ(subject::differs(memory, 8 * kMiB, 2), -1);
}

CASE(checksum_64_mib) {
  uint8_t* memory = map(64 * kMiB);
  fill(memory, 64 * kMiB, 3);
  subject::hold();
  CHECK_EQ(subject::differs(memory, 64 * kMiB, 3), -1);
}

CASE(untouched_reads_zero) {
  uint8_t* memory = map(16 * kMiB);
  for (size_t i = 0; i < 16 * kMiB; i += 64 * kPage) memory[i + 7] = 0x5a;
  subject::hold();
  for (size_t i = 0; i < 16 * kMiB; ++i) {
    if (memory[i] == (i % (64 * kPage) == 7 ? 0x5a : 0)) continue;
    CHECK_EQ(i, ~0ul);
    break;
  }
}

CASE(zero_pages_written) {
  uint8_t* memory = map(kMiB);
  fill(memory, kMiB, 4);
  memset(memory + 16 * kPage, 0, 16 * kPage);
  subject::hold();
  CHECK_EQ(subject::differs(memory, 16 * kPage, 4), -1);
  CHECK_EQ(subject::nonzero(memory + 16 * kPage, 16 * kPage), -1);
}

CASE(fork_copy_on_write) {
  uint8_t* memory = map(4 * kMiB);
  fill(memory, 4 * kMiB, 5);
  pid_t pid = subject::child([&] {
    fill(memory + kMiB, kMiB, 6);
    subject::mark("written");
    subject::await("go");
    CHECK_EQ(subject::differs(memory, kMiB, 5), -1);
    CHECK_EQ(subject::differs(memory + kMiB, kMiB, 6), -1);
    fill(memory, kMiB, 7);
  });
  subject::await("written");
  subject::hold();
  JOIN(pid);
  CHECK_EQ(subject::differs(memory, 4 * kMiB, 5), -1);
}

CASE(shared_across_fork) {
  auto* shared = map(kMiB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  fill(shared + kPage, kMiB - kPage, 8);
  auto* cell = reinterpret_cast<volatile uint64_t*>(shared);
  pid_t pid = subject::child([&] {
    subject::mark("born");
    subject::await("go");
    CHECK_EQ(subject::differs(shared + kPage, kMiB - kPage, 8), -1);
    *cell = 4711;
    subject::mark("stored");
    subject::await("answered");
    CHECK_EQ(*cell, 4712u);
  });
  subject::await("born");
  subject::hold();
  subject::await("stored");
  CHECK_EQ(*cell, 4711u);
  *cell = 4712;
  subject::mark("answered");
  JOIN(pid);
}

// The same shared object seen at two places of one process, with a different offset and protection.
CASE(shared_aliased) {
  auto* first = map(16 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  fill(first, 16 * kPage, 9);
  auto* second = static_cast<uint8_t*>(mremap(first + 4 * kPage, 0, 4 * kPage, MREMAP_MAYMOVE));
  MUST(second != MAP_FAILED);
  subject::hold();
  CHECK_EQ(subject::differs(first, 16 * kPage, 9), -1);
  first[4 * kPage] = 0x11;
  CHECK_EQ(second[0], 0x11);
  second[1] = 0x22;
  CHECK_EQ(first[4 * kPage + 1], 0x22);
}

CASE(guards_and_protections) {
  uint8_t* memory = map(8 * kPage);
  fill(memory, 8 * kPage, 10);
  MUST(mprotect(memory + kPage, kPage, PROT_NONE) == 0);
  MUST(mprotect(memory + 3 * kPage, kPage, PROT_READ) == 0);
  MUST(mprotect(memory + 5 * kPage, kPage, PROT_READ | PROT_EXEC) == 0);
  subject::hold();
  CHECK(faults(memory + kPage, false));
  CHECK(faults(memory + 3 * kPage, true));
  CHECK(!faults(memory + 3 * kPage, false));
  CHECK(faults(memory + 5 * kPage, true));
  CHECK(!faults(memory + 2 * kPage, false));
  CHECK(mprotect(memory, 8 * kPage, PROT_READ | PROT_WRITE) == 0);
  // The content behind PROT_NONE is still there.
  CHECK_EQ(subject::differs(memory, 8 * kPage, 10), -1);
}

CASE(code_generated_at_run_time) {
  auto* code = map(kPage, PROT_READ | PROT_WRITE | PROT_EXEC);
  const uint8_t returns_42[] = {0xb8, 42, 0, 0, 0, 0xc3};
  memcpy(code, returns_42, sizeof returns_42);
  MUST(mprotect(code, kPage, PROT_READ | PROT_EXEC) == 0);
  subject::hold();
  CHECK_EQ(reinterpret_cast<int (*)()>(code)(), 42);
}

CASE(holes_stay_holes) {
  uint8_t* memory = map(64 * kPage);
  fill(memory, 64 * kPage, 11);
  for (int i = 1; i < 64; i += 2) MUST(munmap(memory + i * kPage, kPage) == 0);
  subject::hold();
  for (int i = 1; i < 64; i += 2) CHECK_EQ(mapped_at(memory + i * kPage), 0);
  for (int i = 0; i < 64; i += 2) CHECK_EQ(mapped_at(memory + i * kPage), 1);
}

CASE(sparse_reservation) {
  constexpr size_t kSize = 64ul << 30;
  auto* base = map(kSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
  for (int i = 0; i < 16; ++i) {
    uint8_t* island = base + i * (4ul << 30) + 12345 * kPage;
    MUST(mprotect(island, 4 * kPage, PROT_READ | PROT_WRITE) == 0);
    fill(island, 4 * kPage, 100 + i);
  }
  subject::hold();
  for (int i = 0; i < 16; ++i) {
    uint8_t* island = base + i * (4ul << 30) + 12345 * kPage;
    CHECK_EQ(subject::differs(island, 4 * kPage, 100 + i), -1);
    CHECK(faults(island - 1, false));
    CHECK(faults(island + 4 * kPage, false));
  }
}

CASE(heap_goes_on) {
  void* before = sbrk(kMiB);
  MUST(before != reinterpret_cast<void*>(-1));
  fill(before, kMiB, 12);
  void* end = sbrk(0);
  subject::hold();
  CHECK_EQ(subject::differs(before, kMiB, 12), -1);
  CHECK_EQ(sbrk(0), end);
  CHECK_EQ(sbrk(kMiB), end);
  memset(end, 1, kMiB);
  CHECK(sbrk(-2 * static_cast<intptr_t>(kMiB)) != reinterpret_cast<void*>(-1));
  CHECK_EQ(sbrk(0), before);
  void* blocks[100];
  for (auto& block : blocks) CHECK((block = malloc(10000)) != nullptr);
  for (auto* block : blocks) free(block);
}

static int deep(int levels) {
  volatile uint8_t frame[8192];
  memset(const_cast<uint8_t*>(frame), levels & 0xff, sizeof frame);
  if (levels == 0) return 0;
  int below = deep(levels - 1);
  for (size_t i = 0; i < sizeof frame; i += 512) {
    if (frame[i] != (levels & 0xff)) return -1;
  }
  return below < 0 ? below : below + 1;
}

CASE(stack_grows) {
  CHECK_EQ(deep(20), 20);
  subject::hold();
  CHECK_EQ(deep(600), 600);  // nearly 5 MiB: the area must still be one that grows
}

static void held_deep(int levels) {
  volatile uint8_t frame[4096];
  memset(const_cast<uint8_t*>(frame), levels & 0xff, sizeof frame);
  if (levels == 0) {
    subject::hold();
  } else {
    held_deep(levels - 1);
  }
  for (size_t i = 0; i < sizeof frame; i += 64) CHECK_EQ(frame[i], levels & 0xff);
}
CASE(stack_content) { held_deep(200); }

CASE(own_growing_area) {
  uint8_t* area = map(256 * kPage);
  MUST(munmap(area, 256 * kPage) == 0);
  auto* top = area + 255 * kPage;
  void* p = mmap(top, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED,
                 -1, 0);
  MUST(p == top);
  top[0] = 1;
  subject::hold();
  CHECK_EQ(top[0], 1);
  // Written through the kernel's own fault path from a stack pointer that is elsewhere: growth is by the
  // area's flag.
  top[-8] = 2;
  CHECK_EQ(top[-8], 2);
}

CASE(moved_and_resized) {
  uint8_t* memory = map(32 * kPage);
  fill(memory, 32 * kPage, 13);
  uint8_t* place = map(128 * kPage);
  auto* moved = static_cast<uint8_t*>(
      mremap(memory + 8 * kPage, 8 * kPage, 16 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, place + 32 * kPage));
  MUST(moved == place + 32 * kPage);
  uint8_t expected[8 * kPage];
  memcpy(expected, moved, sizeof expected);
  subject::hold();
  CHECK_EQ(memcmp(moved, expected, sizeof expected), 0);
  CHECK_EQ(subject::nonzero(moved + 8 * kPage, 8 * kPage), -1);
  auto* again = static_cast<uint8_t*>(mremap(moved, 16 * kPage, 64 * kPage, MREMAP_MAYMOVE));
  CHECK(again != MAP_FAILED);
  CHECK_EQ(memcmp(again, expected, sizeof expected), 0);
  CHECK_EQ(subject::nonzero(again + 8 * kPage, 56 * kPage), -1);
  CHECK_EQ(mapped_at(memory + 8 * kPage), 0);
}

CASE(many_mappings) {
  constexpr int kCount = 4000;
  uint8_t* memory = map(kCount * kPage);
  for (int i = 0; i < kCount; ++i) {
    memory[i * kPage] = static_cast<uint8_t>(i);
    if (i % 2 == 1) MUST(mprotect(memory + i * kPage, kPage, PROT_READ) == 0);
  }
  subject::hold();
  for (int i = 0; i < kCount; ++i) CHECK_EQ(memory[i * kPage], static_cast<uint8_t>(i));
}

CASE(transparent_huge_pages) {
  uint8_t* memory = map(16 * kMiB);
  auto* aligned =
      reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(memory) + 2 * kMiB - 1) & ~(2 * kMiB - 1));
  MUST(madvise(aligned, 8 * kMiB, MADV_HUGEPAGE) == 0);
  fill(aligned, 8 * kMiB, 14);
  subject::hold();
  CHECK_EQ(subject::differs(aligned, 8 * kMiB, 14), -1);
  fill(aligned, 8 * kMiB, 15);
  CHECK_EQ(subject::differs(aligned, 8 * kMiB, 15), -1);
}

CASE_WITH(hugetlb, subject::kMayRefuse) {
  void* p = mmap(nullptr, 2 * kMiB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
  if (p == MAP_FAILED) SKIP("no huge pages are reserved on this host");
  fill(p, 2 * kMiB, 16);
  subject::hold();
  CHECK_EQ(subject::differs(p, 2 * kMiB, 16), -1);
}

CASE(vdso_works) {
  timespec before, after;
  MUST(clock_gettime(CLOCK_MONOTONIC, &before) == 0);
  subject::hold();
  for (int i = 0; i < 1000; ++i) {
    CHECK_EQ(clock_gettime(CLOCK_MONOTONIC, &after), 0);
    CHECK(after.tv_sec > before.tv_sec || (after.tv_sec == before.tv_sec && after.tv_nsec >= before.tv_nsec));
    before = after;
  }
  CHECK(time(nullptr) > 1600000000);
  unsigned cpu, node;
  CHECK_EQ(getcpu(&cpu, &node), 0);
}

// Addresses of everything that the program remembers must not move.
CASE(addresses_stay) {
  char before[65536], after[65536];
  static int in_data = 3;
  int on_stack = 4;
  int* on_heap = static_cast<int*>(malloc(sizeof(int)));
  *on_heap = 5;
  void* function = reinterpret_cast<void*>(&printf);
  MUST(subject::slurp("/proc/self/maps", before, sizeof before) > 0);
  subject::hold();
  CHECK_EQ(in_data + on_stack + *on_heap, 12);
  CHECK_EQ(function, reinterpret_cast<void*>(&printf));
  CHECK(subject::slurp("/proc/self/maps", after, sizeof after) > 0);
  // Every start of a named area of before is there after, with the same protection.
  for (char* line = strtok(before, "\n"); line != nullptr; line = strtok(nullptr, "\n")) {
    // Not the stack: its start moves when it grows.
    if (strchr(line, '/') == nullptr && strstr(line, "[vdso]") == nullptr) continue;
    char start[40];
    snprintf(start, sizeof start, "%.*s-", static_cast<int>(strcspn(line, "-")), line);
    if (strstr(after, start) == nullptr) {
      subject::say("lost: %s", line);
      CHECK(!"an area begins where it began");
    }
  }
}

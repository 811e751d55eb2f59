#include "base/prefault.h"

#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

#include "stasis/types.h"

// From the linker.
extern "C" const char __executable_start, etext, __data_start, end;

namespace stasis {
namespace {

constexpr int kPopulateRead = 22, kPopulateWrite = 23;  // Linux 5.14; without them pages come one by one

void populate(uintptr_t first, uintptr_t last, int how) {
  first &= ~(kPageSize - 1);
  last = (last + kPageSize - 1) & ~(kPageSize - 1);
  if (last > first) ::madvise(reinterpret_cast<void*>(first), last - first, how);
}

uintptr_t address(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

}  // namespace

void prefault_code() { populate(address(&__executable_start), address(&etext), kPopulateRead); }

void prefault(size_t heap, size_t hot) {
  constexpr size_t kStack = 48 << 10;
  prefault_code();
  populate(address(&__data_start), address(&end), kPopulateWrite);
  char here;
  populate(address(&here) - kStack, address(&here) + 4 * kPageSize, kPopulateWrite);
  // The heap grows by so much with the next allocation that it has no room for, and stays.
  ::mallopt(M_TOP_PAD, static_cast<int>(heap));
  ::mallopt(M_TRIM_THRESHOLD, 64 << 20);
  ::mallopt(M_MMAP_THRESHOLD, 64 << 20);
  // What it hands out now it will hand out again.
  auto* next = static_cast<char*>(::malloc(heap));
  if (next == nullptr) return;
  // Huge pages for much: where page tables are virtual each small one costs a fault of its own when it is
  // met.
  constexpr size_t kMuch = 16 << 20;
  if (heap >= kMuch)
    ::madvise(reinterpret_cast<void*>(page_up(address(next))), page_down(heap) - kPageSize, MADV_HUGEPAGE);
  populate(address(next), address(next) + heap, kPopulateWrite);
  for (size_t at = 0; at < std::min(hot, heap); at += kPageSize) static_cast<volatile char*>(next)[at] = 0;
  ::free(next);
}

}  // namespace stasis

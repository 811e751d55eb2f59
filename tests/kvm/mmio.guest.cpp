// The same as "pio" in memory space, 4 and 8 bytes wide, and writes that KVM coalesces.
#include "guest.h"

namespace {

volatile u64 rounds[8];

}  // namespace

extern "C" void work(u64 processor) {
  u64 read = layout::kMemoryRead + processor * layout::kMemoryStride;
  u64 write = layout::kMemoryWrite + processor * layout::kMemoryStride;
  u64 expected = 0, written = 0;
  u32 coalesced = 0;
  Ticker ticker;
  for (;;) {
    for (int i = 0; i < 8; ++i) {
      if (u64 seen = read64(read); seen != expected) BAD("read " << seen << " instead of " << expected);
      ++expected;
      write64(write, written++);
      if (u32 seen = read32(read); seen != u32(expected)) BAD("read " << seen << " instead of " << expected);
      ++expected;
      write32(write, u32(written++));
      write32(layout::kCoalesced + processor * 8, coalesced++);
    }
    rounds[processor] = rounds[processor] + 1;
    if (processor == 0 && ticker.due()) {
      Line line("TICK ");
      line << ticker.count++ << " rounds";
      for (u64 i = 0; i < parameters().processors; ++i) line << " " << rounds[i];
    }
  }
}

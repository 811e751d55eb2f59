// Pseudo-random numbers in all memory above 16 MiB, checked a piece after the other, and pages that are
// written anew at a rate: each page holds what its number and its generation say, and nothing else.
#include "guest.h"

namespace {

constexpr u64 kPage = 4096, kWords = kPage / 8;

u64 first() { return layout::kSharedData / kPage; }
u64 pages() { return parameters().memory_mib * 256 - first(); }
// How often each page was written; 1 GiB at most.
u8 generations[262144];

u64 mix(u64 x) {
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return x;
}

void fill(u64 page) {
  u64 x = (page + 1) * 0x9e3779b97f4a7c15 + ++generations[page];
  auto* word = reinterpret_cast<u64*>((first() + page) * kPage);
  for (u64 i = 0; i < kWords; ++i) word[i] = x = mix(x);
}

void check(u64 page) {
  u64 x = (page + 1) * 0x9e3779b97f4a7c15 + generations[page];
  auto* word = reinterpret_cast<const volatile u64*>((first() + page) * kPage);
  for (u64 i = 0; i < kWords; ++i) {
    x = mix(x);
    if (u64 seen = word[i]; seen != x)
      BAD("page " << page << " word " << i << " is " << seen << ", not " << x);
  }
}

// The slots beside RAM: what can only be read, and a window into RAM that is moved.
void check_slots(u64 random, u64& written) {
  for (u64 i = 0; i < 64; ++i) {
    u64 word = (random + i * 997) % (layout::kRomSize / 8);
    expect("a word of the ROM", read64(layout::kRom + word * 8), layout::kRomStep * word);
  }
  write64(layout::kRom, written++);
  expect("the first word of the ROM", read64(layout::kRom), 0);
  u64 at = random % (pages() - layout::kWindowSize / kPage);
  out32(layout::kMoveWindow, u32(at));
  for (u64 i = 0; i < layout::kWindowSize; i += kPage + 8) {
    expect("a word in the window", read64(layout::kWindow + i), read64(layout::kSharedData + at * kPage + i));
  }
}

}  // namespace

extern "C" void work(u64 processor) {
  if (processor != 0) stop();
  if (pages() > sizeof generations) SKIP("more memory than this guest can keep account of");
  for (u64 page = 0; page < pages(); ++page) fill(page);
  Ticker ticker;
  u64 checked = 0, written = 0, written_to_rom = 0, random = 88172645463325252, written_before = 0;
  for (;;) {
    check(checked++ % pages());
    if (!ticker.due()) continue;
    // At the next tick only, so that whatever happens in between has most of the time to happen.
    if (parameters().dirty_log != 0 && written > 0) out32(layout::kWasDirtied, u32(written_before));
    for (u64 i = 0; i < parameters().dirty_pages; ++i) {
      random = mix(random);
      fill(random % pages());
      if (i == 0) written_before = first() + random % pages();
      ++written;
    }
    check_slots(random = mix(random), written_to_rom);
    Line("TICK ") << ticker.count++ << " checked " << checked << " written " << written;
  }
}

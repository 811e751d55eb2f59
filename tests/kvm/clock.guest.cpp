// The time: kvmclock, by the page that an MSR asks for, and the TSC. Neither may go back, not even between
// processors, and neither may jump. The TICK lines show both, so that a test can see how much time has passed
// in the guest.
#include "guest.h"

namespace {

constexpr u32 kClockMsr = 0x4b564d01, kStable = 1;

struct Page {  // pvclock_vcpu_time_info
  u32 version, padding;
  u64 tsc_timestamp, system_time;
  u32 multiplier;
  int8_t shift;
  u8 flags, padding2[2];
};
alignas(64) volatile Page pages[8];
static_assert(sizeof(Page) == 32);

u64 latest_clock, latest_tsc;
volatile u64 clocks[8], tscs[8];

u64 read_clock(u64 processor, u64& counter) {
  const volatile Page& page = pages[processor];
  for (;;) {
    u32 version = page.version;
    asm volatile("" : : : "memory");
    counter = tsc();
    u64 delta = counter - page.tsc_timestamp;
    delta = page.shift >= 0 ? delta << page.shift : delta >> -page.shift;
    u64 result = page.system_time + u64(static_cast<unsigned __int128>(delta) * page.multiplier >> 32);
    asm volatile("" : : : "memory");
    if ((version & 1) == 0 && version == page.version) return result;
  }
}

// The latest that any processor has seen was seen before this.
void raise(u64& latest, u64 value) {
  u64 seen = __atomic_load_n(&latest, __ATOMIC_SEQ_CST);
  while (seen < value &&
         !__atomic_compare_exchange_n(&latest, &seen, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
  }
}

void check(const char* what, u64 processor, u64 last, u64 now, u64 latest, u64 limit) {
  if (now < last) BAD(what << " of processor " << processor << " goes back from " << last << " to " << now);
  if (now < latest)
    BAD(what << " of processor " << processor << " is " << now << ", and another was at " << latest);
  if (last != 0 && now - last > limit) {
    BAD(what << " of processor " << processor << " jumps from " << last << " to " << now);
  }
}

}  // namespace

extern "C" {
void prepare(u64 processor) {
  // 0x40000001: the bit says that there is the pair of MSRs whose first is 4b564d00.
  if ((cpuid(0x40000001).a & 8) == 0) SKIP("no kvmclock");
  write_msr(kClockMsr, reinterpret_cast<u64>(&pages[processor]) | 1);
  if (processor == 0) start_others();
}

void work(u64 processor) {
  u64 last_clock = 0, last_tsc = 0, seconds = parameters().jump_seconds;
  Ticker ticker;
  for (;;) {
    u64 latest = __atomic_load_n(&latest_clock, __ATOMIC_SEQ_CST), counter;
    // Clocks that KVM does not hold to be stable may differ by a little.
    if ((pages[processor].flags & kStable) == 0) latest = 0;
    u64 clock = read_clock(processor, counter);
    check("kvmclock", processor, last_clock, clock, latest, seconds * 1000000000);
    raise(latest_clock, clock);
    last_clock = clock;

    latest = __atomic_load_n(&latest_tsc, __ATOMIC_SEQ_CST);
    counter = tsc();
    check("the TSC", processor, last_tsc, counter, latest, seconds * parameters().tsc_khz * 1000);
    raise(latest_tsc, counter);
    last_tsc = counter;

    clocks[processor] = clock;
    tscs[processor] = counter;
    if (processor != 0 || !ticker.due()) continue;
    Line line("TICK ");
    line << ticker.count++ << " flags " << pages[0].flags << " khz " << parameters().tsc_khz;
    for (u64 i = 0; i < parameters().processors; ++i) line << " clock " << clocks[i] << " tsc " << tscs[i];
  }
}
}

// The timer of the local APIC, periodic at 1 kHz or so, on each processor. Its count in between is seen to
// move.
#include "interrupts.h"

namespace {

constexpr u64 kVector = 0x50;
volatile u64 counts[8];

}  // namespace

extern "C" {
extern const u64 flags = kWithInterrupts;

void prepare(u64 processor) {
  if (parameters().chip == 0) SKIP("no interrupt controller");
  lapic::enable();
  // KVM's timer counts nanoseconds: a millisecond with divisor 1.
  write32(kLapic + lapic::kDivide, 0xb);
  write32(kLapic + lapic::kTimer, lapic::kPeriodic | u32(kVector));
  write32(kLapic + lapic::kInitialCount, 1000000);
  if (processor == 0) start_others();
}

void interrupt(Frame* frame) {
  if (frame->vector != kVector) {
    BAD("interrupt " << frame->vector << " error " << frame->error << " at " << frame->rip);
  }
  u32 processor = read32(kLapic + 0x20) >> 24;
  counts[processor] = counts[processor] + 1;
  lapic::end();
}

void work(u64 processor) {
  u64 begin = tsc();
  while (counts[processor] == 0) {
    if (tsc() - begin > patience()) SKIP("no interrupt of the local timer comes");
  }
  if (processor != 0) {
    for (;;) asm volatile("pause");
  }
  // A tick for every 60 interrupts: guest time, not the processor's.
  u64 next = 60, tick = 0;
  for (;;) {
    expect("the timer's entry", read32(kLapic + lapic::kTimer), lapic::kPeriodic | kVector);
    expect("the timer's initial count", read32(kLapic + lapic::kInitialCount), 1000000);
    if (counts[0] < next) continue;
    next = counts[0] + 60;
    Line line("TICK ");
    line << tick++ << " interrupts";
    for (u64 i = 0; i < parameters().processors; ++i) line << " " << counts[i];
  }
}
}

// The monitor's interrupts, by an irqfd, as messages or through a pin of the IOAPIC: each must come once. And
// kicks, by ioeventfds, of which the monitor must have counted as many as were made.
#include "interrupts.h"

namespace {

constexpr u64 kIoapic = 0xfec00000;
volatile u64 count;

}  // namespace

extern "C" {
extern const u64 flags = kWithInterrupts;

void prepare(u64 processor) {
  if (parameters().chip == 0) SKIP("no interrupt controller");
  if (processor != 0) stop();
  lapic::enable();
  if (parameters().pin == 0) return;
  if (parameters().pic == 0)
    SKIP("a split interrupt controller has its IOAPIC in the monitor, and this one has none");
  // The pin is one of the PIC as well, which would bring the interrupt a second time.
  out8(0x21, 0xff);
  out8(0xa1, 0xff);
  // Edge-triggered, to the processor with APIC id 0.
  write32(kIoapic, 0x10 + 2 * layout::kPin + 1);
  write32(kIoapic + 0x10, 0);
  write32(kIoapic, 0x10 + 2 * layout::kPin);
  write32(kIoapic + 0x10, layout::kInterruptVector);
}

void interrupt(Frame* frame) {
  if (frame->vector != layout::kInterruptVector) {
    BAD("interrupt " << frame->vector << " error " << frame->error << " at " << frame->rip);
  }
  count = count + 1;
  lapic::end();
}

void work(u64) {
  u64 begin = tsc(), acknowledged = 0, kicks = 0;
  Ticker ticker;
  out32(layout::kInterruptTotal, 0);
  for (;;) {
    out32(layout::kKickPort, u32(kicks));
    out32(layout::kKickMatchPort, layout::kKickMatch);
    write32(layout::kKickMemory, u32(kicks));
    kicks += 3;
    out32(layout::kKickTotal, u32(kicks));
    if (count != acknowledged) {
      acknowledged = acknowledged + 1;
      out32(layout::kInterruptTotal, u32(acknowledged));
    }
    if (acknowledged == 0 && tsc() - begin > patience()) SKIP("no interrupt of an irqfd comes");
    if (ticker.due()) Line("TICK ") << ticker.count++ << " interrupts " << acknowledged << " kicks " << kicks;
  }
}
}

// PIC and PIT: 1 kHz on IRQ 0 through the first PIC, and HLT in between, in ring 0. The masks of both PICs
// are read back all the time, and the PIT's counter moves.
#include "interrupts.h"

namespace {

constexpr u64 kVector = 0x28;
constexpr u8 kMaster = 0xfa, kSlave = 0xa5;
volatile u64 count;

void initialise(u16 port, u8 vector, u8 wiring, u8 mask) {
  out8(port, 0x11);
  out8(u16(port + 1), vector);
  out8(u16(port + 1), wiring);
  out8(u16(port + 1), 1);
  out8(u16(port + 1), mask);
}

u32 counter() {
  out8(0x43, 0);  // latch channel 0
  u32 low = in8(0x40);
  return low | u32(in8(0x40)) << 8;
}

}  // namespace

extern "C" {
extern const u32 privilege = 0;

void prepare(u64 processor) {
  if (parameters().pic == 0) SKIP("no PIC");
  if (processor != 0) stop();
  lapic::enable();
  write32(kLapic + lapic::kLint0, 0x700);  // what the PIC says
  initialise(0x20, kVector, 4, kMaster);
  initialise(0xa0, kVector + 8, 2, kSlave);
  constexpr u32 kDivisor = 1193182 / 1000;
  out8(0x43, 0x34);
  out8(0x40, kDivisor & 255);
  out8(0x40, kDivisor >> 8);
}

void interrupt(Frame* frame) {
  if (frame->vector != kVector) {
    BAD("interrupt " << frame->vector << " error " << frame->error << " at " << frame->rip);
  }
  count = count + 1;
  out8(0x20, 0x20);
}

void work(u64) {
  u64 begin = tsc_plain(), next = 1, tick = 0;
  asm volatile("sti");
  while (count == 0) {
    if (tsc_plain() - begin > patience()) SKIP("no interrupt of the PIT comes");
  }
  for (;;) {
    asm volatile("hlt");
    if (count < next) continue;
    next = count + 60;
    expect("the first PIC's mask", in8(0x21), kMaster);
    expect("the second PIC's mask", in8(0xa1), kSlave);
    if (u32 now = counter(); now > 1193182 / 1000) BAD("the PIT's counter is " << now);
    Line("TICK ") << tick++ << " interrupts " << count;
  }
}
}

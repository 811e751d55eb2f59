// The timer of the local APIC in TSC-deadline mode, a millisecond after each other. An interrupt must not
// come before its deadline, and the deadline is 0 from then on.
//
// The deadline is an MSR, so that this runs in ring 0.
#include "interrupts.h"

namespace {

constexpr u64 kVector = 0x51;
constexpr u32 kDeadlineMsr = 0x6e0;
volatile u64 count, deadline;

void arm() {
  deadline = tsc_plain() + parameters().tsc_khz;
  write_msr(kDeadlineMsr, deadline);
}

}  // namespace

extern "C" {
extern const u32 privilege = 0;

void prepare(u64 processor) {
  if (parameters().chip == 0) SKIP("no interrupt controller");
  if (parameters().deadline_timer == 0) SKIP("KVM_CAP_TSC_DEADLINE_TIMER is 0");
  if (processor != 0) stop();
  lapic::enable();
  write32(kLapic + lapic::kTimer, lapic::kDeadline | u32(kVector));
}

void interrupt(Frame* frame) {
  if (frame->vector != kVector) {
    BAD("interrupt " << frame->vector << " error " << frame->error << " at " << frame->rip);
  }
  u64 now = tsc_plain();
  if (now < deadline) BAD("the interrupt comes " << deadline - now << " before its deadline");
  if (u64 left = read_msr(kDeadlineMsr); left != 0) BAD("the deadline is still " << left);
  count = count + 1;
  lapic::end();
  arm();
}

void work(u64) {
  u64 begin = tsc_plain(), next = 1, tick = 0;
  arm();
  asm volatile("sti");
  while (count == 0) {
    if (tsc_plain() - begin > patience()) SKIP("no interrupt of the deadline timer comes");
  }
  for (;;) {
    asm volatile("hlt");
    if (count < next) continue;
    next = count + 60;
    Line("TICK ") << tick++ << " interrupts " << count;
  }
}
}

// MSRs that the monitor answers for, because it has told KVM to leave them to it: the same numbers in
// sequence as in "pio", in ring 0, where alone there are MSRs.
#include "guest.h"

namespace {

volatile u64 rounds[8];

}  // namespace

extern "C" {
extern const u32 privilege = 0;

void work(u64 processor) {
  u64 expected = 0, written = 0;
  if (parameters().user_msrs == 0) SKIP("KVM_CAP_X86_USER_SPACE_MSR or KVM_CAP_X86_MSR_FILTER is 0");
  Ticker ticker;
  for (;;) {
    if (u64 seen = read_msr(layout::kMsrRead); seen != expected)
      BAD("MSR " << seen << " instead of " << expected);
    ++expected;
    write_msr(layout::kMsrWrite, written++);
    rounds[processor] = rounds[processor] + 1;
    if (processor != 0 || !ticker.due()) continue;
    Line line("TICK ");
    line << ticker.count++ << " rounds";
    for (u64 i = 0; i < parameters().processors; ++i) line << " " << rounds[i];
  }
}
}

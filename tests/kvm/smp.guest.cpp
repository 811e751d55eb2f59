// Processors that count in memory they share, each by itself and all together: the sum must be right. As
// "sipi-wait" and "init-wait" the first starts the others only when a byte comes from the console, so that
// they can be saved while they wait, before the INIT or between it and the SIPI.
#include "guest.h"

namespace {

volatile u64 counts[8];
u64 together;
volatile u64 arrived;

}  // namespace

extern "C" {
void prepare(u64 processor) {
  if (processor != 0) return;
  if (parameters().wait_for_input == 0) start_others();
  if (parameters().wait_for_input == 2) init_others();
}

void work(u64 processor) {
  __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
  u64 others = parameters().processors, started = others;
  if (processor == 0 && parameters().wait_for_input != 0) {
    started = 1;
  }
  Ticker ticker;
  for (;;) {
    // Fewer in `together` than in the counts of all: each counts there first.
    counts[processor] = counts[processor] + 1;
    __atomic_add_fetch(&together, 1, __ATOMIC_SEQ_CST);
    if (processor != 0 || !ticker.due()) continue;
    if (started < others) {
      if (arrived != 1) BAD("a processor runs that was not started");
      if ((in8(layout::kConsoleStatus) & 1) != 0) {
        in8(layout::kConsole);
        if (parameters().wait_for_input == 1) init_others();
        sipi_others();
        started = others;
      }
    }
    u64 before = __atomic_load_n(&together, __ATOMIC_SEQ_CST), sum = 0;
    for (u64 i = 0; i < others; ++i) sum += counts[i];
    u64 after = __atomic_load_n(&together, __ATOMIC_SEQ_CST);
    // Each may be between its two counts.
    if (sum < before || sum > after + others)
      BAD("the sum " << sum << " is not in " << before << ".." << after);
    Line line("TICK ");
    line << ticker.count++ << " processors " << u64(arrived) << " counts";
    for (u64 i = 0; i < others; ++i) line << " " << counts[i];
  }
}
}

#include "freeze/sleepers.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>

#include "base/clock.h"

namespace stasis::freeze {

// The scheduler's clock of a processor leaves out the time that interrupts and the hypervisor took, so it
// differs from one processor to the next. Ours is known when we have just been scheduled there.
int64_t Sleepers::clock_offset(int processor) {
  if (auto known = offsets_.find(processor); known != offsets_.end()) return known->second;
  cpu_set_t before;
  ::sched_getaffinity(0, sizeof before, &before);
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(processor, &only);
  int64_t offset = 0;
  if (::sched_setaffinity(0, sizeof only, &only) == 0) {
    for (int attempt = 0; attempt < 5; ++attempt) {
      ::sched_yield();
      auto moment = kernel::read_schedule_moment(HostTid{::getpid()});
      if (!moment) break;
      // What we read is at most as late as now, so the smallest difference is the best.
      int64_t difference = monotonic_ns() - moment->exec_start_ns;
      offset = attempt == 0 ? difference : std::min(offset, difference);
    }
    ::sched_setaffinity(0, sizeof before, &before);
  }
  offsets_[processor] = offset;
  return offset;
}

void Sleepers::look(HostTid task) {
  auto moment = kernel::read_schedule_moment(task);
  auto stat = kernel::read_stat(task);
  if (!moment || !stat.ok() || stat->state != 'S') return;
  looks_[task.value] = {moment->exec_start_ns + clock_offset(stat->processor), moment->voluntary_switches};
}

int64_t Sleepers::asleep_since(HostTid task, const kernel::TaskStatus& stopped) const {
  auto look = looks_.find(task.value);
  if (look == looks_.end()) return 0;
  // The stop itself is one switch; another sleep would have been one more.
  if (stopped.voluntary_switches > look->second.voluntary_switches + 1) return 0;
  return look->second.since_ns;
}

}  // namespace stasis::freeze

// Since when the tasks of a tree are asleep.
#pragma once

#include <map>

#include "kernel/proc.h"
#include "stasis/types.h"

namespace stasis::freeze {

// The kernel keeps the deadline of an interrupted sleep where nobody can read it, but it tells when a task
// last left its processor. That must be read before the task is stopped, since stopping wakes it; so it is
// read for all tasks, without hurry, before the freeze.
class Sleepers {
 public:
  // Reads the task as it is now.
  void look(HostTid task);
  // After it was stopped: when its sleep began (CLOCK_MONOTONIC of the host); 0: it has run since look().
  int64_t asleep_since(HostTid task, const kernel::TaskStatus& stopped) const;

 private:
  int64_t clock_offset(int processor);

  struct Look {
    int64_t since_ns = 0;
    uint64_t voluntary_switches = 0;
  };
  std::map<int, Look> looks_;
  std::map<int, int64_t> offsets_;  // of each processor's scheduler clock
};

}  // namespace stasis::freeze

// A process that stands still, and its threads.
#pragma once

#include <optional>
#include <vector>

#include "kernel/proc.h"
#include "remote/tracee.h"
#include "stasis/types.h"

namespace stasis::freeze {

struct FrozenThread {
  HostTid tid;
  NsTid ns_tid;  // of the session, as in `status`; status.own_tid() is what the task knows itself by
  kernel::TaskStatus status;
  remote::Registers registers = {};
  std::optional<uint64_t> mask;  // of signals; nothing: not read yet
  // CLOCK_MONOTONIC of the host when the relative timeout ends in which it was interrupted.
  std::optional<int64_t> deadline_ns;
  int group_stop_signal = 0;  // the signal by which job control had stopped it; 0: it was running
};

struct FrozenProcess {
  // The task through which the process is looked at: its leader, or, when that has ended before the others,
  // the first thread that lives. `status` and `stat` are of that one, but for what belongs to the process.
  HostTid pid;
  HostTid leader;
  kernel::TaskStatus status;
  kernel::TaskStat stat;
  std::vector<FrozenThread> threads;  // those that live, `pid` first; empty for a zombie
  // A leader that has ended before the others: what is left of it.
  struct EndedLeader {
    kernel::TaskStatus status;
    int exit_code = 0;  // as wait() gives it
  };
  std::optional<EndedLeader> ended_leader;
  bool zombie = false;
  bool stopped() const { return !threads.empty() && threads.front().group_stop_signal != 0; }
};

}  // namespace stasis::freeze

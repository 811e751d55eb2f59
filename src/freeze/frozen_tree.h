// Stops every task of a session and proves that it stopped.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernel/proc.h"
#include "remote/interrupted.h"
#include "remote/tracee.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::freeze {

struct FrozenThread {
  HostTid tid;
  NsTid ns_tid;
  kernel::TaskStatus status;
  remote::Registers registers = {};
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

// A session's tree, standing still. Its destructor lets everything run again, exactly as it was: calls that
// the stop has interrupted go on with what is left of their time. Dying has the same effect: the kernel
// detaches the tasks of a tracer that ends.
class FrozenTree {
 public:
  // All processes of the pid namespace of `init`, but not init itself. `deadlines`: a file of the session for
  // remote::Deadlines. kRefused names the task that cannot be
  // traced or stopped; kBusy: a parent in vfork() did not come back in time.
  static Result<std::unique_ptr<FrozenTree>> freeze(HostTid init, const std::string& deadlines);
  ~FrozenTree();
  FrozenTree(const FrozenTree&) = delete;
  FrozenTree& operator=(const FrozenTree&) = delete;

  const std::vector<FrozenProcess>& processes() const { return processes_; }
  int64_t frozen_since_ns() const { return frozen_since_ns_; }
  HostTid init() const { return init_; }

  // Lets all tasks go on.
  void thaw();
  // Ends all tasks instead.
  void kill();

 private:
  FrozenTree() = default;
  class Freezer;

  HostTid init_;
  remote::Deadlines deadlines_;
  std::vector<FrozenProcess> processes_;
  int64_t frozen_since_ns_ = 0;
  bool frozen_ = false;
};

// The processes of a session as the host sees them, without stopping anything. init comes first.
Result<std::vector<HostTid>> session_processes(HostTid init);

}  // namespace stasis::freeze

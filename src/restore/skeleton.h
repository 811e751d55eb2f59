// A process of the new tree while it is being built: alive, stopped, traced, and without memory of its own
// yet.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "kernel/pid_namespace.h"
#include "remote/batch.h"
#include "remote/executor.h"
#include "restore/topology.h"
#include "restore/work_area.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::restore {

// Owns nothing: the task dies with the builder (PTRACE_O_EXITKILL).
class Skeleton {
 public:
  // `number`: in the session; `own`: by which the task knows itself.
  Skeleton(HostTid pid, NsTid number, NsTid own, const WorkArea& area);

  HostTid pid() const { return task_.tid(); }
  NsTid ns_pid() const { return number_; }
  NsTid own_pid() const { return context_.tid; }
  remote::Tracee task() const { return task_; }
  const remote::TaskContext& context() const { return context_; }
  const remote::Executor& executor() const { return executor_; }

  // Reads the registers of the stopped task and puts the stub into place, if it is not there. Before run(),
  // whenever another thread of the process may have used the place.
  Result<void> prepare();
  // `report_signal` must not be among the signals that are pending for the task later.
  void set_report_signal(int signal) { context_.report_signal = signal; }
  remote::Batch batch() const { return remote::Batch(executor_.scratch()); }
  Result<void> run(remote::Batch& batch);
  // Another thread of the same process; it uses the same stub and scratch area, one at a time.
  Skeleton thread(HostTid tid, NsTid number, NsTid own) const;

  // run(), and an error naming step and call if one of them failed. `tolerate` may accept a failed call by
  // its index.
  Result<void> run_checked(remote::Batch& batch, const std::string& step,
                           const std::function<bool(size_t index, int error)>& tolerate = {});

  // Parks the vDSO in the work area and gives up all other memory.
  Result<void> strip(const WorkArea& area);

 private:
  remote::Tracee task_;
  NsTid number_;
  remote::TaskContext context_;
  remote::Executor executor_;
  // For whom the stub is in place, in the memory that all threads of the process share.
  struct Installed {
    NsTid task;
    int report_signal = 0;
    bool operator==(const Installed&) const = default;
  };
  std::shared_ptr<Installed> installed_ = std::make_shared<Installed>();
};

// The first failed call of a batch that ran, as an Error.
Result<void> check_batch(const remote::Batch& batch, NsTid task, const std::string& step,
                         const std::function<bool(size_t index, int error)>& tolerate = {});

// Waits for the first stops of tasks that were cloned with CLONE_PTRACE, and tells which is which by their
// numbers in the session. An error when one has another number than `expected`.
Result<std::map<int, HostTid>> await_births(const kernel::PidNamespace& session,
                                            const std::vector<NsTid>& expected);

}  // namespace stasis::restore

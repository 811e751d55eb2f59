// What the kernel keeps for one thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "freeze/frozen_tree.h"
#include "remote/batch.h"
#include "remote/executor.h"
#include "remote/rseq.h"
#include "schema/task.pb.h"
#include "stasis/result.h"

namespace stasis::inspect {

// What the thread itself asks the kernel: what only it can ask, and what it can ask while we ask others.
class ThreadQuestions {
 public:
  // `context` is of this thread.
  void add(remote::Batch& batch, HostTid tid, const remote::TaskContext& context);
  Result<void> take(const remote::Batch& batch, schema::Thread& out) const;

 private:
  std::optional<remote::RseqArea> rseq_;
  remote::RseqQuestions rseq_questions_;  // where the kernel does not tell
  uint64_t altstack_ = 0, tid_address_ = 0, death_signal_ = 0, time_stamp_ = 0;
  uint64_t attributes_ = 0, affinity_ = 0, robust_list_ = 0;
  size_t slack_ = 0, securebits_ = 0, machine_check_ = 0;
  size_t scheduling_ = 0, processors_ = 0, io_priority_ = 0, robust_ = 0;
};

// What can be read from outside: registers, FPU, mask, pending signals, credentials.
Result<void> observe_thread(const freeze::FrozenThread& thread, const remote::TaskContext& context,
                            schema::Thread& out);

// A stop signal cannot be blocked: whoever executes system calls for us has taken the one that was pending in
// a stopped task, before the signals were read. `pending`: those that there were.
void add_taken_stop(uint64_t pending, std::vector<std::string>& signals);

// After its questions were answered. `forks`: it is the one that forks for a checkpoint, and has to be able
// to.
Result<void> check_scheduling(const freeze::FrozenThread& thread, bool forks, schema::Thread& out);

// A task that was stopped inside a restartable sequence (rseq) is sent to its abort handler, as the kernel
// does with any task that is preempted there; our excursion would otherwise hide the preemption from it.
Result<void> leave_restartable_sequence(HostTid task, remote::Registers& registers);

// A task that was stopped inside a function of the vDSO is taken out of it: another kernel's is another one.
// Not when that could change what it does with its signals; then it can go on only on this kernel.
Result<void> leave_vdso(HostTid tid, const kernel::TaskStatus& thread, const kernel::TaskStatus& process,
                        uint64_t mask, remote::Registers& registers);

// Ids, groups and capabilities, as /proc shows them.
void observe_credentials(const kernel::TaskStatus& status, schema::Credentials& out);

}  // namespace stasis::inspect

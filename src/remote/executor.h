// Runs batches of system calls in a stopped task through the stub (see stub.S).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "remote/batch.h"
#include "remote/tracee.h"
#include "remote/transfer.h"
#include "stasis/fd.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::remote {

// What a task was doing when it was stopped, and who it is.
struct TaskContext {
  Registers registers = {};
  uint64_t mask = 0;
  NsTid tgid, tid;
  int report_signal = 0;  // a signal that the task ignores; 0: there is none, and reporting is slower
};

// Bytes that one copy of the stub needs.
uint64_t stub_size();

// The signal by which a stub reports: one that has no handler and is ignored, and is not pending. 0: there is
// none (Go's run time has a handler for every signal).
int choose_report_signal(uint64_t ignored, uint64_t caught, uint64_t pending);

// The registers with which a task goes on that was stopped inside a system call: the kernel restarts an
// interrupted call itself only when it finds these registers on its own way back to the program. Here the
// program is sent back to the `syscall` instruction by hand.
Registers restarted(Registers registers);

// One copy of the stub at `code` in the address space of `task`, with a scratch area for batches. Owns
// nothing in the task; whoever put the stub there takes it away.
class Executor {
 public:
  Executor() = default;
  // `code_is_writable`: also for the task itself; then its memory is enough to put the stub there.
  Executor(RemotePtr code, Scratch scratch, bool code_is_writable = false)
      : code_(code), scratch_(scratch), code_is_writable_(code_is_writable) {}

  RemotePtr code() const { return code_; }
  Scratch scratch() const { return scratch_; }
  // Another copy of the stub in the same process.
  Executor at(RemotePtr code, Scratch scratch) const {
    Executor other = *this;
    other.code_ = code;
    other.scratch_ = scratch;
    return other;
  }
  void set_scratch(Scratch scratch) { scratch_ = scratch; }

  // What the task does by itself if we die while the stub has it.
  struct Unwind {
    bool unmap_scratch = true;
    RemotePtr undo_calls;  // an array of calls in the scratch area
    uint64_t undo_count = 0;
  };

  // Overwrites the stub: with zeros, where it lies in padding.
  Result<void> erase(HostTid task, uint64_t size) const;
  // Copies the stub with the context to which the task returns if we die. Must precede start().
  Result<void> install(HostTid task, const TaskContext& context, const Unwind& unwind) const;
  // Whether `task` has the stub of `owner` in its memory: it is a copy of the process.
  bool is_installed_for(HostTid task, HostTid owner) const;
  // Lets the task execute the batch. The order of the steps is what makes dying between any two of them
  // harmless.
  Result<void> start(const Tracee& task, const TaskContext& context, const Batch& batch) const;
  // After any stop of a task that executes the stub: true when it is the report; otherwise the task goes on.
  // An error when the stub met with a fault.
  Result<bool> advance(const Tracee& task, const TaskContext& context, const Stop& stop) const;
  // Waits for the report. The task stays where it reported, with these registers.
  Result<Registers> await_report(const Tracee& task, const TaskContext& context) const;
  // Waits for the report; then fetches results and output into the batch.
  Result<void> finish(const Tracee& task, const TaskContext& context, Batch& batch) const;
  Result<void> fetch(HostTid task, Batch& batch) const;

  // The steps of run(), for many threads of a process at once: what prepare() collects is written before
  // enter(), and after await_signal() the results are read. Then the thread has reported, if the batch is
  // finished; if not, somebody else has sent the signal, and it has to go on until it does.
  Result<void> prepare(HostTid process, const TaskContext& context, Batch& batch, Transfer& code,
                       Transfer& calls) const;
  // What prepare() has collected of code; also where it is not writable: through /proc/PID/mem, which makes a
  // private copy.
  Result<void> write_code(HostTid process, const Transfer& code) const;
  Result<void> enter(const Tracee& task, const TaskContext& context, const Batch& batch) const;
  Result<void> await_signal(const Tracee& task, const TaskContext& context) const;
  void add_results(Batch& batch, Transfer& in) const;
  Result<void> go_on(const Tracee& task, const TaskContext& context) const;

  // start() and finish().
  Result<void> run(const Tracee& task, const TaskContext& context, Batch& batch) const;
  // A single call without a scratch area; its arguments and result are registers only.
  Result<void> start_single(const Tracee& task, const TaskContext& context, const Unwind& unwind, long number,
                            std::initializer_list<uint64_t> arguments) const;
  Result<int64_t> finish_single(const Tracee& task, const TaskContext& context) const;
  Result<int64_t> run_single(const Tracee& task, const TaskContext& context, const Unwind& unwind,
                             long number, std::initializer_list<uint64_t> arguments) const;

 private:
  enum class Results { kStored, kInRegister };
  Result<void> enter(const Tracee& task, const TaskContext& context, uint64_t calls, uint64_t count,
                     Results results) const;
  Result<void> check_size(HostTid task, const Batch& batch) const;
  // The registers, if it is.
  Result<std::optional<Registers>> read_report(const Tracee& task, const TaskContext& context,
                                               const Stop& stop) const;
  Result<std::optional<Registers>> handle(const Tracee& task, const TaskContext& context,
                                          const Stop& stop) const;

  Result<void> write_stub(HostTid task, RemotePtr address, std::string_view bytes) const;
  Result<int> open_memory(HostTid task) const;

  RemotePtr code_;
  Scratch scratch_;
  bool code_is_writable_ = false;
  // /proc/PID/mem of the task that was written to last; copies of an executor are for other tasks.
  struct OpenMemory {
    HostTid task;
    Fd fd;
  };
  mutable std::shared_ptr<OpenMemory> memory_;
};

}  // namespace stasis::remote

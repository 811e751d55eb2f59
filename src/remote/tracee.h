// One stopped task and the ptrace requests on it, with errors that name the task.
#pragma once

#include <sys/user.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::remote {

using Registers = user_regs_struct;

// PTRACE_O_SUSPEND_SECCOMP, for set_options(): filters let everything through. Needs CAP_SYS_ADMIN.
inline constexpr unsigned kSuspendSeccomp = 1 << 21;

// What waitpid() told about a task.
struct Stop {
  enum class Kind {
    kInterrupt,  // PTRACE_INTERRUPT, or the first stop of a task that was attached at birth
    kGroup,      // job control: `signal` is the stopping one
    kSignal,     // a signal is about to be delivered
    kEvent,      // another PTRACE_EVENT_*
    kExited,     // the task is gone (and reaped, unless it is a thread)
  };
  HostTid task;
  Kind kind = Kind::kExited;
  int signal = 0;
  int status = 0;
};

// A reference to a task that this thread traces. Copying is cheap; it owns nothing.
class Tracee {
 public:
  explicit Tracee(HostTid tid) : tid_(tid) {}
  HostTid tid() const { return tid_; }

  // Attaches without stopping it. `options` are PTRACE_O_*.
  Result<void> seize(unsigned options = 0) const;
  Result<void> interrupt() const;
  Result<void> set_options(unsigned options) const;
  Result<void> resume(int signal = 0) const;   // PTRACE_CONT
  Result<void> resume_to_system_call() const;  // PTRACE_SYSCALL
  // PTRACE_SINGLEBLOCK: up to the next jump, or fewer instructions. The kernel would take a handler of
  // SIGTRAP away that is blocked or ignored.
  Result<void> step_block(int signal = 0) const;
  // Lets it go on; a task that job control had stopped stays stopped. Tolerates that it is gone.
  void detach(int signal = 0) const;

  Result<Registers> registers() const;
  Result<void> set_registers(const Registers& registers) const;
  Result<std::string> extended_state() const;  // NT_X86_XSTATE
  Result<void> set_extended_state(std::string_view state) const;
  Result<uint64_t> signal_mask() const;
  Result<void> set_signal_mask(uint64_t mask) const;
  // siginfo_t of every pending signal, in queue order; shared: of the process instead of the thread.
  Result<std::vector<std::string>> pending_signals(bool shared) const;
  Result<std::string> signal_info() const;

  // Waits for the next stop or the end of this task. With a deadline (CLOCK_MONOTONIC ns): nothing when it
  // passed. SIGCHLD must not be ignored.
  Result<std::optional<Stop>> wait(int64_t deadline_ns = 0) const;

 private:
  Result<std::optional<Stop>> wait_until(int64_t deadline_ns) const;
  Error error(std::string what) const;
  HostTid tid_;
};

// Decodes a status from waitpid(__WALL) of a seized task.
Stop decode_stop(pid_t pid, int status);

// Memory of a tracee, in one system call each.
Result<void> read_memory(HostTid task, RemotePtr address, std::span<char> data);
Result<void> write_memory(HostTid task, RemotePtr address, std::string_view data);
template <typename T>
Result<T> read_object(HostTid task, RemotePtr address) {
  T object{};
  STASIS_CHECK(read_memory(task, address, {reinterpret_cast<char*>(&object), sizeof object}));
  return object;
}

}  // namespace stasis::remote

#include "remote/tracee.h"

#include <elf.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>

#include "base/clock.h"
#include "kernel/proc.h"
#include "stasis/fd.h"

namespace stasis::remote {

Error Tracee::error(std::string what) const {
  return errno_error(std::move(what), fmt::format("task {}", tid_), errno);
}

Result<void> Tracee::seize(unsigned options) const {
  if (::ptrace(PTRACE_SEIZE, tid_.value, nullptr, options) != 0) return error("attach");
  return {};
}

Result<void> Tracee::interrupt() const {
  if (::ptrace(PTRACE_INTERRUPT, tid_.value, nullptr, nullptr) != 0) return error("interrupt");
  return {};
}

Result<void> Tracee::set_options(unsigned options) const {
  if (::ptrace(PTRACE_SETOPTIONS, tid_.value, nullptr, options) != 0) return error("set trace options");
  return {};
}

Result<void> Tracee::resume(int signal) const {
  if (::ptrace(PTRACE_CONT, tid_.value, nullptr, signal) != 0) return error("resume");
  return {};
}

Result<void> Tracee::resume_to_system_call() const {
  if (::ptrace(PTRACE_SYSCALL, tid_.value, nullptr, nullptr) != 0) return error("resume");
  return {};
}

Result<void> Tracee::step_block(int signal) const {
  if (::ptrace(PTRACE_SINGLEBLOCK, tid_.value, nullptr, static_cast<long>(signal)) != 0) return error("step");
  return {};
}

void Tracee::detach(int signal) const { ::ptrace(PTRACE_DETACH, tid_.value, nullptr, signal); }

Result<Registers> Tracee::registers() const {
  Registers registers;
  if (::ptrace(PTRACE_GETREGS, tid_.value, nullptr, &registers) != 0) return error("read registers");
  return registers;
}

Result<void> Tracee::set_registers(const Registers& registers) const {
  if (::ptrace(PTRACE_SETREGS, tid_.value, nullptr, &registers) != 0) return error("set registers");
  return {};
}

Result<std::string> Tracee::extended_state() const {
  // Larger than any XSAVE area so far (AMX: 11 KiB).
  std::array<char, 32768> buffer;
  iovec area{buffer.data(), buffer.size()};
  if (::ptrace(PTRACE_GETREGSET, tid_.value, NT_X86_XSTATE, &area) != 0) return error("read the FPU state");
  return std::string(buffer.data(), area.iov_len);
}

Result<void> Tracee::set_extended_state(std::string_view state) const {
  iovec area{const_cast<char*>(state.data()), state.size()};
  if (::ptrace(PTRACE_SETREGSET, tid_.value, NT_X86_XSTATE, &area) != 0) return error("set the FPU state");
  return {};
}

Result<uint64_t> Tracee::signal_mask() const {
  uint64_t mask = 0;
  if (::ptrace(PTRACE_GETSIGMASK, tid_.value, sizeof mask, &mask) != 0) return error("read the signal mask");
  return mask;
}

Result<void> Tracee::set_signal_mask(uint64_t mask) const {
  if (::ptrace(PTRACE_SETSIGMASK, tid_.value, sizeof mask, &mask) != 0) return error("set the signal mask");
  return {};
}

Result<std::vector<std::string>> Tracee::pending_signals(bool shared) const {
  std::vector<std::string> pending;
  std::array<siginfo_t, 64> buffer;
  for (;;) {
    __ptrace_peeksiginfo_args arguments = {};
    arguments.off = pending.size();
    arguments.flags = shared ? PTRACE_PEEKSIGINFO_SHARED : 0;
    arguments.nr = buffer.size();
    long count = ::ptrace(PTRACE_PEEKSIGINFO, tid_.value, &arguments, buffer.data());
    if (count < 0) return error("read pending signals");
    for (long i = 0; i < count; ++i) {
      pending.emplace_back(reinterpret_cast<const char*>(&buffer[i]), sizeof(siginfo_t));
    }
    if (count < static_cast<long>(buffer.size())) return pending;
  }
}

Result<std::string> Tracee::signal_info() const {
  siginfo_t info;
  if (::ptrace(PTRACE_GETSIGINFO, tid_.value, nullptr, &info) != 0) return error("read the signal");
  return std::string(reinterpret_cast<const char*>(&info), sizeof info);
}

Stop decode_stop(pid_t pid, int status) {
  Stop stop;
  stop.task.value = pid;
  stop.status = status;
  if (!WIFSTOPPED(status)) return stop;
  stop.signal = WSTOPSIG(status);
  int event = status >> 16;
  if (event == PTRACE_EVENT_STOP) {
    stop.kind = stop.signal == SIGTRAP ? Stop::Kind::kInterrupt : Stop::Kind::kGroup;
  } else {
    stop.kind = event != 0 ? Stop::Kind::kEvent : Stop::Kind::kSignal;
  }
  return stop;
}

Result<std::optional<Stop>> Tracee::wait(int64_t deadline_ns) const {
  if (deadline_ns != 0) return wait_until(deadline_ns);
  for (;;) {
    constexpr int64_t kLook = 100'000'000;
    STASIS_TRY(auto stop, wait_until(monotonic_ns() + kLook));
    if (stop) return stop;
    // The end of a leader is not reported as long as somebody has not waited for his threads, which were
    // killed with him.
    auto status = kernel::read_status(tid_);
    if (!status.ok() || status->state == 'Z' || status->state == 'X') {
      STASIS_TRY(auto end, wait_until(monotonic_ns() + 1));
      if (end) return end;
      Error gone = error("wait for");
      gone.cause = "it was killed";
      gone.code = ErrorCode::kTaskGone;
      return gone;
    }
  }
}

Result<std::optional<Stop>> Tracee::wait_until(int64_t deadline_ns) const {
  int status = 0;
  if (pid_t pid = ::waitpid(tid_.value, &status, __WALL | WNOHANG); pid > 0)
    return std::optional(decode_stop(pid, status));
  // waitpid() has no time limit, but every stop sends SIGCHLD, which has one when it is blocked. Looking
  // comes first: several stops may be behind one signal.
  sigset_t child, before;
  ::sigemptyset(&child);
  ::sigaddset(&child, SIGCHLD);
  ::pthread_sigmask(SIG_BLOCK, &child, &before);
  auto waited = [&]() -> Result<std::optional<Stop>> {
    for (;;) {
      pid_t pid = ::waitpid(tid_.value, &status, __WALL | WNOHANG);
      if (pid > 0) return std::optional(decode_stop(pid, status));
      if (pid < 0 && errno == EINTR) continue;
      if (pid < 0) return error("wait for");
      int64_t left = deadline_ns - monotonic_ns();
      if (left <= 0) return std::optional<Stop>();
      timespec time = to_timespec(left);
      ::sigtimedwait(&child, nullptr, &time);
    }
  }();
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return waited;
}

Result<void> read_memory(HostTid task, RemotePtr address, std::span<char> data) {
  while (!data.empty()) {
    iovec local{data.data(), data.size()};
    iovec remote{reinterpret_cast<void*>(address.value), data.size()};
    ssize_t count = ::process_vm_readv(task.value, &local, 1, &remote, 1, 0);
    if (count <= 0) return errno_error("read memory", fmt::format("task {} at {:#x}", task, address.value));
    data = data.subspan(static_cast<size_t>(count));
    address = address + static_cast<uint64_t>(count);
  }
  return {};
}

Result<void> write_memory(HostTid task, RemotePtr address, std::string_view data) {
  while (!data.empty()) {
    iovec local{const_cast<char*>(data.data()), data.size()};
    iovec remote{reinterpret_cast<void*>(address.value), data.size()};
    ssize_t count = ::process_vm_writev(task.value, &local, 1, &remote, 1, 0);
    if (count <= 0) return errno_error("write memory", fmt::format("task {} at {:#x}", task, address.value));
    data.remove_prefix(static_cast<size_t>(count));
    address = address + static_cast<uint64_t>(count);
  }
  return {};
}

}  // namespace stasis::remote

#include "session/processes.h"

#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <charconv>

#include "kernel/pid_namespace.h"
#include "kernel/proc.h"

namespace stasis::session {
namespace {

// Whatever is in a pid namespace of the session, or in one below it, has a number there.
class Examination {
 public:
  static std::optional<Examination> begin(HostTid init) {
    auto identity = kernel::pid_namespace(init);
    auto status = kernel::read_status(init);
    if (!identity || !status.ok() || status->namespace_depth == 0) return {};
    return Examination(*identity, status->namespace_depth - 1);
  }
  std::optional<SessionProcess> examine(HostTid task);

 private:
  Examination(uint64_t identity, size_t level) : namespaces_(identity), level_(level) {}
  kernel::PidNamespaceTree namespaces_;
  size_t level_;
};

std::optional<SessionProcess> Examination::examine(HostTid task) {
  if (!namespaces_.contains(task).value_or(false)) return {};
  auto status = kernel::read_status(task);
  if (!status.ok()) return {};
  status->choose_level(level_);
  return SessionProcess{status->ns_tgid, task, status->state, status->name};
}

std::optional<int> parse_number(std::string_view text) {
  int number = 0;
  auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (problem != std::errc() || end != text.data() + text.size()) return {};
  return number;
}

}  // namespace

Result<std::vector<SessionProcess>> list_processes(const Record& record) {
  auto ours = Examination::begin(record.init);
  if (!ours)
    return Error{"examine session", record.name, "its processes cannot be seen",
                 "it has just ended, or belongs to another user", ErrorCode::kDenied};
  STASIS_TRY(std::vector<int> numbers, kernel::list_numbers(""));
  std::vector<SessionProcess> processes;
  for (int number : numbers) {
    if (number == record.init.value) continue;
    if (auto process = ours->examine(HostTid{number})) processes.push_back(*process);
  }
  std::sort(processes.begin(), processes.end(),
            [](const SessionProcess& a, const SessionProcess& b) { return a.pid < b.pid; });
  return processes;
}

const char* state_name(SessionState state) {
  switch (state) {
    case SessionState::kStarting:
      return "starting";
    case SessionState::kStopped:
      return "stopped";
    case SessionState::kCheckpointing:
      return "checkpointing";
    case SessionState::kRunning:
      break;
  }
  return "running";
}

SessionState state_of(const Record& record, const std::vector<SessionProcess>& processes) {
  auto purpose = SessionLock::purpose_of_holder(record.name);
  if (purpose == kCheckpointPurpose) return SessionState::kCheckpointing;
  // It has an init, but the program does not run yet, and may never.
  if (purpose == kStartPurpose) return SessionState::kStarting;
  bool stopped = !processes.empty() && std::all_of(processes.begin(), processes.end(),
                                                   [](const SessionProcess& p) { return p.state == 'T'; });
  return stopped ? SessionState::kStopped : SessionState::kRunning;
}

Result<int> parse_signal(const std::string& text) {
  std::string name = text;
  for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  if (name.starts_with("SIG")) name.erase(0, 3);
  auto number = parse_number(name);
  for (int signal = 1; !number && signal < SIGRTMIN; ++signal)
    if (const char* known = ::sigabbrev_np(signal); known != nullptr && name == known) number = signal;
  if (!number && name == "RTMIN") number = SIGRTMIN;
  if (!number && name == "RTMAX") number = SIGRTMAX;
  if (!number && name.starts_with("RTMIN+"))
    if (auto offset = parse_number(std::string_view(name).substr(6))) number = SIGRTMIN + *offset;
  if (!number && name.starts_with("RTMAX-"))
    if (auto offset = parse_number(std::string_view(name).substr(6))) number = SIGRTMAX - *offset;
  if (number && *number >= 0 && *number <= SIGRTMAX) return *number;
  return Error{"send a signal", text, "no such signal", "use a name (TERM, SIGUSR1, RTMIN+1) or a number",
               ErrorCode::kUsage};
}

Result<void> send_signal(const Record& record, NsTid pid, int signal) {
  std::string step = fmt::format("send signal {} to process {} of session", signal, pid);
  STASIS_TRY(std::vector<SessionProcess> processes, list_processes(record));
  for (const SessionProcess& process : processes) {
    if (process.pid != pid) continue;
    // The number may be another process's by now; after the pidfd is open it cannot change any more, so look
    // again.
    Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, process.host_pid.value, 0)));
    if (!pidfd) return errno_error(step, record.name);
    auto session = Examination::begin(record.init);
    auto again = session ? session->examine(process.host_pid) : std::nullopt;
    if (!again || again->pid != pid) break;
    if (::syscall(SYS_pidfd_send_signal, pidfd.get(), signal, nullptr, 0) < 0)
      return errno_error(step, record.name);
    return {};
  }
  return Error{step, record.name, "no such process", "'stasis ps' lists the processes", ErrorCode::kNotFound};
}

}  // namespace stasis::session

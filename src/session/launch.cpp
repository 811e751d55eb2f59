#include "session/launch.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <memory>

#include "base/clock.h"
#include "image/store.h"
#include "session/names.h"
#include "session/supervisor.h"

namespace stasis::session {
namespace {

constexpr std::string_view kRunStep = "run ";

// In init: the program is its first child, pid 2, in a new process session, with the session's terminal as
// its controlling one. Signal mask, actions, limits, umask and directory are those that launch was started
// with.
void run_program(const std::vector<std::string>& command, int terminal, int failure_pipe,
                 const struct sigaction& inherited_child_action) {
  if (::fork() != 0) return;
  ::sigaction(SIGCHLD, &inherited_child_action, nullptr);  // init needs its own
  ::setsid();
  if (terminal >= 0) ::ioctl(terminal, TIOCSCTTY, 0);
  std::vector<char*> arguments;
  arguments.reserve(command.size() + 1);
  for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  ::execvp(arguments[0], arguments.data());
  int error = errno;
  if (::write(failure_pipe, &error, sizeof(error)) < 0) ::_exit(126);
  ::_exit(127);
}

// The pipe is closed by a successful exec.
Result<void> confirm_exec(int failure_pipe, const std::string& program) {
  int error = 0;
  if (::read(failure_pipe, &error, sizeof(error)) != sizeof(error)) return {};
  return errno_error(std::string(kRunStep) + program, {}, error);
}

}  // namespace

std::optional<int> exec_failure_code(const Error& error) {
  if (!error.step.starts_with(kRunStep)) return {};
  return error.code == ErrorCode::kNotFound ? 127 : 126;
}

Result<int> launch(const LaunchRequest& request) {
  StartPlan plan;
  plan.ground = request.ground;
  plan.caller_leaves = request.ground == Ground::kBackground && request.interval_ns == 0;
  Record& record = plan.record;
  STASIS_TRY(record.store, absolute_store(request.store));
  STASIS_TRY(ClaimedName claimed, claim_name(request.name, request.command.front(), record.store));
  record.name = claimed.name;
  record.root = NsTid{2};
  record.command = request.command;
  record.interval_ns = request.interval_ns;
  record.keep = request.keep;
  record.files = request.files;
  record.started_ns = clock_ns(CLOCK_REALTIME);
  plan.namespaces.user = needs_user_namespace();
  StandardStreams streams = StandardStreams::plan(request.ground);
  int slave = -1;
  if (streams.need_terminal()) {
    STASIS_TRY(plan.terminal, make_terminal());
    slave = plan.terminal->slave.get();
    if (int user = UserTerminal::find().control; user >= 0) copy_terminal_settings(user, slave);
  }

  auto start_it = [&plan, &claimed, slave, command = request.command]() -> Result<RunningSession> {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) < 0) return errno_error("create a pipe", {});
    Fd failure(ends[0]);
    auto report = std::make_shared<Fd>(ends[1]);
    struct sigaction child_action;
    ::sigaction(SIGCHLD, nullptr, &child_action);
    plan.run = [command, slave, report, child_action] {
      run_program(command, slave, report->get(), child_action);
    };
    plan.confirm = [&failure, command, report] {
      report->reset();  // ours; the program's is the last one then
      return confirm_exec(failure.get(), command.front());
    };
    auto session = start(std::move(plan));
    claimed.lock.release();
    return session;
  };
  return run_session(request.ground, request.interval_ns > 0, start_it,
                     [&request, name = record.name](int64_t) { request.announce(name); });
}

}  // namespace stasis::session

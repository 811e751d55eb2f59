#include "session/launch.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "base/clock.h"
#include "image/store.h"
#include "kernel/network.h"
#include "plugin/plugins.h"
#include "session/names.h"
#include "session/supervisor.h"
#include "stasis/parts.h"

namespace stasis::session {
namespace {

constexpr std::string_view kRunStep = "run ";

// What the program's process needs until it is the program.
struct ProgramStart {
  std::vector<std::string> command;
  int terminal = -1;
  std::shared_ptr<Fd> report;  // a pipe: gets an Error; closed by a successful exec
  struct sigaction inherited_child_action = {};
  std::optional<schema::Display> display;
  bool opengl = false;
  std::string preload;  // libraries of plugins
  bool network_rights = false;
};

[[noreturn]] void fail_to_start(const ProgramStart& start, const Error& error) {
  if (!write_all(start.report->get(), packed(error)).ok()) ::_exit(126);
  ::_exit(127);
}

// An ordinary user's program has no capabilities, not even over what belongs to its own user namespace,
// unless they are ambient. These are for the session's own network, and for nothing of the host's.
void keep_network_rights() {
  constexpr int kRights[] = {CAP_NET_ADMIN, CAP_NET_RAW, CAP_NET_BIND_SERVICE};
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (::syscall(SYS_capget, &header, data) != 0) return;
  for (int right : kRights) data[0].inheritable |= 1U << right;
  if (::syscall(SYS_capset, &header, data) != 0) return;
  for (int right : kRights) ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, right, 0, 0);
}

// In a child of init: a new process session, with the session's terminal as its controlling one. Signal mask,
// actions, limits, umask and directory are those that launch was started with.
[[noreturn]] void run_program(const ProgramStart& start, Result<DisplayStart>* display) {
  ::sigaction(SIGCHLD, &start.inherited_child_action, nullptr);  // init needs its own
  ::setsid();
  if (start.terminal >= 0) ::ioctl(start.terminal, TIOCSCTTY, 0);
  if (display != nullptr) {
    if (!display->ok()) fail_to_start(start, display->error());
    if (auto ready = (*display)->wait(); !ready.ok()) fail_to_start(start, ready.error());
  }
  if (start.network_rights) keep_network_rights();
  if (start.opengl) set_opengl_environment(display != nullptr);
  if (!start.preload.empty()) {
    const char* wanted = ::getenv("LD_PRELOAD");
    const std::string all = wanted == nullptr ? start.preload : fmt::format("{}:{}", wanted, start.preload);
    ::setenv("LD_PRELOAD", all.c_str(), 1);
  }
  std::vector<char*> arguments;
  arguments.reserve(start.command.size() + 1);
  for (const std::string& argument : start.command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  ::execvp(arguments[0], arguments.data());
  fail_to_start(start, errno_error(std::string(kRunStep) + arguments[0], {}));
}

// In init: its first children, the program (kProgram) and its X server (kDisplayServer).
void run_children(const ProgramStart& start) {
  if (!start.display) {
    if (::fork() == 0) run_program(start, nullptr);
    return;
  }
  auto display = DisplayStart::begin(*start.display);
  if (::fork() == 0) run_program(start, &display);
  if (display.ok() && ::fork() == 0) display->run_server();
}

// Chooses the plugins; returns what is to be loaded into the programs.
std::string choose_plugins(const std::vector<std::string>& without, std::vector<std::string>& chosen) {
  std::string preload;
  for (const plugin::Plugin* plugin : plugin::plugins()) {
    const std::string name(plugin->name());
    if (std::find(without.begin(), without.end(), name) != without.end() || !plugin->is_wanted()) continue;
    if (!plugin->preload().empty()) {
      const std::string library = plugin::find_part(name, plugin->preload());
      // A path with a space or a colon in it cannot be said to the loader.
      if (library.empty() || library.find_first_of(" :") != std::string::npos) continue;
      if (!preload.empty()) preload += ':';
      preload += library;
    }
    chosen.push_back(name);
  }
  return preload;
}

Result<void> confirm_exec(int failure_pipe) {
  auto error = read_all(failure_pipe);
  if (!error.ok() || error->empty()) return {};
  return unpacked(*error);
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
  record.root = kProgram;
  record.command = request.command;
  record.interval_ns = request.interval_ns;
  record.keep = request.keep;
  record.files = request.files;
  record.started_ns = clock_ns(CLOCK_REALTIME);
  auto server = std::make_shared<std::optional<OpenGlServer>>();
  if (request.display) {
    STASIS_TRY(record.display, choose_display(*request.display));
  }
  STASIS_TRY(record.opengl, choose_opengl(request.opengl, record.display.has_value()));
  if (record.opengl) {
    plan.beside = [server,
                   has_display = record.display.has_value()](const std::string& directory) -> Result<void> {
      STASIS_TRY(*server, OpenGlServer::start(directory, has_display));
      return {};
    };
  }
  const std::string preload = choose_plugins(request.without, record.plugins);
  plan.namespaces.user = needs_user_namespace();
  if (request.private_network) {
    record.private_network = plan.namespaces.network = true;
    plan.prepare = kernel::raise_loopback;
  }
  StandardStreams streams = StandardStreams::plan(request.ground);
  int slave = -1;
  if (streams.need_terminal()) {
    STASIS_TRY(plan.terminal, make_terminal());
    slave = plan.terminal->slave.get();
    if (int user = UserTerminal::find().control; user >= 0) copy_terminal_settings(user, slave);
  }

  ProgramStart program{.command = request.command,
                       .terminal = slave,
                       .display = record.display,
                       .opengl = record.opengl,
                       .preload = preload,
                       .network_rights = request.private_network && plan.namespaces.user};
  auto start_it = [&plan, &claimed, server,
                   program = std::move(program)]() mutable -> Result<RunningSession> {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) < 0) return errno_error("create a pipe", {});
    Fd failure(ends[0]);
    program.report = std::make_shared<Fd>(ends[1]);
    ::sigaction(SIGCHLD, nullptr, &program.inherited_child_action);
    plan.run = [program] { run_children(program); };
    plan.confirm = [&failure, report = program.report] {
      report->reset();  // ours; the program's is the last one then
      return confirm_exec(failure.get());
    };
    auto session = start(std::move(plan));
    if (session.ok()) {
      tell_how_to_view(session->record);
      // Without, the program sees that there is none.
      if (*server) (void)(*server)->attach(session->record).ok();
    }
    claimed.lock.release();
    return session;
  };
  return run_session(request.ground, request.interval_ns > 0, start_it,
                     [&request, name = record.name](int64_t) { request.announce(name); });
}

}  // namespace stasis::session

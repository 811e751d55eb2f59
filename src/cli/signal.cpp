#include "cli/output.h"
#include "cli/verbs.h"
#include "session/processes.h"

namespace stasis::cli {
namespace {

struct SignalOptions {
  std::string name;
  std::string signal;
  int pid = 0;
  bool all = false;
};

Result<void> run_signal(const SignalOptions& options) {
  STASIS_TRY(int number, session::parse_signal(options.signal));
  STASIS_TRY(session::Record record, session::load_live_record(options.name));
  if (!options.all)
    return session::send_signal(record, options.pid > 0 ? NsTid{options.pid} : record.root, number);
  STASIS_TRY(std::vector<session::SessionProcess> processes, session::list_processes(record));
  for (const session::SessionProcess& process : processes)
    if (auto sent = session::send_signal(record, process.pid, number); !sent.ok()) {
      // One that ended since the list was made needs no signal.
      if (sent.error().code != ErrorCode::kNotFound && sent.error().code != ErrorCode::kTaskGone) return sent;
    }
  return {};
}

}  // namespace

CLI::App* add_signal(CLI::App& app, int& status) {
  CLI::App* verb = app.add_subcommand("signal", "Send a signal to a process of a session");
  auto options = std::make_shared<SignalOptions>();
  verb->add_option("SESSION", options->name, "Name of the session ('stasis ps')")->required();
  verb->add_option("SIGNAL", options->signal, "Name, with or without SIG, or number")->required();
  auto* pid =
      verb->add_option("--pid", options->pid, "Pid in the session (default: the program that was launched)");
  verb->add_flag("--all", options->all, "All processes of the session")->excludes(pid);
  verb->footer(R"(
Examples:
  stasis signal db TERM
  stasis signal bash SIGUSR1 --pid 17
  stasis signal bash KILL --all)");
  verb->callback([options, &status] { status = report(run_signal(*options)); });
  return verb;
}

}  // namespace stasis::cli

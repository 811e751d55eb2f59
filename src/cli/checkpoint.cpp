#include "session/checkpoint.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/file_options.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "session/foreign.h"

namespace stasis::cli {
namespace {

using nlohmann::json;

struct CheckpointOptions {
  session::CheckpointRequest request;
  int pid = 0;  // of a program that was not launched; 0: a session is saved
  std::string new_name;
  std::string store;
  FileOptions files;
  bool as_json = false;
};

void print_report(const std::string& name, const checkpoint::Report& report) {
  json value = {{"session", name},
                {"id", report.id},
                {"directory", report.directory},
                {"processes", report.processes},
                {"stored", report.stored},
                {"shared", report.shared},
                {"compared", report.compared},
                {"base", report.base},
                {"pause_ns", report.pause_ns},
                {"total_ns", report.total_ns},
                {"warnings", report.warnings}};
  fmt::print("{}\n", value.dump(2, ' ', false, json::error_handler_t::replace));
}

// Leaves the name under which it was saved in the request.
Result<checkpoint::Report> save(CheckpointOptions& options) {
  if (options.pid == 0) return session::checkpoint_session(options.request);
  session::ForeignRequest foreign;
  foreign.root = HostTid{options.pid};
  foreign.store = options.store;
  foreign.common = options.request;
  foreign.common.name = options.new_name;
  STASIS_TRY(session::ForeignSaved saved, session::checkpoint_foreign(foreign));
  options.request.name = saved.name;
  return std::move(saved.report);
}

int run_checkpoint(CheckpointOptions& options) {
  if ((options.pid == 0) == options.request.name.empty()) {
    return report(Error{"checkpoint",
                        {},
                        "it needs either the name of a session or --pid",
                        "'stasis ps' lists the sessions",
                        ErrorCode::kUsage});
  }
  options.request.files = options.files.chosen_mode();
  auto limit = options.files.chosen_limit();
  if (!limit.ok()) return report(limit.error());
  options.request.files_limit = *limit;
  Progress progress("checkpoint " + (options.pid == 0 ? options.request.name : std::to_string(options.pid)));
  options.request.progress = [&progress](uint64_t done, uint64_t total) { progress.update(done, total); };
  auto result = save(options);
  if (!result.ok()) return report(result.error());
  for (const std::string& warning : result->warnings) fmt::print(stderr, "stasis: warning: {}\n", warning);
  const checkpoint::Report& made = *result;
  if (options.as_json) {
    print_report(options.request.name, *result);
  } else {
    std::string shared;
    if (made.base != 0) shared = fmt::format(" (changes since @{})", made.base);
    fmt::print("{}@{}: {} process{}, {} stored{}, paused {}, complete in {}, {}\n", options.request.name,
               made.id, made.processes, made.processes == 1 ? "" : "es", human_size(made.stored), shared,
               human_duration(made.pause_ns), human_duration(made.total_ns), made.directory);
  }
  return kExitOk;
}

}  // namespace

CLI::App* add_checkpoint(CLI::App& app, int& status) {
  CLI::App* verb =
      app.add_subcommand("checkpoint", "Save a running session or program; return when it is on disk");
  auto options = std::make_shared<CheckpointOptions>();
  verb->add_option("SESSION", options->request.name, "Name of the session ('stasis ps')");
  auto* pid =
      verb->add_option("--pid", options->pid,
                       "Save this process and its descendants, which stasis has not launched; 'stasis "
                       "restart NAME' brings them back as a session");
  constexpr int kMostPid = 1 << 22;  // PID_MAX_LIMIT
  pid->check(CLI::Range(1, kMostPid))->type_name("PID");
  verb->add_option(
          "--name", options->new_name,
          "With --pid: the name to save it under. Default: that of its last checkpoint, or the program's")
      ->needs(pid)
      ->type_name("NAME");
  verb->add_option("--store", options->store, "With --pid: where checkpoints are kept")
      ->needs(pid)
      ->type_name("DIR");
  verb->add_flag("--stop", options->request.stop,
                 "End the session when it is saved; nothing runs in between");
  verb->add_flag("--full", options->request.full,
                 "Write all memory again; else what an earlier checkpoint has is shared with it");
  verb->add_option("--tag", options->request.tag, "A note that 'stasis list' shows");
  options->files.add_to(*verb, "as launched");
  verb->add_flag("--json", options->as_json, "Print the result as JSON");
  verb->footer(R"(
A checkpoint that fails or is refused leaves the program running and the earlier checkpoints as they were.
With --pid the program's process session, standard streams and terminal become those of the restart where they
came from outside of it, and its root's parent is the session's init; those who were adopted by a process above
the root are not saved.
From the second one on only memory that has changed is written; each is complete by itself all the same.

Examples:
  stasis checkpoint db
  stasis checkpoint db --tag before-upgrade
  stasis checkpoint --pid $(pidof vim) --name notes --stop && stasis restart notes
  stasis checkpoint db --full                  share nothing with the earlier ones
  stasis checkpoint vm --files=copy            also a disk of many GiB, while it stands still
  stasis checkpoint db --stop && stasis restart db)");
  verb->callback([options, &status] { status = run_checkpoint(*options); });
  return verb;
}

}  // namespace stasis::cli

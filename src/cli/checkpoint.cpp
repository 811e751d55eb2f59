#include "session/checkpoint.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/file_options.h"
#include "cli/output.h"
#include "cli/verbs.h"

namespace stasis::cli {
namespace {

using nlohmann::json;

struct CheckpointOptions {
  session::CheckpointRequest request;
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

int run_checkpoint(CheckpointOptions& options) {
  options.request.files = options.files.chosen_mode();
  auto limit = options.files.chosen_limit();
  if (!limit.ok()) return report(limit.error());
  options.request.files_limit = *limit;
  Progress progress("checkpoint " + options.request.name);
  options.request.progress = [&progress](uint64_t done, uint64_t total) { progress.update(done, total); };
  auto result = session::checkpoint_session(options.request);
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
  CLI::App* verb = app.add_subcommand("checkpoint", "Save a running session; return when it is on disk");
  auto options = std::make_shared<CheckpointOptions>();
  verb->add_option("SESSION", options->request.name, "Name of the session ('stasis ps')")->required();
  verb->add_flag("--stop", options->request.stop,
                 "End the session when it is saved; nothing runs in between");
  verb->add_flag("--full", options->request.full,
                 "Write all memory again; else what an earlier checkpoint has is shared with it");
  verb->add_option("--tag", options->request.tag, "A note that 'stasis list' shows");
  options->files.add_to(*verb, "as launched");
  verb->add_flag("--json", options->as_json, "Print the result as JSON");
  verb->footer(R"(
A checkpoint that fails or is refused leaves the program running and the earlier checkpoints as they were.
From the second one on only memory that has changed is written; each is complete by itself all the same.

Examples:
  stasis checkpoint db
  stasis checkpoint db --tag before-upgrade
  stasis checkpoint db --full                  share nothing with the earlier ones
  stasis checkpoint vm --files=copy            also a disk of many GiB, while it stands still
  stasis checkpoint db --stop && stasis restart db)");
  verb->callback([options, &status] { status = run_checkpoint(*options); });
  return verb;
}

}  // namespace stasis::cli

#include "session/restart.h"

#include <nlohmann/json.hpp>

#include "cli/command_line.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "session/opengl.h"

namespace stasis::cli {
namespace {

using nlohmann::json;

struct RestartOptions {
  session::RestartRequest request;
  std::string memory = "mapped";
  std::string files;
  std::string interval;
  std::optional<uint32_t> keep;
  bool background = false;
  std::vector<std::string> map_path;
  bool as_json = false;
};

int run_restart(RestartOptions& options) {
  session::RestartRequest& request = options.request;
  request.memory = options.memory == "mapped" ? restore::MemoryMode::kMapped : restore::MemoryMode::kEager;
  if (options.files == "put-back") request.files = restore::FileUse::kPutBack;
  if (options.files == "copies") request.files = restore::FileUse::kCopies;
  if (options.files == "keep") request.files = restore::FileUse::kKeep;
  for (const std::string& rule : options.map_path) {
    if (auto added = request.paths.add(rule); !added.ok()) return report(added.error());
  }
  if (options.background) request.ground = session::Ground::kBackground;
  request.announce = [as_json = options.as_json](const session::Restarted& done) {
    if (!as_json) {
      fmt::print("{}\n", done.name);
      return;
    }
    const json value = {{"session", done.name},
                        {"directory", done.directory},
                        {"processes", done.processes},
                        {"engine_ns", done.took_ns}};
    fmt::print("{}\n", value.dump(2, ' ', false, json::error_handler_t::replace));
  };
  if (!options.interval.empty()) {
    auto interval = parse_duration(options.interval);
    if (!interval.ok()) return report(interval.error());
    request.interval_ns = *interval;
  }
  request.keep = options.keep;
  Progress progress("restart " + request.what);
  request.progress = [&progress](uint64_t done, uint64_t total) { progress.update(done, total); };
  auto status = session::restart(request);
  return status.ok() ? *status : report(status.error());
}

}  // namespace

CLI::App* add_restart(CLI::App& app, int& status) {
  CLI::App* verb = app.add_subcommand("restart", "Let a saved session go on");
  auto options = std::make_shared<RestartOptions>();
  verb->add_option("SESSION[@ID]|DIR", options->request.what,
                   "A session (its newest checkpoint), one of its checkpoints, or a checkpoint's directory")
      ->required();
  verb->add_option("--name", options->request.name, "Name of the new session (default: the saved one's)");
  verb->add_option("--store", options->request.store,
                   "Directory for checkpoints (default: where the session has them)");
  verb->add_flag("--background", options->background, "Return when it runs, and print the session's name");
  verb->add_flag("--json", options->as_json, "Print it as JSON, with how long it took (with --background)")
      ->needs("--background");
  verb->add_option(
          "--memory", options->memory,
          "mapped: pages come from the image when they are touched, at once for any size; eager: all of them "
          "are read before the program goes on")
      ->check(CLI::IsMember({"mapped", "eager"}))
      ->capture_default_str();
  verb->add_option(
          "--files", options->files,
          "Files that the checkpoint captured. put-back: they become what they were, and what is newer is "
          "kept as NAME.before-restart-ID; copies: the session gets its own in the store; keep: they stay "
          "as they are. Default: put-back, but copies with another --name")
      ->check(CLI::IsMember({"put-back", "copies", "keep"}))
      ->type_name("HOW");
  verb->add_option(
          "--map-path", options->map_path,
          "What was at OLD, or below it, is at NEW now; may be given several times. Without anything "
          "there, a path stays as it was")
      ->type_name("OLD=NEW")
      ->allow_extra_args(false);
  verb->add_option("--gl-driver", options->request.gl_driver, session::driver_help());
  verb->add_option("--interval", options->interval, "Save it this often (default: as before)");
  verb->add_option("--keep", options->keep, "How many interval checkpoints to keep (default: as before)");
  verb->footer(R"(
The program gets its old pids, in namespaces of its own, so the same checkpoint can run several times at once;
one that was launched with --net=private has its network again, too, and so the same ports.
Its terminal is replaced by that of this command. In the foreground the command then behaves as the program.

Examples:
  stasis restart db --background
  stasis restart bash@3
  stasis restart bash@3 --name what-if
  stasis restart /backup/db/7 --memory=eager
  stasis restart editor --map-path /home/ann=/home/bob
  stasis restart db@7 --map-path /=/var/lib/stasis/db/7/files   (with what 'export --self-contained' carried))");
  verb->callback([options, &status] { status = run_restart(*options); });
  return verb;
}

}  // namespace stasis::cli

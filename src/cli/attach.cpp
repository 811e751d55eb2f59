#include "session/attach.h"

#include "cli/output.h"
#include "cli/verbs.h"

namespace stasis::cli {
namespace {

struct AttachOptions {
  std::string name;
  std::string detach_key = "ctrl-]";
  bool steal = false;
};

int run_attach(const AttachOptions& options) {
  auto key = session::parse_detach_key(options.detach_key);
  if (!key.ok()) return report(key.error());
  auto status =
      session::attach({.name = options.name,
                       .manner = options.steal ? session::Attach::kSteal : session::Attach::kPolitely,
                       .detach_key = *key});
  return status.ok() ? *status : report(status.error());
}

}  // namespace

CLI::App* add_attach(CLI::App& app, int& status) {
  CLI::App* verb = app.add_subcommand("attach", "Connect to the terminal of a running session");
  auto options = std::make_shared<AttachOptions>();
  verb->add_option("SESSION", options->name, "Name of the session ('stasis ps')")->required();
  verb->add_option("--detach-key", options->detach_key,
                   "Key that leaves the session running (default: ctrl-])");
  verb->add_flag("--steal", options->steal, "Take the terminal from whoever is attached");
  verb->footer(R"(
Shows the last 64 KiB that were written while nobody was attached, then connects. Exits with 0 when detached,
and as the program did when it ends.

Examples:
  stasis attach bash
  stasis attach bash --steal --detach-key ctrl-a)");
  verb->callback([options, &status] { status = run_attach(*options); });
  return verb;
}

}  // namespace stasis::cli

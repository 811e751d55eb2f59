// The command: one verb, its options, and an exit code that scripts can rely on.
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iterator>
#include <string_view>

#include "base/prefault.h"
#include "cli/command_line.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "kernel/proc.h"
#include "plugin/plugins.h"

namespace {

constexpr const char* kFooter = R"(
Examples:
  stasis launch -- python3 train.py          run a program so that it can be saved
  stasis checkpoint python3                  save it; it goes on
  stasis checkpoint python3 --stop           save it and end it
  stasis restart python3                     go on from the newest checkpoint
  stasis restart python3@2 --name second     a second copy, from checkpoint 2

Files: $STASIS_HOME, else $XDG_STATE_HOME/stasis, else ~/.local/state/stasis)";

// At the end of every verb's help.
constexpr const char* kExitCodes = R"(

Exit codes (launch, restart and attach in the foreground: that of the program):
  0 done            3 no such session, checkpoint or file     6 somebody else is working on it
  1 failed          4 refused: nothing was changed            7 the image is damaged
  2 usage           5 this host lacks what is needed          8 permission denied)";

struct Verb {
  std::string_view name;
  CLI::App* (*add)(CLI::App& app, int& status);
};
constexpr Verb kVerbs[] = {{"launch", stasis::cli::add_launch},   {"checkpoint", stasis::cli::add_checkpoint},
                           {"restart", stasis::cli::add_restart}, {"ps", stasis::cli::add_ps},
                           {"attach", stasis::cli::add_attach},   {"signal", stasis::cli::add_signal},
                           {"list", stasis::cli::add_list},       {"inspect", stasis::cli::add_inspect},
                           {"verify", stasis::cli::add_verify},   {"rm", stasis::cli::add_rm},
                           {"prune", stasis::cli::add_prune},     {"export", stasis::cli::add_export},
                           {"import", stasis::cli::add_import},   {"gl", stasis::cli::add_gl},
                           {"check", stasis::cli::add_check}};

// Whatever we open must not become the program's standard stream.
void occupy_standard_streams() {
  int fd;
  do fd = ::open("/dev/null", O_RDWR);
  while (fd >= 0 && fd < 3);
  if (fd >= 3) ::close(fd);
}

}  // namespace

int main(int argc, char** argv) {
  using namespace stasis;
  prefault(kHeap);
  occupy_standard_streams();
  kernel::host_proc();  // while /proc is the host's
  plugin::install();

  CLI::App app("Saves running programs to disk and brings them back, from outside and without root.",
               "stasis");
  int status = cli::kExitOk;
  app.set_version_flag("--version", STASIS_VERSION);
  app.require_subcommand(1);
  app.footer(std::string(kFooter) + kExitCodes);
  app.get_formatter()->column_width(36);
  // Only the verb that is asked for is built: describing all of them takes longer than a restart needs.
  bool known = std::any_of(std::begin(kVerbs), std::end(kVerbs),
                           [&](const Verb& verb) { return argc > 1 && argv[1] == verb.name; });
  for (const Verb& verb : kVerbs) {
    if (known && argv[1] != verb.name) continue;
    CLI::App* added = verb.add(app, status);
    added->footer(added->get_footer() + kExitCodes);
  }

  try {
    app.parse(cli::split_command(argc, argv));
  } catch (const CLI::ParseError& problem) {
    // CLI11 numbers its errors itself; for scripts all of them are wrong usage.
    return app.exit(problem) == 0 ? cli::kExitOk : cli::kExitUsage;
  }
  return status;
}

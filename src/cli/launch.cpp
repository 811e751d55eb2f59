#include "session/launch.h"

#include "cli/command_line.h"
#include "cli/file_options.h"
#include "cli/output.h"
#include "cli/verbs.h"

namespace stasis::cli {
namespace {

struct LaunchOptions {
  session::LaunchRequest request;
  std::string interval;
  std::string display;
  std::string opengl = "auto";
  std::string kvm = "auto";
  std::string net = "host";
  FileOptions files;
  bool background = false;
  CLI::App* verb = nullptr;
};

// What follows the options is not CLI11's to parse, so it does not know that it is there.
class LaunchFormatter : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App*, std::string name) const override {
    return "Usage: " + name + " [OPTIONS] -- PROGRAM [ARGS...]\n";
  }
};

int run_launch(LaunchOptions& options) {
  session::LaunchRequest& request = options.request;
  request.command = options.verb->remaining();
  // What CLI11 does not know it takes for the beginning of the program.
  if (!request.command.empty() && request.command.front().starts_with("-"))
    return report(Error{"launch", request.command.front(), "no such option",
                        "stasis launch --help; a program whose name begins with '-' comes behind --",
                        ErrorCode::kUsage});
  const std::vector<std::string>& more = command_after_dashes();
  request.command.insert(request.command.end(), more.begin(), more.end());
  if (request.command.empty())
    return report(
        Error{"launch", {}, "no program given", "stasis launch -- PROGRAM ARGS...", ErrorCode::kUsage});
  if (!options.interval.empty()) {
    auto interval = parse_duration(options.interval);
    if (!interval.ok()) return report(interval.error());
    request.interval_ns = *interval;
  }
  if (!options.display.empty()) {
    auto display = session::parse_display(options.display);
    if (!display.ok()) return report(display.error());
    request.display = *display;
  }
  if (options.opengl == "on") request.opengl = session::OpenGlUse::kOn;
  if (options.opengl == "off") request.opengl = session::OpenGlUse::kOff;
  request.private_network = options.net == "private";
  if (options.kvm == "off") request.without.emplace_back("kvm");
  if (auto mode = options.files.chosen_mode()) request.files.mode = *mode;
  auto limit = options.files.chosen_limit();
  if (!limit.ok()) return report(limit.error());
  if (*limit) request.files.limit = **limit;
  if (options.background) request.ground = session::Ground::kBackground;
  request.announce = [](const std::string& name) { fmt::print("{}\n", name); };
  auto status = session::launch(request);
  if (status.ok()) return *status;
  int code = report(status.error());
  return session::exec_failure_code(status.error()).value_or(code);
}

}  // namespace

CLI::App* add_launch(CLI::App& app, int& status) {
  CLI::App* verb = app.add_subcommand("launch", "Run a program so that it can be saved");
  auto options = std::make_shared<LaunchOptions>();
  options->verb = verb;
  verb->add_option("--name", options->request.name, "Name of the session (default: the program's)");
  verb->add_option("--store", options->request.store,
                   "Directory for its checkpoints (default: <state>/store)");
  verb->add_option("--interval", options->interval, "Save it this often: 90s, 10m, 2h, 1d");
  verb->add_option("--keep", options->request.keep, "How many interval checkpoints to keep (default: all)");
  options->files.add_to(*verb, "auto");
  // A flag, since an option would take the program's name for the size.
  verb->add_flag(
      "--display{1280x1024}", options->display,
      "Give it a private X server, of this many pixels (--display=WIDTHxHEIGHT, default 1280x1024), "
      "which is saved and restarted with it. Needs Xvfb. vnc or vnc:WIDTHxHEIGHT: one that VNC viewers "
      "can connect to, and says how (needs Xtigervnc; its checkpoints have no pictures)");
  verb->add_option("--gl", options->opengl,
                   "Record OpenGL, so that a restart may have another driver: auto (with --display, when the "
                   "parts for it are installed), on (also without, for programs that draw with EGL into "
                   "memory), off")
      ->check(CLI::IsMember({"auto", "on", "off"}));
  verb->add_option("--kvm", options->kvm,
                   "Save virtual machines that use KVM: auto (when you may open /dev/kvm; a small library is "
                   "loaded into the programs and sleeps until one opens it), off")
      ->check(CLI::IsMember({"auto", "off"}));
  verb->add_option(
          "--net", options->net,
          "host: it uses the network of the host; private: it has one of its own, with nothing in it but "
          "loopback, where it may make interfaces (also tap devices). A restart makes it again with all "
          "that is in it, for each of several restarts of one checkpoint")
      ->check(CLI::IsMember({"host", "private"}))
      ->capture_default_str();
  verb->add_flag("--background", options->background,
                 "Return when it runs, and print the session's name. Terminals, pipes and sockets among "
                 "its standard streams are replaced by a terminal of its own ('stasis attach')");
  verb->prefix_command();
  auto formatter = std::make_shared<LaunchFormatter>();
  formatter->column_width(app.get_formatter()->get_column_width());
  verb->formatter(formatter);
  verb->footer(R"(
In the foreground the command behaves as the program would: terminal, signals, exit status. It exits with 127
when PROGRAM is not found, and with 126 when it cannot be executed. When 'stasis checkpoint --stop' ends the
session, it says so and exits with 0. Killing the command, also with SIGKILL, does not hurt the program.

With --display the session ends with the last process beside the X server. Each of its checkpoints carries a
picture of the screen ('stasis list --html').

Examples:
  stasis launch -- bash
  stasis launch --name db --background -- redis-server --port 7000
  stasis launch --display -- xterm
  stasis launch --display=vnc --background -- xterm
  stasis launch --display=800x600 --background -- firefox
  stasis launch --net=private --background -- redis-server --port 7000
  stasis launch --interval 10m --keep 3 -- ./simulate --steps 1000000)");
  verb->callback([options, &status] { status = run_launch(*options); });
  return verb;
}

}  // namespace stasis::cli

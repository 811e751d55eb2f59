// What OpenGL of a session is recorded, and with which driver it draws.
#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "base/clock.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "session/opengl.h"

namespace stasis::cli {
namespace {

using nlohmann::json;

struct GlOptions {
  std::string name;
  std::string driver;
  bool as_json = false;
};

Result<std::string> ask(const std::string& name, const std::string& request) {
  STASIS_TRY(session::Record record, session::load_live_record(name));
  if (!record.opengl)
    return Error{"OpenGL", name, "it is not recorded in this session", "stasis launch --gl=on",
                 ErrorCode::kNotFound};
  STASIS_TRY(std::string directory, session::session_directory(name));
  return session::ask_opengl_server(directory, request);
}

// "ok recorded=5 kept=3 ...", a line for each program.
std::vector<json> programs_of(const std::string& said) {
  std::vector<json> programs;
  std::istringstream lines(said);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    json program = json::object();
    for (std::string word; words >> word;) {
      const size_t sign = word.find('=');
      if (word.starts_with("driver=")) {  // the last one
        std::string rest;
        std::getline(words, rest);
        program["driver"] = word.substr(sign + 1) + rest;
        break;
      }
      if (sign != std::string::npos) program[word.substr(0, sign)] = std::stoull(word.substr(sign + 1));
    }
    if (!program.empty()) programs.push_back(std::move(program));
  }
  return programs;
}

Result<void> run_status(const GlOptions& options) {
  STASIS_TRY(std::string said, ask(options.name, "status"));
  const auto before = programs_of(said);
  const int64_t begun_ns = monotonic_ns();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  STASIS_TRY(said, ask(options.name, "status"));
  auto programs = programs_of(said);
  const double seconds = static_cast<double>(monotonic_ns() - begun_ns) / 1e9;
  for (size_t i = 0; i < programs.size() && i < before.size(); ++i) {
    const uint64_t now = programs[i].value("recorded", uint64_t{0}), then = before[i].value("recorded", now);
    programs[i]["per_second"] =
        static_cast<uint64_t>(static_cast<double>(now - std::min(then, now)) / seconds);
  }
  if (options.as_json) {
    fmt::print("{}\n", json(programs).dump(2));
    return {};
  }
  std::vector<std::vector<std::string>> rows;
  for (const json& program : programs) {
    auto number = [&](const char* key) { return program.value(key, uint64_t{0}); };
    rows.push_back({std::to_string(number("per_second")), std::to_string(number("recorded")),
                    std::to_string(number("kept")), human_size(number("bytes")),
                    std::to_string(number("objects")), std::to_string(number("round_trips")),
                    human_duration(static_cast<int64_t>(number("replay_us")) * 1000),
                    program.value("driver", std::string())});
  }
  print_table({{"CALLS/S", Align::kRight},
               {"RECORDED", Align::kRight},
               {"KEPT", Align::kRight},
               {"IN", Align::kRight},
               {"OBJECTS", Align::kRight},
               {"ROUND TRIPS", Align::kRight},
               {"LAST REPLAY", Align::kRight},
               {"DRIVER", Align::kLeft}},
              rows);
  return {};
}

Result<void> run_move(const GlOptions& options) {
  STASIS_TRY(std::string settings, session::driver_settings(options.driver));
  STASIS_TRY(std::string said, ask(options.name, "move " + settings));
  return {};
}

}  // namespace

CLI::App* add_gl(CLI::App& app, int& status) {
  CLI::App* verb = app.add_subcommand("gl", "Show what OpenGL is recorded, or go on with another driver");
  verb->require_subcommand(1);
  auto options = std::make_shared<GlOptions>();
  CLI::App* show = verb->add_subcommand("status", "Calls recorded and kept, for each program of a session");
  show->add_option("SESSION", options->name, "Name of the session ('stasis ps')")->required();
  show->add_flag("--json", options->as_json, "Print it as JSON");
  show->callback([options, &status] { status = report(run_status(*options)); });
  CLI::App* move = verb->add_subcommand("move", "Let running programs go on with another driver");
  move->add_option("SESSION", options->name, "Name of the session ('stasis ps')")->required();
  move->add_option("--driver", options->driver, session::driver_help())->required();
  move->callback([options, &status] { status = report(run_move(*options)); });
  verb->footer(R"(
Examples:
  stasis gl status game
  stasis gl move game --driver softpipe)");
  return verb;
}

}  // namespace stasis::cli

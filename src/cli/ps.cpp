#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/output.h"
#include "cli/verbs.h"
#include "session/display.h"
#include "session/interval.h"
#include "session/processes.h"

namespace stasis::cli {
namespace {

using nlohmann::json;

// What somebody outside of the session needs to connect to its X server.
json display_json(const session::Record& record) {
  auto directory = session::session_directory(record.name);
  if (!directory.ok()) return nullptr;
  json object = {{"number", record.display->number()},
                 {"server_pid", record.display->server()},
                 {"width", record.display->width()},
                 {"height", record.display->height()},
                 {"socket", session::display_socket(*directory, *record.display)},
                 {"authority", session::display_authority(*directory)}};
  if (record.display->vnc()) object["vnc"] = session::display_vnc_socket(*directory);
  return object;
}

json session_json(const session::Record& record, const std::vector<session::SessionProcess>& processes) {
  json list = json::array();
  for (const session::SessionProcess& process : processes)
    list.push_back({{"pid", process.pid.value},
                    {"host_pid", process.host_pid.value},
                    {"comm", process.comm},
                    {"state", std::string(1, process.state)}});
  json object = {{"name", record.name},
                 {"state", session::state_name(session::state_of(record, processes))},
                 {"processes", list},
                 {"root_pid", record.root.value},
                 {"command", record.command},
                 {"store", record.store},
                 {"terminal", record.terminal_device != 0},
                 {"started", iso_time(record.started_ns)}};
  if (record.display) object["display"] = display_json(record);
  if (record.interval_ns > 0) {
    auto failure = session::interval_failure(record.name);
    object["interval_failure"] =
        failure ? json{{"since", iso_time(failure->since_ns)}, {"message", failure->message}} : json(nullptr);
  }
  return object;
}

std::string shown_command(const session::Record& record) {
  std::string text;
  for (const std::string& argument : record.command) text += (text.empty() ? "" : " ") + argument;
  constexpr size_t kWidth = 60;
  if (text.size() > kWidth) text = text.substr(0, kWidth - 3) + "...";
  for (char& c : text)
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  return text;
}

int run_ps(bool as_json) {
  auto records = session::all_records();
  if (!records.ok()) return report(records.error());
  json all = json::array();
  std::vector<std::vector<std::string>> rows;
  std::string failures;
  for (const session::Record& record : *records) {
    if (!session::is_alive(record)) continue;
    auto processes = session::list_processes(record);
    if (!processes.ok()) continue;  // it has ended this moment
    if (as_json) {
      all.push_back(session_json(record, *processes));
    } else {
      rows.push_back({record.name, session::state_name(session::state_of(record, *processes)),
                      std::to_string(processes->size()), iso_time(record.started_ns), shown_command(record)});
      if (auto failure = session::interval_failure(record.name))
        failures += fmt::format("stasis: {}: its checkpoints by interval fail since {}: {}\n", record.name,
                                iso_time(failure->since_ns), failure->message);
    }
  }
  if (as_json) {
    fmt::print("{}\n", all.dump(2, ' ', false, json::error_handler_t::replace));
  } else {
    print_table({{"SESSION"}, {"STATE"}, {"PROCESSES", Align::kRight}, {"STARTED"}, {"COMMAND"}}, rows);
    fmt::print(stderr, "{}", failures);
  }
  return kExitOk;
}

}  // namespace

CLI::App* add_ps(CLI::App& app, int& status) {
  CLI::App* verb = app.add_subcommand("ps", "List the running sessions");
  auto as_json = std::make_shared<bool>(false);
  verb->add_flag("--json", *as_json, "An array of objects with name, state and processes");
  verb->footer(R"(
The state is starting, running, stopped (all processes are stopped by job control) or checkpointing.
In JSON each process has its pid in the session, its host_pid and its comm; a session with a display has one:
number, size, and the paths of the socket and the authority file by which it is reached from outside; one that is saved
by interval has interval_failure: null, or since when its checkpoints fail, and why the last one did.

Example:
  stasis ps --json | jq '.[].processes[].host_pid')");
  verb->callback([as_json, &status] { status = run_ps(*as_json); });
  return verb;
}

}  // namespace stasis::cli

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/output.h"
#include "cli/page.h"
#include "cli/stores.h"
#include "cli/verbs.h"
#include "image/store.h"
#include "session/record.h"

namespace stasis::cli {
namespace {

using nlohmann::json;

struct ListOptions {
  std::string session;
  std::string store;
  std::string page;
  bool as_json = false;
};

json entry_json(const image::Entry& entry) {
  json object = {{"session", entry.session},
                 {"id", entry.id},
                 {"tag", entry.tag},
                 {"created", iso_time(entry.created_ns)},
                 {"processes", entry.processes},
                 {"logical_bytes", entry.logical},
                 {"stored_bytes", entry.stored},
                 {"own_bytes", entry.own},
                 {"base", entry.base},
                 {"pause_ms", static_cast<double>(entry.pause_ns) * 1e-6},
                 {"directory", entry.directory},
                 {"usable", entry.problem.empty()}};
  if (!entry.picture.empty()) object["picture"] = entry.picture;
  if (!entry.problem.empty()) object["problem"] = entry.problem;
  return object;
}

Result<std::vector<image::Entry>> find_entries(const ListOptions& options) {
  std::vector<image::Entry> found;
  if (!options.session.empty()) {
    STASIS_TRY(auto reference, image::parse_reference(options.session));
    if (!reference.directory.empty() || reference.id != 0) {
      return Error{"list", options.session, "this is not a session's name",
                   "stasis inspect shows one checkpoint", ErrorCode::kUsage};
    }
    STASIS_TRY(auto store, store_of(options.session, options.store));
    STASIS_TRY(found, image::list(store + "/" + options.session));
    // A session that was not saved yet has an empty list; a name that means nothing is a mistake.
    if (found.empty() && !session::load_record(options.session).ok()) {
      return Error{"list", options.session,
                   fmt::format("there is no such session, and no checkpoint of one in {}", store),
                   "stasis ps and stasis list show what there is", ErrorCode::kNotFound};
    }
    return found;
  }
  STASIS_TRY(auto stores, all_stores(options.store));
  for (const auto& store : stores) {
    STASIS_TRY(auto sessions, image::list_sessions(store));
    for (const auto& session : sessions) {
      STASIS_TRY(auto entries, image::list(fmt::format("{}/{}", store, session)));
      std::move(entries.begin(), entries.end(), std::back_inserter(found));
    }
  }
  return found;
}

int run_list(const ListOptions& options) {
  auto entries = find_entries(options);
  if (!entries.ok()) return report(entries.error());
  if (!options.page.empty()) {
    const std::string title =
        options.session.empty() ? std::string("Checkpoints") : "Checkpoints of " + options.session;
    return report(write_page(options.page, checkpoint_page(title, *entries)));
  }
  if (options.as_json) {
    json all = json::array();
    for (const auto& entry : *entries) all.push_back(entry_json(entry));
    fmt::print("{}\n", all.dump(2, ' ', false, json::error_handler_t::replace));
    return kExitOk;
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& entry : *entries) {
    const std::string name = fmt::format("{}@{}", entry.session, entry.id);
    if (!entry.problem.empty()) {
      rows.push_back({name, "unusable", "", "", "", "", "", entry.directory});
      continue;
    }
    rows.push_back({name, iso_time(entry.created_ns), fmt::format("{}", entry.processes),
                    human_size(entry.logical), human_size(entry.own), human_duration(entry.pause_ns),
                    entry.tag, entry.directory});
  }
  print_table({{"CHECKPOINT"},
               {"CREATED"},
               {"PROCESSES", Align::kRight},
               {"SIZE", Align::kRight},
               {"ON DISK", Align::kRight},
               {"PAUSE", Align::kRight},
               {"TAG"},
               {"DIRECTORY"}},
              rows);
  for (const auto& entry : *entries) {
    if (!entry.problem.empty())
      fmt::print(stderr, "stasis: {}@{}: {}\n", entry.session, entry.id, entry.problem);
  }
  return kExitOk;
}

}  // namespace

CLI::App* add_list(CLI::App& app, int& status) {
  CLI::App* verb = app.add_subcommand("list", "List checkpoints, oldest first");
  auto options = std::make_shared<ListOptions>();
  verb->add_option("SESSION", options->session, "Only those of this session, running or ended");
  verb->add_option("--store", options->store, kStoreHelp)->type_name("DIR");
  verb->add_flag(
      "--json", options->as_json,
      "An array of objects: session, id, tag, created, processes, logical_bytes, stored_bytes, own_bytes, "
      "base, pause_ms, directory, usable, and picture, the path of a PNG, of sessions with a display");
  verb->add_option(
          "--html", options->page,
          "Write a page for a browser instead, with time, size, tag and picture of each; it needs no "
          "other file. \"-\": to standard output")
      ->type_name("FILE")
      ->excludes("--json");
  verb->footer(R"(
ON DISK is what is free when the checkpoint is removed: pages that it shares with others are not in it.

Examples:
  stasis list                                         all checkpoints of all sessions
  stasis list db
  stasis list paint --html paint.html                 a page with the screen of each
  stasis list db --json | jq -r '.[-1].directory'     where the newest one is)");
  verb->callback([options, &status] { status = run_list(*options); });
  return verb;
}

}  // namespace stasis::cli

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/output.h"
#include "cli/stores.h"
#include "cli/verbs.h"
#include "image/store.h"
#include "kernel/probe.h"
#include "plugin/plugins.h"
#include "resource/registry.h"

namespace stasis::cli {
namespace {

using nlohmann::json;

struct CheckOptions {
  std::string store;
  bool as_json = false;
};

const char* word(kernel::Ability ability) {
  switch (ability) {
    case kernel::Ability::kOk:
      return "ok";
    case kernel::Ability::kPartial:
      return "partial";
    case kernel::Ability::kMissing:
      return "missing";
  }
  return "missing";
}

void print_findings(const std::vector<kernel::Finding>& findings, bool usable) {
  json checks = json::array();
  for (const auto& finding : findings) {
    checks.push_back({{"name", finding.name},
                      {"state", word(finding.ability)},
                      {"essential", finding.essential},
                      {"reason", finding.reason},
                      {"remedy", finding.remedy}});
  }
  const json object = {{"usable", usable}, {"checks", checks}};
  fmt::print("{}\n", object.dump(2, ' ', false, json::error_handler_t::replace));
}

void print_text(const std::vector<kernel::Finding>& findings, bool usable) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& finding : findings) {
    rows.push_back({finding.name, word(finding.ability), finding.essential ? "yes" : "", finding.reason});
    if (!finding.remedy.empty()) rows.push_back({"", "", "", "-> " + finding.remedy});
  }
  print_table({{"WHAT"}, {"STATE"}, {"ESSENTIAL"}, {"FOUND"}}, rows);
  fmt::print("\n{}\n",
             usable ? "stasis works here." : "stasis does not work here: something essential is missing.");
}

int run_check(const CheckOptions& options) {
  std::string store = options.store;
  if (store.empty()) {
    auto usual = image::default_store();
    if (!usual.ok()) return report(usual.error());
    store = *usual;
  }
  auto findings = kernel::probe_host(store);
  for (const plugin::Plugin* plugin : plugin::plugins()) {
    for (auto& found : plugin->check()) {
      findings.push_back({std::move(found.name), false,
                          found.works ? kernel::Ability::kOk : kernel::Ability::kMissing,
                          std::move(found.reason), std::move(found.remedy)});
    }
  }
  const bool usable = std::none_of(findings.begin(), findings.end(), [](const kernel::Finding& finding) {
    return finding.essential && finding.ability == kernel::Ability::kMissing;
  });
  if (options.as_json) {
    print_findings(findings, usable);
  } else {
    print_text(findings, usable);
  }
  return usable ? kExitOk : kExitUnsupported;
}

// docs/support.md, made from the registry itself, so that it cannot lie.
void print_support() {
  fmt::print("# What is saved\n\n");
  fmt::print(
      "Made by `stasis check --support` from the registry of kinds. A checkpoint of a program that has "
      "something\n");
  fmt::print("refused is refused as a whole, naming it, and the program runs on.\n");
  auto kinds = resource::all_kinds();
  std::stable_sort(kinds.begin(), kinds.end(),
                   [](const auto& a, const auto& b) { return a.group < b.group; });
  std::string_view group;
  for (const auto& kind : kinds) {
    if (kind.group != group) {
      group = kind.group;
      fmt::print("\n## {}\n\n| what | saved | limits, or the reason |\n| --- | --- | --- |\n", group);
    }
    const char* level = kind.support == resource::Support::kFull      ? "yes"
                        : kind.support == resource::Support::kPartial ? "in part"
                                                                      : "refused";
    fmt::print("| {} | {} | {} |\n", kind.title, level, kind.note);
  }
}

}  // namespace

CLI::App* add_check(CLI::App& app, int& status) {
  CLI::App* verb = app.add_subcommand("check", "Try what this host supports, as this user");
  auto options = std::make_shared<CheckOptions>();
  verb->add_option("--store", options->store, "Also try this place for checkpoints")->type_name("DIR");
  verb->add_flag("--json", options->as_json,
                 "An object: usable, and checks, an array of name, state (ok, partial, missing), essential, "
                 "reason, remedy");
  verb->footer(R"(
Everything is really tried, in processes that are thrown away; nothing on the host is changed.
Exits with 5 when something is missing without which nothing works.

Examples:
  stasis check
  stasis check --json | jq -r '.checks[] | select(.state != "ok") | .name + ": " + .remedy')");
  auto support = std::make_shared<bool>(false);
  verb->add_flag("--support", *support, "Instead: what of a program is saved, as a table in Markdown");
  verb->callback([options, support, &status] {
    if (*support) {
      print_support();
      status = kExitOk;
    } else {
      status = run_check(*options);
    }
  });
  return verb;
}

}  // namespace stasis::cli

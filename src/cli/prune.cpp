#include "image/prune.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/output.h"
#include "cli/stores.h"
#include "cli/verbs.h"
#include "image/store.h"

namespace stasis::cli {
namespace {

struct PruneOptions {
  std::vector<std::string> sessions;
  std::string store;
  uint32_t keep = 0;
};

Result<void> prune(const std::string& session, const PruneOptions& options) {
  STASIS_TRY(auto reference, image::parse_reference(session));
  if (!reference.directory.empty() || reference.id != 0) {
    return Error{"prune", session, "this is not a session's name", "stasis rm removes one checkpoint",
                 ErrorCode::kUsage};
  }
  STASIS_TRY(auto store, store_of(session, options.store));
  const std::string directory = store + "/" + session;
  STASIS_TRY(auto entries, image::list(directory));
  if (entries.empty()) {
    return Error{"prune", session, fmt::format("there is no checkpoint of it in {}", store),
                 "stasis list shows what there is", ErrorCode::kNotFound};
  }
  STASIS_TRY(uint64_t before, image::disk_usage(directory));
  size_t removed = 0;
  for (; options.keep != 0 && removed + options.keep < entries.size(); ++removed)
    STASIS_CHECK(image::remove(entries[removed].directory));
  STASIS_CHECK(image::prune(directory));
  STASIS_TRY(uint64_t after, image::disk_usage(directory));
  fmt::print("{}: {} checkpoint{} removed, {} freed, {} in use\n", session, removed, removed == 1 ? "" : "s",
             human_size(before - std::min(before, after)), human_size(after));
  return {};
}

int run_prune(const PruneOptions& options) {
  int status = kExitOk;
  for (const auto& session : options.sessions) {
    if (const int code = report(prune(session, options)); status == kExitOk) status = code;
  }
  return status;
}

}  // namespace

CLI::App* add_prune(CLI::App& app, int& status) {
  CLI::App* verb = app.add_subcommand("prune", "Free what no checkpoint of a session needs any more");
  auto options = std::make_shared<PruneOptions>();
  verb->add_option("SESSION", options->sessions, "Sessions, running or ended")->required();
  verb->add_option("--keep", options->keep, "Remove all but so many of the newest checkpoints first")
      ->check(CLI::PositiveNumber);
  verb->add_option("--store", options->store, kStoreHelp)->type_name("DIR");
  verb->footer(R"(
Checkpoints share pages that did not change between them. When some have been removed, the shared files may hold
pages that none of the others needs: such files are written again without them. The checkpoints stay what they are.

Examples:
  stasis prune db
  stasis prune db --keep 3)");
  verb->callback([options, &status] { status = run_prune(*options); });
  return verb;
}

}  // namespace stasis::cli

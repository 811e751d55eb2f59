#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/output.h"
#include "cli/stores.h"
#include "cli/verbs.h"
#include "image/reader.h"

namespace stasis::cli {
namespace {

using nlohmann::json;

struct VerifyOptions {
  std::vector<std::string> references;
  std::string store;
  bool as_json = false;
};

struct Verified {
  std::string directory;
  uint64_t bytes = 0;
  int files = 0;
  uint64_t unsummed = 0;
};

// Fills in what was found out before an error.
Result<void> verify(const std::string& reference, const std::string& store, Verified& verified) {
  STASIS_TRY(verified.directory, checkpoint_directory(reference, store));
  STASIS_TRY(auto image, image::Image::open(verified.directory));
  verified.bytes = image.logical_size();
  verified.files = image.manifest().files_size();
  for (const auto& file : image.manifest().files()) verified.unsummed += file.unsummed() ? file.size() : 0;
  Progress progress("verify " + reference);
  return image.verify([&](uint64_t done, uint64_t total) { progress.update(done, total); });
}

int run_verify(const VerifyOptions& options) {
  int status = kExitOk;
  json all = json::array();
  for (const auto& reference : options.references) {
    Verified verified;
    const auto result = verify(reference, options.store, verified);
    // The first failure decides the exit code; the others are looked at all the same.
    if (!result.ok() && status == kExitOk) status = exit_code(result.error().code);
    if (options.as_json) {
      json object = {{"checkpoint", reference}, {"ok", result.ok()}};
      if (!verified.directory.empty()) object["directory"] = verified.directory;
      if (result.ok()) {
        object["bytes"] = verified.bytes;
        object["files"] = verified.files;
        object["unsummed_bytes"] = verified.unsummed;
      } else {
        object["error"] = result.error().message();
      }
      all.push_back(std::move(object));
    } else if (result.ok()) {
      fmt::print("{}: good: {} in {} file{}{}\n", verified.directory, human_size(verified.bytes),
                 verified.files, verified.files == 1 ? "" : "s",
                 verified.unsummed == 0 ? ""
                                        : fmt::format("; {} of them are clones without sums, and can be read",
                                                      human_size(verified.unsummed)));
    } else {
      report(result.error());
    }
  }
  if (options.as_json) fmt::print("{}\n", all.dump(2, ' ', false, json::error_handler_t::replace));
  return status;
}

}  // namespace

CLI::App* add_verify(CLI::App& app, int& status) {
  CLI::App* verb = app.add_subcommand("verify", "Read checkpoints completely and compare every checksum");
  auto options = std::make_shared<VerifyOptions>();
  verb->add_option("CHECKPOINT", options->references, kReferenceHelp)->required();
  verb->add_option("--store", options->store, kStoreHelp)->type_name("DIR");
  verb->add_flag("--json", options->as_json,
                 "An array of objects: checkpoint, ok, directory, and bytes and files or error");
  verb->footer(R"(
Exits with 7 when something is damaged and says which file and where. Restart checks the manifest and the
sizes of all files by itself, but reads the pages only when the program needs them.

Examples:
  stasis verify db
  stasis verify db@3 db@4
  stasis verify /backup/db/3)");
  verb->callback([options, &status] { status = run_verify(*options); });
  return verb;
}

}  // namespace stasis::cli

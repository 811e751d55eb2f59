#include <unistd.h>

#include <cstdio>

#include "cli/output.h"
#include "cli/stores.h"
#include "cli/verbs.h"
#include "image/store.h"
#include "session/record.h"

namespace stasis::cli {
namespace {

struct RmOptions {
  std::vector<std::string> references;
  std::string store;
  bool all = false;
  bool force = false;
};

// Whole sessions.
Result<void> remove_all(const std::string& text, const RmOptions& options) {
  STASIS_TRY(auto reference, image::parse_reference(text));
  if (!reference.directory.empty() || reference.id != 0) {
    return Error{"remove checkpoints", text, "--all takes a session's name",
                 "leave --all out to remove one checkpoint", ErrorCode::kUsage};
  }
  STASIS_TRY(auto store, store_of(reference.session, options.store));
  const std::string directory = store + "/" + reference.session;
  STASIS_TRY(auto entries, image::list(directory));
  // A session that runs has its files in use.
  auto record = session::load_record(reference.session);
  const bool runs = record.ok() && session::is_alive(*record);
  std::vector<std::string> own;
  if (!runs) {
    STASIS_TRY(own, image::remove_own_files(directory));
  }
  if (entries.empty() && own.empty() && !options.force) {
    return Error{"remove checkpoints", reference.session, fmt::format("there is none in {}", store),
                 "stasis list shows what there is", ErrorCode::kNotFound};
  }
  // Newest last: whoever restarts the session meanwhile gets the newest, or nothing.
  for (const auto& entry : entries) STASIS_CHECK(image::remove(entry.directory));
  // Stays when a checkpoint is being written in it.
  rmdir(directory.c_str());
  return {};
}

Result<void> remove_one(const std::string& text, const RmOptions& options) {
  STASIS_TRY(auto reference, image::parse_reference(text));
  if (reference.directory.empty() && reference.id == 0 && !options.force) {
    STASIS_TRY(auto store, store_of(reference.session, options.store));
    STASIS_TRY(auto entries, image::list(store + "/" + reference.session));
    if (entries.size() > 1) {
      return Error{
          "remove checkpoint", text, fmt::format("it has {} checkpoints", entries.size()),
          fmt::format("say which ({}@{}), or --all, or --force for the newest", text, entries.back().id),
          ErrorCode::kUsage};
    }
  }
  auto directory = checkpoint_directory(text, options.store);
  if (!directory.ok()) {
    if (options.force && directory.error().code == ErrorCode::kNotFound) return {};
    return std::move(directory).error();
  }
  return image::remove(*directory);
}

int run_rm(const RmOptions& options) {
  int status = kExitOk;
  for (const auto& reference : options.references) {
    const auto removed = options.all ? remove_all(reference, options) : remove_one(reference, options);
    if (const int code = report(removed); status == kExitOk) status = code;
  }
  return status;
}

}  // namespace

CLI::App* add_rm(CLI::App& app, int& status) {
  CLI::App* verb = app.add_subcommand("rm", "Remove checkpoints");
  auto options = std::make_shared<RmOptions>();
  verb->add_option("CHECKPOINT", options->references,
                   "SESSION@ID, a checkpoint's directory, or SESSION when it has only one")
      ->required();
  verb->add_option("--store", options->store, kStoreHelp)->type_name("DIR");
  verb->add_flag(
      "--all", options->all,
      "All checkpoints of the sessions named, and the files of their own of those that do not run");
  verb->add_flag("--force", options->force,
                 "Nothing to remove is no error; SESSION alone is its newest checkpoint");
  verb->footer(R"(
A program that was restarted from a removed checkpoint runs on: its mappings hold the files until it ends.
Any checkpoint can be removed: what others share with it stays (see stasis prune).
Damaged checkpoints can be removed too.

Examples:
  stasis rm db@3
  stasis rm --all db
  stasis rm /backup/db/3)");
  verb->callback([options, &status] { status = run_rm(*options); });
  return verb;
}

}  // namespace stasis::cli

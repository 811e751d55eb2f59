#include "image/import.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/output.h"
#include "cli/stores.h"
#include "cli/verbs.h"
#include "image/compression.h"
#include "session/record.h"

namespace stasis::cli {
namespace {

using nlohmann::json;

struct ImportOptions {
  std::string file;
  std::string name;
  std::string store;
  bool as_json = false;
};

json import_json(const image::Imported& done) {
  json mapped = json::array();
  for (const auto& one : done.differences) {
    json object = {{"path", one.path}, {"problem", one.problem}, {"same_contents", one.same_contents}};
    if (!one.carried.empty()) object["carried"] = one.carried;
    mapped.push_back(std::move(object));
  }
  return {{"session", done.session},       {"id", done.id},
          {"directory", done.directory},   {"files", done.files},
          {"logical_bytes", done.logical}, {"stored_bytes", done.stored},
          {"mapped_files", done.carried},  {"differences", std::move(mapped)}};
}

void warn_of(const image::Difference& one) {
  std::string more;
  if (one.same_contents) more = "; its contents are the same";
  if (!one.carried.empty()) more += fmt::format("; that of the export is {}", one.carried);
  fmt::print(stderr, "stasis: warning: the program has mapped {}: {} here{}\n", one.path, one.problem, more);
}

Result<void> run(const ImportOptions& options) {
  if (!options.name.empty()) STASIS_CHECK(session::check_name(options.name));
  const bool is_stream = options.file == "-";
  Fd file;
  if (is_stream && isatty(STDIN_FILENO) == 1) {
    return Error{"import", "standard input", "it is a terminal", "give a file, or what comes from a pipe",
                 ErrorCode::kUsage};
  }
  if (!is_stream) {
    auto opened = open_file(options.file, O_RDONLY);
    if (!opened.ok()) return std::move(opened).error().within("import");
    file = std::move(*opened);
  }
  const int fd = is_stream ? STDIN_FILENO : file.get();
  struct stat status;
  if (fstat(fd, &status) != 0) return errno_error("import", options.file);
  if (S_ISDIR(status.st_mode)) {
    return Error{"import", options.file, "it is a directory",
                 "a checkpoint's directory is used where it is: stasis restart DIR", ErrorCode::kUsage};
  }
  const uint64_t size = S_ISREG(status.st_mode) ? static_cast<uint64_t>(status.st_size) : 0;

  image::ImportRequest request;
  request.source = is_stream ? "standard input" : options.file;
  request.name = options.name;
  request.session_store = [&options](const std::string& session) -> Result<std::string> {
    if (auto valid = session::check_name(session); !valid.ok()) {
      Error error = std::move(valid).error();
      error.hint = "give it another: --name";
      return error;
    }
    STASIS_TRY(const std::string store, store_of(session, options.store));
    return store + "/" + session;
  };
  image::Decompressor decompressor(fd, request.source);
  Progress progress("import " + request.source);
  request.progress = [&](uint64_t done, uint64_t total) {
    // Of a file it is known how much is left.
    progress.update(size != 0 ? decompressor.consumed() : done, size != 0 ? size : total);
  };
  STASIS_TRY(const image::Imported done, image::import_image(decompressor, request));

  if (options.as_json) {
    fmt::print("{}\n", import_json(done).dump(2, ' ', false, json::error_handler_t::replace));
    return {};
  }
  const std::string mapped =
      done.carried.empty() ? std::string() : fmt::format(" and {} mapped files", done.carried.size());
  fmt::print("{}@{}: {} in {} file{}{}, {}\n", done.session, done.id, human_size(done.stored), done.files,
             done.files == 1 ? "" : "s", mapped, done.directory);
  std::fflush(stdout);
  bool carried = false;
  for (const auto& one : done.differences) {
    warn_of(one);
    carried = carried || !one.carried.empty();
  }
  if (carried) {
    fmt::print(stderr,
               "stasis: to restart it with those of the export: stasis restart {}@{} --map-path /={}/files\n",
               done.session, done.id, done.directory);
  }
  return {};
}

}  // namespace

CLI::App* add_import(CLI::App& app, int& status) {
  CLI::App* verb = app.add_subcommand("import", "Make a checkpoint of a file that export has written");
  auto options = std::make_shared<ImportOptions>();
  verb->add_option("FILE", options->file, "The file; \"-\": standard input")->required();
  verb->add_option("--name", options->name,
                   "Name of the session to which it is added (default: the exported one's)");
  verb->add_option("--store", options->store, "Where it goes, unless the session knows")->type_name("DIR");
  verb->add_flag(
      "--json", options->as_json,
      "Print as JSON: session, id, directory, files, logical_bytes, stored_bytes, mapped_files, and "
      "differences, an array of path, problem, same_contents and carried");
  verb->footer(R"(
It becomes the session's newest checkpoint. All of the file is read and every checksum compared before it does;
of a file that is damaged, or was not written by stasis, nothing is left, and the exit code is 7.
Restart only what you trust: it runs the code in it.

A restart maps executables and libraries of the host. Those that are missing, or others than the program had, are
named. What was exported with --self-contained has them in files/ of the checkpoint's directory.

Examples:
  stasis import db.stasis && stasis restart db
  stasis import db.stasis --name db-copy
  ssh other stasis export db - | stasis import -)");
  verb->callback([options, &status] { status = report(run(*options)); });
  return verb;
}

}  // namespace stasis::cli

#include "image/export.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/output.h"
#include "cli/stores.h"
#include "cli/verbs.h"
#include "image/compression.h"
#include "image/directory.h"

namespace stasis::cli {
namespace {

using nlohmann::json;

struct ExportOptions {
  std::string reference;
  std::string file;
  std::string store;
  int level = image::kDefaultLevel;
  bool self_contained = false;
  bool force = false;
  bool as_json = false;
};

// The file that is written. It gets its name when all of it is on the disk; until then it has none, or where
// the file system cannot do that, one that says that it is incomplete, which goes with us.
class Output {
 public:
  static Result<Output> open(const std::string& path, bool replace) {
    Output output;
    output.path_ = path;
    output.replace_ = replace;
    if (path == "-") {
      if (isatty(STDOUT_FILENO) == 1) {
        return Error{"export", "standard output", "it is a terminal", "give a file, or lead it into a pipe",
                     ErrorCode::kUsage};
      }
      output.file_ = Fd(STDOUT_FILENO);
      output.is_stream_ = true;
      return output;
    }
    struct stat status;
    if (stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
      // A device or a FIFO; a directory is told so by the kernel.
      STASIS_TRY(output.file_, open_file(path, O_WRONLY));
      output.is_stream_ = true;
      return output;
    }
    if (lstat(path.c_str(), &status) == 0 && !replace) return output.exists();
    const size_t slash = path.find_last_of('/');
    const std::string directory = slash == path.npos ? "." : path.substr(0, slash + 1);
    output.file_ = Fd(::open(directory.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600));
    if (!output.file_) {
      output.temporary_ = fmt::format("{}.incomplete-{}", path, getpid());
      output.file_ =
          Fd(::open(output.temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
      if (!output.file_) {
        const Error error = errno_error("export", path);
        output.temporary_.clear();
        return error;
      }
    }
    return output;
  }

  Output(Output&& other) noexcept
      : path_(std::move(other.path_)),
        temporary_(std::exchange(other.temporary_, {})),
        file_(std::move(other.file_)),
        replace_(other.replace_),
        is_stream_(other.is_stream_) {}
  Output& operator=(Output&&) = delete;
  ~Output() {
    if (!temporary_.empty()) unlink(temporary_.c_str());
    if (file_.get() == STDOUT_FILENO) (void)file_.release();
  }

  int fd() const { return file_.get(); }

  Result<void> publish() {
    if (is_stream_) return {};
    if (fsync(file_.get()) != 0) return image::write_error("export", path_, errno);
    if (temporary_.empty()) {
      const std::string self = fmt::format("/proc/self/fd/{}", file_.get());
      if (linkat(AT_FDCWD, self.c_str(), AT_FDCWD, path_.c_str(), AT_SYMLINK_FOLLOW) == 0) return {};
      if (errno != EEXIST) return errno_error("export", path_);
      if (!replace_) return exists();
      // A link replaces nothing, but a rename does.
      const std::string temporary = fmt::format("{}.incomplete-{}", path_, getpid());
      if (linkat(AT_FDCWD, self.c_str(), AT_FDCWD, temporary.c_str(), AT_SYMLINK_FOLLOW) != 0)
        return errno_error("export", path_);
      temporary_ = temporary;
    }
    const unsigned flags = replace_ ? 0 : RENAME_NOREPLACE;
    if (renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), flags) != 0)
      return errno == EEXIST ? exists() : errno_error("export", path_);
    temporary_.clear();
    return {};
  }

 private:
  Output() = default;
  Error exists() const {
    return Error{"export", path_, "it exists", "give another name, or --force", ErrorCode::kRefused};
  }

  std::string path_;
  std::string temporary_;  // empty: the file has no name
  Fd file_;
  bool replace_ = false;
  bool is_stream_ = false;
};

Result<void> run(const ExportOptions& options) {
  STASIS_TRY(const std::string directory, checkpoint_directory(options.reference, options.store));
  STASIS_TRY(const image::Image image, image::Image::open(directory));
  STASIS_TRY(Output output, Output::open(options.file, options.force));

  image::Compressor compressor(output.fd(), options.file == "-" ? "standard output" : options.file,
                               options.level);
  Progress progress("export " + options.reference);
  image::ExportRequest request;
  request.carry_mapped_files = options.self_contained;
  request.progress = [&progress](uint64_t done, uint64_t total) { progress.update(done, total); };
  STASIS_TRY(const image::Exported done, image::export_image(image, compressor, request));
  STASIS_CHECK(compressor.finish());
  STASIS_CHECK(output.publish());

  const int files = image.manifest().files_size();
  const std::string what = fmt::format("{}@{}", image.manifest().session(), image.manifest().id());
  // Standard output may be the archive.
  FILE* said = options.file == "-" ? stderr : stdout;
  if (options.as_json) {
    const json value = {{"session", image.manifest().session()},
                        {"id", image.manifest().id()},
                        {"directory", image.directory()},
                        {"file", options.file},
                        {"files", files},
                        {"logical_bytes", done.logical},
                        {"stored_bytes", done.stored},
                        {"archive_bytes", compressor.written()},
                        {"mapped_files", done.carried}};
    fmt::print(said, "{}\n", value.dump(2, ' ', false, json::error_handler_t::replace));
  } else {
    const std::string mapped =
        options.self_contained ? fmt::format(" and {} mapped files", done.carried.size()) : std::string();
    fmt::print(said, "{}: {} in {} file{}{}, {} in {}\n", what, human_size(done.stored), files,
               files == 1 ? "" : "s", mapped, human_size(compressor.written()),
               options.file == "-" ? "standard output" : options.file);
  }
  return {};
}

}  // namespace

CLI::App* add_export(CLI::App& app, int& status) {
  CLI::App* verb = app.add_subcommand("export", "Write a checkpoint to one file, compressed");
  auto options = std::make_shared<ExportOptions>();
  verb->add_option("SESSION[@ID]|DIR", options->reference,
                   "A session (its newest checkpoint), one of its checkpoints, or a checkpoint's directory")
      ->required();
  verb->add_option("FILE", options->file, "The file to be made; \"-\": standard output")->required();
  verb->add_flag(
      "--self-contained", options->self_contained,
      "Also the files of this host that the program has mapped (executables, libraries), for a host that "
      "has others");
  verb->add_option("--level", options->level, "How hard zstd tries: 1 (fast) to 19 (small)")
      ->check(CLI::Range(1, image::kHighestLevel))
      ->capture_default_str();
  verb->add_flag("--force", options->force, "Replace FILE");
  verb->add_option("--store", options->store, kStoreHelp)->type_name("DIR");
  verb->add_flag(
      "--json", options->as_json,
      "Print as JSON: session, id, directory, file, files, logical_bytes, stored_bytes, archive_bytes, "
      "mapped_files");
  verb->footer(R"(
All of the checkpoint is in it, also what it shares with others, and every checksum is compared on the way.
It is a tar archive in a zstd frame, so that other tools can read it: what tar unpacks is a checkpoint's directory.
Whoever has it has the memory of the program, with all secrets in it.

Examples:
  stasis export db db.stasis
  stasis export db@3 - | ssh other stasis import -
  stasis export db db.stasis --self-contained
  tar --zstd -tvf db.stasis                    what is in it)");
  verb->callback([options, &status] { status = report(run(*options)); });
  return verb;
}

}  // namespace stasis::cli

#include <sys/stat.h>

#include <set>

#include "image/validate_internal.h"

namespace stasis::image::validation {
namespace {

// A restart creates, renames and overwrites by these paths.
bool usable_path(const std::string& path) {
  return sane_text(path, kPathLimit) && path.starts_with('/') && !path.ends_with('/') &&
         !path.ends_with("/..") && !path.ends_with("/.") && path.find("/../") == std::string::npos;
}

Result<void> check_captured_file(const schema::CapturedFile& file, const std::string& where,
                                 const Known& known, std::set<std::string>& paths,
                                 std::set<std::string>& contents) {
  if (!usable_path(file.path())) return bad(where, "its path is no absolute path of a file");
  if (!paths.insert(file.path()).second) return bad(where, "its path is there twice");
  for (const auto& path : file.other_paths()) {
    if (!usable_path(path)) return bad(where, "one of its paths is no absolute path of a file");
    if (!paths.insert(path).second) return bad(where, "one of its paths is there twice");
  }
  if (!S_ISREG(file.mode())) return bad(where, "it is no regular file");
  if (file.size() > kSizeLimit) return bad(where, fmt::format("{} bytes are impossible", file.size()));
  if (!schema::CapturedFile::Method_IsValid(file.method()))
    return bad(where, fmt::format("unknown method {}", file.method()));
  if (file.method() != schema::CapturedFile::CONTENT) {
    if (!file.content().empty()) return bad(where, "it has content, and should have none");
    if (file.method() == schema::CapturedFile::LENGTH && !file.appended())
      return bad(where, "only its length was kept, but it was written to");
    return {};
  }
  const auto content = known.file_sizes.find(file.content());
  if (content == known.file_sizes.end()) return bad(where, "its content is not in the image");
  if (content->second != file.size()) return bad(where, "its content has another size than the file had");
  if (!contents.insert(file.content()).second) return bad(where, "its content is also another file's");
  return {};
}

}  // namespace

Result<void> check_captured_files(const Known& known) {
  std::set<std::string> paths, contents;
  for (int i = 0; i < known.manifest->captured_files_size(); ++i) {
    STASIS_CHECK(check_captured_file(known.manifest->captured_files(i), fmt::format("captured file {}", i),
                                     known, paths, contents));
  }
  return {};
}

}  // namespace stasis::image::validation

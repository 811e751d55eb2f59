// Files of the host that the program has mapped: executables, libraries, and what else an image names by its
// path. An export may carry them; they lie in `files/` of the checkpoint then, under the paths that they had.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "schema/manifest.pb.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::image {

inline constexpr std::string_view kCarriedDirectory = "files";

struct MappedFile {
  std::string path;         // absolute, without "." and ".."
  bool is_private = false;  // a restart needs it to be as large as it was ...
  bool unmodified = false;  // ... and not to have been modified
  uint64_t size = 0;
  int64_t modified_ns = 0;
};

// Each once, sorted by path. Without those whose content is in the image, or that the program's own mounts
// cover.
std::vector<MappedFile> mapped_files(const schema::Manifest& manifest);

// Why the file of that name at this host is not the one that was mapped: "it is missing"; empty: it is. The
// rule is that of a restart.
std::string problem_at_host(const MappedFile& file);

// What an import has to say about one.
struct Difference {
  std::string path;
  std::string problem;
  std::string carried;  // where the import has put it; empty: the export did not carry it
  bool same_contents = false;
};
// `carried_in`: <checkpoint>/files; contents of files that are there are compared as well.
std::vector<Difference> compare_with_host(const schema::Manifest& manifest, const std::string& carried_in);

// Makes `files/` in a directory that is nobody else's, file by file.
class CarriedFiles {
 public:
  // The directory must live as long.
  explicit CarriedFiles(int directory) : directory_(directory) {}
  // For writing; 0600, or 0700 when it is `executable`. The directories on its way are made, 0700. The path
  // must be one that mapped_files() can give.
  Result<Fd> create(const std::string& path, bool executable);
  // Everything is on the disk.
  Result<void> sync();
  bool any() const { return !files_.empty(); }

 private:
  int directory_;
  std::vector<std::string> files_;
};

// The same files in another directory (hard links), if there are any.
Result<void> link_carried(int from, int to);

}  // namespace stasis::image

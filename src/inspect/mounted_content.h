// What is in a file system that is in memory only.
#pragma once

#include <sys/stat.h>

#include <map>
#include <string>

#include "schema/namespaces.pb.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::inspect {

class MountedContent {
 public:
  // `content`: the file of the checkpoint for what is in its files.
  explicit MountedContent(Fd content) : content_(std::move(content)) {}

  // Adds a directory with all that is below it, or a file. `root`: our descriptor of it, with nothing mounted
  // on it; `path`: its path below the root of the file system.
  Result<void> add(int root, const std::string& path, schema::FileSystem& out);
  // A file by itself.
  Result<void> add_file(int file, schema::MountedFile& out);

 private:
  Result<void> enter(int directory, const std::string& path, size_t depth);
  Result<void> visit(int directory, const std::string& name, const std::string& path, size_t depth);
  Result<schema::MountedFile*> describe(const std::string& place, const std::string& path,
                                        const struct stat& status);
  Result<void> copy(const std::string& place, const std::string& path, schema::MountedFile& file);
  std::string shown(const std::string& path) const;

  Fd content_;
  schema::FileSystem* out_ = nullptr;
  uint64_t used_ = 0;
  std::map<ino_t, std::string> linked_;
};

}  // namespace stasis::inspect

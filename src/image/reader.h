// Reads one checkpoint that we may trust: ours, unaltered in structure, and complete.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "schema/manifest.pb.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::image {

class Image {
 public:
  // Refuses a directory or file that is another user's or that others can write, symbolic links, a manifest
  // with a wrong magic, version, length or sum or with contents that contradict themselves (validate.h), and
  // files of another size than recorded. Does not read the contents of the files: that is verify().
  static Result<Image> open(const std::string& directory);

  const schema::Manifest& manifest() const { return manifest_; }
  const std::string& directory() const { return directory_; }

  // Before it is used: for a restart that differs from what was saved.
  schema::Manifest& manifest_to_change() { return manifest_; }
  // A file of the checkpoint, read-only. Only names in manifest.files.
  Result<Fd> open_file(const std::string& name) const;

  // The entry in the manifest; nullptr: there is none.
  const schema::ImageFile* find_file(const std::string& name) const;

  // A second name for the file, in another directory of the same file system. Fails with errno set.
  bool link_file(const std::string& name, int directory, const std::string& new_name) const;

  // The mapped files that it carries (mapped_files.h), if any, in another directory as well.
  Result<void> link_carried_files(int directory) const;

  // Whether the entry of that directory is this very checkpoint, and not another that has got its number.
  bool is_entry(int directory, const std::string& name) const;

  // XXH3 of the manifest, which has the sums of all pages: what tells this checkpoint from all others.
  uint64_t sum() const { return sum_; }

  // Bytes of all files, as verify() counts them, and the bytes on the disk.
  uint64_t logical_size() const;
  uint64_t stored_size() const;
  // What there would be to read of it alone: of shared page files only the pages that are its own.
  uint64_t content_size() const;
  // Of the bytes on the disk, those of files that no other checkpoint shares: what is free when this one is
  // removed.
  uint64_t own_size() const;

  // Reads everything and compares every block's sum; the error names file and offset of the first damaged
  // block. `progress` (may be empty) is called with bytes done and bytes in all.
  Result<void> verify(const std::function<void(uint64_t, uint64_t)>& progress = {}) const;

 private:
  Image() = default;
  Fd directory_fd_;
  std::string directory_;
  schema::Manifest manifest_;
  uint64_t sum_ = 0;
};

}  // namespace stasis::image

// Writes one checkpoint: an incomplete directory that becomes a numbered one when everything in it is on the
// disk.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "image/reader.h"
#include "schema/manifest.pb.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::image {

// Owns the incomplete directory and the threads that sum and flush its files. The destructor stops the
// threads and, unless the checkpoint was published, removes the directory. What a killed writer leaves behind
// says that it is incomplete and is removed by the next create(): a living writer holds a flock on its
// directory.
class Writer {
 public:
  // `session_store` is <store>/<SESSION>; missing directories are made, 0700.
  static Result<Writer> create(const std::string& session_store);

  Writer(Writer&&) noexcept;
  Writer& operator=(Writer&&) noexcept;
  ~Writer();

  // A new file of the checkpoint, 0600, open for reading and writing. It may be written through this or any
  // passed on descriptor until publish(). `origin`: see schema::ImageFile. Sums may be left out: those of a
  // file of any size may be more than the manifest can hold.
  enum class Sums { kYes, kNo };
  Result<Fd> create_file(const std::string& name, uint32_t origin = 0, Sums sums = Sums::kYes);

  // The same with all that is in `from`, sharing its blocks: no time, no space. Nothing, and no file, when
  // the file system of the store cannot do that. Sums would read all of it.
  Result<std::optional<Fd>> clone_file(const std::string& name, int from, Sums sums);

  // A file of another checkpoint, which becomes one of this checkpoint as well (a hard link): no time, no
  // space, and either can be removed without the other. Nothing when that cannot be had: on another file
  // system, on one without hard links, or when somebody is removing the other checkpoint. The descriptor is
  // for reading.
  // `origin`: see schema::ImageFile.
  std::optional<Fd> share_file(const std::string& name, const Image& from, const std::string& name_there,
                               uint32_t origin);
  // Not needed after all.
  void drop_shared_file(const std::string& name);

  // The bytes [0, up_to) of the file will not change any more. They are summed and sent to the disk in the
  // background, so that publish() has little left to do. Cheap; `up_to` may grow in steps of any size.
  void written(const std::string& name, uint64_t up_to);

  struct Published {
    uint32_t id = 0;
    std::string directory;
    uint64_t sum = 0;     // Image::sum()
    uint64_t stored = 0;  // bytes on the disk: all files without their holes, and the manifest
    uint64_t shared = 0;  // of these in files of other checkpoints
  };
  // Completes the sums of all files (manifest.files), puts id into the manifest, syncs everything, reads the
  // manifest back, and renames the directory to the next free number. Files must not change any more. After
  // an Error nothing is published.
  Result<Published> publish(schema::Manifest& manifest);
  // The same, into the place of the published checkpoint `old`, whose id the manifest has and which is
  // removed. The two change places at once, and the mapped files that it carries are the new one's as well.
  // kUnsupported where the file system cannot do that; kNotFound, and
  // nothing is changed, when `old` is not there any more: the newest may have been removed, and another have
  // its number.
  Result<void> replace(schema::Manifest& manifest, const Image& old);

  // Where the files are now.
  const std::string& directory() const;

 private:
  struct State;
  explicit Writer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace stasis::image

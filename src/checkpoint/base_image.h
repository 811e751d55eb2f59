// The earlier checkpoint whose page files a new one shares. Every new name of such a file is a hard link in
// the new checkpoint's directory: each checkpoint is complete by itself, and any of them can be removed.
#pragma once

#include <optional>
#include <string>

#include "checkpoint/increment.h"
#include "image/reader.h"
#include "image/writer.h"
#include "schema/manifest.pb.h"

namespace stasis::checkpoint {

class BaseImage {
 public:
  // Nothing when there is none that can be used, for whatever reason: then everything is written.
  static std::optional<BaseImage> open(const std::string& directory, image::Writer& writer);

  uint64_t sum() const { return image_.sum(); }
  uint32_t id() const { return image_.manifest().id(); }

  // Where it has the pages of a memory; empty when it does not know the memory. From now on the files are in
  // the new checkpoint, too.
  BasePages of_process(NsTid pid);
  BasePages of_shared_memory(int index);
  BasePages of_segment(int32_t id);

  // Takes pages that the base has, too, out of the file of an object that was saved as a whole while the
  // program stood still.
  template <typename Memory>
  Result<void> share_pages(BasePages pages, Memory& memory);

 private:
  BaseImage(image::Image image, image::Writer& writer) : image_(std::move(image)), writer_(&writer) {}
  template <typename Memory>
  BasePages pages_of(const Memory& memory);
  BaseFile share(const std::string& name);

  image::Image image_;
  image::Writer* writer_;
};

// Says in `memory` where its pages are. Drops the base's files that are not needed.
template <typename Memory>
void place(const std::vector<Extent>& extents, const BasePages& pages, Memory& memory, image::Writer& writer);

}  // namespace stasis::checkpoint

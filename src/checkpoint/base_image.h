// The earlier checkpoint whose page files a new one shares. Every new name of such a file is a hard link in
// the new checkpoint's directory: each checkpoint is complete by itself, and any of them can be removed.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "checkpoint/increment.h"
#include "checkpoint/tracking.h"
#include "image/reader.h"
#include "image/writer.h"
#include "schema/manifest.pb.h"

namespace stasis::checkpoint {

// The pages that the base has of a process, for reading.
class HeldPages {
 public:
  const PageRanges& pages() const { return pages_; }
  bool read(uint64_t address, std::span<char> into) const;

 private:
  friend class BaseImage;
  const schema::Memory* memory_ = nullptr;
  std::vector<Fd> files_;
  PageRanges pages_;
};

// By the number of the process, as the host has it.
using HeldByProcess = std::map<int, std::shared_ptr<const HeldPages>>;

class BaseImage {
 public:
  // Nothing when there is none that can be used, for whatever reason: then everything is written.
  static std::optional<BaseImage> open(const std::string& directory);
  // The new checkpoint. Before everything below, but for hold().
  void share_with(image::Writer& writer) { writer_ = &writer; }

  uint64_t sum() const { return image_.sum(); }
  uint32_t id() const { return image_.manifest().id(); }

  // The files of a memory, which can be read as long as this lives, whatever becomes of their names.
  std::optional<HeldPages> hold(NsTid pid) const;

  // Where it has the pages of a memory; empty when it does not know the memory. The files are in the new
  // checkpoint then, too, until drop_unneeded().
  BasePages of_process(NsTid pid);
  BasePages of_shared_memory(int index);
  BasePages of_segment(int32_t id);

  // Takes pages that the base has, too, out of the file of an object that was saved as a whole while the
  // program stood still.
  template <typename Memory>
  Result<void> share_pages(BasePages pages, Memory& memory);

  // Of the files those stay that are among these. When all memories have been written, drop_unneeded() drops
  // the others; false: none is left, so that the new checkpoint adds to nothing.
  void need(const google::protobuf::RepeatedPtrField<std::string>& layers);
  bool drop_unneeded();

 private:
  // Several memories may have pages in one file.
  struct Shared {
    Fd fd;  // empty: it could not be had
    FileOfPages identity;
    bool needed = false;
  };
  explicit BaseImage(image::Image image) : image_(std::move(image)) {}
  const schema::Memory* find_memory(NsTid pid) const;
  template <typename Memory>
  BasePages pages_of(const Memory& memory);
  BaseFile share(const std::string& name);

  image::Image image_;
  image::Writer* writer_ = nullptr;
  std::map<std::string, Shared> shared_;  // by the name in the new checkpoint
};

// Says in `memory` where its pages are. `files`: the names of those that the extents refer to.
template <typename Memory>
void place(const std::vector<Extent>& extents, const std::vector<std::string>& files, Memory& memory);

// As the mapping of a program would show it.
FileOfPages identify(int file);

}  // namespace stasis::checkpoint

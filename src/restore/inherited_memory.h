// Pages that a process shares with its children since it forked them, until one of them writes. The kernel
// lets two processes share a page of their own only if one inherits it from the other. So what a process has
// in common with those whom it makes is put into its memory before they are born, and they keep it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "kernel/page_ranges.h"
#include "restore/topology.h"
#include "schema/manifest.pb.h"

namespace stasis::restore {

// Pages of a memory that are together in one file of the image.
struct StoredPages {
  uint64_t address = 0;
  uint64_t size = 0;
  uint64_t offset = 0;  // in the file
  uint32_t layer = 0;   // which of the memory's files
  uint32_t file = 0;    // which of the image's: by their names
  uint64_t end() const { return address + size; }
  StoredPages part(const kernel::PageRange& range) const {
    StoredPages pages = *this;
    pages.address = range.start;
    pages.size = range.end - range.start;
    pages.offset += range.start - address;
    return pages;
  }
  bool operator==(const StoredPages&) const = default;
};

// What of an image's memories several processes have.
class PagesInCommon {
 public:
  PagesInCommon() = default;
  PagesInCommon(const schema::Manifest& manifest, const Topology& topology);

  // The pages of a memory that somebody has as well who descends from its process. Ascending.
  const std::vector<StoredPages>& with_descendants(int memory) const;
  StoredPages stored(int memory, const schema::PageRun& run) const;
  // A mapping of the memory, as large as it has to be for all descendants to inherit theirs as a whole. The
  // kernel does not join what was inherited with what is mapped beside it later.
  schema::Mapping widened(int memory, const schema::Mapping& mapping) const;

 private:
  // By file, and by how much an offset in it is more than the address: equal pages are those of the same
  // address.
  using Pages = std::map<std::pair<uint32_t, uint64_t>, kernel::PageRanges>;
  // By their first and last address; of those that are the same in many processes there is one.
  using Mappings = std::map<std::pair<uint64_t, uint64_t>, const schema::Mapping*>;
  struct Found {
    Pages pages;
    Mappings mappings;  // with pages that may be in common
  };
  Found find(const schema::Manifest& manifest, const Topology& topology, size_t birth);
  Found look_at(const schema::Manifest& manifest, int memory) const;

  std::vector<std::vector<uint32_t>> files_;  // by memory and layer
  std::vector<bool> in_common_;               // by file: several memories have pages in it
  std::vector<std::vector<StoredPages>> wanted_;
  std::vector<Mappings> below_;  // of descendants
};

// What is in the memory of a process that is being made, since its birth or before its children are born. All
// of it can be read and written. Anonymous memory and private mappings of files.
class InheritedMemory {
 public:
  bool empty() const { return parts_.empty(); }
  // Whether the mapping can be (a part of) one that is there.
  bool covers(const schema::Mapping& mapping) const;
  // All that is mapped, but for `kept`.
  kernel::PageRanges except(const kernel::PageRanges& kept) const;
  // Where `wanted` (ascending) is there already.
  kernel::PageRanges find(const std::vector<StoredPages>& wanted) const;
  // Where there are pages.
  kernel::PageRanges pages() const;

  // In place of what was there.
  void add_mapping(const schema::Mapping& mapping);
  void add_pages(const StoredPages& pages);

 private:
  struct Part {
    kernel::PageRange range;
    std::shared_ptr<const schema::Mapping> like;
  };
  void remove_pages(const kernel::PageRange& range);

  std::vector<Part> parts_;         // ascending
  std::vector<StoredPages> pages_;  // ascending
};

// Whether pages of such a mapping can be inherited at all.
bool can_be_inherited(const schema::Mapping& mapping);

// The parts of `pages` (ascending) in the range.
std::vector<StoredPages> within(const std::vector<StoredPages>& pages, const kernel::PageRange& range);
// `pages` (ascending) without what is in the ranges.
std::vector<StoredPages> without(const std::vector<StoredPages>& pages, const kernel::PageRanges& ranges);

}  // namespace stasis::restore

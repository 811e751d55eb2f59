// Which pages of a program a restart maps from the image, and which it reads.
#pragma once

#include <cstdint>
#include <vector>

#include "restore/restart.h"
#include "schema/manifest.pb.h"

namespace stasis::restore {

// Part of a mapping that is backed by one page file, contiguous there as well.
struct MappedPages {
  uint64_t address = 0;
  uint64_t size = 0;
  uint64_t offset = 0;  // in the page file
  uint32_t layer = 0;   // which of them, as in schema::PageRun
  uint64_t end() const { return address + size; }
  // Whether the run, at or behind `address`, is as far behind in the file, too.
  bool continues_in(const schema::PageRun& run) const;
};

// Ascending, not overlapping. Empty for a mapping whose pages are not worth it or cannot be.
std::vector<MappedPages> mapped_pages(const schema::Memory& memory, const schema::Mapping& mapping);

// Whether the run is what a piece of the list (of one mapping) shows. All others are written over the pieces.
bool is_mapped(const std::vector<MappedPages>& pieces, const schema::PageRun& run);

// Programs of a few MiB are read: that takes no longer, and leaves nothing to guard.
MemoryMode effective_mode(const schema::Manifest& manifest, MemoryMode asked);

}  // namespace stasis::restore

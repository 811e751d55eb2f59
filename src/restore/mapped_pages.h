// Which pages of a program a restart maps from the image, and which it reads.
#pragma once

#include <cstdint>
#include <vector>

#include "restore/restart.h"
#include "schema/manifest.pb.h"

namespace stasis::restore {

// Part of a mapping that is backed by the page file, contiguous there as well.
struct MappedPages {
  uint64_t address = 0;
  uint64_t size = 0;
  uint64_t offset = 0;  // in the page file
  uint64_t end() const { return address + size; }
};

// Ascending. Empty in eager mode, and for a mapping whose pages are not worth it or cannot be.
std::vector<MappedPages> mapped_pages(const schema::Memory& memory, const schema::Mapping& mapping);

// Programs of a few MiB are read: that takes no longer, and leaves nothing to guard.
MemoryMode effective_mode(const schema::Manifest& manifest, MemoryMode asked);

}  // namespace stasis::restore

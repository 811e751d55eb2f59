#include "restore/mapped_pages.h"

#include <sys/mman.h>

#include <algorithm>

namespace stasis::restore {

using schema::Mapping;

namespace {

// Below this a run is read into fresh memory: a mapping of its own would cost more, and splits the
// neighbours.
constexpr uint64_t kSmallestMapped = 256 << 10;
// Runs that are this close are one mapping. Between them the page file has a hole, which reads as the zeros
// that the program has there.
constexpr uint64_t kLargestGap = 256 << 10;
constexpr uint64_t kWorthMapping = 4 << 20;

}  // namespace

std::vector<MappedPages> mapped_pages(const schema::Memory& memory, const Mapping& mapping) {
  std::vector<MappedPages> pieces;
  // Stacks grow, huge pages have sizes of their own, and only anonymous memory can be wiped on fork: none of
  // them can be a mapping of a file.
  if (mapping.kind() != Mapping::ANONYMOUS || mapping.grows_down() || mapping.huge_page_shift() != 0)
    return pieces;
  if (std::find(mapping.advice().begin(), mapping.advice().end(), MADV_WIPEONFORK) != mapping.advice().end())
    return pieces;
  auto run = std::lower_bound(memory.runs().begin(), memory.runs().end(), mapping.start(),
                              [](const auto& entry, uint64_t start) { return entry.address() < start; });
  for (; run != memory.runs().end() && run->address() < mapping.end(); ++run) {
    if (!pieces.empty()) {
      MappedPages& last = pieces.back();
      bool close = run->address() - last.end() <= kLargestGap;
      if (close && run->offset() - last.offset == run->address() - last.address) {
        last.size = run->address() + run->size() - last.address;
        continue;
      }
    }
    pieces.push_back({run->address(), run->size(), run->offset()});
  }
  std::erase_if(pieces, [](const MappedPages& piece) { return piece.size < kSmallestMapped; });
  return pieces;
}

MemoryMode effective_mode(const schema::Manifest& manifest, MemoryMode asked) {
  if (asked == MemoryMode::kEager) return asked;
  uint64_t total = 0;
  for (const auto& memory : manifest.memories()) {
    for (const auto& mapping : memory.mappings()) {
      for (const auto& piece : mapped_pages(memory, mapping)) total += piece.size;
      if (total >= kWorthMapping) return MemoryMode::kMapped;
    }
  }
  return MemoryMode::kEager;
}

}  // namespace stasis::restore

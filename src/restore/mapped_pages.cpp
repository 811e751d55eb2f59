#include "restore/mapped_pages.h"

#include <sys/mman.h>

#include <algorithm>

namespace stasis::restore {

using schema::Mapping;

namespace {

// Below this a run is read into fresh memory: a mapping of its own would cost more, and splits the
// neighbours.
constexpr uint64_t kSmallestMapped = 256 << 10;
// Runs that are this close in one file are one mapping. What is between them is read and written over it,
// when it is in another file. When it is nowhere, the program has zeros there, and so has the checkpoint's
// own page file, which has a hole; a file that an earlier checkpoint wrote may have pages there that are no
// more.
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
  uint64_t covered = 0;  // from the end of the last piece to here runs have all of it
  for (; run != memory.runs().end() && run->address() < mapping.end(); ++run) {
    const uint64_t end = run->address() + run->size();
    if (!pieces.empty()) {
      MappedPages& last = pieces.back();
      const bool known = run->layer() == 0 || covered == run->address();
      if (known && run->address() - last.end() <= kLargestGap && last.continues_in(*run)) {
        last.size = end - last.address;
        covered = end;
        continue;
      }
      if (run->layer() != last.layer && run->size() < kSmallestMapped && end - last.end() <= kLargestGap) {
        if (covered == run->address()) covered = end;
        continue;
      }
    }
    pieces.push_back({run->address(), run->size(), run->offset(), run->layer()});
    covered = end;
  }
  std::erase_if(pieces, [](const MappedPages& piece) { return piece.size < kSmallestMapped; });
  return pieces;
}

bool MappedPages::continues_in(const schema::PageRun& run) const {
  return run.layer() == layer && run.offset() >= offset && run.offset() - offset == run.address() - address;
}

bool is_mapped(const std::vector<MappedPages>& pieces, const schema::PageRun& run) {
  auto piece = std::upper_bound(pieces.begin(), pieces.end(), run.address(),
                                [](uint64_t address, const auto& one) { return address < one.end(); });
  return piece != pieces.end() && piece->address <= run.address() && piece->continues_in(run);
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

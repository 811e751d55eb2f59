#include "checkpoint/page_layout.h"

#include "kernel/pagemap.h"

namespace stasis::checkpoint {

using inspect::Content;

namespace {

bool in_page_file(const inspect::MappingFacts& facts) {
  return facts.content != Content::kNone && facts.mapping.kind() != schema::Mapping::SHARED_MEMORY;
}

// Page files are sparse, but each MiB of them has a sum in the manifest, and file systems limit the size of a
// file (ext4: 16 TiB). Programs that reserve more address space than this in one mapping get their pages
// packed.
constexpr uint64_t kLargestSparse = uint64_t{16} << 30;

}  // namespace

std::vector<uint64_t> layout_offsets(const std::vector<inspect::MappingFacts>& mappings) {
  std::vector<uint64_t> offsets;
  uint64_t next = 0;
  for (const auto& facts : mappings) {
    offsets.push_back(next);
    uint64_t size = facts.entry.end - facts.entry.start;
    if (in_page_file(facts) && size <= kLargestSparse) next += size;
  }
  offsets.push_back(next);
  return offsets;
}

Result<std::vector<Run>> find_runs(HostTid task, const std::vector<inspect::MappingFacts>& mappings) {
  STASIS_TRY(auto pagemap, kernel::PageMap::open(task));
  std::vector<uint64_t> offsets = layout_offsets(mappings);
  uint64_t packed = offsets.back();
  std::vector<Run> runs;
  for (size_t i = 0; i < mappings.size(); ++i) {
    const auto& facts = mappings[i];
    if (!in_page_file(facts)) continue;
    uint64_t start = facts.entry.start;
    uint64_t size = facts.entry.end - start;
    if (facts.content == Content::kEverything) {
      runs.push_back({start, size, offsets[i]});
      continue;
    }
    STASIS_TRY(auto ranges, pagemap.own_pages(start, facts.entry.end));
    for (const auto& range : ranges) {
      uint64_t bytes = range.end - range.start;
      if (size <= kLargestSparse) {
        runs.push_back({range.start, bytes, offsets[i] + (range.start - start)});
      } else {
        runs.push_back({range.start, bytes, packed});
        packed += bytes;
      }
    }
  }
  return runs;
}

}  // namespace stasis::checkpoint

#include "checkpoint/page_layout.h"

#include "checkpoint/tracking.h"
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

Result<std::vector<Pages>> find_pages(HostTid task, const std::vector<inspect::MappingFacts>& mappings,
                                      const PageRanges& elsewhere, const PageRanges& pages_elsewhere) {
  STASIS_TRY(auto pagemap, kernel::PageMap::open(task));
  std::vector<uint64_t> offsets = layout_offsets(mappings);
  uint64_t packed = offsets.back();
  std::vector<Pages> all;
  for (size_t i = 0; i < mappings.size(); ++i) {
    const auto& facts = mappings[i];
    if (!in_page_file(facts)) continue;
    uint64_t start = facts.entry.start;
    uint64_t size = facts.entry.end - start;
    auto add = [&](uint64_t from, uint64_t to, bool untouched) {
      if (from == to) return;
      Pages& pages = all.emplace_back();
      pages.mapping = i;
      pages.address = from;
      pages.size = to - from;
      pages.offset = size <= kLargestSparse ? offsets[i] + (from - start) : packed;
      if (size > kLargestSparse) packed += pages.size;
      if (!untouched) return;
      pages.untouched_of = {facts.entry.device, facts.entry.inode};
      pages.file_offset = facts.entry.offset + (from - start);
    };
    const bool everything = facts.content == Content::kEverything;
    if (everything && !facts.mapped_page_file) {
      add(start, facts.entry.end, false);
      continue;
    }
    PageRanges ranges;
    if (contains(elsewhere, start)) {
      ranges = intersection(pages_elsewhere, {{start, facts.entry.end}});
    } else {
      STASIS_TRY(ranges, pagemap.own_pages(start, facts.entry.end));
    }
    uint64_t done = start;
    for (const auto& range : ranges) {
      if (everything) add(done, range.start, true);
      add(range.start, range.end, false);
      done = range.end;
    }
    if (everything) add(done, facts.entry.end, true);
  }
  return all;
}

}  // namespace stasis::checkpoint

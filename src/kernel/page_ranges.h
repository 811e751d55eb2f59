// Sets of addresses, in whole pages.
#pragma once

#include <cstdint>
#include <vector>

namespace stasis::kernel {

struct PageRange {
  uint64_t start = 0;
  uint64_t end = 0;
  bool operator==(const PageRange&) const = default;
};

using PageRanges = std::vector<PageRange>;  // ascending, none touches another

// Sorts, and joins what touches or overlaps.
PageRanges normalized(PageRanges ranges);
PageRanges intersection(const PageRanges& one, const PageRanges& other);
PageRanges difference(const PageRanges& from, const PageRanges& what);
bool overlaps(const PageRanges& ranges, uint64_t start, uint64_t end);
bool contains(const PageRanges& ranges, uint64_t address);
uint64_t bytes_of(const PageRanges& ranges);

}  // namespace stasis::kernel

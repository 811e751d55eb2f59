#include "kernel/page_ranges.h"

#include <algorithm>
#include <numeric>

namespace stasis::kernel {

PageRanges normalized(PageRanges ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const auto& a, const auto& b) { return a.start < b.start; });
  PageRanges joined;
  for (const auto& range : ranges) {
    if (range.start >= range.end) continue;
    if (!joined.empty() && range.start <= joined.back().end) {
      joined.back().end = std::max(joined.back().end, range.end);
    } else {
      joined.push_back(range);
    }
  }
  return joined;
}

PageRanges intersection(const PageRanges& one, const PageRanges& other) {
  PageRanges common;
  auto a = one.begin();
  auto b = other.begin();
  while (a != one.end() && b != other.end()) {
    const uint64_t start = std::max(a->start, b->start);
    const uint64_t end = std::min(a->end, b->end);
    if (start < end) common.push_back({start, end});
    if (a->end < b->end) {
      ++a;
    } else {
      ++b;
    }
  }
  return common;
}

PageRanges difference(const PageRanges& from, const PageRanges& what) {
  PageRanges left;
  auto gone = what.begin();
  for (const auto& range : from) {
    uint64_t at = range.start;
    while (gone != what.end() && gone->end <= at) ++gone;
    // The last one may go on in the next range, so the outer iterator stays before it.
    for (auto one = gone; one != what.end() && one->start < range.end; ++one) {
      if (at < one->start) left.push_back({at, one->start});
      at = std::max(at, one->end);
    }
    if (at < range.end) left.push_back({at, range.end});
  }
  return left;
}

bool overlaps(const PageRanges& ranges, uint64_t start, uint64_t end) {
  auto after = std::upper_bound(ranges.begin(), ranges.end(), start,
                                [](uint64_t value, const PageRange& range) { return value < range.end; });
  return after != ranges.end() && after->start < end;
}

bool contains(const PageRanges& ranges, uint64_t address) { return overlaps(ranges, address, address + 1); }

uint64_t bytes_of(const PageRanges& ranges) {
  return std::accumulate(ranges.begin(), ranges.end(), uint64_t{0}, [](uint64_t sum, const PageRange& range) {
    return sum + (range.end - range.start);
  });
}

}  // namespace stasis::kernel

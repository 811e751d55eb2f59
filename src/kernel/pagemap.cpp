#include "kernel/pagemap.h"

#include <fcntl.h>
#include <linux/ioctl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <optional>

#include "kernel/proc.h"

namespace stasis::kernel {

namespace {

// <linux/fs.h> of Debian 12 is older than the call.
struct PageRegion {
  uint64_t start, end, categories;
};
struct ScanArguments {
  uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
  uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
constexpr unsigned long kScan = _IOWR('f', 16, ScanArguments);
constexpr uint64_t kProtectMatching = 1 << 0;  // a flag
constexpr uint64_t kTracked = 1 << 0;          // PAGE_IS_WPALLOWED
constexpr uint64_t kWritten = 1 << 1;
constexpr uint64_t kFile = 1 << 2;
constexpr uint64_t kPresent = 1 << 3;
constexpr uint64_t kSwapped = 1 << 4;
constexpr uint64_t kZero = 1 << 5;
constexpr uint64_t kHuge = 1 << 6;
constexpr uint64_t kGuard = 1 << 8;  // PAGE_IS_GUARD

// For scans that may find a piece for every page that was written.
constexpr size_t kManyRegions = 16384;

void append(std::vector<PageRange>& ranges, uint64_t start, uint64_t end) {
  if (!ranges.empty() && ranges.back().end == start) {
    ranges.back().end = end;
  } else {
    ranges.push_back({start, end});
  }
}

// A guard region is made of marks that look like pages in swap, but there is nothing in them. Kernels that
// have such regions and do not tell them apart (Linux 6.13 and 6.14) show pages that cannot be read.
uint64_t guards_if_known() {
  static const uint64_t known = [] {
    Fd self(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
    ScanArguments arguments = {};
    arguments.size = sizeof arguments;
    arguments.category_mask = kGuard;
    arguments.return_mask = kGuard;
    PageRegion region;
    arguments.vec = reinterpret_cast<uint64_t>(&region);
    arguments.vec_len = 1;
    return self && ::ioctl(self.get(), kScan, &arguments) >= 0 ? kGuard : 0;
  }();
  return known;
}

}  // namespace

Result<PageMap> PageMap::open(HostTid task) {
  STASIS_TRY(Fd fd, open_proc(task, "pagemap", O_RDONLY));
  return PageMap(task, std::move(fd));
}

Result<std::vector<PageRange>> PageMap::own_pages(uint64_t start, uint64_t end, uint64_t limit) const {
  std::vector<PageRange> ranges;
  std::array<PageRegion, 512> regions;
  while (start < end) {
    ScanArguments arguments = {};
    arguments.size = sizeof arguments;
    arguments.start = start;
    arguments.end = end;
    arguments.vec = reinterpret_cast<uint64_t>(regions.data());
    arguments.vec_len = limit != 0 ? 1 : regions.size();
    arguments.max_pages = limit;
    arguments.category_inverted = kFile | kZero | guards_if_known();
    arguments.category_mask = kFile | kZero | guards_if_known();
    arguments.category_anyof_mask = kPresent | kSwapped;
    arguments.return_mask = kPresent | kSwapped;
    int found = ::ioctl(fd_.get(), kScan, &arguments);
    if (found < 0 && errno == ENOTTY) return own_pages_before_scan(start, end, limit);
    if (found < 0) return errno_error("find the pages of", fmt::format("task {}", task_));
    for (int i = 0; i < found; ++i) append(ranges, regions[i].start, regions[i].end);
    if (limit != 0 && found > 0) break;
    start = arguments.walk_end;
    if (found == 0 && start < end && arguments.walk_end == arguments.start) break;
  }
  return ranges;
}

// Asks for all of [start, end), and shows `use` each piece that is found.
Result<void> PageMap::scan(const Scan& what, uint64_t start, uint64_t end,
                           const std::function<void(const PageRange&, uint64_t categories)>& use) const {
  std::vector<PageRegion> regions(kManyRegions);
  while (start < end) {
    ScanArguments arguments = {};
    arguments.size = sizeof arguments;
    arguments.flags = what.flags;
    arguments.start = start;
    arguments.end = end;
    arguments.vec = reinterpret_cast<uint64_t>(regions.data());
    arguments.vec_len = regions.size();
    arguments.category_inverted = what.without;
    arguments.category_mask = what.with | what.without;
    arguments.category_anyof_mask = what.any_of;
    arguments.return_mask = what.shown;
    const int found = ::ioctl(fd_.get(), kScan, &arguments);
    if (found < 0) return errno_error("find the pages of", fmt::format("task {}", task_));
    for (int i = 0; i < found; ++i)
      use({regions[static_cast<size_t>(i)].start, regions[static_cast<size_t>(i)].end},
          regions[static_cast<size_t>(i)].categories);
    if (arguments.walk_end <= start) break;
    start = arguments.walk_end;
  }
  return {};
}

// Not asked, here and below, is whether pages are those of a file: that would take ten times as long, since
// it looks at each page itself, and what is watched is anonymous.
//
// Asked for what is clean and not for what was written: memory that is not watched has neither, and would be
// taken for clean.
Result<std::vector<PageRange>> PageMap::unwritten_pages(uint64_t start, uint64_t end,
                                                        std::vector<PageRange>* all) const {
  std::vector<PageRange> ranges;
  const Scan watched{.with = kTracked,
                     .without = (all != nullptr ? kZero : kZero | kWritten) | guards_if_known(),
                     .any_of = kPresent | kSwapped,
                     .shown = kTracked | kWritten};
  STASIS_CHECK(scan(watched, start, end, [&](const PageRange& piece, uint64_t categories) {
    if ((categories & kWritten) == 0 && (categories & kTracked) != 0) append(ranges, piece.start, piece.end);
    if (all != nullptr) append(*all, piece.start, piece.end);
  }));
  return ranges;
}

// Without room for an answer the kernel would be quicker, but it would protect what is not there as well: it
// makes page tables and marks that look like pages in swap.
Result<void> PageMap::protect_pages(uint64_t start, uint64_t end, std::vector<PageRange>* written) const {
  const Scan protect{.flags = kProtectMatching,
                     .with = kTracked | kWritten,
                     .without = kZero,
                     .any_of = kPresent | kSwapped,
                     .shown = kWritten};
  return scan(protect, start, end, [&](const PageRange& piece, uint64_t) {
    if (written != nullptr) append(*written, piece.start, piece.end);
  });
}

Result<std::vector<PageRange>> PageMap::guard_regions(uint64_t start, uint64_t end) const {
  std::vector<PageRange> ranges;
  if (guards_if_known() == 0) return ranges;
  const Scan guards{.with = kGuard, .shown = kGuard};
  STASIS_CHECK(scan(guards, start, end,
                    [&](const PageRange& piece, uint64_t) { append(ranges, piece.start, piece.end); }));
  return ranges;
}

Result<PageMap::Census> PageMap::count(uint64_t start, uint64_t end) const {
  Census census;
  const Scan all{.any_of = kPresent, .shown = kPresent | kHuge};
  STASIS_CHECK(scan(all, start, end, [&](const PageRange& piece, uint64_t categories) {
    census.bytes += piece.end - piece.start;
    if ((categories & kHuge) != 0) census.in_huge_pages += piece.end - piece.start;
  }));
  return census;
}

// /proc/PID/pagemap has eight bytes for each page of the address space, whatever is there: of much of it only
// mappings are looked at, and of large ones, which may be nothing but reserved, those that have anything.
Result<std::vector<PageRange>> PageMap::own_pages_before_scan(uint64_t start, uint64_t end,
                                                              uint64_t limit) const {
  constexpr uint64_t kLarge = uint64_t{256} << 20;
  std::vector<PageRange> ranges;
  if (end - start < kLarge) {
    STASIS_CHECK(read_entries({start, end}, limit, ranges));
    return ranges;
  }
  std::optional<std::vector<MappingFlags>> usage;
  STASIS_TRY(auto mappings, mappings_between(task_, start, end));
  for (const MapsEntry& mapping : mappings) {
    if (mapping.end - mapping.start >= kLarge) {
      if (!usage) {
        STASIS_TRY(usage, read_mapping_flags(task_));
      }
      auto known = std::lower_bound(usage->begin(), usage->end(), mapping.start,
                                    [](const MappingFlags& one, uint64_t at) { return one.start < at; });
      const bool same = known != usage->end() && known->start == mapping.start && known->end == mapping.end;
      if (same && known->used == 0) continue;
    }
    STASIS_CHECK(read_entries({std::max(start, mapping.start), std::min(end, mapping.end)}, limit, ranges));
    if (limit != 0 && !ranges.empty()) break;
  }
  return ranges;
}

// Appends to `ranges`, and stops when `limit` pages are found in `where` (0: no limit).
Result<void> PageMap::read_entries(const PageRange& where, uint64_t limit,
                                   std::vector<PageRange>& ranges) const {
  constexpr uint64_t kEntryPresent = uint64_t{1} << 63;
  constexpr uint64_t kEntrySwapped = uint64_t{1} << 62;
  constexpr uint64_t kEntryFile = uint64_t{1} << 61;
  std::vector<uint64_t> entries(std::min<uint64_t>(16384, (where.end - where.start) / kPageSize));
  uint64_t pages = 0;
  for (uint64_t at = where.start; at < where.end;) {
    size_t count = std::min<uint64_t>(entries.size(), (where.end - at) / kPageSize);
    ssize_t bytes = ::pread(fd_.get(), entries.data(), count * 8, static_cast<off_t>(at / kPageSize * 8));
    if (bytes <= 0) return errno_error("find the pages of", fmt::format("task {}", task_));
    for (ssize_t i = 0; i < bytes / 8; ++i, at += kPageSize) {
      if ((entries[i] & (kEntryPresent | kEntrySwapped)) == 0 || (entries[i] & kEntryFile) != 0) continue;
      append(ranges, at, at + kPageSize);
      if (limit != 0 && ++pages >= limit) return {};
    }
  }
  return {};
}

}  // namespace stasis::kernel

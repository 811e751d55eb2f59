// Which pages of a process exist, from PAGEMAP_SCAN (Linux 6.7) or, before that, /proc/PID/pagemap itself.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernel/page_ranges.h"
#include "stasis/fd.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::kernel {

class PageMap {
 public:
  static Result<PageMap> open(HostTid task);

  // Ranges of [start, end) whose pages are the process's own: present or swapped, neither zero pages nor, in
  // file mappings, pages of the file. Not more than `limit` pages when it is not 0.
  Result<std::vector<PageRange>> own_pages(uint64_t start, uint64_t end, uint64_t limit = 0) const;

  // Of memory that a WriteTracker watches (Linux 6.7), which is anonymous: pages, as above, that were not
  // written since they were protected. Memory that nobody watches is not among them. `all` (may be nullptr)
  // gets those that were written as well.
  Result<std::vector<PageRange>> unwritten_pages(uint64_t start, uint64_t end,
                                                 std::vector<PageRange>* all = nullptr) const;
  // Protects the pages that were written, and leaves out what nobody watches. `written` (may be nullptr) gets
  // them; what is written meanwhile is either among them or still counts as written.
  Result<void> protect_pages(uint64_t start, uint64_t end, std::vector<PageRange>* written) const;

  // Pages that must not be touched (MADV_GUARD_INSTALL); nothing where the kernel does not show them.
  Result<std::vector<PageRange>> guard_regions(uint64_t start, uint64_t end) const;

  // Of what is in memory.
  struct Census {
    uint64_t bytes = 0;
    uint64_t in_huge_pages = 0;
  };
  Result<Census> count(uint64_t start, uint64_t end) const;

 private:
  PageMap(HostTid task, Fd fd) : task_(task), fd_(std::move(fd)) {}
  struct Scan {
    uint64_t flags = 0;
    uint64_t with = 0, without = 0, any_of = 0;  // categories
    uint64_t shown = 0;
  };
  Result<void> scan(const Scan& what, uint64_t start, uint64_t end,
                    const std::function<void(const PageRange&, uint64_t categories)>& use) const;
  Result<std::vector<PageRange>> own_pages_before_scan(uint64_t start, uint64_t end, uint64_t limit) const;
  Result<void> read_entries(const PageRange& where, uint64_t limit, std::vector<PageRange>& ranges) const;

  HostTid task_;
  Fd fd_;
};

}  // namespace stasis::kernel

// Which pages of a process exist, from PAGEMAP_SCAN (Linux 6.7) or, before that, /proc/PID/pagemap itself.
#pragma once

#include <cstdint>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "base/types.h"

namespace stasis::kernel {

struct PageRange {
  uint64_t start = 0;
  uint64_t end = 0;
};

class PageMap {
 public:
  static Result<PageMap> open(HostTid task);

  // Ranges of [start, end) whose pages are the process's own: present or swapped, neither zero pages nor, in
  // file mappings, pages of the file. Not more than `limit` pages when it is not 0.
  Result<std::vector<PageRange>> own_pages(uint64_t start, uint64_t end, uint64_t limit = 0) const;

 private:
  PageMap(HostTid task, Fd fd) : task_(task), fd_(std::move(fd)) {}
  Result<std::vector<PageRange>> read_entries(uint64_t start, uint64_t end, uint64_t limit) const;

  HostTid task_;
  Fd fd_;
};

}  // namespace stasis::kernel

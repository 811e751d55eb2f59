// Which pages of a process go into the image, and where in its page file.
#pragma once

#include <cstdint>
#include <vector>

#include "checkpoint/snapshot.h"
#include "inspect/memory.h"
#include "kernel/pagemap.h"
#include "stasis/result.h"

namespace stasis::checkpoint {

// Where each mapping's pages begin in the page file. The place depends on the mappings only and not on which
// of their pages exist, so that it is the same from one checkpoint to the next and unchanged pages need not
// move.
std::vector<uint64_t> layout_offsets(const std::vector<inspect::MappingFacts>& mappings);

// A file as /proc/PID/maps names it (its device is not always that of stat()).
struct FileOfPages {
  uint64_t device = 0;
  uint64_t inode = 0;
  explicit operator bool() const { return inode != 0; }
  bool operator==(const FileOfPages&) const = default;
};

struct Pages : Run {
  size_t mapping = 0;  // its index
  // In a mapped page file of an earlier checkpoint, from which the program was restarted: pages to which it
  // has never written. What they show is what the file has at `file_offset`.
  FileOfPages untouched_of;
  uint64_t file_offset = 0;
};

// The pages of `mappings` (of one process) that go into the image, read from the page tables of `task`: the
// process or its snapshot child. Ascending; none belongs to two mappings. Of mappings that are `elsewhere`
// those pages are meant that `pages_elsewhere` has.
Result<std::vector<Pages>> find_pages(HostTid task, const std::vector<inspect::MappingFacts>& mappings,
                                      const std::vector<kernel::PageRange>& elsewhere,
                                      const std::vector<kernel::PageRange>& pages_elsewhere);

}  // namespace stasis::checkpoint

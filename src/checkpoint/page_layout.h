// Which pages of a process go into the image, and where in its page file.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "checkpoint/snapshot.h"
#include "inspect/memory.h"

namespace stasis::checkpoint {

// Where each mapping's pages begin in the page file. The place depends on the mappings only and not on which
// of their pages exist, so that it is the same from one checkpoint to the next and unchanged pages need not
// move.
std::vector<uint64_t> layout_offsets(const std::vector<inspect::MappingFacts>& mappings);

// The runs of `mappings` (of one process), read from the page tables of `task`: the process or its snapshot
// child.
Result<std::vector<Run>> find_runs(HostTid task, const std::vector<inspect::MappingFacts>& mappings);

}  // namespace stasis::checkpoint

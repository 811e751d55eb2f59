// Which pages of a program have not changed since a checkpoint, known without reading them:
// docs/decisions/0008.
//
// A page is *known* when it was watched and protected while the program stood still for the base, and is
// still watched and protected now. Everything else is compared. What makes a mistake impossible is that
// watching ends with whatever happens to the memory (munmap, mremap, exec; a fork is not watched), protection
// with every write, and the base with every attempt that got so far as to protect anew and did not end in a
// checkpoint.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "freeze/frozen_tree.h"
#include "inspect/memory.h"
#include "kernel/pagemap.h"
#include "kernel/write_tracker.h"
#include "remote/foothold.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::checkpoint {

using kernel::bytes_of;
using kernel::contains;
using kernel::difference;
using kernel::intersection;
using kernel::normalized;
using kernel::PageRange;
using kernel::PageRanges;

struct TrackedProcess {
  HostTid pid;
  uint64_t start_time = 0;  // TaskStat::start_time: the number may be another process's by now
  kernel::WriteTracker tracker;
  PageRanges watched;  // all pages of it were protected when the program stood still for the base
  PageRanges written;  // since then, but protected again meanwhile
};

// What is kept from one checkpoint of a session to the next, and lives no longer than it.
struct Tracking {
  uint64_t base = 0;  // Image::sum() of the checkpoint to which all of this refers; 0: nothing is known
  std::vector<TrackedProcess> processes;
};

// All but the trackers, which go beside it in the same order.
std::string encode(const Tracking& tracking);
std::optional<Tracking> decode(std::string_view text);

// While the program still runs: what it has written until now is noted and protected again, so that little is
// left to protect when it stands still.
void note_writes(Tracking& tracking);

// One process of a checkpoint.
class ProcessTracker {
 public:
  enum class Afterwards { kGoesOn, kEnds };
  // While it stands still. `before`: what is known of it (nullptr: nothing). Finds the known pages and, when
  // the program goes on, protects what is watched for the next checkpoint. What cannot be tracked is left
  // out; an Error means that the process cannot do what we ask of it.
  Result<void> arm(const TrackedProcess* before, const freeze::FrozenProcess& process,
                   const std::vector<inspect::MappingFacts>& mappings, remote::Foothold& foothold,
                   Afterwards afterwards);
  // Pages that are as the base has them, if that is the one that the tracking refers to.
  const PageRanges& known() const { return known_; }
  // Mappings that were watched before, and all pages that there are in them.
  const PageRanges& settled() const { return settled_; }
  const PageRanges& present() const { return present_; }
  // Afterwards, while it runs: protects what is watched from now on. It will be known from the next but one
  // on: protecting takes as long as a fork, which is too long to let a program wait.
  void protect_rest() const;
  // For the next checkpoint, when this one is complete.
  std::optional<TrackedProcess> take();

 private:
  Result<void> find_known(const TrackedProcess& before,
                          const std::vector<const kernel::MapsEntry*>& candidates);
  void watch(const std::vector<const kernel::MapsEntry*>& candidates, Afterwards afterwards);
  Result<void> protect();

  std::optional<kernel::PageMap> pagemap_;
  TrackedProcess next_;
  PageRanges unwritten_;
  PageRanges present_;
  PageRanges settled_;  // one for each mapping
  PageRanges known_;
  PageRanges fresh_;  // watched since now
};

}  // namespace stasis::checkpoint

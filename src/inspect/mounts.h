// What a program has mounted.
#pragma once

#include <vector>

#include "image/writer.h"
#include "kernel/mounts.h"
#include "schema/namespaces.pb.h"
#include "stasis/result.h"

namespace stasis::inspect {

// How the mounts of a namespace differ from those of the one that it was copied from. An Error refuses what
// cannot be mounted again. `own_proc`: leaves out the /proc that the session has in any case.
enum class OwnProc { kLeaveOut, kNone };
struct MountsBefore {
  std::vector<kernel::Mount> first;  // when it was made
  std::vector<kernel::Mount>
      outside;  // what is mounted where it was copied from: it may have come, or gone, since
};
Result<void> compare_mounts(const MountsBefore& before, const std::vector<kernel::Mount>& now,
                            OwnProc own_proc, schema::Namespace& out);

// Saves what is in file systems that are in memory only. `task`: one whose root is that of the namespace.
Result<void> save_contents(HostTid task, image::Writer& writer, schema::Namespace& out);

}  // namespace stasis::inspect

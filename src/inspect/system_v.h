// System V shared memory, semaphores and message queues: everything in the session's IPC namespace.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "freeze/frozen_tree.h"
#include "image/writer.h"
#include "inspect/memory.h"
#include "remote/foothold.h"
#include "schema/manifest.pb.h"
#include "stasis/result.h"

namespace stasis::inspect {

// How many objects a process sees.
struct SystemVCounts {
  int semaphore_sets = 0;
  int queues = 0;
  int segments = 0;
  bool any() const { return semaphore_sets != 0 || queues != 0 || segments != 0; }
  bool operator==(const SystemVCounts&) const = default;
};

// Everything but the content of the segments, seen by a helper that enters the session's namespace. Who
// changed a semaphore last is told in the numbers of the session. A program shares its namespace with the
// host: what it has `attached` is its own, and all that belongs to a user that it runs as, since the kernel
// does not tell who uses it.
Result<schema::SystemV> read_system_v(const freeze::FrozenTree& tree, const std::set<int>& attached);

// Finds the segment of a mapping, and tells it what only the mapping knows.
Result<void> match_segment(const MappingFacts& facts, const std::string& task, schema::SystemV& objects);

// The content, into page files. It is read by attaching the segments, which shows in the times and in the
// last user that shmctl() tells, and nowhere else.
Result<void> save_segments(const freeze::FrozenTree& tree, image::Writer& writer, schema::SystemV& objects);

// What the process has noted by SEM_UNDO.
//
// The kernel tells nobody. But it checks the note for overflow while it goes through the operations of one
// semop(), and either does all of them or none. So the process is made to call semop() with operations that
// cannot succeed: whether they fail for the overflow or for the wait at their end says on which side of a
// number the note is.
Result<void> observe_adjustments(remote::Foothold& foothold, const schema::SystemV& objects,
                                 schema::Process& out, std::vector<std::string>& warnings);

}  // namespace stasis::inspect

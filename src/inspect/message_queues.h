// POSIX message queues of a session or program that no process of it has open.
#pragma once

#include "inspect/descriptors.h"
#include "schema/manifest.pb.h"
#include "stasis/fd.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::inspect {

// The directory of all named queues of the session, or of the host, as far as it has one at /dev/mqueue;
// empty where there is none. Takes a millisecond, so it is opened before the tree stands still.
Result<Fd> open_message_queues(const freeze::Scope& scope);

// Saves those in it that `files` does not have: all of a session; of the host those that belong to a user
// that the program runs as, since the kernel does not tell who uses them.
Result<void> save_message_queues(const freeze::FrozenTree& tree, const Fd& directory,
                                 const DescriptorGraph& files, schema::Manifest& manifest);

}  // namespace stasis::inspect

// POSIX message queues of a session that no process has open.
#pragma once

#include "inspect/descriptors.h"
#include "schema/manifest.pb.h"
#include "stasis/fd.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::inspect {

// The directory of all named queues of the session; empty where the kernel has none. Takes a millisecond, so
// it is opened before the tree stands still.
Result<Fd> open_message_queues(HostTid init);

// Saves those in it that `files` does not have.
Result<void> save_message_queues(const Fd& directory, const DescriptorGraph& files,
                                 schema::Manifest& manifest);

}  // namespace stasis::inspect

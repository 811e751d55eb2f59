// Locks on files: flock(), F_OFD_SETLK and F_SETLK.
#pragma once

#include "resource/descriptor.h"
#include "schema/kinds/file.pb.h"

namespace stasis::resource {

// The locks that fdinfo shows for this description: its own, and those that its first owner took by it.
Result<void> observe_locks(const OpenFile& file, schema::File& message);

// Locks that belong to the description: taken by the builder, they stay with it wherever it is passed.
Result<void> lock_description(const Record& record, int fd, const schema::File& message);

// Locks that belong to the process: only the process itself can take them.
Result<void> lock_as_process(const Record& record, Finishing& owner, const schema::File& message);

}  // namespace stasis::resource

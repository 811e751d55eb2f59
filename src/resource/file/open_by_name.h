// Opening what a name led to at the checkpoint, and saying clearly what has changed since.
#pragma once

#include "schema/kinds/file.pb.h"
#include "stasis/descriptor.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::resource {

// Path, type, device and inode of a file, also of one that was removed; an Error when its name leads to
// something else.
Result<schema::File> observe_name(const OpenFile& file);

// Opens message.path() with the saved flags and checks that it still is the same kind of file; what was
// removed is made again.
Result<Fd> open_by_name(const Record& record, const schema::File& message, Making& context);

// reopen() of something without a name that had this one, on the mount to which the name leads where we are:
// a description is on one mount, and the same file may have been opened on others.
Result<Fd> reopen_on_mount_of(const std::string& path, int object, int flags);

// DescriptorKind::relocate() of the kinds that keep it.
Result<void> relocate_file(Record& record, const DescriptorKind::Place& place);

}  // namespace stasis::resource

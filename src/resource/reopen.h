// Names and flags of open files: whether a name still leads to the file, and how to open a file again.
#pragma once

#include <string>

#include "stasis/descriptor.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::resource {

enum class Name {
  kLeadsToFile,    // opening `path` in the task's root gives the same inode
  kDeleted,        // the file has no name any more, at least not the one it was opened by
  kLeadsElsewhere  // something was mounted over it, or it cannot be reached
};

struct NamedPath {
  Name state = Name::kLeadsElsewhere;
  std::string path;  // as the program's mount namespace names it, without the kernel's " (deleted)"
};

// /proc/PID/fd/N follows renames, so its text is the file's present name.
NamedPath name_of(const OpenFile& file);

// The flags with which open() gives a description that has the saved status flags: without those that act
// only once.
int open_flags(uint32_t saved);

// Opens the object behind one of our own descriptors again: a new description with its own position and
// flags.
Result<Fd> reopen(int fd, int flags);
// The same for a pipe, whose packet mode (O_DIRECT) can be set but not opened.
Result<Fd> reopen_pipe(int fd, uint32_t saved_flags);

// F_SETFL for flags that open() was not asked for: O_APPEND, O_NONBLOCK, O_DIRECT, O_NOATIME, O_ASYNC is left
// alone.
Result<void> set_status_flags(int fd, uint32_t saved);

// In finish(): moves what the owner has opened, and knows as `opened`, to the record's number.
Result<void> put_in_place(const Record& record, int64_t opened, Finishing& owner);

}  // namespace stasis::resource

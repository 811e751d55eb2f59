// Gives back what page files hold and no checkpoint needs any more.
//
// Checkpoints share page files, each of which was written by one of them. When that one has been removed,
// pages in its file may be left that have changed before the others were taken.
#pragma once

#include <cstdint>
#include <string>

#include "stasis/result.h"

namespace stasis::image {

// Writes such files anew, with holes where nothing is needed, and puts a new directory with all else
// unchanged (hard links) into the place of each checkpoint that shares one, by an atomic exchange. Files that
// are shared with something else than the checkpoints of this session are left alone. Being killed at any
// moment leaves all checkpoints whole; so does a checkpoint, restart or removal at the same time.
Result<void> prune(const std::string& session_store);

// Bytes on the disk of all that is in the session's directory, what is shared counted once.
Result<uint64_t> disk_usage(const std::string& session_store);

}  // namespace stasis::image

// Directories of the store: making them, trusting them, removing them.
#pragma once

#include <string>
#include <vector>

#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::image {

// Like mkdir -p, 0700.
Result<void> make_directories(const std::string& path);

// The directory itself: a symbolic link in its last component is refused.
Result<Fd> open_directory(const std::string& path);

// Refuses what another user owns or what others may write: whoever can change an image can run code as the
// one who restarts it.
Result<void> check_ours(int fd, const std::string& path);

// Names in the directory without "." and "..", sorted.
Result<std::vector<std::string>> directory_names(int fd, const std::string& path);

// Removes a directory with all that is in it. Somebody else removing it at the same time is no error.
Result<void> remove_directory(int parent, const std::string& name);

// 1, 2, 3, ...; 0 when the name is no number of a checkpoint.
uint32_t checkpoint_number(const std::string& name);

// The errors of writing, with what the user can do about a full disk.
Error write_error(std::string step, std::string object, int error);

}  // namespace stasis::image

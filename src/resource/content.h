// Content of files that exist nowhere else: copied between a file of the program and a file of the
// checkpoint.
#pragma once

#include <cstdint>

#include "stasis/descriptor.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::resource {

// Copies all data of `from` to `to`, which is empty, at the same offsets; holes stay holes and the size is
// the same. `from` is a description of our own: looking for holes moves its position.
Result<void> copy_content(int from, int to);

// The name in the image of what an inode holds: the same for every description of it.
std::string content_name(std::string_view kind, const struct stat& status);

// Saves the content of a file without a name, once for all its descriptions: by the first of them.
Result<void> save_content(const OpenFile& file, const std::string& name, Observation& tree);

}  // namespace stasis::resource

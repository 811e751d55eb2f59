// Finds another name of an open file whose own was removed: the kernel counts names but does not tell them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "stasis/descriptor.h"

namespace stasis::inspect {

// Looks in the directory of the name that is gone and below it, where the tree's other files are, and below
// `points`, where the program has mounted what the file is on. Empty: not found there.
std::string find_other_name(const resource::OpenFile& file,
                            const std::vector<std::unique_ptr<resource::OpenFile>>& files,
                            const std::vector<std::string>& points);

}  // namespace stasis::inspect

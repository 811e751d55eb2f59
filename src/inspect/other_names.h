// Finds another name of an open file whose own was removed: the kernel counts names but does not tell them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "stasis/descriptor.h"

namespace stasis::inspect {

// Looks in the directory of the name that is gone and below it, and where the tree's other files are. Empty:
// not found there.
std::string find_other_name(const resource::OpenFile& file,
                            const std::vector<std::unique_ptr<resource::OpenFile>>& files);

}  // namespace stasis::inspect

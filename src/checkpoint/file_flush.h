// What makes clones quick before the program is stopped.
#pragma once

#include <string>

#include "freeze/scope.h"

namespace stasis::checkpoint {

// A clone waits until all that was written to a file is on the disk. So that the program does not stand still
// meanwhile, most of it is sent there before. Does nothing where `store` cannot have clones, and fails
// silently.
void flush_for_clones(const freeze::Scope& scope, const std::string& store);

}  // namespace stasis::checkpoint

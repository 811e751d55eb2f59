// What a process does to itself that it could not undo is done by another one.
#pragma once

#include <functional>

#include "stasis/result.h"

namespace stasis::kernel {

// A process that shares our memory and our descriptors, but not our root directory, our namespaces and our
// rights, does this and ends; we wait for it. It is no thread of ours, so that it may enter a user namespace.
Result<void> run_beside(const std::function<Result<void>()>& act);

}  // namespace stasis::kernel

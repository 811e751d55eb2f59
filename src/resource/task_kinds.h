// What the kernel keeps for processes and threads beyond descriptors: rows of the table of what is supported.
// The work itself is done by inspect and restore.
#pragma once

#include <span>

#include "stasis/kind.h"

namespace stasis::resource {

std::span<const KindInfo> task_kinds();

}  // namespace stasis::resource

// Contexts of Linux's asynchronous I/O: what has ended is in their rings, what is under way is not to be
// seen.
#pragma once

#include <span>

#include "freeze/frozen_tree.h"
#include "inspect/descriptors.h"
#include "inspect/memory.h"
#include "stasis/result.h"

namespace stasis::inspect {

// kRefusedNow: requests may be under way in one of the process's contexts.
Result<void> check_rings(const freeze::FrozenProcess& process, std::span<const MappingFacts> mappings,
                         DescriptorGraph& files);

}  // namespace stasis::inspect

// Which processes have one descriptor table, or one working directory, together without being threads.
#pragma once

#include "freeze/frozen_tree.h"
#include "inspect/descriptors.h"
#include "schema/manifest.pb.h"
#include "stasis/result.h"

namespace stasis::inspect {

// Notes it in the processes of the manifest, which are those of the tree in order. kRefused: no order of
// births gives that again.
Result<void> observe_sharing(const freeze::FrozenTree& tree, const DescriptorGraph& files,
                             schema::Manifest& manifest);

}  // namespace stasis::inspect

// What a program that was not launched has from whoever started it.
#pragma once

#include "freeze/frozen_tree.h"
#include "inspect/descriptors.h"

namespace stasis::inspect {

// What launch would have noted when it started the program: the terminal, and standard streams without a name
// that lead out of the tree. `files` has been collected. Another terminal than the one found is refused by
// its kind.
OutsideStreams find_outside_streams(const freeze::FrozenTree& tree, const DescriptorGraph& files);

}  // namespace stasis::inspect

// Seccomp: what a thread has forbidden itself, and letting us in all the same.
#pragma once

#include "freeze/frozen_tree.h"
#include "schema/manifest.pb.h"
#include "stasis/result.h"

namespace stasis::inspect {

// For as long as the threads are traced, their filters let everything through: a checkpoint makes system
// calls in them. kRefused: it needs privilege, which we do not have, or a filter asks somebody who cannot be
// restored.
Result<void> suspend_filters(const freeze::FrozenTree& tree);

// The filters of a process's threads, into the manifest, each once.
Result<void> observe_filters(const freeze::FrozenTree& tree, const freeze::FrozenProcess& process,
                             schema::Process& out, schema::Manifest& manifest);

}  // namespace stasis::inspect

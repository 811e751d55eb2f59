// Whom an open file description tells by a signal that it is ready.
#pragma once

#include "freeze/frozen_tree.h"
#include "schema/manifest.pb.h"
#include "stasis/descriptor.h"

namespace stasis::inspect {

// False when that is somebody outside the session.
bool observe_signal_owner(const resource::OpenFile& file, const freeze::FrozenTree& tree,
                          schema::Description& out);

}  // namespace stasis::inspect

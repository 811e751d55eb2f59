// Whether a manifest makes sense: everything that a restart relies on is bounded and refers to something that
// exists.
#pragma once

#include "schema/manifest.pb.h"
#include "stasis/result.h"

namespace stasis::image {

// Error: "manifest: process 42: descriptor 7 refers to description 99, which does not exist", code kDamaged.
// A kind's own payload is validated by that kind.
Result<void> validate(const schema::Manifest& manifest);

}  // namespace stasis::image

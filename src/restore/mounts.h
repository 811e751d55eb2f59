// Mounts again what the program had mounted.
#pragma once

#include "image/reader.h"
#include "schema/namespaces.pb.h"
#include "stasis/result.h"

namespace stasis::restore {

// In our own mount namespace. What shows processes is left to mount_later().
Result<void> mount_again(const schema::Namespace& wanted, const image::Image& image);
// In the session's init, or in a process of its.
Result<void> mount_later(const schema::Namespace& wanted);

}  // namespace stasis::restore

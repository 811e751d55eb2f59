// Contexts of Linux's asynchronous I/O, at the address that is their name.
#pragma once

#include "restore/skeleton.h"
#include "schema/manifest.pb.h"
#include "stasis/result.h"

namespace stasis::restore {

// Makes the context whose ring the mapping is, with what has ended and was not collected yet. `pass` is the
// memory guard's.
Result<void> make_aio_ring(Skeleton& skeleton, const schema::Mapping& mapping, uint64_t pass);

}  // namespace stasis::restore

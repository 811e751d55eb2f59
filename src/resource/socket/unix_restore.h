// Unix sockets are made again in rounds, since the kernel notes who did what, and in what order.
#pragma once

#include "stasis/descriptor.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::resource {

// In the builder: a socket with its name. A pair and a connection are made when processes can have numbers;
// until then a socket keeps the place.
Result<Fd> make_unix_socket(const Record& record, Making& context);

// In init. Listeners listen; connections are made; clients enter the queues of listeners; what was not read
// is sent again; last, default addresses are given, directions shut down and far ends closed.
Result<void> settle_unix_socket(const Record& record, int fd, Making& context, DescriptorKind::Round round);

}  // namespace stasis::resource

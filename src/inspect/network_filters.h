// The packet filter of a network (nftables).
#pragma once

#include "schema/network.pb.h"
#include "stasis/result.h"

namespace stasis::inspect {

// That of the network that this process is in. An error says what of it cannot be saved.
Result<void> read_network_filters(schema::Network& out);

}  // namespace stasis::inspect

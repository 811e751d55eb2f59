// The packet filter of a network (nftables).
#pragma once

#include "schema/network.pb.h"
#include "stasis/result.h"

namespace stasis::restore {

// To that of the network that this process is in, which has none yet.
Result<void> make_network_filters(const schema::Network& wanted);

}  // namespace stasis::restore

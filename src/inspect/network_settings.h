// The settings of a network: the files below /proc/sys/net.
#pragma once

#include "schema/network.pb.h"
#include "stasis/result.h"

namespace stasis::inspect {

// Those of the network that this process is in which it may change.
Result<void> read_network_settings(schema::Network& out);

}  // namespace stasis::inspect

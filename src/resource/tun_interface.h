// A tun or tap interface in the network that a session shares with the host. A persistent one is the host's:
// it stays, and a restart only attaches to it. Another one goes with the last descriptor, and with it what it
// was given.
#pragma once

#include <string>

#include "schema/kinds/tun.pb.h"
#include "stasis/result.h"

namespace stasis::resource {

// Its addresses, size of packets, bridge, and the routes by it.
Result<schema::TunInterface> read_tun_interface(const std::string& device);
// Gives them to the new one. It takes the rights of root.
Result<void> set_tun_interface(const std::string& device, const schema::TunInterface& wanted);

}  // namespace stasis::resource

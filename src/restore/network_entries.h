// Addresses, rules, routes and neighbours of a network. Some are there as soon as an interface is, so what
// there is is compared with what there was: the rest is added, and what was not there is taken away.
#pragma once

#include "kernel/rtnetlink.h"
#include "schema/network.pb.h"
#include "stasis/result.h"

namespace stasis::restore {

// The interfaces are up.
Result<void> apply_network_entries(kernel::Netlink& route, const schema::Network& wanted);

}  // namespace stasis::restore

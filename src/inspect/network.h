// What is in a network namespace: interfaces, addresses, routes, rules, neighbours, settings.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "schema/network.pb.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::inspect {

// A network of the session.
struct NetworkPlace {
  uint32_t id = 0;        // schema::Namespace::id; 0: the session's own
  uint64_t identity = 0;  // the inode of `network`
  Fd network;
  Fd user;  // the user namespace that has the right to enter it; empty: this process has it
};

// A process that enters a network and ends; what `ask` returns there.
Result<std::string> ask_in_network(const NetworkPlace& place, const std::function<Result<std::string>()>& ask);

// An Error refuses what cannot be made again. `all`: which other networks an interface may lead to.
Result<schema::Network> observe_network(const NetworkPlace& place, const std::vector<NetworkPlace>& all);

}  // namespace stasis::inspect

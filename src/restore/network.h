// Makes networks again as they were: interfaces, addresses, routes, rules, neighbours, settings.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "schema/network.pb.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::restore {

struct NetworkToMake {
  uint32_t id = 0;   // schema::Namespace::id; 0: the session's own
  int network = -1;  // the namespace, which is new
  const schema::Network* wanted = nullptr;
};

// In the builder, which is in one of them afterwards. All together, since interfaces lead from
// one to another. `held`: gets a descriptor of each tun and tap device (resource::tun_holder_key()), which
// stays as long as that does, or as it is persistent.
Result<void> make_networks(const std::vector<NetworkToMake>& all, std::map<std::string, Fd>& held);

}  // namespace stasis::restore

// The settings of a network (/proc/sys/net) as they were.
#pragma once

#include "schema/network.pb.h"
#include "stasis/result.h"

namespace stasis::restore {

enum class SettingsStage {
  kBeforeAddresses,  // as wanted, but addresses of IPv6 are not tried out (duplicate address detection)
  kLast,
};

// Of the network that this process is in, with all its interfaces.
Result<void> apply_network_settings(const schema::Network& wanted, SettingsStage stage);

}  // namespace stasis::restore

// The features of a network interface (segmentation and checksums that are left to it), by their names.
#pragma once

#include <set>
#include <string>

#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::kernel {

// Those that are on and can be changed. `socket`: any of the network that the interface is in. Empty when the
// interface has none.
std::set<std::string> link_features(int socket, const std::string& name);
// Turns those on that are wanted and all others off.
Result<void> set_link_features(int socket, const std::string& name, const std::set<std::string>& wanted);

}  // namespace stasis::kernel

// What the kernel tells about a packet socket from outside, by the sock_diag(7) netlink interface.
#pragma once

#include <sys/types.h>

#include "schema/kinds/socket.pb.h"
#include "stasis/result.h"

namespace stasis::resource {

struct PacketDiag {
  bool has_ring = false;
  uint16_t protocol = 0;  // ETH_P_*, in the host's byte order; 0: none
  std::vector<schema::PacketMembership> memberships;
};

// The socket with this inode in our network namespace.
Result<PacketDiag> packet_diag(ino_t inode);

}  // namespace stasis::resource

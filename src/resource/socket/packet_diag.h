// What the kernel tells about a packet socket from outside, by the sock_diag(7) netlink interface.
#pragma once

#include <sys/types.h>

#include <optional>
#include <vector>

#include "schema/kinds/socket.pb.h"
#include "stasis/result.h"

namespace stasis::resource {

struct PacketDiag {
  std::optional<schema::PacketRing> receive_ring, send_ring;
  bool in_fanout = false;
  uint16_t protocol = 0;  // ETH_P_*, in the host's byte order; 0: none
  std::vector<schema::PacketMembership> memberships;
};

// The socket with this inode in our network namespace.
Result<PacketDiag> packet_diag(ino_t inode);

}  // namespace stasis::resource

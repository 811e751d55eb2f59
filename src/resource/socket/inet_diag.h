// What the kernel tells about internet sockets from outside, by the sock_diag(7) netlink interface.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace stasis::resource {

struct InetDiag {
  uint8_t state = 0;          // as in the kernel's net/tcp_states.h
  uint32_t inode = 0;         // 0: nobody has it open
  std::string address, peer;  // as endpoint() gives them
  std::string peer_address;   // struct sockaddr
  uint32_t unread = 0;        // bytes
  bool cannot_read = false, cannot_write = false;
};

// All sockets of this protocol (IPPROTO_TCP, ...) in our network namespace; needs no privilege. Empty where
// the kernel lacks the interface.
std::vector<InetDiag> inet_diag(int protocol);

}  // namespace stasis::resource

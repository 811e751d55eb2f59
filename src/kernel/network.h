// What observers and builders of networks both have to know of Linux: which settings of a link can be given
// back, and what the C library's headers do not name.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::kernel {

// IFF_* that a program sets and clears.
inline constexpr uint32_t kSettableLinkFlags = 0x1 | 0x20 | 0x80 | 0x100 | 0x200 | 0x1000 | 0x2000 | 0x4000;
inline constexpr uint32_t kLinkUp = 0x1;

// A kind of link (IFLA_INFO_KIND) that can be made again.
struct LinkKind {
  std::string_view name;
  std::span<const uint16_t> data;  // IFLA_INFO_DATA: what is given to a new one
};
// nullptr: it is not known. The empty name is loopback's.
const LinkKind* find_link_kind(std::string_view name);
// IFLA_*: of every link, set when it exists.
std::span<const uint16_t> link_settings();
// IFLA_BRPORT_*: of a port of a bridge.
std::span<const uint16_t> bridge_port_settings();

// IFA_*: of an address that a program has given, without how long it lives.
std::span<const uint16_t> address_attributes();

// Whether every new network has an interface of this name as soon as a module is loaded.
bool is_fallback_link(std::string_view name);

// Whether this process has CAP_SYS_ADMIN in its user namespace: without it, a network can be entered only
// together with a user namespace.
bool has_administrator_rights();

// What tells the network of a socket from all others; 0: the kernel does not tell (before Linux 5.14).
uint64_t network_cookie(int socket);
// The same of the network that this process is in.
uint64_t network_cookie();

// Raises the loopback interface of the network that this process is in.
Result<void> raise_loopback();

}  // namespace stasis::kernel

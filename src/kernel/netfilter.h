// The messages by which nftables is told and asked about a packet filter (linux/netfilter/nf_tables.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "kernel/rtnetlink.h"

namespace stasis::kernel {

// `type`: NFT_MSG_*. `flags`: beside NLM_F_REQUEST. `family`: NFPROTO_*.
NetlinkRequest filter_message(uint16_t type, uint16_t flags, uint8_t family);
// The first and the last request of Netlink::transact().
NetlinkRequest begin_of_filters();
NetlinkRequest end_of_filters();

// Numbers are big-endian. 0 when there is none.
uint32_t filter_number(std::string_view value);
std::string filter_bytes(uint32_t number);

// Extensions of iptables in a rule (expressions "match" and "target") are made for one protocol, which has to
// be named (NFTA_RULE_COMPAT) and is not told. It is what the rule compares the packet's protocol with.
// Nothing when the rule has no such extension.
std::optional<std::string> protocol_of_rule(std::string_view expressions, uint8_t family);

}  // namespace stasis::kernel

#include "kernel/netfilter.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nf_tables_compat.h>
#include <linux/netfilter/nfnetlink.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>

#include <cstddef>

namespace stasis::kernel {
namespace {

nfgenmsg head_of(uint8_t family, uint16_t resource = 0) {
  return {.nfgen_family = family, .version = NFNETLINK_V0, .res_id = resource};
}

// Whether the expression loads the protocol of the packet into a register.
bool loads_protocol(const std::string& name, std::string_view data, uint8_t family) {
  auto attributes = netlink_attribute_map(data);
  if (name == "meta") return filter_number(attributes[NFTA_META_KEY]) == NFT_META_L4PROTO;
  if (name != "payload" || filter_number(attributes[NFTA_PAYLOAD_BASE]) != NFT_PAYLOAD_NETWORK_HEADER)
    return false;
  const size_t place = family == NFPROTO_IPV6 ? offsetof(ip6_hdr, ip6_nxt) : offsetof(ip, ip_p);
  return filter_number(attributes[NFTA_PAYLOAD_OFFSET]) == place &&
         filter_number(attributes[NFTA_PAYLOAD_LEN]) == 1;
}

}  // namespace

NetlinkRequest filter_message(uint16_t type, uint16_t flags, uint8_t family) {
  return {static_cast<uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | type), flags, head_of(family)};
}

NetlinkRequest begin_of_filters() {
  return {NFNL_MSG_BATCH_BEGIN, 0, head_of(AF_UNSPEC, htons(NFNL_SUBSYS_NFTABLES))};
}

NetlinkRequest end_of_filters() {
  return {NFNL_MSG_BATCH_END, 0, head_of(AF_UNSPEC, htons(NFNL_SUBSYS_NFTABLES))};
}

uint32_t filter_number(std::string_view value) {
  return value.size() == sizeof(uint32_t) ? ntohl(netlink_value<uint32_t>(value)) : 0;
}

std::string filter_bytes(uint32_t number) {
  const uint32_t swapped = htonl(number);
  return {reinterpret_cast<const char*>(&swapped), sizeof swapped};
}

std::optional<std::string> protocol_of_rule(std::string_view expressions, uint8_t family) {
  bool extended = false, loaded = false;
  uint32_t protocol = 0, flags = 0;
  for (const auto& expression : netlink_attributes(expressions)) {
    auto parts = netlink_attribute_map(expression.value);
    const std::string name = netlink_name(parts[NFTA_EXPR_NAME]);
    const std::string_view data = parts[NFTA_EXPR_DATA];
    extended = extended || name == "match" || name == "target";
    if (loaded && name == "cmp" && protocol == 0) {
      auto comparison = netlink_attribute_map(data);
      const auto value = netlink_attribute_map(comparison[NFTA_CMP_DATA])[NFTA_DATA_VALUE];
      if (value.size() == 1) protocol = static_cast<unsigned char>(value.front());
      if (filter_number(comparison[NFTA_CMP_OP]) == NFT_CMP_NEQ) flags = NFT_RULE_COMPAT_F_INV;
    }
    loaded = loads_protocol(name, data, family);
  }
  if (!extended) return std::nullopt;
  NetlinkRequest nest(0, 0, std::string_view());
  const size_t head = nest.bytes().size();
  nest.add(NFTA_RULE_COMPAT_PROTO, filter_bytes(protocol));
  nest.add(NFTA_RULE_COMPAT_FLAGS, filter_bytes(flags));
  return nest.bytes().substr(head);
}

}  // namespace stasis::kernel

#include "inspect/network_filters.h"

#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <span>

#include "kernel/netfilter.h"
#include "kernel/rtnetlink.h"

namespace stasis::inspect {
namespace {

using kernel::filter_message;
using kernel::Netlink;
using kernel::NetlinkMessage;
using kernel::NetlinkRequest;

// What the kernel tells and takes again. Left out: numbers that it gives, and how often something is used.
constexpr uint16_t kTable[] = {NFTA_TABLE_NAME, NFTA_TABLE_FLAGS, NFTA_TABLE_USERDATA};
constexpr uint16_t kChain[] = {NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME,     NFTA_CHAIN_HOOK,  NFTA_CHAIN_POLICY,
                               NFTA_CHAIN_TYPE,  NFTA_CHAIN_COUNTERS, NFTA_CHAIN_FLAGS, NFTA_CHAIN_USERDATA};
constexpr uint16_t kObject[] = {NFTA_OBJ_TABLE, NFTA_OBJ_NAME, NFTA_OBJ_TYPE, NFTA_OBJ_DATA,
                                NFTA_OBJ_USERDATA};
constexpr uint16_t kSet[] = {NFTA_SET_TABLE,    NFTA_SET_NAME,      NFTA_SET_FLAGS,       NFTA_SET_KEY_TYPE,
                             NFTA_SET_KEY_LEN,  NFTA_SET_DATA_TYPE, NFTA_SET_DATA_LEN,    NFTA_SET_POLICY,
                             NFTA_SET_DESC,     NFTA_SET_TIMEOUT,   NFTA_SET_GC_INTERVAL, NFTA_SET_USERDATA,
                             NFTA_SET_OBJ_TYPE, NFTA_SET_EXPR,      NFTA_SET_EXPRESSIONS};
constexpr uint16_t kElements[] = {NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_LIST_SET,
                                  NFTA_SET_ELEM_LIST_ELEMENTS};
constexpr uint16_t kRule[] = {NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_USERDATA};
// Newer than the C library's headers.
constexpr uint32_t kChainBinding = 4;  // NFT_CHAIN_BINDING
constexpr uint32_t kTableOwner = 2;    // NFT_TABLE_F_OWNER

Error refusal(std::string cause, std::string hint) {
  return Error{"save", "a network of the session", std::move(cause), std::move(hint), ErrorCode::kRefused};
}

class Reader {
 public:
  Reader(Netlink netfilter, schema::Network& out) : netfilter_(std::move(netfilter)), out_(out) {}

  Result<void> run() {
    STASIS_TRY(auto tables, list(NFT_MSG_GETTABLE));
    if (tables.empty()) return {};
    STASIS_CHECK(check(tables));
    for (const auto& message : tables) add(NFT_MSG_NEWTABLE, message, kTable);
    STASIS_TRY(auto chains, list(NFT_MSG_GETCHAIN));
    for (const auto& message : chains) {
      if ((number(message, NFTA_CHAIN_FLAGS) & kChainBinding) != 0)
        return refusal("a rule of nftables has a chain within it (jump { ... })",
                       "give the chain a name, or flush it before a checkpoint");
      add(NFT_MSG_NEWCHAIN, message, kChain);
    }
    STASIS_TRY(auto objects, list(NFT_MSG_GETOBJ));
    for (const auto& message : objects) add(NFT_MSG_NEWOBJ, message, kObject);
    STASIS_CHECK(add_sets());
    STASIS_TRY(auto rules, list(NFT_MSG_GETRULE));
    for (const auto& message : rules) STASIS_CHECK(add_rule(message));
    return {};
  }

 private:
  Result<std::vector<NetlinkMessage>> list(uint16_t question) {
    auto dump = netfilter_.dump(filter_message(question, 0, AF_UNSPEC));
    if (dump.error == EOPNOTSUPP || dump.error == EINVAL) return std::vector<NetlinkMessage>();
    if (dump.error != 0) return errno_error("save", "the packet filter of a network", dump.error);
    return std::move(dump.messages);
  }

  static uint32_t number(const NetlinkMessage& message, uint16_t type) {
    return kernel::filter_number(kernel::netlink_attribute_map(message.payload, sizeof(nfgenmsg))[type]);
  }

  Result<void> check(const std::vector<NetlinkMessage>& tables) {
    for (const auto& message : tables) {
      if ((number(message, NFTA_TABLE_FLAGS) & kTableOwner) != 0)
        return refusal("a program owns a table of nftables, which goes with its socket",
                       "end it before a checkpoint");
    }
    STASIS_TRY(auto flows, list(NFT_MSG_GETFLOWTABLE));
    if (!flows.empty())
      return refusal("nftables has flow tables in it",
                     "this is not supported; delete them before a checkpoint");
    return {};
  }

  schema::NetlinkEntry& add(uint16_t type, const NetlinkMessage& message, std::span<const uint16_t> kept) {
    auto* filter = out_.add_filters();
    filter->set_type(type);
    auto& entry = *filter->mutable_entry();
    auto head = message.head<nfgenmsg>();
    head.res_id = 0;  // a number of this moment
    entry.set_head(std::string(reinterpret_cast<const char*>(&head), sizeof head));
    for (const auto& attribute : kernel::netlink_attributes(message.payload, sizeof head)) {
      if (std::find(kept.begin(), kept.end(), attribute.type) == kept.end()) continue;
      auto* saved = entry.add_attributes();
      saved->set_type(attribute.type);
      saved->set_value(std::string(attribute.value));
    }
    return entry;
  }

  Result<void> add_sets() {
    STASIS_TRY(auto sets, list(NFT_MSG_GETSET));
    for (const auto& message : sets) {
      // By which the rules of the same transaction may call it; they do so by its name.
      auto* id = add(NFT_MSG_NEWSET, message, kSet).add_attributes();
      id->set_type(NFTA_SET_ID);
      id->set_value(kernel::filter_bytes(static_cast<uint32_t>(out_.filters_size())));
    }
    for (const auto& message : sets) {
      auto attributes = kernel::netlink_attribute_map(message.payload, sizeof(nfgenmsg));
      NetlinkRequest question = filter_message(NFT_MSG_GETSETELEM, 0, message.head<nfgenmsg>().nfgen_family);
      question.add(NFTA_SET_ELEM_LIST_TABLE, attributes[NFTA_SET_TABLE]);
      question.add(NFTA_SET_ELEM_LIST_SET, attributes[NFTA_SET_NAME]);
      const auto elements = netfilter_.dump(question);
      if (elements.error != 0) return errno_error("save", "a set of the packet filter", elements.error);
      for (const auto& some : elements.messages) {
        if (kernel::netlink_attribute_map(some.payload, sizeof(nfgenmsg))
                .contains(NFTA_SET_ELEM_LIST_ELEMENTS))
          add(NFT_MSG_NEWSETELEM, some, kElements);
      }
    }
    return {};
  }

  Result<void> add_rule(const NetlinkMessage& message) {
    auto attributes = kernel::netlink_attribute_map(message.payload, sizeof(nfgenmsg));
    auto& entry = add(NFT_MSG_NEWRULE, message, kRule);
    const auto compatible =
        kernel::protocol_of_rule(attributes[NFTA_RULE_EXPRESSIONS], message.head<nfgenmsg>().nfgen_family);
    if (!compatible) return {};
    auto* saved = entry.add_attributes();
    saved->set_type(NFTA_RULE_COMPAT);
    saved->set_value(*compatible);
    return {};
  }

  Netlink netfilter_;
  schema::Network& out_;
};

}  // namespace

Result<void> read_network_filters(schema::Network& out) {
  auto netfilter = Netlink::open(NETLINK_NETFILTER);
  // A kernel without it has no filters.
  return netfilter.ok() ? Reader(std::move(*netfilter), out).run() : Result<void>();
}

}  // namespace stasis::inspect

#include "restore/network_filters.h"

#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include <vector>

#include "kernel/netfilter.h"

namespace stasis::restore {
namespace {

constexpr const char* kStep = "restart: make the packet filter of a network";

const char* name_of(uint32_t type) {
  switch (type) {
    case NFT_MSG_NEWTABLE:
      return "a table";
    case NFT_MSG_NEWCHAIN:
      return "a chain";
    case NFT_MSG_NEWOBJ:
      return "an object";
    case NFT_MSG_NEWSET:
      return "a set";
    case NFT_MSG_NEWSETELEM:
      return "elements of a set";
    default:
      return "a rule";
  }
}

}  // namespace

Result<void> make_network_filters(const schema::Network& wanted) {
  if (wanted.filters_size() == 0) return {};
  STASIS_TRY(auto netfilter, kernel::Netlink::open(NETLINK_NETFILTER));
  std::vector<kernel::NetlinkRequest> requests = {kernel::begin_of_filters()};
  for (const auto& filter : wanted.filters()) {
    const auto head = kernel::netlink_value<nfgenmsg>(filter.entry().head());
    // A rule goes behind those that are there.
    const uint16_t flags = NLM_F_CREATE | (filter.type() == NFT_MSG_NEWRULE ? NLM_F_APPEND : 0);
    auto request = kernel::filter_message(static_cast<uint16_t>(filter.type()), flags, head.nfgen_family);
    for (const auto& attribute : filter.entry().attributes())
      request.add(static_cast<uint16_t>(attribute.type()), attribute.value());
    requests.push_back(std::move(request));
  }
  requests.push_back(kernel::end_of_filters());
  size_t refused = 0;
  const int error = netfilter.transact(requests, refused);
  if (error == 0) return {};
  const bool known = refused >= 1 && refused <= static_cast<size_t>(wanted.filters_size());
  return Error{kStep, known ? name_of(wanted.filters(static_cast<int>(refused) - 1).type()) : "nftables",
               netfilter.story_of(error),
               error == ENOENT || error == EOPNOTSUPP
                   ? "a module of netfilter may be missing, or root has to load it (modprobe nf_tables)"
                   : "",
               error == EPERM ? ErrorCode::kDenied : ErrorCode::kFailed};
}

}  // namespace stasis::restore

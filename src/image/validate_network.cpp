#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>

#include <algorithm>
#include <set>

#include "image/validate_internal.h"

namespace stasis::image::validation {
namespace {

constexpr int kMostLinks = 1 << 16, kMostEntries = 1 << 20, kMostAttributes = 256, kMostSettings = 1 << 20;
constexpr size_t kLongestAttribute = 0xfff0, kLongestSetting = 4096, kLongestAlias = 128;
constexpr uint32_t kLastIndex = 0x7fffffff, kLastAttribute = 0x3fff;

using Attributes = google::protobuf::RepeatedPtrField<schema::NetlinkAttribute>;
using Entries = google::protobuf::RepeatedPtrField<schema::NetlinkEntry>;

// It becomes a part of paths, and a string of the kernel's.
bool is_interface_name(const std::string& name, size_t limit) {
  return !name.empty() && name.size() < limit && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\0", 2)) == std::string::npos;
}

Result<void> check_attributes(const Attributes& attributes, const std::string& where) {
  if (attributes.size() > kMostAttributes) return bad(where, "it has too many attributes");
  size_t total = 0;
  for (const auto& attribute : attributes) {
    total += attribute.value().size();
    if (attribute.type() > kLastAttribute || total > kLongestAttribute)
      return bad(where, fmt::format("attribute {} is impossible", attribute.type()));
  }
  return {};
}

Result<void> check_entries(const Entries& entries, size_t head, const std::string& where) {
  if (entries.size() > kMostEntries) return bad(where, "there are too many");
  for (const auto& entry : entries) {
    if (entry.head().size() != head)
      return bad(where, fmt::format("one begins with {} bytes, not {}", entry.head().size(), head));
    STASIS_CHECK(check_attributes(entry.attributes(), where));
  }
  return {};
}

Result<void> check_link(const schema::Link& link, const std::string& where,
                        const std::set<uint32_t>& networks) {
  if (link.index() == 0 || link.index() > kLastIndex) return bad(where, "its number is impossible");
  if (!is_interface_name(link.name(), IFNAMSIZ)) return bad(where, "its name is none");
  if (!sane_text(link.kind(), IFNAMSIZ)) return bad(where, "its kind is none");
  for (const auto& name : link.other_names()) {
    if (!is_interface_name(name, kLongestAlias)) return bad(where, "another name of it is none");
  }
  if (link.address_mode() > 0xff) return bad(where, "how it gets addresses is impossible");
  if (link.has_other_network() && !networks.contains(link.other_network()))
    return bad(where, fmt::format("it leads to network {}, which does not exist", link.other_network()));
  if (link.has_tun() != (link.kind() == "tun")) return bad(where, "it is and is not a tun device");
  if (link.features_size() > kMostAttributes) return bad(where, "it has too many features");
  STASIS_CHECK(check_attributes(link.settings(), where));
  STASIS_CHECK(check_attributes(link.data(), where));
  return check_attributes(link.port(), where);
}

bool is_setting_name(const std::string& name) {
  return !name.empty() && sane_text(name, kLongestSetting) && name.front() != '/' &&
         !name.starts_with("../") && !name.ends_with("/..") && name != ".." &&
         name.find("/../") == std::string::npos;
}

Result<void> check_network(const schema::Network& network, const std::string& where,
                           const std::set<uint32_t>& networks) {
  if (network.links_size() > kMostLinks) return bad(where, "it has too many interfaces");
  std::set<uint32_t> indices;
  std::set<std::string> names;
  for (const auto& link : network.links()) {
    STASIS_CHECK(check_link(link, fmt::format("{}: interface {}", where, link.index()), networks));
    if (!indices.insert(link.index()).second || !names.insert(link.name()).second)
      return bad(where, fmt::format("interface {} is there twice", link.index()));
  }
  for (const auto& link : network.links()) {
    if (link.master() != 0 && !indices.contains(link.master()))
      return bad(where, fmt::format("interface {} is a port of {}, which does not exist", link.index(),
                                    link.master()));
  }
  STASIS_CHECK(check_entries(network.addresses(), sizeof(ifaddrmsg), where + ": addresses"));
  STASIS_CHECK(check_entries(network.routes(), sizeof(rtmsg), where + ": routes"));
  STASIS_CHECK(check_entries(network.rules(), sizeof(fib_rule_hdr), where + ": rules"));
  STASIS_CHECK(check_entries(network.neighbours(), sizeof(ndmsg), where + ": neighbours"));
  STASIS_CHECK(check_entries(network.bridged(), sizeof(ndmsg), where + ": stations of bridges"));
  if (network.filters_size() > kMostEntries) return bad(where, "its packet filter is too long");
  for (const auto& filter : network.filters()) {
    const std::string what = where + ": packet filter";
    constexpr uint32_t kTypes[] = {NFT_MSG_NEWTABLE, NFT_MSG_NEWCHAIN,   NFT_MSG_NEWOBJ,
                                   NFT_MSG_NEWSET,   NFT_MSG_NEWSETELEM, NFT_MSG_NEWRULE};
    if (std::find(std::begin(kTypes), std::end(kTypes), filter.type()) == std::end(kTypes))
      return bad(what, fmt::format("message {} makes nothing", filter.type()));
    if (filter.entry().head().size() != sizeof(nfgenmsg)) return bad(what, "a message begins wrongly");
    STASIS_CHECK(check_attributes(filter.entry().attributes(), what));
  }
  if (network.settings_size() > kMostSettings) return bad(where, "it has too many settings");
  for (const auto& setting : network.settings()) {
    if (!is_setting_name(setting.name()) || setting.value().size() > kLongestSetting)
      return bad(where, "a setting is none");
  }
  for (const auto& number : network.numbers()) {
    if (!networks.contains(number.network()) || number.number() < 0)
      return bad(where, "a number for another network is none");
  }
  return {};
}

}  // namespace

Result<void> check_networks(const Known& known) {
  const schema::Manifest& manifest = *known.manifest;
  std::set<uint32_t> networks;
  if (manifest.has_session_network()) networks.insert(0);
  for (const auto& one : manifest.namespaces()) {
    if (one.has_network() && one.type() != CLONE_NEWNET)
      return bad(fmt::format("namespace {}", one.id()), "it has a network and is none");
    if (one.has_network() && (one.id() == 0 || !networks.insert(one.id()).second))
      return bad(fmt::format("namespace {}", one.id()), "it is there twice");
  }
  if (manifest.has_session_network())
    STASIS_CHECK(check_network(manifest.session_network(), "network of the session", networks));
  for (const auto& one : manifest.namespaces()) {
    if (one.has_network())
      STASIS_CHECK(check_network(one.network(), fmt::format("namespace {}", one.id()), networks));
  }
  return {};
}

}  // namespace stasis::image::validation

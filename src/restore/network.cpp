#include "restore/network.h"

#include <fcntl.h>
#include <linux/fib_rules.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/neighbour.h>
#include <linux/net_namespace.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <set>

#include "kernel/ethtool.h"
#include "kernel/network.h"
#include "kernel/rtnetlink.h"
#include "resource/tun.h"
#include "restore/network_entries.h"
#include "restore/network_settings.h"

namespace stasis::restore {
namespace {

using kernel::Netlink;
using kernel::NetlinkMessage;
using kernel::NetlinkRequest;
using Attributes = google::protobuf::RepeatedPtrField<schema::NetlinkAttribute>;

constexpr const char* kStep = "restart: make a network";
constexpr uint16_t kNewProperties = RTM_NEWLINKPROP;
constexpr uint16_t kInet6AddressMode = 8;  // IFLA_INET6_ADDR_GEN_MODE
constexpr uint8_t kNoAddresses = 1;        // IN6_ADDR_GEN_MODE_NONE

// One of them, while it is being made.
class Builder {
 public:
  // This process is in the network.
  static Result<Builder> open(const NetworkToMake& task) {
    STASIS_TRY(Netlink route, Netlink::open(NETLINK_ROUTE));
    Builder builder(task, std::move(route));
    builder.socket_.reset(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    return builder;
  }

  uint32_t id() const { return task_->id; }
  int network() const { return task_->network; }
  const schema::Network& wanted() const { return *task_->wanted; }
  Netlink& route() { return route_; }
  bool has_made(uint32_t index) const { return made_.contains(index); }
  void note(uint32_t index) { made_.insert(index); }

  Error failure(const std::string& object, int error, std::string hint = {}) const {
    return Error{kStep, object, route_.story_of(error), std::move(hint),
                 error == EPERM ? ErrorCode::kDenied : ErrorCode::kFailed};
  }

  Result<void> name_networks(const std::vector<NetworkToMake>& all);
  Result<void> make_tun(const schema::Link& link, std::map<std::string, Fd>& held);
  // `peer`: of a veth, with the network that it is to be in.
  Result<void> make_link(const schema::Link& link, const schema::Link* peer, int peer_network);
  Result<void> settle(const schema::Link& link);
  Result<void> join(const schema::Link& link);
  // Of a bridge, when it has its ports.
  Result<void> give_address(const schema::Link& link);
  // Raises what can be raised now; how many are left.
  Result<size_t> raise_links();
  Result<void> allow_addresses();
  // The operational states of all interfaces.
  std::string operational();

 private:
  Builder(const NetworkToMake& task, Netlink route) : task_(&task), route_(std::move(route)) {}
  Result<void> change_differing(const schema::Link& link);
  Result<void> set_address_mode(const schema::Link& link, uint8_t mode);

  const NetworkToMake* task_;
  Netlink route_;
  Fd socket_;  // for requests that are no netlink
  std::set<uint32_t> made_;
};

ifinfomsg head_of(const schema::Link& link) {
  ifinfomsg head = {};
  head.ifi_index = static_cast<int>(link.index());
  return head;
}

const std::string* find(const Attributes& attributes, uint16_t type) {
  for (const auto& attribute : attributes) {
    if (attribute.type() == type) return &attribute.value();
  }
  return nullptr;
}

// A bridge has the lowest address of its ports, unless it is given one: then it keeps that.
bool chooses_address(const schema::Link& link) { return link.kind() == "bridge"; }

// With which a link is born; the rest is set when it is there.
void add_birth_settings(const schema::Link& link, NetlinkRequest& request) {
  request.add_name(IFLA_IFNAME, link.name());
  for (uint16_t type : {IFLA_ADDRESS, IFLA_MTU, IFLA_TXQLEN, IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES}) {
    const std::string* value = find(link.settings(), type);
    if (value == nullptr || value->empty() || (type == IFLA_ADDRESS && chooses_address(link))) continue;
    request.add(type, *value);
  }
}

std::string index_hint(int error) {
  return error == EEXIST
             ? "an interface that every new network has on this host has its number: unload the module "
               "that makes it (sit, ip6_tunnel, ...), or sysctl -w net.core.fb_tunnels_only_for_init_net=2"
         : error == EOPNOTSUPP ? "the kernel of this host does not have this kind of interface"
                               : "";
}

Result<void> Builder::name_networks(const std::vector<NetworkToMake>& all) {
  for (const auto& number : wanted().numbers()) {
    auto other = std::find_if(all.begin(), all.end(), [&](const NetworkToMake& candidate) {
      return candidate.id == number.network();
    });
    if (other == all.end()) continue;
    NetlinkRequest request(RTM_NEWNSID, 0, rtgenmsg{});
    request.add_value<int32_t>(NETNSA_NSID, number.number());
    request.add_value<uint32_t>(NETNSA_FD, static_cast<uint32_t>(other->network));
    if (int error = route_.ask(request); error != 0)
      return failure(fmt::format("number {} for another network", number.number()), error);
  }
  return {};
}

Result<void> Builder::make_tun(const schema::Link& link, std::map<std::string, Fd>& held) {
  const schema::TunDevice& tun = link.tun();
  STASIS_TRY(Fd fd, open_file("/dev/net/tun", O_RDWR));
  unsigned index = link.index();
  ifreq request = {};
  link.name().copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_flags = static_cast<short>(tun.flags());
  auto set_id = [&](unsigned long what, uint32_t id) {
    return ::ioctl(fd.get(), what, static_cast<unsigned long>(id));
  };
  if (::ioctl(fd.get(), TUNSETIFINDEX, &index) != 0 || ::ioctl(fd.get(), TUNSETIFF, &request) != 0) {
    const int error = errno;
    return errno_error(kStep, link.name(), error, index_hint(error));
  }
  if ((tun.has_owner() && set_id(TUNSETOWNER, tun.owner()) != 0) ||
      (tun.has_group() && set_id(TUNSETGROUP, tun.group()) != 0) ||
      ::ioctl(fd.get(), TUNSETPERSIST, 1UL) != 0)
    return errno_error(kStep, link.name());
  held[resource::tun_holder_key(link.name())] = std::move(fd);
  note(link.index());
  return {};
}

Result<void> Builder::make_link(const schema::Link& link, const schema::Link* peer, int peer_network) {
  NetlinkRequest request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, head_of(link));
  add_birth_settings(link, request);
  if (peer == nullptr && link.other() != 0) {
    request.add_value<uint32_t>(IFLA_LINK, link.other());
    if (link.has_other_network()) {
      for (const auto& number : wanted().numbers()) {
        if (number.network() == link.other_network())
          request.add_value<int32_t>(IFLA_LINK_NETNSID, number.number());
      }
    }
  }
  const size_t info = request.begin(IFLA_LINKINFO);
  request.add_name(IFLA_INFO_KIND, link.kind());
  const size_t data = request.begin(IFLA_INFO_DATA);
  if (peer != nullptr) {
    const size_t other = request.begin(VETH_INFO_PEER);
    const ifinfomsg head = head_of(*peer);
    request.add_raw({reinterpret_cast<const char*>(&head), sizeof head});
    add_birth_settings(*peer, request);
    if (peer_network >= 0) request.add_value<uint32_t>(IFLA_NET_NS_FD, static_cast<uint32_t>(peer_network));
    request.end(other);
  } else if (link.kind() != "bridge") {
    // A bridge has many settings and needs none to begin with.
    for (const auto& attribute : link.data())
      request.add(static_cast<uint16_t>(attribute.type()), attribute.value());
  }
  request.end(data);
  request.end(info);
  if (int error = route_.ask(request); error != 0)
    return failure(fmt::format("{} ({})", link.name(), link.kind()), error, index_hint(error));
  note(link.index());
  return {};
}

// What is as wanted already is left alone: not all can be said again.
Result<void> Builder::change_differing(const schema::Link& link) {
  NetlinkMessage now;
  if (int error = route_.ask({RTM_GETLINK, 0, head_of(link)}, &now); error != 0)
    return failure(link.name(), error);
  auto current = kernel::netlink_attribute_map(now.payload, sizeof(ifinfomsg));
  auto info = kernel::netlink_attribute_map(current[IFLA_LINKINFO]);
  const auto data = kernel::netlink_attribute_map(info[IFLA_INFO_DATA]);
  auto differs = [](const std::map<uint16_t, std::string_view>& is, const schema::NetlinkAttribute& wanted) {
    auto found = is.find(static_cast<uint16_t>(wanted.type()));
    return found == is.end() || found->second != wanted.value();
  };
  for (const auto& setting : link.settings()) {
    if (setting.value().empty() || !differs(current, setting) || setting.type() == IFLA_NUM_TX_QUEUES ||
        setting.type() == IFLA_NUM_RX_QUEUES || (setting.type() == IFLA_ADDRESS && chooses_address(link)))
      continue;
    NetlinkRequest request(RTM_SETLINK, 0, head_of(link));
    request.add(static_cast<uint16_t>(setting.type()), setting.value());
    if (int error = route_.ask(request); error != 0)
      return failure(fmt::format("setting {} of {}", setting.type(), link.name()), error);
  }
  for (const auto& setting : link.data()) {
    if (!differs(data, setting)) continue;
    NetlinkRequest request(RTM_NEWLINK, 0, head_of(link));
    const size_t nest = request.begin(IFLA_LINKINFO);
    request.add_name(IFLA_INFO_KIND, link.kind());
    const size_t inner = request.begin(IFLA_INFO_DATA);
    request.add(static_cast<uint16_t>(setting.type()), setting.value());
    request.end(inner);
    request.end(nest);
    if (int error = route_.ask(request); error != 0)
      return failure(fmt::format("setting {} of {} {}", setting.type(), link.kind(), link.name()), error);
  }
  return {};
}

Result<void> Builder::set_address_mode(const schema::Link& link, uint8_t mode) {
  NetlinkRequest request(RTM_SETLINK, 0, head_of(link));
  const size_t families = request.begin(IFLA_AF_SPEC);
  const size_t inet6 = request.begin(AF_INET6);
  request.add_value(kInet6AddressMode, mode);
  request.end(inet6);
  request.end(families);
  const int error = route_.ask(request);
  // Without IPv6, or with an MTU that is too small for it, there is nothing to set.
  if (error == 0 || error == EAFNOSUPPORT || error == EOPNOTSUPP || error == EINVAL) return {};
  return failure(link.name(), error);
}

Result<void> Builder::settle(const schema::Link& link) {
  STASIS_CHECK(change_differing(link));
  // Which addresses it has, also of those that the kernel chooses, is known.
  STASIS_CHECK(set_address_mode(link, kNoAddresses));
  for (const auto& name : link.other_names()) {
    NetlinkRequest request(kNewProperties, NLM_F_CREATE | NLM_F_EXCL | NLM_F_APPEND, head_of(link));
    const size_t nest = request.begin(IFLA_PROP_LIST | NLA_F_NESTED);
    request.add_name(IFLA_ALT_IFNAME, name);
    request.end(nest);
    if (int error = route_.ask(request); error != 0) return failure(name, error);
  }
  // Of a tun device its descriptors say it.
  if (link.has_tun()) return {};
  auto set =
      kernel::set_link_features(socket_.get(), link.name(), {link.features().begin(), link.features().end()});
  if (!set.ok()) return std::move(set).error().within(kStep);
  return {};
}

Result<void> Builder::join(const schema::Link& link) {
  if (link.master() == 0) return {};
  NetlinkRequest request(RTM_SETLINK, 0, head_of(link));
  request.add_value<uint32_t>(IFLA_MASTER, link.master());
  if (int error = route_.ask(request); error != 0) return failure("port " + link.name(), error);
  NetlinkMessage now;
  if (int error = route_.ask({RTM_GETLINK, 0, head_of(link)}, &now); error != 0)
    return failure(link.name(), error);
  auto current = kernel::netlink_attribute_map(now.payload, sizeof(ifinfomsg));
  auto info = kernel::netlink_attribute_map(current[IFLA_LINKINFO]);
  const auto port = kernel::netlink_attribute_map(info[IFLA_INFO_SLAVE_DATA]);
  for (const auto& setting : link.port()) {
    auto is = port.find(static_cast<uint16_t>(setting.type()));
    if (is != port.end() && is->second == setting.value()) continue;
    NetlinkRequest change(RTM_NEWLINK, 0, head_of(link));
    const size_t nest = change.begin(IFLA_LINKINFO);
    change.add_name(IFLA_INFO_SLAVE_KIND, "bridge");
    const size_t inner = change.begin(IFLA_INFO_SLAVE_DATA);
    change.add(static_cast<uint16_t>(setting.type()), setting.value());
    change.end(inner);
    change.end(nest);
    if (int error = route_.ask(change); error != 0)
      return failure(fmt::format("setting {} of port {}", setting.type(), link.name()), error);
  }
  return {};
}

Result<void> Builder::give_address(const schema::Link& link) {
  const std::string* wanted = find(link.settings(), IFLA_ADDRESS);
  if (!chooses_address(link) || wanted == nullptr) return {};
  NetlinkMessage now;
  if (int error = route_.ask({RTM_GETLINK, 0, head_of(link)}, &now); error != 0)
    return failure(link.name(), error);
  if (kernel::netlink_attribute_map(now.payload, sizeof(ifinfomsg))[IFLA_ADDRESS] == *wanted) return {};
  NetlinkRequest request(RTM_SETLINK, 0, head_of(link));
  request.add(IFLA_ADDRESS, *wanted);
  if (int error = route_.ask(request); error != 0) return failure(link.name(), error);
  return {};
}

Result<size_t> Builder::raise_links() {
  size_t left = 0;
  for (const auto& link : wanted().links()) {
    ifinfomsg head = head_of(link);
    head.ifi_flags = link.flags();
    head.ifi_change = kernel::kSettableLinkFlags;
    const int error = route_.ask({RTM_SETLINK, 0, head});
    // The one below is not up yet, perhaps in another network.
    if (error == ENETDOWN) {
      ++left;
    } else if (error != 0) {
      return failure(link.name(), error);
    }
  }
  return left;
}

Result<void> Builder::allow_addresses() {
  for (const auto& link : wanted().links())
    STASIS_CHECK(set_address_mode(link, static_cast<uint8_t>(link.address_mode())));
  return {};
}

// That they have a carrier shows when the kernel's link watch has run, which it does once a second; who asks
// for one interface makes it run for that (rtnl_getlink(), Linux 6.9).
std::string Builder::operational() {
  std::string states;
  for (const auto& link : wanted().links()) {
    NetlinkMessage now;
    if (route_.ask({RTM_GETLINK, 0, head_of(link)}, &now) != 0) continue;
    states += kernel::netlink_attribute_map(now.payload, sizeof(ifinfomsg))[IFLA_OPERSTATE];
  }
  return states;
}

class Networks {
 public:
  Networks(const std::vector<NetworkToMake>& all, std::map<std::string, Fd>& held) : all_(all), held_(held) {}

  Result<void> run() {
    for (const auto& task : all_) {
      STASIS_CHECK(enter(task.network));
      STASIS_TRY(Builder builder, Builder::open(task));
      builders_.push_back(std::move(builder));
    }
    for (auto& builder : builders_) STASIS_CHECK(builder.name_networks(all_));
    STASIS_CHECK(make_links());
    for (auto& builder : builders_) {
      for (const auto& link : builder.wanted().links()) STASIS_CHECK(builder.settle(link));
      for (const auto& link : builder.wanted().links()) STASIS_CHECK(builder.join(link));
      for (const auto& link : builder.wanted().links()) STASIS_CHECK(builder.give_address(link));
      STASIS_CHECK(enter(builder.network()));
      STASIS_CHECK(apply_network_settings(builder.wanted(), SettingsStage::kBeforeAddresses));
    }
    STASIS_CHECK(raise_links());
    for (auto& builder : builders_) {
      STASIS_CHECK(apply_network_entries(builder.route(), builder.wanted()));
      STASIS_CHECK(builder.allow_addresses());
      STASIS_CHECK(enter(builder.network()));
      STASIS_CHECK(apply_network_settings(builder.wanted(), SettingsStage::kLast));
    }
    return {};
  }

 private:
  static Result<void> enter(int network) {
    if (::setns(network, CLONE_NEWNET) != 0) return errno_error(kStep, "enter it");
    return {};
  }

  Builder* find(uint32_t id) {
    auto found =
        std::find_if(builders_.begin(), builders_.end(), [&](const Builder& one) { return one.id() == id; });
    return found == builders_.end() ? nullptr : &*found;
  }

  // Those that stand on others come when the others are there.
  Result<void> make_links() {
    size_t left = 0;
    for (size_t before = ~size_t{0};; before = left) {
      left = 0;
      for (auto& builder : builders_) {
        STASIS_CHECK(enter(builder.network()));
        for (const auto& link : builder.wanted().links()) {
          if (builder.has_made(link.index())) continue;
          STASIS_TRY(const bool done, make_link(builder, link));
          if (!done) ++left;
        }
      }
      if (left == 0) return {};
      if (left == before) {
        return Error{kStep,
                     {},
                     fmt::format("{} interfaces stand on others that the image does not have", left),
                     {},
                     ErrorCode::kDamaged};
      }
    }
  }

  Result<bool> make_link(Builder& builder, const schema::Link& link) {
    if (link.kind().empty()) {
      builder.note(link.index());  // loopback: it is there
      return true;
    }
    if (link.has_tun()) {
      STASIS_CHECK(builder.make_tun(link, held_));
      return true;
    }
    Builder* other = link.has_other_network() ? find(link.other_network()) : &builder;
    if (other == nullptr) return false;
    if (link.kind() != "veth") {
      if (link.other() != 0 && !other->has_made(link.other())) return false;
      STASIS_CHECK(builder.make_link(link, nullptr, -1));
      return true;
    }
    for (const auto& peer : other->wanted().links()) {
      if (peer.index() != link.other() || peer.kind() != "veth" || other->has_made(peer.index())) continue;
      STASIS_CHECK(builder.make_link(link, &peer, other == &builder ? -1 : other->network()));
      other->note(peer.index());
      return true;
    }
    return false;
  }

  Result<void> raise_links() {
    for (size_t before = ~size_t{0}, left = 0;; before = left) {
      left = 0;
      for (auto& builder : builders_) {
        STASIS_TRY(const size_t some, builder.raise_links());
        left += some;
      }
      if (left == 0) return await_carriers();
      if (left == before) return Error{kStep, {}, "an interface is up, and the one below it is down", {}};
    }
  }

  // The carrier of one is that of those below it.
  Result<void> await_carriers() {
    constexpr int kDeepest = 16;
    std::string before, now;
    for (int round = 0; round < kDeepest && (round < 2 || now != before); ++round) {
      before = std::move(now);
      now.clear();
      for (auto& builder : builders_) now += builder.operational();
    }
    return {};
  }

  const std::vector<NetworkToMake>& all_;
  std::map<std::string, Fd>& held_;
  std::vector<Builder> builders_;
};

}  // namespace

Result<void> make_networks(const std::vector<NetworkToMake>& all, std::map<std::string, Fd>& held) {
  return all.empty() ? Result<void>() : Networks(all, held).run();
}

}  // namespace stasis::restore

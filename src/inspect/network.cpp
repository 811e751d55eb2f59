#include "inspect/network.h"

#include <fcntl.h>
#include <linux/fib_rules.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/net_namespace.h>
#include <linux/nexthop.h>
#include <linux/pkt_sched.h>
#include <linux/xfrm.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <set>

#include "inspect/network_filters.h"
#include "inspect/network_settings.h"
#include "kernel/ethtool.h"
#include "kernel/network.h"
#include "kernel/rtnetlink.h"
#include "resource/tun.h"
#include "schema/kinds/tun.pb.h"

namespace stasis::inspect {
namespace {

using kernel::Netlink;
using kernel::NetlinkMessage;
using kernel::NetlinkRequest;
using Attributes = google::protobuf::RepeatedPtrField<schema::NetlinkAttribute>;

// Newer than the C library's headers.
constexpr uint16_t kProperties = IFLA_PROP_LIST;            // nested: NLA_F_NESTED is taken off by the parser
constexpr uint16_t kInet6AddressMode = 8, kInet6Token = 7;  // IFLA_INET6_ADDR_GEN_MODE, _TOKEN
constexpr int kMulticastRoutes = 128, kMulticastRoutes6 = 129;  // RTNL_FAMILY_IPMR, RTNL_FAMILY_IP6MR
constexpr int kMpls = 28;                                       // AF_MPLS

class Observer {
 public:
  Observer(const NetworkPlace& place, const std::vector<NetworkPlace>& all, Netlink route)
      : place_(place), all_(all), route_(std::move(route)) {}

  Result<schema::Network> run() {
    STASIS_CHECK(refuse_unknown());
    STASIS_CHECK(add_links());
    STASIS_CHECK(add_addresses());
    STASIS_CHECK(add_routes());
    for (int family : {AF_INET, AF_INET6}) {
      STASIS_CHECK(add_rules(family));
      STASIS_CHECK(add_neighbours(family, 0));
      STASIS_CHECK(add_neighbours(family, NTF_PROXY));
    }
    STASIS_CHECK(add_bridged());
    STASIS_CHECK(read_network_filters(out_));
    STASIS_CHECK(read_network_settings(out_));
    return std::move(out_);
  }

 private:
  Error refusal(std::string cause, std::string hint) const {
    return Error{"save", place_.id == 0 ? "the network of the session" : "a network namespace of the session",
                 std::move(cause), std::move(hint), ErrorCode::kRefused};
  }
  Error failure(const char* what, int error) const {
    return errno_error(
        "save",
        fmt::format("{}: {}", place_.id == 0 ? "the network of the session" : "a network namespace", what),
        error);
  }

  Result<void> refuse_unknown();
  Result<void> refuse_filters();
  void number_networks();
  Result<void> add_links();
  Result<void> add_link(const NetlinkMessage& message);
  Result<void> observe_kind(std::string_view info, const ifinfomsg& head, schema::Link& out);
  Result<void> observe_port(std::string_view info, schema::Link& out);
  Result<void> find_other(const std::map<uint16_t, std::string_view>& attributes, schema::Link& out);
  Result<void> add_addresses();
  Result<void> add_routes();
  Result<void> add_rules(int family);
  Result<void> add_neighbours(int family, uint8_t flags);
  Result<void> add_bridged();
  bool has_link(uint32_t index) const {
    return std::any_of(out_.links().begin(), out_.links().end(),
                       [&](const auto& link) { return link.index() == index; });
  }
  bool is_own_address(std::string_view address) const {
    for (const auto& link : out_.links()) {
      for (const auto& setting : link.settings()) {
        if (setting.type() == IFLA_ADDRESS && setting.value() == address) return true;
      }
    }
    return false;
  }

  const NetworkPlace& place_;
  const std::vector<NetworkPlace>& all_;
  Netlink route_;
  schema::Network out_;
};

void save(uint16_t type, std::string_view value, Attributes& out) {
  auto* attribute = out.Add();
  attribute->set_type(type);
  attribute->set_value(std::string(value));
}

void save_some(const std::map<uint16_t, std::string_view>& attributes, std::span<const uint16_t> wanted,
               Attributes& out) {
  for (uint16_t type : wanted) {
    if (auto found = attributes.find(type); found != attributes.end()) save(type, found->second, out);
  }
}

void save_entry(const NetlinkMessage& message, size_t head, std::span<const uint16_t> left_out,
                schema::NetlinkEntry& out) {
  out.set_head(message.payload.substr(0, head));
  for (const auto& attribute : kernel::netlink_attributes(message.payload, head)) {
    if (std::find(left_out.begin(), left_out.end(), attribute.type) == left_out.end())
      save(attribute.type, attribute.value, *out.mutable_attributes());
  }
}

std::optional<std::string_view> attribute(std::string_view nest, uint16_t type, size_t head = 0) {
  auto all = kernel::netlink_attribute_map(nest, head);
  auto found = all.find(type);
  return found == all.end() ? std::nullopt : std::optional(found->second);
}

bool has_encapsulation(std::string_view attributes) { return attribute(attributes, RTA_ENCAP).has_value(); }

// struct rtnexthop, each with attributes of its own.
bool a_hop_has_encapsulation(std::string_view hops) {
  while (hops.size() >= sizeof(rtnexthop)) {
    const auto hop = kernel::netlink_value<rtnexthop>(hops);
    if (hop.rtnh_len < sizeof hop || hop.rtnh_len > hops.size()) return false;
    if (has_encapsulation(hops.substr(sizeof hop, hop.rtnh_len - sizeof hop))) return true;
    hops.remove_prefix(std::min<size_t>(RTNH_ALIGN(hop.rtnh_len), hops.size()));
  }
  return false;
}

}  // namespace

// What would change where packets go, and is not known here.
Result<void> Observer::refuse_unknown() {
  const auto queueing = route_.dump({RTM_GETQDISC, 0, tcmsg{}});
  for (const auto& message : queueing.messages) {
    const auto head = message.head<tcmsg>();
    // Those that the kernel has chosen have no number.
    if (head.tcm_handle != 0)
      return refusal(
          fmt::format("traffic control is set up in it ({} on interface {})",
                      kernel::netlink_name(
                          attribute(message.payload, TCA_KIND, sizeof head).value_or(std::string_view())),
                      head.tcm_ifindex),
          "this is not supported; remove it (tc qdisc del) before a checkpoint");
  }
  if (!route_.dump({RTM_GETNEXTHOP, 0, nhmsg{}}).messages.empty())
    return refusal("it has nexthop objects (ip nexthop)", "give routes their nexthops themselves");
  for (int family : {kMulticastRoutes, kMulticastRoutes6, kMpls}) {
    rtmsg head = {};
    head.rtm_family = static_cast<unsigned char>(family);
    // A family that the kernel does not have is answered with all others.
    for (const auto& message : route_.dump({RTM_GETROUTE, 0, head}).messages) {
      if (message.head<rtmsg>().rtm_family == family)
        return refusal(family == kMpls ? "it has MPLS routes" : "it routes multicast",
                       "this is not supported");
    }
  }
  return refuse_filters();
}

Result<void> Observer::refuse_filters() {
  for (const char* name : {"ip_tables_names", "ip6_tables_names", "arp_tables_names"}) {
    auto text = read_file(fmt::format("/proc/self/net/{}", name));
    if (text.ok() && !text->empty())
      return refusal(fmt::format("it has rules of iptables ({})", name), "this is not supported");
  }
  if (auto text = read_file("/proc/self/net/ip_vs");
      text.ok() && std::count(text->begin(), text->end(), '\n') > 3)
    return refusal("it has virtual servers (ipvsadm)", "this is not supported");
  if (auto transforms = Netlink::open(NETLINK_XFRM); transforms.ok()) {
    const bool any = !transforms->dump({XFRM_MSG_GETPOLICY, 0, xfrm_userpolicy_id{}}).messages.empty() ||
                     !transforms->dump({XFRM_MSG_GETSA, 0, xfrm_usersa_id{}}).messages.empty();
    if (any) return refusal("it has IPsec associations or policies (ip xfrm)", "this is not supported");
  }
  return {};
}

void Observer::number_networks() {
  for (const auto& other : all_) {
    if (other.id == place_.id) continue;
    NetlinkRequest request(RTM_GETNSID, 0, rtgenmsg{});
    request.add_value<uint32_t>(NETNSA_FD, static_cast<uint32_t>(other.network.get()));
    NetlinkMessage reply;
    if (route_.ask(request, &reply) != 0) continue;
    const auto number = attribute(reply.payload, NETNSA_NSID, sizeof(rtgenmsg));
    const auto value = number ? kernel::netlink_value<int32_t>(*number) : -1;
    if (value < 0) continue;
    auto* out = out_.add_numbers();
    out->set_network(other.id);
    out->set_number(value);
  }
}

Result<void> Observer::add_links() {
  auto links = route_.dump({RTM_GETLINK, 0, ifinfomsg{}});
  if (links.error != 0) return failure("list the interfaces", links.error);
  // Only now, since the kernel numbers other networks when it has to name them.
  number_networks();
  for (const auto& message : links.messages) {
    if (message.type == RTM_NEWLINK) STASIS_CHECK(add_link(message));
  }
  std::sort(out_.mutable_links()->begin(), out_.mutable_links()->end(),
            [](const auto& a, const auto& b) { return a.index() < b.index(); });
  return {};
}

Result<void> Observer::add_link(const NetlinkMessage& message) {
  const auto head = message.head<ifinfomsg>();
  const auto attributes = kernel::netlink_attribute_map(message.payload, sizeof head);
  auto text = [&](uint16_t type) {
    auto found = attributes.find(type);
    return found == attributes.end() ? std::string_view() : found->second;
  };
  auto number = [&](uint16_t type) { return kernel::netlink_value<uint32_t>(text(type)); };
  schema::Link link;
  link.set_index(static_cast<uint32_t>(head.ifi_index));
  link.set_name(kernel::netlink_name(text(IFLA_IFNAME)));
  link.set_flags(head.ifi_flags & kernel::kSettableLinkFlags);
  if (kernel::is_fallback_link(link.name())) {
    if ((head.ifi_flags & IFF_UP) == 0) return {};
    return refusal(fmt::format("its interface {} is up", link.name()),
                   "this is not supported; ip link set " + link.name() + " down");
  }
  if (attribute(text(IFLA_XDP), IFLA_XDP_ATTACHED).value_or(std::string_view()).find_first_not_of('\0') !=
      std::string_view::npos)
    return refusal(fmt::format("a BPF program is attached to its interface {} (XDP)", link.name()),
                   "the kernel does not give it back; detach it before a checkpoint");
  save_some(attributes, kernel::link_settings(), *link.mutable_settings());
  for (uint16_t type : {IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES})
    save(type, text(type), *link.mutable_settings());
  for (const auto& name : kernel::netlink_attributes(text(kProperties))) {
    if (name.type == IFLA_ALT_IFNAME) link.add_other_names(kernel::netlink_name(name.value));
  }
  const auto inet6 = attribute(text(IFLA_AF_SPEC), AF_INET6).value_or(std::string_view());
  link.set_address_mode(
      kernel::netlink_value<uint8_t>(attribute(inet6, kInet6AddressMode).value_or(std::string_view())));
  if (attribute(inet6, kInet6Token).value_or(std::string_view()).find_first_not_of('\0') !=
      std::string_view::npos)
    return refusal(fmt::format("its interface {} has an address token", link.name()),
                   "this is not supported");
  STASIS_CHECK(observe_kind(text(IFLA_LINKINFO), head, link));
  if (link.has_tun())
    link.mutable_tun()->set_attached(text(IFLA_CARRIER).find('\1') != std::string_view::npos);
  STASIS_CHECK(find_other(attributes, link));
  link.set_master(number(IFLA_MASTER));
  if (link.master() != 0) STASIS_CHECK(observe_port(text(IFLA_LINKINFO), link));
  *out_.add_links() = std::move(link);
  return {};
}

Result<void> Observer::observe_kind(std::string_view info, const ifinfomsg& head, schema::Link& out) {
  const std::string kind = kernel::netlink_name(attribute(info, IFLA_INFO_KIND).value_or(std::string_view()));
  if (kind.empty() && head.ifi_type != ARPHRD_LOOPBACK) {
    return refusal(fmt::format("its interface {} is a device of the host", out.name()),
                   "only virtual interfaces can be made again; give it back before a checkpoint");
  }
  const kernel::LinkKind* known = kernel::find_link_kind(kind);
  if (known == nullptr) {
    return refusal(fmt::format("its interface {} is of a kind ({}) that is not known", out.name(), kind),
                   "docs/support.md lists what is; remove it before a checkpoint");
  }
  out.set_kind(kind);
  const std::string_view data = attribute(info, IFLA_INFO_DATA).value_or(std::string_view());
  const auto attributes = kernel::netlink_attribute_map(data);
  auto number = [&](uint16_t type) {
    auto found = attributes.find(type);
    return found == attributes.end() ? 0 : kernel::netlink_value<uint32_t>(found->second);
  };
  save_some(attributes, known->data, *out.mutable_data());
  if (kind == "bridge" && (number(IFLA_BR_VLAN_FILTERING) & 0xff) != 0)
    return refusal(fmt::format("its bridge {} filters VLANs", out.name()), "this is not supported yet");
  if (kind == "macvlan" && number(IFLA_MACVLAN_MACADDR_COUNT) != 0)
    return refusal(fmt::format("its interface {} has a list of sources", out.name()),
                   "this is not supported");
  if (kind == "tun") {
    auto* tun = out.mutable_tun();
    auto byte = [&](uint16_t type) { return (number(type) & 0xff) != 0; };
    uint32_t flags = (number(IFLA_TUN_TYPE) & 0xff) == 1 ? 0x1 : 0x2;  // IFF_TUN, IFF_TAP
    if (!byte(IFLA_TUN_PI)) flags |= 0x1000;                           // IFF_NO_PI
    if (byte(IFLA_TUN_VNET_HDR)) flags |= 0x4000;                      // IFF_VNET_HDR
    if (byte(IFLA_TUN_MULTI_QUEUE)) flags |= 0x100;                    // IFF_MULTI_QUEUE
    tun->set_flags(flags);
    tun->set_persistent(byte(IFLA_TUN_PERSIST));
    if (attributes.contains(IFLA_TUN_OWNER)) tun->set_owner(number(IFLA_TUN_OWNER));
    if (attributes.contains(IFLA_TUN_GROUP)) tun->set_group(number(IFLA_TUN_GROUP));
    return {};
  }
  Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  for (const std::string& feature : kernel::link_features(socket.get(), out.name()))
    out.add_features(feature);
  return {};
}

Result<void> Observer::observe_port(std::string_view info, schema::Link& out) {
  const std::string kind =
      kernel::netlink_name(attribute(info, IFLA_INFO_SLAVE_KIND).value_or(std::string_view()));
  if (kind != "bridge") {
    return refusal(
        fmt::format("its interface {} is part of one of a kind ({}) that is not known", out.name(), kind),
        "take it out before a checkpoint");
  }
  const std::string_view data = attribute(info, IFLA_INFO_SLAVE_DATA).value_or(std::string_view());
  save_some(kernel::netlink_attribute_map(data), kernel::bridge_port_settings(), *out.mutable_port());
  return {};
}

Result<void> Observer::find_other(const std::map<uint16_t, std::string_view>& attributes, schema::Link& out) {
  auto other = attributes.find(IFLA_LINK);
  if (other == attributes.end()) return {};
  out.set_other(kernel::netlink_value<uint32_t>(other->second));
  auto network = attributes.find(IFLA_LINK_NETNSID);
  if (network == attributes.end()) {
    if (out.other() == out.index()) out.set_other(0);
    return {};
  }
  const auto wanted = kernel::netlink_value<int32_t>(network->second);
  for (const auto& number : out_.numbers()) {
    if (number.number() != wanted) continue;
    out.set_other_network(number.network());
    return {};
  }
  return refusal(fmt::format("its interface {} leads to a network outside of the session", out.name()),
                 "both ends must be in the session; remove it before a checkpoint");
}

Result<void> Observer::add_addresses() {
  auto addresses = route_.dump({RTM_GETADDR, 0, ifaddrmsg{}});
  if (addresses.error != 0) return failure("list the addresses", addresses.error);
  for (const auto& message : addresses.messages) {
    const auto head = message.head<ifaddrmsg>();
    if (message.type != RTM_NEWADDR || !has_link(head.ifa_index)) continue;
    if (head.ifa_family != AF_INET && head.ifa_family != AF_INET6) continue;
    auto* out = out_.add_addresses();
    out->set_head(message.payload.substr(0, sizeof head));
    const auto attributes = kernel::netlink_attribute_map(message.payload, sizeof head);
    save_some(attributes, kernel::address_attributes(), *out->mutable_attributes());
    // How long it lives, not since when it does.
    if (auto found = attributes.find(IFA_CACHEINFO); found != attributes.end()) {
      auto times = kernel::netlink_value<ifa_cacheinfo>(found->second);
      times.cstamp = times.tstamp = 0;
      save(IFA_CACHEINFO, {reinterpret_cast<const char*>(&times), sizeof times}, *out->mutable_attributes());
    }
  }
  return {};
}

Result<void> Observer::add_routes() {
  for (int family : {AF_INET, AF_INET6}) {
    rtmsg question = {};
    question.rtm_family = static_cast<unsigned char>(family);
    auto routes = route_.dump({RTM_GETROUTE, 0, question});
    if (routes.error != 0) return failure("list the routes", routes.error);
    for (const auto& message : routes.messages) {
      auto head = message.head<rtmsg>();
      if (message.type != RTM_NEWROUTE || head.rtm_family != family || (head.rtm_flags & RTM_F_CLONED) != 0)
        continue;
      const auto attributes = kernel::netlink_attribute_map(message.payload, sizeof head);
      auto hops = attributes.find(RTA_MULTIPATH);
      if (attributes.contains(RTA_ENCAP) ||
          (hops != attributes.end() && a_hop_has_encapsulation(hops->second)))
        return refusal("it has routes into tunnels (encap)", "this is not supported");
      auto* out = out_.add_routes();
      constexpr uint16_t kPassing[] = {RTA_CACHEINFO, RTA_EXPIRES};
      save_entry(message, sizeof head, kPassing, *out);
      head.rtm_flags &= RTNH_F_ONLINK | RTNH_F_PERVASIVE;
      out->set_head({reinterpret_cast<const char*>(&head), sizeof head});
    }
  }
  return {};
}

Result<void> Observer::add_rules(int family) {
  fib_rule_hdr question = {};
  question.family = static_cast<unsigned char>(family);
  auto rules = route_.dump({RTM_GETRULE, 0, question});
  if (rules.error == EOPNOTSUPP || rules.error == EAFNOSUPPORT) return {};
  if (rules.error != 0) return failure("list the rules", rules.error);
  for (const auto& message : rules.messages) {
    if (message.type == RTM_NEWRULE && message.head<fib_rule_hdr>().family == family)
      save_entry(message, sizeof question, {}, *out_.add_rules());
  }
  return {};
}

// Only what somebody has said: the rest is learnt again.
Result<void> Observer::add_neighbours(int family, uint8_t flags) {
  ndmsg question = {};
  question.ndm_family = static_cast<unsigned char>(family);
  question.ndm_flags = flags;
  auto neighbours = route_.dump({RTM_GETNEIGH, 0, question});
  if (neighbours.error != 0) return failure("list the neighbours", neighbours.error);
  for (const auto& message : neighbours.messages) {
    const auto head = message.head<ndmsg>();
    const bool is_proxy = (head.ndm_flags & NTF_PROXY) != 0;
    if (message.type != RTM_NEWNEIGH || head.ndm_family != family || is_proxy != (flags == NTF_PROXY))
      continue;
    if (!is_proxy && (head.ndm_state & NUD_PERMANENT) == 0) continue;
    constexpr uint16_t kPassing[] = {NDA_CACHEINFO, NDA_PROBES};
    save_entry(message, sizeof head, kPassing, *out_.add_neighbours());
  }
  return {};
}

Result<void> Observer::add_bridged() {
  const bool any = std::any_of(out_.links().begin(), out_.links().end(),
                               [](const auto& link) { return link.kind() == "bridge"; });
  if (!any) return {};
  ndmsg question = {};
  question.ndm_family = PF_BRIDGE;
  auto stations = route_.dump({RTM_GETNEIGH, 0, question});
  if (stations.error != 0) return failure("list the stations of bridges", stations.error);
  for (const auto& message : stations.messages) {
    const auto head = message.head<ndmsg>();
    const auto attributes = kernel::netlink_attribute_map(message.payload, sizeof head);
    auto address = attributes.find(NDA_LLADDR);
    if (message.type != RTM_NEWNEIGH || address == attributes.end() || !attributes.contains(NDA_MASTER))
      continue;
    // Learnt, or the bridge's own.
    if ((head.ndm_state & (NUD_PERMANENT | NUD_NOARP)) == 0 ||
        ((head.ndm_state & NUD_PERMANENT) != 0 && is_own_address(address->second)))
      continue;
    constexpr uint16_t kPassing[] = {NDA_CACHEINFO, NDA_MASTER};
    save_entry(message, sizeof head, kPassing, *out_.add_bridged());
  }
  return {};
}

namespace {

constexpr const char* kStep = "look into a network namespace";

// In a process of its own.
Result<std::string> look(const NetworkPlace& place, const std::vector<NetworkPlace>& all) {
  if ((place.user && ::setns(place.user.get(), CLONE_NEWUSER) != 0) ||
      ::setns(place.network.get(), CLONE_NEWNET) != 0)
    return errno_error(kStep, {}, errno, "take the checkpoint as root");
  STASIS_TRY(Netlink route, Netlink::open(NETLINK_ROUTE));
  STASIS_TRY(const schema::Network network, Observer(place, all, std::move(route)).run());
  return network.SerializeAsString();
}

}  // namespace

Result<NetworkObserver> NetworkObserver::begin(const NetworkPlace& place,
                                               const std::vector<NetworkPlace>& all) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return errno_error(kStep, {});
  Fd from(ends[0]), to(ends[1]);
  const pid_t process = ::fork();
  if (process < 0) return errno_error(kStep, {});
  if (process == 0) {
    from.reset();
    auto seen = look(place, all);
    const std::string text = seen.ok() ? 'N' + *seen : 'E' + packed(seen.error());
    ::_exit(write_all(to.get(), text).ok() ? 0 : 1);
  }
  return NetworkObserver(process, std::move(from));
}

NetworkObserver::NetworkObserver(NetworkObserver&& other) noexcept
    : process_(std::exchange(other.process_, 0)), answer_(std::move(other.answer_)) {}

NetworkObserver::~NetworkObserver() {
  if (process_ <= 0) return;
  ::kill(process_, SIGKILL);
  reap();
}

void NetworkObserver::reap() {
  while (::waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
  }
  process_ = 0;
}

Result<schema::Network> NetworkObserver::finish() {
  STASIS_TRY(const std::string text, read_all(answer_.get()));
  reap();
  if (text.empty()) return Error{kStep, {}, "the process that looked into it has ended", {}};
  if (text.front() == 'E') return unpacked(std::string_view(text).substr(1));
  schema::Network network;
  if (!network.ParseFromArray(text.data() + 1, static_cast<int>(text.size() - 1)))
    return Error{kStep, {}, "the process that looked into it has ended", {}};
  return network;
}

Result<void> check_tun_devices(const schema::Manifest& manifest) {
  // By network (0: the session's) and name.
  std::set<std::pair<uint32_t, std::string>> ours;
  for (const auto& description : manifest.descriptions()) {
    schema::Tun tun;
    if (description.kind() != resource::TunKind().info().name || !tun.ParseFromString(description.payload()))
      continue;
    uint32_t network = 0;
    for (const auto& one : manifest.namespaces()) {
      const auto& ids = description.namespaces();
      if (one.has_network() && std::find(ids.begin(), ids.end(), one.id()) != ids.end()) network = one.id();
    }
    ours.emplace(network, tun.device());
  }
  auto check = [&](uint32_t id, const schema::Network& network) -> Result<void> {
    for (const auto& link : network.links()) {
      const bool somebody_has_it = link.has_tun() && (link.tun().attached() || !link.tun().persistent());
      if (!somebody_has_it || ours.contains({id, link.name()})) continue;
      return Error{"save", fmt::format("interface {}", link.name()),
                   "a process outside of the session is at the other end of it",
                   "launch that process (slirp4netns, pasta, ...) in the session, or delete the interface",
                   ErrorCode::kRefused};
    }
    return {};
  };
  STASIS_CHECK(check(0, manifest.session_network()));
  for (const auto& one : manifest.namespaces()) STASIS_CHECK(check(one.id(), one.network()));
  return {};
}

}  // namespace stasis::inspect

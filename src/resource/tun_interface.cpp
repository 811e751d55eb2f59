#include "resource/tun_interface.h"

#include <net/if.h>

#include <algorithm>
#include <cerrno>
#include <span>

#include "kernel/network.h"
#include "kernel/network_view.h"
#include "kernel/rtnetlink.h"

namespace stasis::resource {
namespace {

using kernel::Netlink;
using kernel::netlink_attribute_map;
using kernel::NetlinkMessage;
using kernel::NetlinkRequest;

Error cannot(const char* step, const std::string& object, const Netlink& route, int error) {
  return Error{
      step, object, route.story_of(error), {}, error == EPERM ? ErrorCode::kDenied : ErrorCode::kFailed};
}

template <typename Keep>
void save(const NetlinkMessage& message, size_t head, const Keep& keep, schema::NetlinkEntry& out) {
  out.set_head(message.payload.substr(0, head));
  for (const auto& attribute : kernel::netlink_attributes(message.payload, head)) {
    if (!keep(attribute.type)) continue;
    auto* saved = out.add_attributes();
    saved->set_type(attribute.type);
    saved->set_value(std::string(attribute.value));
  }
}

bool is_one_of(uint16_t type, std::span<const uint16_t> types) {
  return std::find(types.begin(), types.end(), type) != types.end();
}

Result<std::string> name_of(Netlink& route, uint32_t index) {
  ifinfomsg question = {};
  question.ifi_index = static_cast<int>(index);
  NetlinkMessage answer;
  if (int error = route.ask({RTM_GETLINK, 0, question}, &answer); error != 0)
    return cannot("save", fmt::format("interface {}", index), route, error);
  return kernel::netlink_name(netlink_attribute_map(answer.payload, sizeof question)[IFLA_IFNAME]);
}

Result<void> save_routes(Netlink& route, uint32_t index, schema::TunInterface& out) {
  for (unsigned char family : {AF_INET, AF_INET6}) {
    rtmsg question = {};
    question.rtm_family = family;
    const auto routes = route.dump({RTM_GETROUTE, 0, question});
    if (routes.error == EAFNOSUPPORT || routes.error == EOPNOTSUPP) continue;
    if (routes.error != 0) return cannot("save", "the routes of the host", route, routes.error);
    for (const auto& message : routes.messages) {
      auto head = message.head<rtmsg>();
      if (message.type != RTM_NEWROUTE || head.rtm_family != family || head.rtm_protocol == RTPROT_KERNEL ||
          (head.rtm_flags & RTM_F_CLONED) != 0)
        continue;
      auto attributes = netlink_attribute_map(message.payload, sizeof head);
      if (kernel::netlink_value<uint32_t>(attributes[RTA_OIF]) != index) continue;
      constexpr uint16_t kLeftOut[] = {RTA_CACHEINFO, RTA_EXPIRES, RTA_OIF};
      auto* entry = out.add_routes();
      save(
          message, sizeof head, [&](uint16_t type) { return !is_one_of(type, kLeftOut); }, *entry);
      head.rtm_flags &= RTNH_F_ONLINK;
      entry->set_head({reinterpret_cast<const char*>(&head), sizeof head});
    }
  }
  return {};
}

template <typename Head>
NetlinkRequest request_of(uint16_t type, const Head& head, const schema::NetlinkEntry& entry) {
  NetlinkRequest request(type, NLM_F_CREATE | NLM_F_REPLACE, head);
  for (const auto& attribute : entry.attributes())
    request.add(static_cast<uint16_t>(attribute.type()), attribute.value());
  return request;
}

}  // namespace

Result<schema::TunInterface> read_tun_interface(const std::string& device) {
  Netlink route(kernel::network_socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  NetlinkRequest question(RTM_GETLINK, 0, ifinfomsg{});
  question.add_name(IFLA_IFNAME, device);
  NetlinkMessage link;
  if (int error = route.ask(question, &link); error != 0) return cannot("save", device, route, error);
  const auto head = link.head<ifinfomsg>();
  const auto index = static_cast<uint32_t>(head.ifi_index);
  auto settings = netlink_attribute_map(link.payload, sizeof head);
  schema::TunInterface found;
  found.set_hardware_address(std::string(settings[IFLA_ADDRESS]));
  found.set_mtu(kernel::netlink_value<uint32_t>(settings[IFLA_MTU]));
  found.set_up((head.ifi_flags & IFF_UP) != 0);
  if (const auto master = kernel::netlink_value<uint32_t>(settings[IFLA_MASTER]); master != 0) {
    STASIS_TRY(*found.mutable_master(), name_of(route, master));
  }
  const auto addresses = route.dump({RTM_GETADDR, 0, ifaddrmsg{}});
  if (addresses.error != 0) return cannot("save", device, route, addresses.error);
  for (const auto& message : addresses.messages) {
    if (message.type != RTM_NEWADDR || message.head<ifaddrmsg>().ifa_index != index) continue;
    save(
        message, sizeof(ifaddrmsg),
        [](uint16_t type) { return is_one_of(type, kernel::address_attributes()); }, *found.add_addresses());
  }
  STASIS_CHECK(save_routes(route, index, found));
  return found;
}

Result<void> set_tun_interface(const std::string& device, const schema::TunInterface& wanted) {
  constexpr const char* kStep = "restart: set up an interface";
  STASIS_TRY(auto route, Netlink::open(NETLINK_ROUTE));
  ifinfomsg head = {};
  head.ifi_index = static_cast<int>(::if_nametoindex(device.c_str()));
  if (head.ifi_index == 0) return errno_error(kStep, device);
  head.ifi_change = IFF_UP;
  if (wanted.up()) head.ifi_flags = IFF_UP;
  NetlinkRequest change(RTM_NEWLINK, 0, head);
  if (!wanted.hardware_address().empty()) change.add(IFLA_ADDRESS, wanted.hardware_address());
  if (wanted.mtu() != 0) change.add_value<uint32_t>(IFLA_MTU, wanted.mtu());
  if (!wanted.master().empty()) {
    const unsigned master = ::if_nametoindex(wanted.master().c_str());
    if (master == 0)
      return Error{kStep, device, "its bridge " + wanted.master() + " is not there", "make the bridge again"};
    change.add_value<uint32_t>(IFLA_MASTER, master);
  }
  if (int error = route.ask(change); error != 0) return cannot(kStep, device, route, error);
  const auto index = static_cast<uint32_t>(head.ifi_index);
  for (const auto& address : wanted.addresses()) {
    auto of_address = kernel::netlink_value<ifaddrmsg>(address.head());
    of_address.ifa_index = index;
    // Some it has made by itself.
    if (int error = route.ask(request_of(RTM_NEWADDR, of_address, address)); error != 0 && error != EEXIST)
      return cannot(kStep, "an address of " + device, route, error);
  }
  for (const auto& saved : wanted.routes()) {
    auto request = request_of(RTM_NEWROUTE, kernel::netlink_value<rtmsg>(saved.head()), saved);
    request.add_value<uint32_t>(RTA_OIF, index);
    if (int error = route.ask(request); error != 0)
      return cannot(kStep, "a route by " + device, route, error);
  }
  return {};
}

}  // namespace stasis::resource

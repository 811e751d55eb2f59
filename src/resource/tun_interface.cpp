#include "resource/tun_interface.h"

#include <net/if.h>

#include <cerrno>
#include <set>

#include "kernel/network_view.h"
#include "kernel/rtnetlink.h"

namespace stasis::resource {
namespace {

using kernel::netlink_attribute_map;
using kernel::netlink_attributes;
using kernel::NetlinkRequest;

Error cannot(const std::string& what, const std::string& device, const kernel::Netlink& route, int error) {
  return Error{what, device, route.story_of(error), {}, ErrorCode::kFailed};
}

// Without how long it is still valid, and what only the kernel says of it.
NetlinkRequest address_request(const std::string& shown, unsigned index) {
  ifaddrmsg head = kernel::netlink_value<ifaddrmsg>(shown);
  head.ifa_index = index;
  NetlinkRequest request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, head);
  const std::set<uint16_t> kept = {IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_BROADCAST, IFA_RT_PRIORITY};
  for (const auto& attribute : netlink_attributes(shown, sizeof head)) {
    if (kept.contains(attribute.type)) request.add(attribute.type, attribute.value);
  }
  return request;
}

}  // namespace

Result<schema::TunInterface> read_tun_interface(const std::string& device) {
  constexpr const char* kWhat = "look at an interface";
  kernel::Netlink route(kernel::network_socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  NetlinkRequest question(RTM_GETLINK, 0, ifinfomsg{});
  question.add_name(IFLA_IFNAME, device);
  kernel::NetlinkMessage link;
  if (int error = route.ask(question, &link); error != 0) return cannot(kWhat, device, route, error);
  const auto head = link.head<ifinfomsg>();
  auto settings = netlink_attribute_map(link.payload, sizeof head);
  schema::TunInterface found;
  found.set_hardware_address(std::string(settings[IFLA_ADDRESS]));
  found.set_mtu(kernel::netlink_value<uint32_t>(settings[IFLA_MTU]));
  found.set_up((head.ifi_flags & IFF_UP) != 0);
  if (const auto master = kernel::netlink_value<uint32_t>(settings[IFLA_MASTER]); master != 0) {
    ifinfomsg of_master = {};
    of_master.ifi_index = static_cast<int>(master);
    kernel::NetlinkMessage bridge;
    if (int error = route.ask({RTM_GETLINK, 0, of_master}, &bridge); error != 0)
      return cannot(kWhat, device, route, error);
    auto names = netlink_attribute_map(bridge.payload, sizeof of_master);
    found.set_master(kernel::netlink_name(names[IFLA_IFNAME]));
  }
  for (const auto& message : route.dump({RTM_GETADDR, 0, ifaddrmsg{}}).messages) {
    if (message.type == RTM_NEWADDR &&
        message.head<ifaddrmsg>().ifa_index == static_cast<unsigned>(head.ifi_index))
      found.add_addresses(message.payload);
  }
  return found;
}

Result<void> set_tun_interface(const std::string& device, const schema::TunInterface& wanted) {
  constexpr const char* kWhat = "set up an interface";
  STASIS_TRY(auto route, kernel::Netlink::open(NETLINK_ROUTE));
  ifinfomsg head = {};
  head.ifi_index = static_cast<int>(::if_nametoindex(device.c_str()));
  if (head.ifi_index == 0) return errno_error(kWhat, device);
  head.ifi_change = IFF_UP;
  if (wanted.up()) head.ifi_flags = IFF_UP;
  NetlinkRequest change(RTM_NEWLINK, 0, head);
  if (!wanted.hardware_address().empty()) change.add(IFLA_ADDRESS, wanted.hardware_address());
  if (wanted.mtu() != 0) change.add_value<uint32_t>(IFLA_MTU, wanted.mtu());
  if (!wanted.master().empty()) {
    const unsigned master = ::if_nametoindex(wanted.master().c_str());
    if (master == 0)
      return Error{kWhat, device, "its bridge " + wanted.master() + " is not there", "make the bridge again"};
    change.add_value<uint32_t>(IFLA_MASTER, master);
  }
  if (int error = route.ask(change); error != 0) return cannot(kWhat, device, route, error);
  for (const std::string& address : wanted.addresses()) {
    const auto request = address_request(address, static_cast<unsigned>(head.ifi_index));
    // Some it has made by itself.
    if (int error = route.ask(request); error != 0 && error != EEXIST)
      return cannot(kWhat, device, route, error);
  }
  return {};
}

}  // namespace stasis::resource

#include "resource/socket/raw.h"

#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>

#include "kernel/network_view.h"
#include "resource/payload.h"
#include "resource/refusal.h"
#include "resource/reopen.h"
#include "resource/socket/inet.h"
#include "resource/socket/multicast.h"
#include "resource/socket/options.h"
#include "resource/socket/packet_diag.h"
#include "resource/socket/packet_ring.h"
#include "resource/socket/socket.h"
#include "schema/kinds/socket.pb.h"

namespace stasis::resource {
namespace {

using schema::RawSocket;

bool is_ping(int fd) {
  int protocol = socket_option(fd, SOL_SOCKET, SO_PROTOCOL);
  return socket_option(fd, SOL_SOCKET, SO_TYPE) == SOCK_DGRAM &&
         (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6);
}

sockaddr_ll link_address(const std::string& bytes) {
  sockaddr_ll address = {};
  memcpy(&address, bytes.data(), std::min(bytes.size(), sizeof address));
  return address;
}

std::string bytes_of(const sockaddr_ll& address) {
  return {reinterpret_cast<const char*>(&address), sizeof address};
}

// An old interface (SOCK_PACKET): an address names the interface, and the protocol belongs to the socket.
std::string device_of_plain(const std::string& bytes) {
  constexpr size_t kStart = offsetof(sockaddr, sa_data);
  if (bytes.size() <= kStart) return {};
  return bytes.substr(kStart, bytes.find('\0', kStart) - kStart);
}

Result<void> bind_plain(const Record& record, int fd, const RawSocket& message) {
  if (message.device().empty()) return {};
  sockaddr address = {};
  address.sa_family = AF_PACKET;
  memcpy(address.sa_data, message.device().data(), std::min(message.device().size(), sizeof address.sa_data));
  if (bind_to(fd, {reinterpret_cast<const char*>(&address), sizeof address}) < 0)
    return cannot_make(record, "bind to " + message.device());
  return {};
}

Result<void> observe_packet(const OpenFile& file, RawSocket& message) {
  auto diag = packet_diag(file.status.st_ino);
  if (!diag.ok()) return refusal(file, diag.error().cause, diag.error().hint);
  if (message.type() == SOCK_PACKET) {
    message.set_device(device_of_plain(message.address()));
    message.set_protocol(diag->protocol);
  } else if (sockaddr_ll address = link_address(message.address()); address.sll_ifindex != 0) {
    message.set_device(kernel::network_interface_name(static_cast<unsigned>(address.sll_ifindex)));
  }
  STASIS_CHECK(observe_rings(file, *diag, message));
  if (diag->in_fanout) {
    const auto fanout =
        static_cast<uint32_t>(socket_option(file.duplicate.get(), SOL_PACKET, PACKET_FANOUT, 0));
    const uint32_t type = fanout >> 16 & 0xff;
    if (type == PACKET_FANOUT_CBPF || type == PACKET_FANOUT_EBPF) {
      return refusal(file, "a program decides who of its group gets a packet (PACKET_FANOUT_CBPF)",
                     "close it for the time of the checkpoint");
    }
    message.set_in_fanout(true);
    message.set_fanout(fanout);
  }
  for (auto& membership : diag->memberships) *message.add_packet_memberships() = std::move(membership);
  return {};
}

Result<void> bind_link(const Record& record, int fd, const RawSocket& message) {
  sockaddr_ll address = link_address(message.address());
  if (!message.device().empty()) {
    address.sll_ifindex = static_cast<int>(if_nametoindex(message.device().c_str()));
    if (address.sll_ifindex == 0)
      return cannot_make(record, message.device(), errno, "this host has no such interface");
  }
  if (address.sll_protocol != 0 || address.sll_ifindex != 0) {
    address.sll_family = AF_PACKET;
    if (bind_to(fd, bytes_of(address)) < 0) return cannot_make(record, "bind");
  }
  return {};
}

Result<void> bind_packet(const Record& record, int fd, const RawSocket& message) {
  STASIS_CHECK(message.type() == SOCK_PACKET ? bind_plain(record, fd, message)
                                             : bind_link(record, fd, message));
  for (const auto& membership : message.packet_memberships()) {
    packet_mreq request = {};
    request.mr_ifindex = static_cast<int>(if_nametoindex(membership.device().c_str()));
    request.mr_type = static_cast<unsigned short>(membership.type());
    const size_t length = std::min(membership.address().size(), sizeof request.mr_address);
    request.mr_alen = static_cast<unsigned short>(length);
    memcpy(request.mr_address, membership.address().data(), length);
    if (setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &request, sizeof request) < 0)
      return cannot_make(record, "PACKET_ADD_MEMBERSHIP");
  }
  return {};
}

// The kernel shows the protocol or the identifier of echo requests as the port.
Result<void> bind_inet(const Record& record, int fd, const RawSocket& message) {
  const bool named =
      message.type() == SOCK_RAW ? !is_any(message.address()) : port_of(message.address()) != 0;
  if (named && bind_to(fd, message.address()) < 0)
    return cannot_make(record, "bind to " + shown(message.address()));
  STASIS_CHECK(join_groups(record, fd, message.memberships()));
  if (!message.peer_address().empty() && connect_to(fd, message.peer_address()) < 0)
    return cannot_make(record, "connect to " + shown(message.peer_address()));
  return {};
}

}  // namespace

KindInfo RawSocketKind::info() const {
  return {
      "raw-socket", "Sockets", "raw, packet and ping sockets: addresses, options, filters, groups",
      Support::kPartial,
      "packets that were not read yet are lost, as on a network; a ring of a packet socket "
      "(PACKET_RX_RING) through which packets have come is refused, and so is a fanout group with a program"};
}

bool RawSocketKind::recognises(const OpenFile& file, const Observation&) const {
  if (!is_socket(file)) return false;
  const int fd = file.duplicate.get();
  const int domain = socket_option(fd, SOL_SOCKET, SO_DOMAIN);
  if (domain == AF_PACKET) return true;
  return (domain == AF_INET || domain == AF_INET6) &&
         (socket_option(fd, SOL_SOCKET, SO_TYPE) == SOCK_RAW || is_ping(fd));
}

Result<std::string> RawSocketKind::observe(const OpenFile& file, Observation& tree) const {
  const int fd = file.duplicate.get();
  RawSocket message;
  message.set_family(socket_option(fd, SOL_SOCKET, SO_DOMAIN));
  message.set_type(socket_option(fd, SOL_SOCKET, SO_TYPE));
  message.set_protocol(socket_option(fd, SOL_SOCKET, SO_PROTOCOL));
  message.set_address(local_address(fd));
  STASIS_CHECK(observe_options(file, *message.mutable_options()));
  if (message.family() == AF_PACKET) {
    STASIS_CHECK(observe_packet(file, message));
  } else {
    message.set_peer_address(peer_address(fd));
    observe_memberships(file, *message.mutable_memberships());
  }
  pollfd state = {fd, POLLIN, 0};
  if (poll(&state, 1, 0) > 0 && (state.revents & POLLIN) != 0)
    tree.warn(fmt::format("{}: packets that were not read yet are lost by a restart", file.describe()));
  return pack(message);
}

Result<Fd> RawSocketKind::make(const Record& record, Making&) const {
  STASIS_TRY(auto message, unpack<RawSocket>(record));
  const bool packet = message.family() == AF_PACKET;
  const bool plain = packet && message.type() == SOCK_PACKET;
  const int protocol = plain    ? htons(static_cast<uint16_t>(message.protocol()))
                       : packet ? 0  // bind() gives it, so that nothing comes before
                                : message.protocol();
  Fd fd(::socket(message.family(), message.type() | SOCK_CLOEXEC, protocol));
  if (!fd) {
    const int error = errno;
    return cannot_make(record, "socket", error,
                       error != EPERM && error != EACCES ? ""
                       : message.type() == SOCK_DGRAM
                           ? "as root: sysctl -w net.ipv4.ping_group_range='0 2147483647'"
                           : "only root may have one: restart as root");
  }
  STASIS_CHECK(apply_option(record, fd.get(), message.options(), SOL_SOCKET, SO_REUSEADDR));
  STASIS_CHECK(apply_options(record, fd.get(), message.options(), OptionStage::kBeforeBind));
  // The filter is there before the first packet comes; nothing that waited is put back.
  STASIS_CHECK(apply_options(record, fd.get(), message.options(), OptionStage::kFilled));
  STASIS_CHECK(packet ? bind_packet(record, fd.get(), message) : bind_inet(record, fd.get(), message));
  STASIS_CHECK(apply_options(record, fd.get(), message.options(), OptionStage::kMade));
  if (packet) STASIS_CHECK(make_rings(record, fd.get(), message));
  if (const uint32_t fanout = message.fanout();
      message.in_fanout() && setsockopt(fd.get(), SOL_PACKET, PACKET_FANOUT, &fanout, sizeof fanout) < 0)
    return cannot_make(record, "PACKET_FANOUT");
  STASIS_CHECK(set_status_flags(fd.get(), record.flags));
  return fd;
}

Result<void> RawSocketKind::finish(const Record& record, Finishing& owner) const {
  STASIS_TRY(auto message, unpack<RawSocket>(record));
  return map_rings(record, message, owner);
}

std::string RawSocketKind::summary(const Record& record) const {
  auto message = unpack<RawSocket>(record);
  if (!message.ok()) return {};
  if (message->family() == AF_PACKET)
    return message->device().empty() ? "packets of all interfaces" : "packets of " + message->device();
  return fmt::format("protocol {}", message->protocol());
}

}  // namespace stasis::resource

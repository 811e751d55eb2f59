#include "resource/socket/udp.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "resource/payload.h"
#include "resource/refusal.h"
#include "resource/reopen.h"
#include "resource/socket/inet.h"
#include "resource/socket/options.h"
#include "resource/socket/socket.h"
#include "schema/kinds/socket.pb.h"

namespace stasis::resource {
namespace {

constexpr int kUdpLite = 136;

bool is_udp(int fd) {
  int domain = socket_option(fd, SOL_SOCKET, SO_DOMAIN);
  int protocol = socket_option(fd, SOL_SOCKET, SO_PROTOCOL);
  return (domain == AF_INET || domain == AF_INET6) && socket_option(fd, SOL_SOCKET, SO_TYPE) == SOCK_DGRAM &&
         (protocol == IPPROTO_UDP || protocol == kUdpLite);
}

}  // namespace

KindInfo UdpKind::info() const {
  return {
      "udp", "Sockets", "UDP: addresses, options", Support::kPartial,
      "datagrams that were not read yet are lost, as on a network; multicast memberships are not restored"};
}

bool UdpKind::recognises(const OpenFile& file, const Observation&) const {
  return is_socket(file) && is_udp(file.duplicate.get());
}

Result<std::string> UdpKind::observe(const OpenFile& file, Observation&) const {
  int fd = file.duplicate.get();
  schema::InetSocket message;
  message.set_family(socket_option(fd, SOL_SOCKET, SO_DOMAIN));
  message.set_protocol(socket_option(fd, SOL_SOCKET, SO_PROTOCOL));
  message.set_address(local_address(fd));
  message.set_peer_address(peer_address(fd));
  message.set_state(message.peer_address().empty() ? schema::InetSocket::UNCONNECTED
                                                   : schema::InetSocket::CONNECTED);
  STASIS_CHECK(observe_options(file, *message.mutable_options()));
  return pack(message);
}

Result<Fd> UdpKind::make(const Record& record, Making&) const {
  STASIS_TRY(auto message, unpack<schema::InetSocket>(record));
  STASIS_TRY(Fd fd, new_socket(record, message.family(), SOCK_DGRAM, message.protocol()));
  // Unlike TCP, SO_REUSEADDR lets two programs have the same address: only when the program wanted that.
  STASIS_CHECK(apply_options(record, fd.get(), message.options(), OptionStage::kFilled));
  STASIS_CHECK(apply_options(record, fd.get(), message.options(), OptionStage::kBeforeBind));
  if (port_of(message.address()) != 0 && bind_to(fd.get(), message.address()) < 0) {
    int error = errno;
    return cannot_make(record, "bind to " + shown(message.address()), error,
                       error == EADDRINUSE      ? "another program has this port"
                       : error == EADDRNOTAVAIL ? "this host does not have the address"
                                                : "");
  }
  if (!message.peer_address().empty() && connect_to(fd.get(), message.peer_address()) < 0) {
    return cannot_make(record, "connect to " + shown(message.peer_address()));
  }
  STASIS_CHECK(apply_options(record, fd.get(), message.options(), OptionStage::kMade));
  STASIS_CHECK(set_status_flags(fd.get(), record.flags));
  return fd;
}

std::string UdpKind::summary(const Record& record) const {
  auto message = unpack<schema::InetSocket>(record);
  if (!message.ok()) return {};
  std::string text = port_of(message->address()) ? shown(message->address()) : "unbound";
  return message->peer_address().empty() ? text : text + " to " + shown(message->peer_address());
}

}  // namespace stasis::resource

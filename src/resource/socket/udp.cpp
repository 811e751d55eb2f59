#include "resource/socket/udp.h"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "kernel/network.h"
#include "resource/payload.h"
#include "resource/refusal.h"
#include "resource/reopen.h"
#include "resource/socket/inet.h"
#include "resource/socket/inet_bind.h"
#include "resource/socket/inet_diag.h"
#include "resource/socket/multicast.h"
#include "resource/socket/options.h"
#include "resource/socket/queue.h"
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

void observe_shutdown(const OpenFile& file, schema::InetSocket& message) {
  for (const InetDiag& diag : inet_diag(message.protocol())) {
    if (diag.inode != static_cast<uint32_t>(file.status.st_ino)) continue;
    message.set_shut_read(diag.cannot_read);
    message.set_shut_write(diag.cannot_write);
  }
}

// What has been written and not been sent yet can be looked at by nobody.
Result<void> refuse_corked(const OpenFile& file) {
  int unsent = 0;
  if (ioctl(file.duplicate.get(), SIOCOUTQ, &unsent) < 0 || unsent == 0 ||
      socket_option(file.duplicate.get(), IPPROTO_UDP, UDP_CORK) != 1)
    return {};
  return refusal_for_now(file, "a datagram that is not complete waits in it (UDP_CORK)",
                         "try again when it has been sent");
}

Result<void> observe_datagrams(const OpenFile& file, Observation& tree, schema::InetSocket& message) {
  pollfd state = {file.duplicate.get(), POLLIN, 0};
  // To look into the queue would take an error away that waits there.
  if (poll(&state, 1, 0) <= 0 || (state.revents & POLLERR) != 0 || message.shut_read()) return {};
  STASIS_TRY(auto queue, peek_queue(file));
  size_t lost = 0;
  for (const Queued& queued : *queue) {
    if (!is_of_this_host(queued.address)) {
      ++lost;
      continue;
    }
    auto* out = message.add_datagrams();
    out->set_data(queued.data);
    out->set_sender_address(queued.address);
  }
  if (lost > 0)
    tree.warn(fmt::format("{}: {} datagrams of other hosts that were not read yet are lost by a restart",
                          file.describe(), lost));
  return {};
}

// The socket of the session that has this address.
const Record* find_sender(const std::string& address, uint64_t network, const Making& context) {
  auto key_of = [](uint64_t its_network, const std::string& its_address) {
    return fmt::format("{}:{}", its_network, port_of(its_address));
  };
  const auto& sockets = context.index(UdpKind().info().name, "port", [&](const Record& record) {
    schema::InetSocket message;
    return message.ParseFromString(record.payload) ? key_of(message.network(), message.address())
                                                   : std::string();
  });
  const auto [first, last] = sockets.equal_range(key_of(network, address));
  for (auto at = first; at != last; ++at) {
    schema::InetSocket message;
    if (!message.ParseFromString(at->second->payload)) continue;
    if (is_any(message.address()) || endpoint(message.address()) == endpoint(address)) return at->second;
  }
  return nullptr;
}

// Its sender may have gone, and its port may be taken by now: then the datagram is lost, as on a network.
Result<void> send_again(const schema::InetSocket& receiver, const schema::QueuedMessage& datagram, int to,
                        Making& context) {
  const std::string& from = datagram.sender_address();
  Fd stranger;
  int sender = -1;
  if (const Record* record = find_sender(from, receiver.network(), context)) {
    STASIS_TRY(sender, context.description(record->id));
  } else {
    stranger.reset(::socket(receiver.family(), SOCK_DGRAM | SOCK_CLOEXEC, receiver.protocol()));
    if (!stranger || bind_to(stranger.get(), from) < 0) return {};
    sender = stranger.get();
  }
  const std::string target =
      is_any(receiver.address()) ? with_port(from, port_of(receiver.address())) : receiver.address();
  sockaddr_storage address = {};
  const size_t length = std::min(target.size(), sizeof address);
  memcpy(&address, target.data(), length);
  if (sendto(sender, datagram.data().data(), datagram.data().size(), MSG_DONTWAIT | MSG_NOSIGNAL,
             reinterpret_cast<sockaddr*>(&address), static_cast<socklen_t>(length)) < 0)
    return {};
  pollfd state = {to, POLLIN, 0};
  poll(&state, 1, 100);
  return {};
}

}  // namespace

KindInfo UdpKind::info() const {
  return {
      "udp", "Sockets", "UDP: addresses, options, datagrams that were not read yet, multicast groups",
      Support::kPartial,
      "unread datagrams that came from another host are lost, as on a network; a datagram that is held back "
      "by UDP_CORK refuses the checkpoint"};
}

bool UdpKind::recognises(const OpenFile& file, const Observation&) const {
  return is_socket(file) && is_udp(file.duplicate.get());
}

Result<std::string> UdpKind::observe(const OpenFile& file, Observation& tree) const {
  int fd = file.duplicate.get();
  schema::InetSocket message;
  message.set_family(socket_option(fd, SOL_SOCKET, SO_DOMAIN));
  message.set_protocol(socket_option(fd, SOL_SOCKET, SO_PROTOCOL));
  message.set_address(local_address(fd));
  message.set_peer_address(peer_address(fd));
  message.set_network(kernel::network_cookie(fd));
  message.set_state(message.peer_address().empty() ? schema::InetSocket::UNCONNECTED
                                                   : schema::InetSocket::CONNECTED);
  observe_foreign_address(message);
  STASIS_CHECK(observe_options(file, *message.mutable_options()));
  observe_memberships(file, *message.mutable_memberships());
  if (message.state() == schema::InetSocket::CONNECTED) observe_shutdown(file, message);
  STASIS_CHECK(refuse_corked(file));
  STASIS_CHECK(observe_datagrams(file, tree, message));
  return pack(message);
}

Result<Fd> UdpKind::make(const Record& record, Making&) const {
  STASIS_TRY(auto message, unpack<schema::InetSocket>(record));
  STASIS_TRY(Fd fd, new_socket(record, message.family(), SOCK_DGRAM, message.protocol()));
  // Unlike TCP, SO_REUSEADDR lets two programs have the same address: only when the program wanted that.
  STASIS_CHECK(apply_option(record, fd.get(), message.options(), SOL_SOCKET, SO_REUSEADDR));
  STASIS_CHECK(apply_options(record, fd.get(), message.options(), OptionStage::kBeforeBind));
  if (port_of(message.address()) != 0 && bind_again(fd.get(), message) < 0) {
    int error = errno;
    return cannot_make(record, "bind to " + shown(message.address()), error,
                       error == EADDRINUSE      ? "another program has this port"
                       : error == EADDRNOTAVAIL ? "this host does not have the address"
                                                : "");
  }
  STASIS_CHECK(join_groups(record, fd.get(), message.memberships()));
  STASIS_CHECK(apply_options(record, fd.get(), message.options(), OptionStage::kMade));
  STASIS_CHECK(set_status_flags(fd.get(), record.flags));
  return fd;
}

// What waits came before the socket was connected, as far as anybody knows, and before a filter was set.
Result<void> UdpKind::fill(const Record& record, int fd, Making& context) const {
  STASIS_TRY(auto message, unpack<schema::InetSocket>(record));
  for (const auto& datagram : message.datagrams()) STASIS_CHECK(send_again(message, datagram, fd, context));
  if (!message.peer_address().empty() && connect_to(fd, message.peer_address()) < 0) {
    return cannot_make(record, "connect to " + shown(message.peer_address()));
  }
  if (message.shut_read() && shutdown(fd, SHUT_RD) < 0) return cannot_make(record, "shutdown");
  if (message.shut_write() && shutdown(fd, SHUT_WR) < 0) return cannot_make(record, "shutdown");
  return apply_options(record, fd, message.options(), OptionStage::kFilled);
}

std::string UdpKind::summary(const Record& record) const {
  auto message = unpack<schema::InetSocket>(record);
  if (!message.ok()) return {};
  std::string text = port_of(message->address()) ? shown(message->address()) : "unbound";
  return message->peer_address().empty() ? text : text + " to " + shown(message->peer_address());
}

}  // namespace stasis::resource

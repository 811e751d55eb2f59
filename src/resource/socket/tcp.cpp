#include "resource/socket/tcp.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "base/clock.h"
#include "kernel/network.h"
#include "resource/payload.h"
#include "resource/refusal.h"
#include "resource/reopen.h"
#include "resource/socket/inet.h"
#include "resource/socket/inet_bind.h"
#include "resource/socket/inet_diag.h"
#include "resource/socket/options.h"
#include "resource/socket/queue.h"
#include "resource/socket/room.h"
#include "resource/socket/socket.h"
#include "resource/socket/tcp_connect.h"
#include "schema/kinds/socket.pb.h"

namespace stasis::resource {
namespace {

using schema::InetSocket;

constexpr int kMultipath = 262;  // IPPROTO_MPTCP; a listener of Go programs

// enum in the kernel's net/tcp_states.h
enum State : uint8_t {
  kEstablished = 1,
  kSynSent,
  kSynReceived,
  kFinWait1,
  kFinWait2,
  kTimeWait,
  kClose,
  kCloseWait,
  kLastAck,
  kListen,
  kClosing
};

bool is_tcp(int fd) {
  int domain = socket_option(fd, SOL_SOCKET, SO_DOMAIN);
  int protocol = socket_option(fd, SOL_SOCKET, SO_PROTOCOL);
  return (domain == AF_INET || domain == AF_INET6) && socket_option(fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM &&
         (protocol == IPPROTO_TCP || protocol == kMultipath);
}

Result<tcp_info> info_of(const OpenFile& file) {
  tcp_info info = {};
  socklen_t length = sizeof info;
  if (getsockopt(file.duplicate.get(), IPPROTO_TCP, TCP_INFO, &info, &length) < 0) {
    return cannot_observe(file, "TCP_INFO");
  }
  return info;
}

std::string connection_key(const std::string& from, const std::string& to) {
  std::string source = endpoint(from), target = endpoint(to);
  return source.empty() || target.empty() ? std::string() : source + ">" + target;
}

const OpenFile* find_other_end(const OpenFile& file, const InetSocket& message, const Observation& tree) {
  const auto& connections = tree.index("tcp: connections", [](const OpenFile& other) {
    if (!is_socket(other) || !is_tcp(other.duplicate.get())) return std::string();
    return connection_key(local_address(other.duplicate.get()), peer_address(other.duplicate.get()));
  });
  // Networks may have the same addresses; what is in one is more likely meant than what is in another.
  auto [first, last] = connections.equal_range(connection_key(message.peer_address(), message.address()));
  const OpenFile* elsewhere = nullptr;
  for (auto entry = first; entry != last; ++entry) {
    if (entry->second == &file) continue;
    if (kernel::network_cookie(entry->second->duplicate.get()) == message.network()) return entry->second;
    elsewhere = entry->second;
  }
  return is_loopback(message.address()) ? nullptr : elsewhere;
}

// Addresses of a connection that has ended are free for another, which may have ended as well: only where it
// is certain.
const OpenFile* find_other_end_of_ended(const OpenFile& file, const InetSocket& message,
                                        const Observation& tree) {
  auto key_of = [](uint64_t network, const std::string& from, const std::string& to) {
    const std::string key = connection_key(from, to);
    return key.empty() ? key : fmt::format("{}:{}", network, key);
  };
  const auto& ended = tree.index("tcp: ended connections", [&](const OpenFile& other) {
    const int fd = other.duplicate.get();
    if (!is_socket(other) || !is_tcp(fd) || !peer_address(fd).empty()) return std::string();
    auto info = info_of(other);
    if (!info.ok() || info->tcpi_state != kClose) return std::string();
    return key_of(kernel::network_cookie(fd), local_address(fd), peer_address_in_any_state(fd));
  });
  const auto other = key_of(message.network(), message.peer_address(), message.address());
  const auto mine = key_of(message.network(), message.address(), message.peer_address());
  if (ended.count(other) != 1 || ended.count(mine) != 1) return nullptr;
  const OpenFile* found = ended.find(other)->second;
  return found == &file ? nullptr : found;
}

bool has_shut_write(uint8_t state) {
  return state == kFinWait1 || state == kFinWait2 || state == kClosing || state == kLastAck ||
         state == kClose;
}

bool is_hung_up(int fd) {
  pollfd state = {fd, POLLRDHUP, 0};
  return poll(&state, 1, 0) > 0 && state.revents & POLLRDHUP;
}

Result<bool> is_something_under_way(const OpenFile& file, const OpenFile& other) {
  int unsent = 0;
  if (ioctl(file.duplicate.get(), SIOCOUTQNSD, &unsent) < 0) return cannot_observe(file, "SIOCOUTQNSD");
  STASIS_TRY(tcp_info mine, info_of(file));
  STASIS_TRY(tcp_info theirs, info_of(other));
  return unsent != 0 || theirs.tcpi_bytes_received + mine.tcpi_bytes_retrans < mine.tcpi_bytes_sent;
}

// Over loopback the kernel moves sent data into the receiver's queue at once, where it can be looked at. What
// the receiver had no room for stays with the sender and cannot be looked at without CAP_NET_ADMIN: the
// receiver is given room for it.
Result<void> let_arrive(const OpenFile& file, const OpenFile& other) {
  STASIS_TRY(bool under_way, is_something_under_way(file, other));
  if (!under_way) return {};
  RoomToReceive room(other.duplicate.get());
  constexpr int kLooks = 500;
  for (int look = 0; look < kLooks; ++look) {
    room.announce();
    STASIS_TRY(under_way, is_something_under_way(file, other));
    if (!under_way) return {};
    timespec moment{0, 1'000'000};
    nanosleep(&moment, nullptr);
  }
  return refusal_for_now(file,
                         fmt::format("data is on its way to {}, which has no room for it", other.describe()),
                         "try again when the reader has caught up");
}

// The listener that has the far end in its queue, which nobody has a descriptor of yet.
const OpenFile* find_waiting_for(const InetSocket& client, const Observation& tree) {
  const auto& listeners = tree.index("tcp: listeners", [](const OpenFile& other) {
    int fd = other.duplicate.get();
    bool listens = is_socket(other) && is_tcp(fd) && socket_option(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1;
    return listens ? std::to_string(port_of(local_address(fd))) : std::string();
  });
  auto [first, last] = listeners.equal_range(std::to_string(port_of(client.peer_address())));
  for (auto entry = first; entry != last; ++entry) {
    if (kernel::network_cookie(entry->second->duplicate.get()) != client.network()) continue;
    std::string address = local_address(entry->second->duplicate.get());
    if (is_any(address) || endpoint(address) == endpoint(client.peer_address())) return entry->second;
  }
  return nullptr;
}

// The far end while it is in a queue.
std::optional<InetDiag> not_accepted(const InetSocket& client) {
  for (InetDiag& diag : inet_diag(IPPROTO_TCP)) {
    if (diag.inode == 0 && diag.address == endpoint(client.peer_address()) &&
        diag.peer == endpoint(client.address()) && (diag.state == kEstablished || diag.state == kCloseWait))
      return std::move(diag);
  }
  return std::nullopt;
}

// True when the socket waits to be accepted by a listener of the tree.
Result<bool> observe_waiting(const OpenFile& file, const Observation& tree, InetSocket& message) {
  const OpenFile* listener = find_waiting_for(message, tree);
  if (!listener) return false;
  auto far_end = not_accepted(message);
  if (!far_end) return false;
  // The kernel counts the end as well.
  if (far_end->unread > (far_end->state == kCloseWait ? 1u : 0u)) {
    return refusal_for_now(file,
                           fmt::format("it has sent something by a connection that {} has not accepted yet",
                                       listener->describe()),
                           "try again when the connection has been accepted");
  }
  message.set_state(InetSocket::WAITING);
  message.set_peer(listener->id);
  return true;
}

// Who waits at a listener. None of them has sent anything, so the kernel counts from when it was connected.
Result<void> observe_queue(const OpenFile& file, uint32_t waiting, Observation& tree, InetSocket& message) {
  if (waiting == 0) return {};
  std::vector<std::pair<int64_t, uint32_t>> clients;
  for (const auto& other : tree.all()) {
    int fd = other->duplicate.get();
    if (!is_socket(*other) || !is_tcp(fd)) continue;
    InetSocket client;
    client.set_address(local_address(fd));
    client.set_peer_address(peer_address(fd));
    client.set_network(kernel::network_cookie(fd));
    if (client.peer_address().empty() || find_waiting_for(client, tree) != &file ||
        find_other_end(*other, client, tree) || !not_accepted(client))
      continue;
    STASIS_TRY(tcp_info info, info_of(*other));
    clients.emplace_back(monotonic_ns() / 1'000'000 - info.tcpi_last_data_sent, other->id);
  }
  std::stable_sort(clients.begin(), clients.end(), [](auto& a, auto& b) { return a.first < b.first; });
  for (const auto& [since, id] : clients) message.add_waiting(id);
  if (waiting > clients.size()) {
    tree.warn(fmt::format("{}: {} connections to {} that were not accepted yet are closed by a restart",
                          file.describe(), waiting - clients.size(), shown(message.address())));
  }
  return {};
}

Result<void> observe_connection(const OpenFile& file, const tcp_info& info, Observation& tree,
                                InetSocket& message) {
  const bool ended = info.tcpi_state == kClose;
  message.set_shut_write(has_shut_write(info.tcpi_state));
  bool hung_up = is_hung_up(file.duplicate.get());
  // The far end's closing also sets our receiving side down, but moves us on to another state.
  message.set_shut_read(hung_up && (info.tcpi_state == kEstablished || info.tcpi_state == kFinWait2));

  const OpenFile* other = nullptr;
  if (ended) {
    other = find_other_end_of_ended(file, message, tree);
  } else if (info.tcpi_state != kSynSent) {
    other = find_other_end(file, message, tree);
  }
  if (other) {
    message.set_state(InetSocket::CONNECTED);
    message.set_peer(other->id);
    if (!ended) {
      STASIS_CHECK(let_arrive(file, *other));
      // What it is to find in the queue may have come just now.
      STASIS_CHECK(let_arrive(*other, file));
    }
  } else if (ended) {
    message.set_state(InetSocket::CLOSED_BY_PEER);
  } else if (info.tcpi_state == kSynSent) {
    message.set_state(InetSocket::CONNECTING);
    return {};
  } else {
    STASIS_TRY(bool waits, observe_waiting(file, tree, message));
    if (waits) return {};
    message.set_state(InetSocket::CLOSED_BY_PEER);
    if (!hung_up) {
      tree.warn(fmt::format("{}: the connection from {} to {} leaves the session; a restart closes it",
                            file.describe(), shown(message.address()), shown(message.peer_address())));
    }
  }
  STASIS_TRY(std::string queue, peek_stream(file));
  message.set_queue(std::move(queue));
  return {};
}

Result<void> complete(const Record& record, int fd, const InetSocket& message) {
  STASIS_CHECK(apply_options(record, fd, message.options(), OptionStage::kMade));
  return set_status_flags(fd, record.flags);
}

Result<Fd> make_connected(const Record& record, const InetSocket& message, Making& context) {
  const Record* peer = context.record(message.peer());
  if (!peer) return cannot_make(record, "the other end is missing in the image", EINVAL);
  STASIS_TRY(auto peer_message, unpack<InetSocket>(*peer));
  bool is_server = !find_tcp_listeners(message, context).empty();
  const TcpEnd mine_is = {record, message}, theirs_is = {*peer, peer_message};
  auto pair =
      is_server ? connect_again(mine_is, theirs_is, context) : connect_again(theirs_is, mine_is, context);
  if (!pair.ok()) return std::move(pair).error();
  Fd mine = std::move(is_server ? pair->server : pair->client);
  Fd theirs = std::move(is_server ? pair->client : pair->server);
  // Of the one that was accepted nothing was set before. Whether a socket that has a port is for IPv6 only
  // cannot be changed, and means nothing to a connection.
  auto before_bind = [](const Record& whose, const Fd& fd, const SocketOptions& options) {
    return apply_options(whose, fd.get(), without(options, IPPROTO_IPV6, IPV6_V6ONLY),
                         OptionStage::kBeforeBind);
  };
  STASIS_CHECK(before_bind(record, mine, message.options()));
  STASIS_CHECK(before_bind(*peer, theirs, peer_message.options()));
  STASIS_CHECK(complete(record, mine.get(), message));
  STASIS_CHECK(complete(*peer, theirs.get(), peer_message));
  context.provide(peer->id, std::move(theirs));
  return mine;
}

// Begins to connect, as the program did.
Result<void> connect_anew(const Record& record, int fd, const InetSocket& message) {
  const int flags = fcntl(fd, F_GETFL);
  fcntl(fd, F_SETFL, flags | O_NONBLOCK);
  const int connected = connect_to(fd, message.peer_address());
  const int error = errno;
  fcntl(fd, F_SETFL, flags);
  if (connected < 0 && error != EINPROGRESS)
    return cannot_make(record, "connect to " + shown(message.peer_address()), error);
  return {};
}

// The clients of a listener, when all that it had accepted are connected.
Result<void> fill_queue(const InetSocket& listener, Making& context) {
  for (uint32_t id : listener.waiting()) {
    const Record* client = context.record(id);
    if (!client) continue;
    STASIS_TRY(auto message, unpack<InetSocket>(*client));
    STASIS_TRY(int number, context.description(id));
    STASIS_TRY(Fd fd, connect_client({*client, message}, context));
    // The next checkpoint tells them apart by the time, which the kernel counts in ticks.
    timespec tick{0, 12'000'000};
    if (listener.waiting_size() > 1) nanosleep(&tick, nullptr);
    STASIS_CHECK(complete(*client, fd.get(), message));
    if (dup3(fd.get(), number, O_CLOEXEC) < 0) return cannot_make(*client, "dup3");
    if (message.shut_write() && shutdown(number, SHUT_WR) < 0) return cannot_make(*client, "shutdown");
  }
  return {};
}

// As peek_stream() found it; the receiver may have had more than it takes by itself.
Result<void> send_to(const Record& record, int from, int to, const std::string& data) {
  if (data.empty()) return {};
  RoomToReceive room(to);
  LargeSendBuffer buffer(from, data.size());
  int idle = 0;
  for (std::string_view rest = data; !rest.empty();) {
    ssize_t count = send(from, rest.data(), rest.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    constexpr int kLooks = 100;
    if (count < 0 && (errno != EAGAIN || ++idle > kLooks)) {
      return cannot_make(record, fmt::format("send {} bytes that had not been read", data.size()), errno,
                         "they do not fit: raise net.ipv4.tcp_rmem");
    }
    if (count > 0) {
      rest.remove_prefix(static_cast<size_t>(count));
      continue;
    }
    room.announce();
    pollfd state = {from, POLLOUT, 0};
    poll(&state, 1, 10);
  }
  return {};
}

std::string other_end_key(const Record& record) { return fmt::format("tcp: other end of {}", record.id); }

}  // namespace

KindInfo TcpKind::info() const {
  return {
      "tcp", "Sockets", "TCP: listeners, connections inside the session with content, options",
      Support::kPartial,
      "a connection that leaves the session is closed as by its peer, also one that was not accepted yet; "
      "data that came from inside the session by a connection that was not accepted yet is refused"};
}

bool TcpKind::recognises(const OpenFile& file, const Observation&) const {
  return is_socket(file) && is_tcp(file.duplicate.get());
}

Result<std::string> TcpKind::observe(const OpenFile& file, Observation& tree) const {
  int fd = file.duplicate.get();
  InetSocket message;
  message.set_family(socket_option(fd, SOL_SOCKET, SO_DOMAIN));
  message.set_protocol(socket_option(fd, SOL_SOCKET, SO_PROTOCOL));
  message.set_address(local_address(fd));
  message.set_peer_address(peer_address_in_any_state(fd));
  message.set_network(kernel::network_cookie(fd));
  STASIS_CHECK(observe_options(file, *message.mutable_options()));
  STASIS_TRY(tcp_info info, info_of(file));
  if (info.tcpi_state == kListen) {
    message.set_state(InetSocket::LISTENING);
    observe_foreign_address(message);
    message.set_backlog(info.tcpi_sacked);  // of a listener: the limit; tcpi_unacked is how many wait
    STASIS_CHECK(observe_queue(file, info.tcpi_unacked, tree, message));
    return pack(message);
  }
  // A connection that has ended altogether is in the same state as a socket that was never connected; only
  // the former knows a peer.
  if (info.tcpi_state == kClose && message.peer_address().empty()) {
    observe_foreign_address(message);
    message.set_shut_read(is_hung_up(fd));
    return pack(message);
  }
  STASIS_CHECK(observe_connection(file, info, tree, message));
  return pack(message);
}

Result<Fd> TcpKind::make(const Record& record, Making& context) const {
  STASIS_TRY(auto message, unpack<InetSocket>(record));
  if (message.state() == InetSocket::CONNECTED) return make_connected(record, message, context);
  Fd fd;
  switch (message.state()) {
    case InetSocket::LISTENING: {
      STASIS_TRY(fd, listen_again(record, message, is_port_shared(record, message, context)));
      break;
    }
    case InetSocket::CLOSED_BY_PEER: {
      STASIS_TRY(TcpPair pair, connect_to_ourselves(record, message));
      context.shared_objects()[other_end_key(record)] = std::move(pair.server);
      fd = std::move(pair.client);
      break;
    }
    case InetSocket::CONNECTING: {
      STASIS_TRY(fd, new_socket(record, message.family(), SOCK_STREAM, message.protocol()));
      STASIS_CHECK(apply_options(record, fd.get(), message.options(), OptionStage::kBeforeBind));
      break;
    }
    case InetSocket::WAITING:
      // Only keeps the place: it would be let go when those that were accepted are connected.
      return new_socket(record, message.family(), SOCK_STREAM, message.protocol());
    default: {
      STASIS_TRY(fd, bind_unconnected(record, message, is_port_shared(record, message, context)));
      break;
    }
  }
  STASIS_CHECK(complete(record, fd.get(), message));
  return fd;
}

// Data first, then the end of it: after a shutdown nothing can be sent.
Result<void> TcpKind::fill(const Record& record, int fd, Making& context) const {
  STASIS_TRY(auto message, unpack<InetSocket>(record));
  if (message.state() == InetSocket::CONNECTED) {
    STASIS_TRY(int other, context.description(message.peer()));
    STASIS_CHECK(send_to(record, other, fd, message.queue()));
    const Record* peer = context.record(message.peer());
    if (!peer) return cannot_make(record, "the other end is missing in the image", EINVAL);
    STASIS_TRY(auto theirs, unpack<InetSocket>(*peer));
    if (theirs.shut_write() && shutdown(other, SHUT_WR) < 0) return cannot_make(record, "shutdown");
  } else if (message.state() == InetSocket::CLOSED_BY_PEER) {
    Fd other = std::move(context.shared_objects()[other_end_key(record)]);
    STASIS_CHECK(send_to(record, other.get(), fd, message.queue()));
    other.reset();
    if (message.shut_write()) shutdown(fd, SHUT_WR);
    // Only now: all that is restored comes over loopback.
    STASIS_CHECK(apply_option(record, fd, message.options(), SOL_SOCKET, SO_BINDTODEVICE));
  } else if (message.state() == InetSocket::CONNECTING) {
    // Now, so that it takes nobody's place in a queue.
    STASIS_CHECK(connect_anew(record, fd, message));
  } else if (message.state() == InetSocket::LISTENING) {
    STASIS_CHECK(fill_queue(message, context));
  }
  if (message.shut_read() && shutdown(fd, SHUT_RD) < 0 && errno != ENOTCONN)
    return cannot_make(record, "shutdown");
  // What shares a port is there.
  STASIS_CHECK(apply_option(record, fd, message.options(), SOL_SOCKET, SO_REUSEPORT));
  return apply_options(record, fd, message.options(), OptionStage::kFilled);
}

std::string TcpKind::summary(const Record& record) const {
  auto message = unpack<InetSocket>(record);
  if (!message.ok()) return {};
  switch (message->state()) {
    case InetSocket::LISTENING:
      return fmt::format("listening on {}, backlog {}", shown(message->address()), message->backlog());
    case InetSocket::CONNECTED:
      return fmt::format("{} to {} (description {}), {} bytes unread", shown(message->address()),
                         shown(message->peer_address()), message->peer(), message->queue().size());
    case InetSocket::CLOSED_BY_PEER:
      return "a connection that its peer has closed";
    case InetSocket::WAITING:
      return fmt::format("waits to be accepted by description {}", message->peer());
    case InetSocket::CONNECTING:
      return "connecting to " + shown(message->peer_address());
    default:
      return port_of(message->address()) ? "bound to " + shown(message->address()) : "unconnected";
  }
}

}  // namespace stasis::resource

#include "resource/socket/tcp_connect.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#include <cstdio>

#include "resource/refusal.h"
#include "resource/socket/inet.h"
#include "resource/socket/inet_bind.h"
#include "resource/socket/options.h"
#include "resource/socket/socket.h"

namespace stasis::resource {
namespace {

constexpr int kLocalPortRange = 51;  // IP_LOCAL_PORT_RANGE, newer than the C library's headers

// Every socket of a port has SO_REUSEADDR while sockets are being made: the kernel then lets them share the
// port with one another and with what is left of the old connections (TIME_WAIT). The program's own setting
// is put back last.
Result<Fd> reusing_socket(const Record& record, const schema::InetSocket& message, Port port = Port::kAlone) {
  STASIS_TRY(Fd fd, new_socket(record, message.family(), SOCK_STREAM, message.protocol()));
  STASIS_CHECK(apply_options(record, fd.get(), message.options(), OptionStage::kBeforeBind));
  int on = 1;
  if (setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
    return cannot_make(record, "SO_REUSEADDR");
  if (port == Port::kShared && setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0)
    return cannot_make(record, "SO_REUSEPORT");
  return fd;
}

std::string bind_hint(int error, const std::string& address) {
  if (error == EADDRINUSE) {
    std::string holder = holder_of_tcp_port(port_of(address));
    if (holder.empty())
      return "another program has the port, or a connection that has ended keeps it for a minute "
             "(TIME_WAIT); "
             "restart when the port is free";
    return fmt::format("the port is taken by {}; end it, or restart when the port is free", holder);
  }
  if (error == EACCES) return "ports below net.ipv4.ip_unprivileged_port_start are for root";
  if (error == EADDRNOTAVAIL) return "this host does not have the address";
  return {};
}

// The old connection may stay in TIME_WAIT. On loopback the kernel lets a new one take its place after a
// second.
constexpr int kRetries = 60;
constexpr timespec kRetryAfter = {0, 25'000'000};

// Of several listeners that share an address the kernel chooses one. They are known to the world, so others
// may get in between: those are let go.
Result<Fd> accept_from(const Record& record, const std::vector<int>& listeners,
                       const std::string& client_address) {
  std::vector<pollfd> states;
  states.reserve(listeners.size());
  for (int listener : listeners) states.push_back({listener, POLLIN, 0});
  for (;;) {
    if (poll(states.data(), states.size(), 2000) <= 0) return cannot_make(record, "accept", ETIMEDOUT);
    for (const pollfd& state : states) {
      if (state.revents == 0) continue;
      Fd accepted(accept4(state.fd, nullptr, nullptr, SOCK_CLOEXEC));
      if (!accepted && errno != EAGAIN && errno != ECONNABORTED) return cannot_make(record, "accept");
      if (accepted && endpoint(peer_address(accepted.get())) == endpoint(client_address)) return accepted;
    }
  }
}

// An IPv6 socket that is not for IPv6 only has the IPv4 addresses, too.
bool has_family(const schema::InetSocket& message, int family) {
  if (static_cast<int>(message.family()) == family) return true;
  if (message.family() != AF_INET6) return false;
  for (const auto& option : message.options()) {
    if (option.level() == IPPROTO_IPV6 && option.name() == IPV6_V6ONLY)
      return option.value().find_first_not_of('\0') == std::string::npos;
  }
  return true;
}

bool overlap(const schema::InetSocket& one, const schema::InetSocket& other) {
  if (!has_family(one, other.family()) && !has_family(other, one.family())) return false;
  return is_any(one.address()) || is_any(other.address()) ||
         endpoint(one.address()) == endpoint(other.address());
}

bool is_bound_alone(const schema::InetSocket& message) {
  return message.state() == schema::InetSocket::LISTENING ||
         (message.state() == schema::InetSocket::UNCONNECTED && port_of(message.address()) != 0);
}

}  // namespace

namespace {

// connect() chooses from this range; IP_LOCAL_PORT_RANGE can only narrow it.
bool is_chosen_by_kernel(uint16_t port) {
  auto text = read_file("/proc/sys/net/ipv4/ip_local_port_range");
  int low = 0, high = 0;
  return text.ok() && sscanf(text->c_str(), "%d %d", &low, &high) == 2 && low <= port && port <= high;
}

// Lets connect() choose a port where only one is left to choose. Most clients have got their port this way,
// and bind() would differ: it makes an IPv6 socket one for IPv6 only, and is refused for a port with
// something in TIME_WAIT that did not have SO_REUSEADDR. 0 or -1 with errno.
int connect_choosing(const Record& record, int fd, const schema::InetSocket& client) {
  const uint16_t port = port_of(client.address());
  const int no_port = socket_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT);
  const int range = socket_option(fd, IPPROTO_IP, kLocalPortRange);
  const int on = 1, only_this = port << 16 | port;
  // Linux 6.3 has brought the latter.
  if (!is_chosen_by_kernel(port) || setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) < 0 ||
      setsockopt(fd, IPPROTO_IP, kLocalPortRange, &only_this, sizeof only_this) < 0) {
    errno = EADDRNOTAVAIL;
    return -1;
  }
  if (bind_to(fd, with_port(client.address(), 0)) < 0 ||
      !apply_option(record, fd, client.options(), IPPROTO_IPV6, IPV6_V6ONLY).ok() ||
      connect_to(fd, client.peer_address()) < 0)
    return -1;
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &no_port, sizeof no_port);
  setsockopt(fd, IPPROTO_IP, kLocalPortRange, &range, sizeof range);
  return 0;
}

Result<Fd> connect_from_here(const Record& record, const schema::InetSocket& client) {
  for (int attempt = 0;; ++attempt) {
    bool last = attempt == kRetries;
    STASIS_TRY(Fd choosing, reusing_socket(record, client));
    if (connect_choosing(record, choosing.get(), client) == 0) return choosing;
    choosing.reset();
    STASIS_TRY(Fd fd, reusing_socket(record, client));
    std::string address = last ? with_port(client.address(), 0) : client.address();
    if (bind_to(fd.get(), address) == 0 && connect_to(fd.get(), client.peer_address()) == 0) return fd;
    if (last || (errno != EADDRNOTAVAIL && errno != EADDRINUSE)) {
      return cannot_make(record,
                         fmt::format("connect {} to {}", shown(address), shown(client.peer_address())));
    }
    nanosleep(&kRetryAfter, nullptr);
  }
}

}  // namespace

Result<Fd> connect_client(const TcpEnd& client, Making& context) {
  Fd connected;
  STASIS_CHECK(context.within(client.record.id, [&]() -> Result<void> {
    STASIS_TRY(connected, connect_from_here(client.record, client.message));
    return {};
  }));
  return connected;
}

Port is_port_shared(const Record& record, const schema::InetSocket& message, const Making& context) {
  auto key_of = [](const schema::InetSocket& socket) {
    return fmt::format("{}:{}", socket.network(), port_of(socket.address()));
  };
  const auto& bound = context.index("tcp", "bound", [&](const Record& other) {
    schema::InetSocket socket;
    return socket.ParseFromString(other.payload) && is_bound_alone(socket) ? key_of(socket) : std::string();
  });
  const auto [first, last] = bound.equal_range(key_of(message));
  for (auto at = first; at != last; ++at) {
    schema::InetSocket other;
    if (at->second->id == record.id || !other.ParseFromString(at->second->payload)) continue;
    const bool listens =
        message.state() == schema::InetSocket::LISTENING || other.state() == schema::InetSocket::LISTENING;
    if (listens && overlap(message, other)) return Port::kShared;
  }
  return Port::kAlone;
}

Result<Fd> bind_unconnected(const Record& record, const schema::InetSocket& message, Port port) {
  if (port_of(message.address()) == 0) {
    STASIS_TRY(Fd fd, new_socket(record, message.family(), SOCK_STREAM, message.protocol()));
    STASIS_CHECK(apply_options(record, fd.get(), message.options(), OptionStage::kBeforeBind));
    return fd;
  }
  STASIS_TRY(Fd fd, reusing_socket(record, message, port));
  if (bind_again(fd.get(), message) < 0) {
    int error = errno;
    return cannot_make(record, "bind to " + shown(message.address()), error,
                       bind_hint(error, message.address()));
  }
  return fd;
}

Result<Fd> listen_again(const Record& record, const schema::InetSocket& message, Port port) {
  STASIS_TRY(Fd fd, reusing_socket(record, message, port));
  // Binding to a port where somebody else listens with SO_REUSEADDR succeeds; only listen() tells.
  if (bind_again(fd.get(), message) < 0 || listen(fd.get(), static_cast<int>(message.backlog())) < 0) {
    int error = errno;
    return cannot_make(record, "listen on " + shown(message.address()), error,
                       bind_hint(error, message.address()));
  }
  return fd;
}

std::vector<const Record*> find_tcp_listeners(const schema::InetSocket& server, const Making& context) {
  auto key_of = [](const schema::InetSocket& socket) {
    return fmt::format("{}:{}:{}", socket.network(), socket.family(), port_of(socket.address()));
  };
  const auto& listeners = context.index("tcp", "listener", [&](const Record& record) {
    schema::InetSocket listener;
    return listener.ParseFromString(record.payload) && listener.state() == schema::InetSocket::LISTENING
               ? key_of(listener)
               : std::string();
  });
  std::vector<const Record*> found;
  const auto [first, last] = listeners.equal_range(key_of(server));
  for (auto at = first; at != last; ++at) {
    schema::InetSocket listener;
    if (!listener.ParseFromString(at->second->payload)) continue;
    if (is_any(listener.address()) || endpoint(listener.address()) == endpoint(server.address()))
      found.push_back(at->second);
  }
  return found;
}

namespace {

// What an accepted socket has got from its listener cannot all be given to it afterwards.
Result<Fd> listen_for_a_moment(const TcpEnd& server, schema::InetSocket& client) {
  schema::InetSocket message = server.message;
  message.set_protocol(IPPROTO_TCP);
  message.set_backlog(1);
  // Another listener of this address would take the connection.
  *message.mutable_options() = without(server.message.options(), SOL_SOCKET, SO_REUSEPORT);
  // Binding to one address would make it a socket for IPv6 only.
  if (message.family() == AF_INET6 && has_family(message, AF_INET)) {
    schema::InetSocket everywhere = message;
    everywhere.set_address(with_port(any_address(AF_INET6), port_of(message.address())));
    auto listener = listen_again(server.record, everywhere);
    if (listener.ok()) return listener;
  }
  auto listener = listen_again(server.record, message);
  if (listener.ok() || !message.shut_write() || !client.shut_write()) return listener;
  // A connection that has ended did not hold its port any more, which may be somebody else's now.
  message.set_address(with_port(message.address(), 0));
  listener = listen_again(server.record, message);
  if (!listener.ok()) return listener;
  client.set_peer_address(with_port(client.peer_address(), port_of(local_address(listener->get()))));
  return listener;
}

}  // namespace

Result<TcpPair> connect_again(const TcpEnd& server, const TcpEnd& client, Making& context) {
  Fd own_listener;
  schema::InetSocket client_message = client.message;
  std::vector<int> listeners;
  for (const Record* known : find_tcp_listeners(server.message, context)) {
    STASIS_TRY(listeners.emplace_back(), context.description(known->id));
  }
  if (listeners.empty()) {
    STASIS_CHECK(context.within(server.record.id, [&]() -> Result<void> {
      STASIS_TRY(own_listener, listen_for_a_moment(server, client_message));
      return {};
    }));
    listeners.push_back(own_listener.get());
  }
  TcpPair pair;
  STASIS_TRY(pair.client, connect_client({client.record, client_message}, context));
  STASIS_TRY(pair.server, accept_from(server.record, listeners, local_address(pair.client.get())));
  return pair;
}

Result<TcpPair> connect_to_ourselves(const Record& record, const schema::InetSocket& message) {
  const int family = message.family();
  schema::InetSocket here;
  here.set_family(family);
  here.set_protocol(IPPROTO_TCP);
  here.set_address(loopback(family));
  here.set_backlog(1);
  STASIS_TRY(Fd listener, listen_again(record, here));
  TcpPair pair;
  STASIS_TRY(pair.client, new_socket(record, family, SOCK_STREAM, IPPROTO_TCP));
  STASIS_CHECK(apply_options(record, pair.client.get(),
                             without(message.options(), SOL_SOCKET, SO_BINDTODEVICE),
                             OptionStage::kBeforeBind));
  if (connect_to(pair.client.get(), local_address(listener.get())) < 0) {
    return cannot_make(record, "connect over loopback", errno, "is the loopback interface up?");
  }
  STASIS_TRY(pair.server, accept_from(record, {listener.get()}, local_address(pair.client.get())));
  return pair;
}

}  // namespace stasis::resource

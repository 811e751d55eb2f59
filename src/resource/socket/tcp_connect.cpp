#include "resource/socket/tcp_connect.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#include "resource/refusal.h"
#include "resource/socket/inet.h"
#include "resource/socket/options.h"
#include "resource/socket/socket.h"

namespace stasis::resource {
namespace {

// Every socket of a port has SO_REUSEADDR while sockets are being made: the kernel then lets them share the
// port with one another and with what is left of the old connections (TIME_WAIT). The program's own setting
// is put back last.
Result<Fd> reusing_socket(const Record& record, const schema::InetSocket& message) {
  STASIS_TRY(Fd fd, new_socket(record, message.family(), SOCK_STREAM, message.protocol()));
  STASIS_CHECK(apply_options(record, fd.get(), message.options(), OptionStage::kBeforeBind));
  int on = 1;
  if (setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
    return cannot_make(record, "SO_REUSEADDR");
  return fd;
}

std::string bind_hint(int error, const std::string& address) {
  if (error == EADDRINUSE) {
    std::string holder = holder_of_tcp_port(port_of(address));
    return fmt::format("the port is taken by {}; end it, or restart when the port is free",
                       holder.empty() ? "another program" : holder);
  }
  if (error == EACCES) return "ports below net.ipv4.ip_unprivileged_port_start are for root";
  if (error == EADDRNOTAVAIL) return "this host does not have the address";
  return {};
}

// The old connection may stay in TIME_WAIT. On loopback the kernel lets a new one take its place after a
// second.
constexpr int kRetries = 60;
constexpr timespec kRetryAfter = {0, 25'000'000};

// The listener is known to the world, so others may get in between: they are let go.
Result<Fd> accept_from(const Record& record, int listener, const std::string& client_address) {
  for (;;) {
    pollfd state = {listener, POLLIN, 0};
    if (poll(&state, 1, 2000) <= 0) return cannot_make(record, "accept", ETIMEDOUT);
    Fd accepted(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
    if (!accepted && errno != EAGAIN && errno != ECONNABORTED) return cannot_make(record, "accept");
    if (accepted && endpoint(peer_address(accepted.get())) == endpoint(client_address)) return accepted;
  }
}

}  // namespace

namespace {

Result<Fd> connect_from_here(const Record& record, const schema::InetSocket& client) {
  for (int attempt = 0;; ++attempt) {
    bool last = attempt == kRetries;
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

Result<Fd> listen_again(const Record& record, const schema::InetSocket& message) {
  STASIS_TRY(Fd fd, reusing_socket(record, message));
  // Binding to a port where somebody else listens with SO_REUSEADDR succeeds; only listen() tells.
  if (bind_to(fd.get(), message.address()) < 0 || listen(fd.get(), static_cast<int>(message.backlog())) < 0) {
    int error = errno;
    return cannot_make(record, "listen on " + shown(message.address()), error,
                       bind_hint(error, message.address()));
  }
  return fd;
}

const Record* find_tcp_listener(const schema::InetSocket& server, const Making& context) {
  auto key_of = [](const schema::InetSocket& socket) {
    return fmt::format("{}:{}:{}", socket.network(), socket.family(), port_of(socket.address()));
  };
  const auto& listeners = context.index("tcp", "listener", [&](const Record& record) {
    schema::InetSocket listener;
    return listener.ParseFromString(record.payload) && listener.state() == schema::InetSocket::LISTENING
               ? key_of(listener)
               : std::string();
  });
  const auto [first, last] = listeners.equal_range(key_of(server));
  for (auto at = first; at != last; ++at) {
    schema::InetSocket listener;
    if (!listener.ParseFromString(at->second->payload)) continue;
    if (is_any(listener.address()) || endpoint(listener.address()) == endpoint(server.address()))
      return at->second;
  }
  return nullptr;
}

Result<TcpPair> connect_again(const TcpEnd& server, const TcpEnd& client, Making& context) {
  Fd own_listener;
  int listener = -1;
  if (const Record* known = find_tcp_listener(server.message, context)) {
    STASIS_TRY(listener, context.description(known->id));
  } else {
    schema::InetSocket temporary;
    temporary.set_family(server.message.family());
    temporary.set_protocol(IPPROTO_TCP);
    temporary.set_address(server.message.address());
    temporary.set_backlog(1);
    STASIS_CHECK(context.within(server.record.id, [&]() -> Result<void> {
      STASIS_TRY(own_listener, listen_again(server.record, temporary));
      return {};
    }));
    listener = own_listener.get();
  }
  TcpPair pair;
  STASIS_TRY(pair.client, connect_client(client, context));
  STASIS_TRY(pair.server, accept_from(server.record, listener, local_address(pair.client.get())));
  return pair;
}

Result<TcpPair> connect_to_ourselves(const Record& record, int family) {
  schema::InetSocket here;
  here.set_family(family);
  here.set_protocol(IPPROTO_TCP);
  here.set_address(loopback(family));
  here.set_backlog(1);
  STASIS_TRY(Fd listener, listen_again(record, here));
  TcpPair pair;
  STASIS_TRY(pair.client, new_socket(record, family, SOCK_STREAM, IPPROTO_TCP));
  if (connect_to(pair.client.get(), local_address(listener.get())) < 0) {
    return cannot_make(record, "connect over loopback", errno, "is the loopback interface up?");
  }
  STASIS_TRY(pair.server, accept_from(record, listener.get(), local_address(pair.client.get())));
  return pair;
}

}  // namespace stasis::resource

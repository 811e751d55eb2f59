#include "resource/socket/unix_restore.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <optional>

#include "resource/payload.h"
#include "resource/refusal.h"
#include "resource/reopen.h"
#include "resource/socket/options.h"
#include "resource/socket/queue.h"
#include "resource/socket/socket.h"
#include "resource/socket/unix_name.h"
#include "resource/socket/unix_socket.h"
#include "schema/kinds/socket.pb.h"

namespace stasis::resource {
namespace {

using schema::UnixSocket;
using Round = DescriptorKind::Round;

Actor as_actor(const schema::PeerCredentials& credentials) {
  return {NsTid{credentials.pid()}, credentials.user(), credentials.group()};
}

Actor actor_of(const UnixSocket& message) { return as_actor(message.credentials()); }

// Keys of what is kept from one round to the next.
std::string handle_key(uint32_t id) { return fmt::format("unix: handle of {}", id); }
std::string other_end_key(uint32_t id) { return fmt::format("unix: other end of {}", id); }
std::string listener_key(const UnixSocket& accepted) {
  return fmt::format("unix: listener {} {} {}", accepted.type(), accepted.name_removed(), accepted.address());
}

int kept(Making& context, const std::string& key) {
  auto found = context.kept_objects().find(key);
  return found == context.kept_objects().end() ? -1 : found->second.get();
}

Reach reach(const Record& record, const UnixSocket& message, Making& context) {
  return {message, kept(context, handle_key(record.id))};
}

// What every way of making a socket has in common.
Result<void> complete(const Record& record, int fd, const UnixSocket& message) {
  STASIS_CHECK(apply_options(record, fd, message.options(), OptionStage::kBeforeBind));
  STASIS_CHECK(apply_options(record, fd, message.options(), OptionStage::kMade));
  return set_status_flags(fd, record.flags);
}

// One end of a connection while it is made again.
struct End {
  const Record* record = nullptr;
  UnixSocket message;
  int number = -1;  // where it is to be
};

Result<End> end_of(uint32_t id, const Record& whose, Making& context) {
  End end;
  end.record = context.record(id);
  if (!end.record) return cannot_make(whose, "the other end is missing in the image", EINVAL);
  STASIS_TRY(end.message, unpack<UnixSocket>(*end.record));
  STASIS_TRY(end.number, context.description(id));
  return end;
}

// Several datagram sockets can be connected to one; only two that are connected to each other are a pair. One
// can even be connected to itself.
bool is_mutual(const Record& record, const UnixSocket& message, const Making& context) {
  if (message.peer() == record.id) return false;
  const Record* peer = context.record(message.peer());
  if (!peer) return false;
  auto theirs = unpack<UnixSocket>(*peer);
  return theirs.ok() && theirs->state() == UnixSocket::CONNECTED && theirs->peer() == record.id;
}

bool is_made_later(const Record& record, const UnixSocket& message, const Making& context) {
  if (message.state() == UnixSocket::CLOSED_BY_PEER) return true;
  return message.state() == UnixSocket::CONNECTED &&
         (message.type() != SOCK_DGRAM || is_mutual(record, message, context));
}

struct Pair {
  Fd one, other;
};

Result<Pair> new_pair(const Record& record, int type) {
  int ends[2];
  if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) < 0) return cannot_make(record, "socketpair");
  return Pair{Fd(ends[0]), Fd(ends[1])};
}

// The listener that an accepted socket came from has the same name.
const Record* find_listener(const Making& context, const UnixSocket& accepted, UnixSocket& listener) {
  if (accepted.address().empty()) return nullptr;
  auto name_of = [](const UnixSocket& message) {
    return fmt::format("{}{} {}", message.type(), message.name_removed() ? " removed" : "",
                       message.address());
  };
  const auto& listeners = context.index(UnixSocketKind().info().name, "listener", [&](const Record& other) {
    UnixSocket message;
    return message.ParseFromString(other.payload) && message.state() == UnixSocket::LISTENING
               ? name_of(message)
               : std::string();
  });
  const auto found = listeners.lower_bound(name_of(accepted));
  if (found == listeners.end() || found->first != name_of(accepted)) return nullptr;
  return listener.ParseFromString(found->second->payload) ? found->second : nullptr;
}

// A connection: the server is the end that was accepted, or either of a pair.
struct Connection {
  End server, client;
  // From which it is to be accepted: its number, and how it is reached.
  int listener = -1;
  std::optional<Reach> way;
};

// Connecting gives both ends the names that they had. Anybody may connect in between: those are let go.
Result<Fd> accept_ourselves(const Connection& connection, int client) {
  const Record& record = *connection.server.record;
  if (connection.way->connect(client) < 0) return cannot_make(record, "connect");
  for (;;) {
    Fd accepted(accept4(connection.listener, nullptr, nullptr, SOCK_CLOEXEC));
    if (!accepted) return cannot_make(record, "accept");
    ucred who = {};
    socklen_t length = sizeof who;
    if (getsockopt(accepted.get(), SOL_SOCKET, SO_PEERCRED, &who, &length) == 0 && who.pid == getpid()) {
      return accepted;
    }
  }
}

Result<void> put(const End& end, const Fd& fd) {
  STASIS_CHECK(complete(*end.record, fd.get(), end.message));
  // Whatever stood there keeps the place for it.
  if (dup3(fd.get(), end.number, O_CLOEXEC) < 0) return cannot_make(*end.record, "dup3");
  return {};
}

// A datagram socket or a client that has a name, or an end of a pair that was given one.
Result<void> give_name(const End& end, int fd) {
  STASIS_TRY([[maybe_unused]] Fd handle, bind_unix_again(*end.record, fd, end.message));
  return {};
}

Result<void> connect_again(const Connection& connection) {
  const End& server = connection.server;
  const End& client = connection.client;
  Pair pair;
  if (connection.way) {
    STASIS_TRY(pair.other, new_socket(*client.record, AF_UNIX, client.message.type(), 0));
    STASIS_CHECK(give_name(client, pair.other.get()));
    STASIS_TRY(pair.one, accept_ourselves(connection, pair.other.get()));
  } else {
    STASIS_TRY(pair, new_pair(*server.record, server.message.type()));
    STASIS_CHECK(give_name(server, pair.one.get()));
    STASIS_CHECK(give_name(client, pair.other.get()));
  }
  STASIS_CHECK(put(server, pair.one));
  return put(client, pair.other);
}

// Each connection once: by the end with the lower number, which learns which of both was accepted.
Result<std::optional<Connection>> connection_of(const Record& record, UnixSocket message, int fd,
                                                Making& context) {
  std::optional<Connection> none;
  const bool mutual = is_mutual(record, message, context);
  if (mutual && message.peer() < record.id) return none;
  Connection connection;
  connection.server = {&record, std::move(message), fd};
  STASIS_TRY(connection.client, end_of(connection.server.message.peer(), record, context));
  if (connection.server.message.type() == SOCK_DGRAM) return std::optional(std::move(connection));
  UnixSocket found;
  for (int turn = 0; turn < 2; ++turn) {
    if (turn > 0) std::swap(connection.server, connection.client);
    const Record* listener = find_listener(context, connection.server.message, found);
    if (!listener) continue;
    STASIS_TRY(connection.listener, context.description(listener->id));
    connection.way = reach(*listener, found, context);
    return std::optional(std::move(connection));
  }
  // The listener is gone: the end that has a name is the server's.
  if (connection.server.message.address().empty() && !connection.client.message.address().empty())
    std::swap(connection.server, connection.client);
  return std::optional(std::move(connection));
}

// Its listener is gone, which the client still shows as its peer: one that is there for a moment.
Result<void> settle_lost_listener(const Record& record, const UnixSocket& message, int fd, Making& context) {
  if (message.type() == SOCK_DGRAM) return {};
  STASIS_TRY(auto connection, connection_of(record, message, fd, context));
  if (!connection || connection->way || connection->server.message.address().empty()) return {};
  const End& server = connection->server;
  const std::string key = listener_key(server.message);
  Fd& listener = context.kept_objects()[key];
  if (listener) return {};
  STASIS_TRY(listener, new_socket(record, AF_UNIX, message.type(), 0));
  STASIS_TRY(Fd handle, bind_unix_again(*server.record, listener.get(), server.message));
  if (handle) context.kept_objects()["handle of " + key] = std::move(handle);
  context.as(actor_of(connection->client.message), [&record, number = listener.get()]() -> Result<void> {
    if (listen(number, 1) < 0) return cannot_make(record, "listen");
    return {};
  });
  return {};
}

Result<void> settle_connected(const Record& record, UnixSocket message, int fd, Making& context) {
  STASIS_TRY(auto connection, connection_of(record, std::move(message), fd, context));
  if (!connection) return {};
  const std::string key = listener_key(connection->server.message);
  if (int temporary = kept(context, key); !connection->way && temporary >= 0) {
    UnixSocket name = connection->server.message;
    const int handle = kept(context, "handle of " + key);
    // One that got another name than it had is reached by that.
    if (handle < 0) name.set_address(local_address(temporary));
    connection->listener = temporary;
    connection->way.emplace(name, handle);
  }
  Actor actor = actor_of(connection->server.message);
  context.as(actor, [connection = std::move(*connection)] { return connect_again(connection); });
  return {};
}

// `number`: where the far end is kept until it has sent all that it has to.
Result<void> make_half(const End& end, int number) {
  STASIS_TRY(Pair pair, new_pair(*end.record, end.message.type()));
  STASIS_CHECK(give_name(end, pair.one.get()));
  STASIS_CHECK(put(end, pair.one));
  if (dup3(pair.other.get(), number, O_CLOEXEC) < 0) return cannot_make(*end.record, "dup3");
  return {};
}

Result<void> settle_closed(const Record& record, UnixSocket message, int fd, Making& context) {
  Fd& other = context.kept_objects()[other_end_key(record.id)];
  STASIS_TRY(other, new_socket(record, AF_UNIX, message.type(), 0));
  Actor actor = actor_of(message);
  End end{&record, std::move(message), fd};
  context.as(actor, [end = std::move(end), number = other.get()] { return make_half(end, number); });
  return {};
}

Result<void> connect_waiting(const End& client, const Reach& listener) {
  // Somebody else may have filled the queue by now.
  int flags = fcntl(client.number, F_GETFL);
  fcntl(client.number, F_SETFL, flags | O_NONBLOCK);
  int connected = listener.connect(client.number);
  int error = errno;
  fcntl(client.number, F_SETFL, flags);
  if (connected < 0) return cannot_make(*client.record, "connect", error);
  if (client.message.cannot_read()) shutdown(client.number, SHUT_RD);
  if (client.message.cannot_write()) shutdown(client.number, SHUT_WR);
  return {};
}

Result<void> settle_waiting(const Record& record, const UnixSocket& listener, Making& context) {
  for (uint32_t id : listener.waiting()) {
    STASIS_TRY(End client, end_of(id, record, context));
    if (client.message.state() != UnixSocket::WAITING || client.message.peer() != record.id)
      return cannot_make(*client.record, "it does not wait for this listener", EINVAL);
    Actor actor = actor_of(client.message);
    context.as(actor, [client = std::move(client), way = reach(record, listener, context)] {
      return connect_waiting(client, way);
    });
  }
  return {};
}

Result<Fd> make_single(const Record& record, const UnixSocket& message, Making& context) {
  STASIS_TRY(Fd fd, new_socket(record, AF_UNIX, message.type(), 0));
  STASIS_CHECK(complete(record, fd.get(), message));
  STASIS_TRY(Fd handle, bind_unix(record, fd.get(), message));
  if (handle) context.kept_objects()[handle_key(record.id)] = std::move(handle);
  if (message.state() == UnixSocket::LISTENING && listen(fd.get(), static_cast<int>(message.backlog())) < 0) {
    return cannot_make(record, "listen");
  }
  return fd;
}

// Who sends the messages again that a socket had received, and where to.
struct Sender {
  int number = -1;
  std::optional<Reach> to;  // else to its other end
};

// The datagram socket that has this name.
const Record* find_named(const std::string& address, const Making& context) {
  const auto& named = context.index(UnixSocketKind().info().name, "datagrams", [](const Record& record) {
    UnixSocket message;
    return message.ParseFromString(record.payload) && message.type() == SOCK_DGRAM ? message.address()
                                                                                   : std::string();
  });
  const auto found = named.lower_bound(address);
  return found == named.end() || found->first != address ? nullptr : found->second;
}

// One that has gone had this name, if any: a socket that is there for a moment stands for it.
Result<Sender> stranger(const Record& record, const std::string& address, Making& context) {
  Fd& fd = context.kept_objects()[fmt::format("unix: sender {}", address)];
  if (!fd) {
    STASIS_TRY(fd, new_socket(record, AF_UNIX, SOCK_DGRAM, 0));
    UnixSocket name;
    name.set_address(address);
    name.set_name_removed(true);
    STASIS_TRY([[maybe_unused]] Fd handle, bind_unix_again(record, fd.get(), name));
  }
  return Sender{fd.get(), {}};
}

Result<Sender> sender_of(const Record& record, const UnixSocket& message, const schema::QueuedMessage& queued,
                         Making& context) {
  if (int other = kept(context, other_end_key(record.id)); other >= 0) return Sender{other, {}};
  const bool mutual = is_mutual(record, message, context);
  if (mutual) {
    STASIS_TRY(int number, context.description(message.peer()));
    return Sender{number, {}};
  }
  if (message.type() != SOCK_DGRAM)
    return cannot_make(record, "nobody can have sent what is in its queue", EINVAL);
  Sender sender;
  const Record* named =
      queued.sender_address().empty() ? nullptr : find_named(queued.sender_address(), context);
  if (named) {
    STASIS_TRY(sender.number, context.description(named->id));
  } else {
    STASIS_TRY(sender, stranger(record, queued.sender_address(), context));
  }
  sender.to = reach(record, message, context);
  return sender;
}

Result<void> send_again(const Record& record, const schema::QueuedMessage& queued, int type,
                        const Sender& sender, const std::vector<int>& descriptors) {
  auto send = [&](const std::string& address) {
    Sending with = {address, descriptors, {}};
    if (queued.has_sender()) with.sender = {0, queued.sender().user(), queued.sender().group()};
    return type == SOCK_STREAM ? send_stream(record, sender.number, queued.data(), with)
                               : send_message(record, sender.number, queued.data(), with);
  };
  return sender.to ? sender.to->with_address(record, send) : send({});
}

// Each message by a process that is the one who sent it.
Result<void> settle_queue(const Record& record, const UnixSocket& message, int fd, Making& context) {
  for (const auto& queued : message.queue()) {
    STASIS_TRY(Sender sender, sender_of(record, message, queued, context));
    std::vector<int> descriptors;
    for (uint32_t id : queued.descriptions()) {
      STASIS_TRY(int number, context.description(id));
      descriptors.push_back(number);
    }
    Actor actor = queued.has_sender() ? as_actor(queued.sender()) : actor_of(message);
    context.as(actor, [&record, queued, type = message.type(), sender = std::move(sender),
                       descriptors = std::move(descriptors)] {
      return send_again(record, queued, type, sender, descriptors);
    });
  }
  // Data that the far end leaves behind unread makes the kernel report a reset to us.
  if (message.state() == UnixSocket::CLOSED_BY_PEER && message.reset() &&
      send(fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
    return cannot_make(record, "send");
  return {};
}

// A service outside that is gone now would be gone for the program, too: it sees that when it sends.
Result<void> connect_datagrams(const Record& record, int fd, const UnixSocket& message, Making& context) {
  UnixSocket target;
  if (const Record* peer = context.record(message.peer()); peer && target.ParseFromString(peer->payload)) {
    if (reach(*peer, target, context).connect(fd) < 0) return cannot_make(record, "connect");
    return {};
  }
  connect_to(fd, message.peer_address());
  return {};
}

Result<void> settle_end(const Record& record, const UnixSocket& message, int fd, Making& context) {
  context.kept_objects().erase(other_end_key(record.id));
  if (message.type() == SOCK_DGRAM && message.state() == UnixSocket::CONNECTED &&
      !is_mutual(record, message, context))
    STASIS_CHECK(connect_datagrams(record, fd, message, context));
  // Of a connection that waits it was done when it entered the queue.
  if (message.state() != UnixSocket::LISTENING && message.state() != UnixSocket::WAITING) {
    if (message.cannot_read() && shutdown(fd, SHUT_RD) < 0 && errno != ENOTCONN)
      return cannot_make(record, "shutdown");
    if (message.cannot_write() && shutdown(fd, SHUT_WR) < 0 && errno != ENOTCONN)
      return cannot_make(record, "shutdown");
  }
  return apply_options(record, fd, message.options(), OptionStage::kFilled);
}

}  // namespace

Result<Fd> make_unix_socket(const Record& record, Making& context) {
  STASIS_TRY(auto message, unpack<UnixSocket>(record));
  if (is_made_later(record, message, context)) return new_socket(record, AF_UNIX, message.type(), 0);
  return make_single(record, message, context);
}

Result<void> settle_unix_socket(const Record& record, int fd, Making& context, Round round) {
  STASIS_TRY(auto message, unpack<UnixSocket>(record));
  const bool made_later = is_made_later(record, message, context);
  switch (round) {
    case Round::kListen:
      if (made_later && message.state() == UnixSocket::CONNECTED)
        return settle_lost_listener(record, message, fd, context);
      if (message.state() != UnixSocket::LISTENING) return {};
      // Who listens is noted anew each time.
      context.as(actor_of(message),
                 [&record, fd, backlog = static_cast<int>(message.backlog())]() -> Result<void> {
                   if (listen(fd, backlog) < 0) return cannot_make(record, "listen");
                   return {};
                 });
      return {};
    case Round::kConnect:
      if (!made_later) return {};
      return message.state() == UnixSocket::CONNECTED
                 ? settle_connected(record, std::move(message), fd, context)
                 : settle_closed(record, std::move(message), fd, context);
    case Round::kWait:
      return message.state() == UnixSocket::LISTENING ? settle_waiting(record, message, context)
                                                      : Result<void>();
    case Round::kSend:
      return settle_queue(record, message, fd, context);
    case Round::kEnd:
      return settle_end(record, message, fd, context);
  }
  return {};
}

}  // namespace stasis::resource

#include "resource/socket/unix_socket.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "kernel/proc.h"
#include "resource/payload.h"
#include "resource/refusal.h"
#include "resource/reopen.h"
#include "resource/socket/options.h"
#include "resource/socket/queue.h"
#include "resource/socket/socket.h"
#include "resource/socket/unix_diag.h"
#include "resource/socket/unix_name.h"
#include "schema/kinds/socket.pb.h"

namespace stasis::resource {
namespace {

using schema::UnixSocket;

// Unix sockets of the tree by inode.
const OpenFile* find_by_inode(const Observation& tree, uint32_t inode) {
  const auto& sockets = tree.index("sockets: inode", [](const OpenFile& file) {
    return is_socket(file) ? std::to_string(static_cast<uint32_t>(file.status.st_ino)) : std::string();
  });
  auto entry = sockets.find(std::to_string(inode));
  return entry == sockets.end() ? nullptr : entry->second;
}

short poll_state(int fd) {
  pollfd state = {fd, POLLRDHUP, 0};
  return poll(&state, 1, 0) < 0 ? static_cast<short>(0) : state.revents;
}

void set_credentials(const ucred& who, NsTid pid, UnixSocket& message) {
  auto* credentials = message.mutable_credentials();
  credentials->set_pid(pid.value);
  credentials->set_user(who.uid);
  credentials->set_group(who.gid);
}

// Who made the other end, or, of a listener, who listens: the kernel notes it once, and shows it by
// SO_PEERCRED.
void observe_credentials(const OpenFile& file, const Observation& tree, UnixSocket& message) {
  ucred who = {};
  socklen_t length = sizeof who;
  if (getsockopt(file.duplicate.get(), SOL_SOCKET, SO_PEERCRED, &who, &length) < 0) return;
  if (who.pid == 0 && who.uid == static_cast<uid_t>(-1)) return;  // nobody yet
  set_credentials(who, tree.peer_process(file), message);
}

Actor actor_of(const UnixSocket& message) {
  const auto& credentials = message.credentials();
  return {NsTid{credentials.pid()}, credentials.user(), credentials.group()};
}

// The listener that has a client in its queue.
const OpenFile* find_waiting_for(const OpenFile& client, const Observation& tree) {
  const auto& listeners = tree.index("sockets: listeners", [](const OpenFile& file) {
    bool listens = is_socket(file) && socket_option(file.duplicate.get(), SOL_SOCKET, SO_DOMAIN) == AF_UNIX &&
                   socket_option(file.duplicate.get(), SOL_SOCKET, SO_ACCEPTCONN) == 1;
    return listens ? std::string("any") : std::string();
  });
  for (const auto& [key, listener] : listeners) {
    auto diag = unix_diag(listener->status.st_ino);
    if (!diag.ok()) continue;
    const auto& clients = diag->waiting_clients;
    if (std::find(clients.begin(), clients.end(), static_cast<uint32_t>(client.status.st_ino)) !=
        clients.end())
      return listener;
  }
  return nullptr;
}

// A connection that nobody has accepted has a socket at its far end that nobody has a descriptor of: what it
// has received can be read by nobody, except by accepting the connection, which cannot be taken back.
Result<void> refuse_unread(const OpenFile& listener, const OpenFile& client) {
  int unread = 0;
  if (ioctl(client.duplicate.get(), SIOCOUTQ, &unread) < 0) return cannot_observe(client, "SIOCOUTQ");
  if (unread == 0) return {};
  return refusal_for_now(
      client,
      fmt::format("it has sent something by a connection that {} has not accepted yet", listener.describe()),
      "try again when the connection has been accepted");
}

Result<void> observe_waiting(const OpenFile& file, const UnixDiag& diag, Observation& tree,
                             UnixSocket& message) {
  size_t outside = 0;
  for (uint32_t inode : diag.waiting_clients) {
    if (inode == 0) {
      return refusal_for_now(file,
                             "a client has connected and ended, and what it has sent cannot be looked at",
                             "try again when the connection has been accepted");
    }
    const OpenFile* client = find_by_inode(tree, inode);
    if (!client) {
      ++outside;
      continue;
    }
    STASIS_CHECK(refuse_unread(file, *client));
    message.add_waiting(client->id);
  }
  if (outside > 0) {
    tree.warn(
        fmt::format("{}: {} connections from outside the session that were not accepted yet are closed by a "
                    "restart",
                    file.describe(), outside));
  }
  return {};
}

// Both ends of a connection that is in the tree know each other; anything else counts as closed at the far
// end.
void observe_connection(const OpenFile& file, const UnixDiag& diag, Observation& tree, UnixSocket& message) {
  const OpenFile* peer = *diag.peer != 0 ? find_by_inode(tree, *diag.peer) : nullptr;
  if (peer) {
    message.set_state(UnixSocket::CONNECTED);
    message.set_peer(peer->id);
    return;
  }
  // An inode of 0 is a socket without a file: closed, or waiting in a listener's backlog to be accepted.
  // Closing sets both directions down, which poll() shows as a hangup.
  short state = poll_state(file.duplicate.get());
  bool closed = *diag.peer == 0 && (state & POLLHUP) != 0;
  if (const OpenFile* listener = closed || *diag.peer != 0 ? nullptr : find_waiting_for(file, tree)) {
    message.set_state(UnixSocket::WAITING);
    message.set_peer(listener->id);
    ucred who = {};
    if (auto status = kernel::read_status(file.task); status.ok()) {
      who.uid = status->uids[1];
      who.gid = status->gids[1];
    }
    set_credentials(who, file.pid, message);
    return;
  }
  message.set_state(UnixSocket::CLOSED_BY_PEER);
  if (closed) {
    message.set_reset(state & POLLERR);
    return;
  }
  std::string name = unix_name(message.peer_address());
  tree.warn(
      fmt::format("{}: the other end{} is outside the session{}; after a restart the connection is closed",
                  file.describe(), name.empty() ? "" : " (" + name + ")",
                  *diag.peer == 0 ? ", and has not accepted the connection yet" : ""));
}

// Datagrams have no connection, only a default address.
Result<void> observe_datagram_peer(const OpenFile& file, const UnixDiag& diag, Observation& tree,
                                   UnixSocket& message) {
  const OpenFile* peer = *diag.peer != 0 ? find_by_inode(tree, *diag.peer) : nullptr;
  message.set_state(UnixSocket::CONNECTED);
  if (peer) {
    message.set_peer(peer->id);
  } else if (message.peer_address().size() <= sizeof(sa_family_t)) {
    message.set_state(UnixSocket::CLOSED_BY_PEER);
    if (*diag.peer != 0) {
      tree.warn(
          fmt::format("{}: the other end of the pair is outside the session; after a restart it is closed",
                      file.describe()));
    }
  }
  return {};
}

Result<void> observe_queue(const OpenFile& file, UnixSocket& message) {
  if (message.type() == SOCK_STREAM) {
    STASIS_TRY(std::string data, peek_stream(file));
    if (!data.empty()) message.add_queue()->set_data(std::move(data));
    return {};
  }
  STASIS_TRY(auto messages, peek_messages(file));
  for (std::string& data : messages) message.add_queue()->set_data(std::move(data));
  return {};
}

// What every way of making a socket has in common.
Result<void> complete(const Record& record, int fd, const UnixSocket& message) {
  STASIS_CHECK(apply_options(record, fd, message.options(), OptionStage::kBeforeBind));
  STASIS_CHECK(apply_options(record, fd, message.options(), OptionStage::kMade));
  return set_status_flags(fd, record.flags);
}

struct Pair {
  Fd one, other;
};

Result<Pair> new_pair(const Record& record, int type) {
  int ends[2];
  if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) < 0) return cannot_make(record, "socketpair");
  return Pair{Fd(ends[0]), Fd(ends[1])};
}

// Who sends the messages again that a socket had received: the other end of a pair, or a stranger to its
// name.
Result<void> fill_queue(const Record& record, const UnixSocket& message, int sender) {
  for (const auto& queued : message.queue()) {
    STASIS_CHECK(message.type() == SOCK_STREAM ? send_stream(record, sender, queued.data())
                                               : send_message(record, sender, queued.data()));
  }
  return {};
}

// The listener that an accepted socket came from has the same name.
const Record* find_listener(const Making& context, const UnixSocket& accepted, UnixSocket& listener) {
  if (accepted.address().empty()) return nullptr;
  for (const Record& other : context.records()) {
    if (other.kind != UnixSocketKind().info().name || !listener.ParseFromString(other.payload)) continue;
    if (listener.state() == UnixSocket::LISTENING && listener.type() == accepted.type() &&
        listener.address() == accepted.address() && !listener.name_removed()) {
      return &other;
    }
  }
  return nullptr;
}

// Connecting to the restored listener gives both ends the names that they had. Anybody may connect in
// between: those are let go.
Result<Fd> accept_ourselves(const Record& record, int listener, int client,
                            const UnixSocket& listener_message) {
  if (connect_unix(client, listener_message) < 0) return cannot_make(record, "connect");
  for (;;) {
    Fd accepted(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
    if (!accepted) return cannot_make(record, "accept");
    ucred who = {};
    socklen_t length = sizeof who;
    if (getsockopt(accepted.get(), SOL_SOCKET, SO_PEERCRED, &who, &length) == 0 && who.pid == getpid()) {
      return accepted;
    }
  }
}

// One end of a connection while it is made again.
struct End {
  const Record* record = nullptr;
  UnixSocket message;
  int number = -1;  // where it is to be
};

Result<void> put(const End& end, const Fd& fd) {
  STASIS_CHECK(complete(*end.record, fd.get(), end.message));
  // Whatever stood there keeps the place for it.
  if (dup3(fd.get(), end.number, O_CLOEXEC) < 0) return cannot_make(*end.record, "dup3");
  return {};
}

bool is_mutual(const Record& record, const UnixSocket& message, const Making& context);

// The queue first, then the directions that were shut down: nothing can be sent in them afterwards.
Result<void> finish_pair(const End& one, const End& other) {
  STASIS_CHECK(fill_queue(*one.record, one.message, other.number));
  STASIS_CHECK(fill_queue(*other.record, other.message, one.number));
  for (const End* end : {&one, &other}) {
    if (end->message.cannot_read() && shutdown(end->number, SHUT_RD) < 0 && errno != ENOTCONN)
      return cannot_make(*end->record, "shutdown");
  }
  for (const End* end : {&one, &other})
    STASIS_CHECK(apply_options(*end->record, end->number, end->message.options(), OptionStage::kFilled));
  return {};
}

// By way of `listener`, if there is one, from which `one` was accepted.
Result<void> connect_again(const End& one, const End& other, const std::optional<End>& listener) {
  Pair pair;
  if (listener) {
    STASIS_TRY(pair.other, new_socket(*other.record, AF_UNIX, other.message.type(), 0));
    STASIS_TRY(pair.one,
               accept_ourselves(*one.record, listener->number, pair.other.get(), listener->message));
  } else {
    STASIS_TRY(pair, new_pair(*one.record, one.message.type()));
  }
  STASIS_CHECK(put(one, pair.one));
  STASIS_CHECK(put(other, pair.other));
  pair = {};
  return finish_pair(one, other);
}

Result<void> settle_connected(End one, Making& context) {
  const Record* peer = context.record(one.message.peer());
  if (!peer) return cannot_make(*one.record, "the other end is missing in the image", EINVAL);
  // Once for both.
  if (is_mutual(*one.record, one.message, context) && peer->id < one.record->id) return {};
  End other{peer, {}, -1};
  STASIS_TRY(other.message, unpack<UnixSocket>(*peer));
  STASIS_TRY(other.number, context.description(peer->id));
  std::optional<End> listener;
  if (one.message.type() != SOCK_DGRAM) {
    for (int turn = 0; turn < 2 && !listener; ++turn) {
      if (turn > 0) std::swap(one, other);
      End found;
      found.record = find_listener(context, one.message, found.message);
      if (!found.record) continue;
      STASIS_TRY(found.number, context.description(found.record->id));
      listener = std::move(found);
    }
    // Without one, the end that has a name is the server's, which shows who the client is.
    if (!listener && one.message.address().empty() && !other.message.address().empty()) std::swap(one, other);
  }
  Actor actor = actor_of(one.message);
  context.as(actor, [one = std::move(one), other = std::move(other), listener = std::move(listener)] {
    return connect_again(one, other, listener);
  });
  return {};
}

Result<void> make_closed(const End& end) {
  STASIS_TRY(Pair pair, new_pair(*end.record, end.message.type()));
  STASIS_CHECK(put(end, pair.one));
  pair.one = {};
  STASIS_CHECK(fill_queue(*end.record, end.message, pair.other.get()));
  // Data that is left behind unread makes the kernel report a reset to us.
  if (end.message.reset() && send(end.number, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
    return cannot_make(*end.record, "send");
  pair.other = {};
  if (end.message.cannot_read() && shutdown(end.number, SHUT_RD) < 0 && errno != ENOTCONN)
    return cannot_make(*end.record, "shutdown");
  if (end.message.cannot_write()) shutdown(end.number, SHUT_WR);
  return apply_options(*end.record, end.number, end.message.options(), OptionStage::kFilled);
}

Result<void> connect_waiting(const End& client, const UnixSocket& listener) {
  // Somebody else may have filled the queue by now.
  int flags = fcntl(client.number, F_GETFL);
  fcntl(client.number, F_SETFL, flags | O_NONBLOCK);
  int connected = connect_unix(client.number, listener);
  int error = errno;
  fcntl(client.number, F_SETFL, flags);
  if (connected < 0) return cannot_make(*client.record, "connect", error);
  if (client.message.cannot_read()) shutdown(client.number, SHUT_RD);
  if (client.message.cannot_write()) shutdown(client.number, SHUT_WR);
  return {};
}

Result<void> settle_waiting(const Record& record, const UnixSocket& listener, Making& context) {
  for (uint32_t id : listener.waiting()) {
    End client{context.record(id), {}, -1};
    if (!client.record) return cannot_make(record, "a client is missing in the image", EINVAL);
    STASIS_TRY(client.message, unpack<UnixSocket>(*client.record));
    if (client.message.state() != UnixSocket::WAITING || client.message.peer() != record.id)
      return cannot_make(*client.record, "it does not wait for this listener", EINVAL);
    STASIS_TRY(client.number, context.description(id));
    Actor actor = actor_of(client.message);
    context.as(actor, [client = std::move(client), listener] { return connect_waiting(client, listener); });
  }
  return {};
}

bool is_mutual(const Record& record, const UnixSocket& message, const Making& context) {
  const Record* peer = context.record(message.peer());
  if (!peer) return false;
  auto theirs = unpack<UnixSocket>(*peer);
  return theirs.ok() && theirs->state() == UnixSocket::CONNECTED && theirs->peer() == record.id;
}

Result<Fd> make_single(const Record& record, const UnixSocket& message) {
  STASIS_TRY(Fd fd, new_socket(record, AF_UNIX, message.type(), 0));
  STASIS_CHECK(complete(record, fd.get(), message));
  STASIS_CHECK(bind_unix(record, fd.get(), message));
  if (message.state() == UnixSocket::LISTENING && listen(fd.get(), static_cast<int>(message.backlog())) < 0) {
    return cannot_make(record, "listen");
  }
  return fd;
}

// A service outside that is gone now would be gone for the program, too: it sees that when it sends.
Result<void> connect_datagrams(const Record& record, int fd, const UnixSocket& message,
                               const Making& context) {
  UnixSocket target;
  if (const Record* peer = context.record(message.peer()); peer && target.ParseFromString(peer->payload)) {
    if (connect_unix(fd, target) < 0 && !target.name_removed()) return cannot_make(record, "connect");
    return {};
  }
  connect_to(fd, message.peer_address());
  return {};
}

}  // namespace

KindInfo UnixSocketKind::info() const {
  return {
      "unix-socket", "Sockets",
      "unix sockets: pairs, connections, listeners, datagrams; names, options, content, shut-down directions",
      Support::kPartial,
      "a connection that leaves the session is closed as by its peer; descriptors in flight are refused, and "
      "data that came by a connection that was not accepted yet"};
}

bool UnixSocketKind::recognises(const OpenFile& file, const Observation&) const {
  return is_socket(file) && socket_option(file.duplicate.get(), SOL_SOCKET, SO_DOMAIN) == AF_UNIX;
}

Result<std::string> UnixSocketKind::observe(const OpenFile& file, Observation& tree) const {
  int fd = file.duplicate.get();
  auto diag = unix_diag(file.status.st_ino);
  if (!diag.ok()) {
    return refusal(
        file, diag.error().cause,
        "the kernel must have sock_diag for unix sockets, and the socket must be in this network namespace");
  }
  UnixSocket message;
  message.set_type(socket_option(fd, SOL_SOCKET, SO_TYPE));
  message.set_peer_address(peer_address(fd));
  message.set_cannot_read(diag->cannot_read);
  message.set_cannot_write(diag->cannot_write);
  observe_unix_name(file, *diag, message);
  STASIS_CHECK(observe_options(file, *message.mutable_options()));

  if (diag->listening) {
    message.set_state(UnixSocket::LISTENING);
    message.set_backlog(diag->backlog);
    observe_credentials(file, tree, message);
    STASIS_CHECK(observe_waiting(file, *diag, tree, message));
    return pack(message);
  }
  if (diag->peer && message.type() == SOCK_DGRAM) {
    STASIS_CHECK(observe_datagram_peer(file, *diag, tree, message));
  } else if (diag->peer) {
    observe_connection(file, *diag, tree, message);
  }
  if (diag->peer && message.state() != UnixSocket::WAITING) observe_credentials(file, tree, message);
  STASIS_CHECK(observe_queue(file, message));
  return pack(message);
}

// A pair and a connection are made when processes can have numbers; until then a socket keeps the place.
// Several datagram sockets can be connected to one; only two that are connected to each other are a pair.
bool is_made_later(const Record& record, const UnixSocket& message, const Making& context) {
  if (message.state() == UnixSocket::CLOSED_BY_PEER) return true;
  return message.state() == UnixSocket::CONNECTED &&
         (message.type() != SOCK_DGRAM || is_mutual(record, message, context));
}

Result<Fd> UnixSocketKind::make(const Record& record, Making& context) const {
  STASIS_TRY(auto message, unpack<UnixSocket>(record));
  if (is_made_later(record, message, context)) return new_socket(record, AF_UNIX, message.type(), 0);
  return make_single(record, message);
}

Result<void> UnixSocketKind::fill(const Record& record, int fd, Making& context) const {
  STASIS_TRY(auto message, unpack<UnixSocket>(record));
  if (is_made_later(record, message, context)) return {};
  if (message.queue_size() > 0 && !message.address().empty() && !message.name_removed()) {
    STASIS_TRY(Fd stranger, new_socket(record, AF_UNIX, message.type(), 0));
    if (connect_unix(stranger.get(), message) < 0) return cannot_make(record, "connect");
    STASIS_CHECK(fill_queue(record, message, stranger.get()));
  }
  if (message.state() == UnixSocket::CONNECTED) STASIS_CHECK(connect_datagrams(record, fd, message, context));
  if (message.state() != UnixSocket::LISTENING && message.state() != UnixSocket::WAITING) {
    if (message.cannot_read() && shutdown(fd, SHUT_RD) < 0 && errno != ENOTCONN)
      return cannot_make(record, "shutdown");
    if (message.cannot_write()) shutdown(fd, SHUT_WR);
  }
  return apply_options(record, fd, message.options(), OptionStage::kFilled);
}

Result<void> UnixSocketKind::settle(const Record& record, int fd, Making& context, Round round) const {
  STASIS_TRY(auto message, unpack<UnixSocket>(record));
  switch (round) {
    case Round::kListen:
      if (message.state() != UnixSocket::LISTENING) return {};
      // Who listens is noted anew each time.
      context.as(actor_of(message),
                 [&record, fd, backlog = static_cast<int>(message.backlog())]() -> Result<void> {
                   if (listen(fd, backlog) < 0) return cannot_make(record, "listen");
                   return {};
                 });
      return {};
    case Round::kConnect: {
      if (!is_made_later(record, message, context)) return {};
      End end{&record, std::move(message), fd};
      if (end.message.state() == UnixSocket::CONNECTED) return settle_connected(std::move(end), context);
      Actor actor = actor_of(end.message);
      context.as(actor, [end = std::move(end)] { return make_closed(end); });
      return {};
    }
    case Round::kWait:
      return message.state() == UnixSocket::LISTENING ? settle_waiting(record, message, context)
                                                      : Result<void>();
  }
  return {};
}

std::string UnixSocketKind::summary(const Record& record) const {
  auto message = unpack<UnixSocket>(record);
  if (!message.ok()) return {};
  size_t bytes = 0;
  for (const auto& queued : message->queue()) bytes += queued.data().size();
  std::string text = message->type() == SOCK_STREAM  ? "stream"
                     : message->type() == SOCK_DGRAM ? "datagram"
                                                     : "packets";
  switch (message->state()) {
    case UnixSocket::LISTENING:
      text += ", listening";
      break;
    case UnixSocket::CONNECTED:
      text += fmt::format(", connected to description {}", message->peer());
      break;
    case UnixSocket::CLOSED_BY_PEER:
      text += ", other end closed";
      break;
    case UnixSocket::WAITING:
      text += fmt::format(", waits to be accepted by description {}", message->peer());
      break;
    default:
      break;
  }
  if (!message->address().empty()) text += ", " + unix_name(message->address());
  if (bytes > 0) text += fmt::format(", {} bytes unread", bytes);
  return text;
}

}  // namespace stasis::resource

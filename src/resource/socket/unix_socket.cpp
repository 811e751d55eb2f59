#include "resource/socket/unix_socket.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

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

std::string other_end_key(const Record& record) { return fmt::format("unix: other end of {}", record.id); }

short poll_state(int fd) {
  pollfd state = {fd, POLLRDHUP, 0};
  return poll(&state, 1, 0) < 0 ? static_cast<short>(0) : state.revents;
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
  message.set_state(UnixSocket::CLOSED_BY_PEER);
  // An inode of 0 is a socket without a file: closed, or waiting in a listener's backlog to be accepted.
  // Closing sets both directions down, which poll() shows as a hangup.
  short state = poll_state(file.duplicate.get());
  if (*diag.peer == 0 && state & POLLHUP) {
    message.set_reset(state & POLLERR);
    return;
  }
  std::string name = unix_name(message.peer_address());
  tree.warn(
      fmt::format("{}: the other end{} is outside the session{}; after a restart the connection is closed",
                  file.describe(), name.empty() ? "" : " (" + name + ")",
                  *diag.peer == 0 ? ", or has not accepted the connection yet" : ""));
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

Result<Pair> connected_pair(const Record& record, const UnixSocket& message, const UnixSocket& peer,
                            Making& context) {
  if (message.type() != SOCK_DGRAM) {
    UnixSocket listener;
    for (bool server_first : {true, false}) {
      const Record* found = find_listener(context, server_first ? message : peer, listener);
      if (!found) continue;
      STASIS_TRY(int listening, context.description(found->id));
      STASIS_TRY(Fd client, new_socket(record, AF_UNIX, message.type(), 0));
      auto accepted = accept_ourselves(record, listening, client.get(), listener);
      if (!accepted.ok()) return std::move(accepted).error();
      if (server_first) return Pair{std::move(*accepted), std::move(client)};
      return Pair{std::move(client), std::move(*accepted)};
    }
  }
  return new_pair(record, message.type());
}

Result<Fd> make_connected(const Record& record, const UnixSocket& message, Making& context) {
  const Record* peer = context.record(message.peer());
  if (!peer) return cannot_make(record, "the other end is missing in the image", EINVAL);
  STASIS_TRY(auto peer_message, unpack<UnixSocket>(*peer));
  STASIS_TRY(Pair pair, connected_pair(record, message, peer_message, context));
  STASIS_CHECK(complete(record, pair.one.get(), message));
  STASIS_CHECK(complete(*peer, pair.other.get(), peer_message));
  context.provide(peer->id, std::move(pair.other));
  return std::move(pair.one);
}

Result<Fd> make_closed(const Record& record, const UnixSocket& message, Making& context) {
  STASIS_TRY(Pair pair, new_pair(record, message.type()));
  STASIS_CHECK(complete(record, pair.one.get(), message));
  // The other end is closed when the queue is filled.
  context.shared_objects()[other_end_key(record)] = std::move(pair.other);
  return std::move(pair.one);
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

// Who sends the messages again that a socket had received: the other end of a pair, or a stranger to its
// name.
Result<void> fill_queue(const Record& record, const UnixSocket& message, int sender) {
  for (const auto& queued : message.queue()) {
    STASIS_CHECK(message.type() == SOCK_STREAM ? send_stream(record, sender, queued.data())
                                               : send_message(record, sender, queued.data()));
  }
  return {};
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
      "a connection that leaves the session is closed as by its peer; descriptors in flight are refused; "
      "SO_PEERCRED shows the restart, and connections that were not accepted yet are closed"};
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
    if (diag->waiting > 0) {
      tree.warn(fmt::format("{}: {} connections that were not accepted yet are closed by a restart",
                            file.describe(), diag->waiting));
    }
    return pack(message);
  }
  if (diag->peer && message.type() == SOCK_DGRAM) {
    STASIS_CHECK(observe_datagram_peer(file, *diag, tree, message));
  } else if (diag->peer) {
    observe_connection(file, *diag, tree, message);
  }
  STASIS_CHECK(observe_queue(file, message));
  return pack(message);
}

Result<Fd> UnixSocketKind::make(const Record& record, Making& context) const {
  STASIS_TRY(auto message, unpack<UnixSocket>(record));
  switch (message.state()) {
    case UnixSocket::CLOSED_BY_PEER:
      return make_closed(record, message, context);
    case UnixSocket::CONNECTED:
      // Several datagram sockets can be connected to one; only two that are connected to each other are a
      // pair.
      if (message.type() == SOCK_DGRAM && !is_mutual(record, message, context))
        return make_single(record, message);
      return make_connected(record, message, context);
    default:
      return make_single(record, message);
  }
}

// The queue first, then the directions that were shut down: nothing can be sent in them afterwards.
Result<void> UnixSocketKind::fill(const Record& record, int fd, Making& context) const {
  STASIS_TRY(auto message, unpack<UnixSocket>(record));
  bool paired = message.state() == UnixSocket::CONNECTED && is_mutual(record, message, context);
  if (message.state() == UnixSocket::CLOSED_BY_PEER) {
    Fd other = std::move(context.shared_objects()[other_end_key(record)]);
    STASIS_CHECK(fill_queue(record, message, other.get()));
    // Data that is left behind unread makes the kernel report a reset to us.
    if (message.reset() && send(fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
      return cannot_make(record, "send");
  } else if (paired) {
    STASIS_TRY(int other, context.description(message.peer()));
    STASIS_CHECK(fill_queue(record, message, other));
  } else if (message.queue_size() > 0 && !message.address().empty() && !message.name_removed()) {
    STASIS_TRY(Fd stranger, new_socket(record, AF_UNIX, message.type(), 0));
    if (connect_unix(stranger.get(), message) < 0) return cannot_make(record, "connect");
    STASIS_CHECK(fill_queue(record, message, stranger.get()));
  }
  if (message.state() == UnixSocket::CONNECTED && !paired)
    STASIS_CHECK(connect_datagrams(record, fd, message, context));
  if (message.state() != UnixSocket::LISTENING) {
    if (message.cannot_read() && shutdown(fd, SHUT_RD) < 0 && errno != ENOTCONN)
      return cannot_make(record, "shutdown");
    if (!paired && message.cannot_write()) shutdown(fd, SHUT_WR);
  }
  return apply_options(record, fd, message.options(), OptionStage::kFilled);
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
    default:
      break;
  }
  if (!message->address().empty()) text += ", " + unix_name(message->address());
  if (bytes > 0) text += fmt::format(", {} bytes unread", bytes);
  return text;
}

}  // namespace stasis::resource

#include "resource/socket/unix_socket.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "kernel/network_view.h"
#include "kernel/proc.h"
#include "resource/payload.h"
#include "resource/refusal.h"
#include "resource/socket/options.h"
#include "resource/socket/queue.h"
#include "resource/socket/socket.h"
#include "resource/socket/unix_diag.h"
#include "resource/socket/unix_name.h"
#include "resource/socket/unix_restore.h"
#include "schema/kinds/socket.pb.h"

namespace stasis::resource {
namespace {

using schema::UnixSocket;

// Unix sockets of the tree by inode.
const Observation::Index& sockets_by_inode(const Observation& tree) {
  return tree.index("sockets: inode", [](const OpenFile& file) {
    return is_socket(file) ? std::to_string(static_cast<uint32_t>(file.status.st_ino)) : std::string();
  });
}

const OpenFile* find_by_inode(const Observation& tree, uint32_t inode) {
  const auto& sockets = sockets_by_inode(tree);
  auto entry = sockets.find(std::to_string(inode));
  return entry == sockets.end() ? nullptr : entry->second;
}

// Nothing of it changes while the tree stands still, but what others do at their ends.
Result<UnixDiag> diag_of(const OpenFile& socket, const Observation& tree) {
  constexpr size_t kFew = 32;
  const ino_t inode = socket.status.st_ino;
  if (sockets_by_inode(tree).size() <= kFew) return unix_diag(inode);
  std::any& known = tree.memory(fmt::format("unix sockets of network {}", kernel::network_view()));
  if (!known.has_value()) {
    auto all = all_unix_diags();
    known = all.ok() ? std::move(*all) : UnixDiags();
  }
  const auto& all = std::any_cast<const UnixDiags&>(known);
  const auto found = all.find(static_cast<uint32_t>(inode));
  return found != all.end() ? found->second : unix_diag(inode);
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

// The listener that has a client in its queue.
const OpenFile* find_waiting_for(const OpenFile& client, const Observation& tree) {
  const auto& listeners = tree.index("sockets: listeners", [](const OpenFile& file) {
    bool listens = is_socket(file) && socket_option(file.duplicate.get(), SOL_SOCKET, SO_DOMAIN) == AF_UNIX &&
                   socket_option(file.duplicate.get(), SOL_SOCKET, SO_ACCEPTCONN) == 1;
    return listens ? std::string("any") : std::string();
  });
  for (const auto& [key, listener] : listeners) {
    auto diag = diag_of(*listener, tree);
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

Result<void> observe_queue(const OpenFile& file, const Observation& tree, UnixSocket& message) {
  STASIS_TRY(auto queue, peek_queue(file));
  for (const Queued& queued : *queue) {
    auto* out = message.add_queue();
    out->set_data(queued.data);
    for (const Fd& fd : queued.descriptors) {
      const OpenFile* description = tree.description_of(fd.get());
      if (!description) {
        return refusal_for_now(file, "descriptors are in flight in it (SCM_RIGHTS)",
                               "try again when the program has received them");
      }
      out->add_descriptions(description->id);
    }
    if (queued.sender) {
      out->mutable_sender()->set_pid(tree.session_task(HostTid{queued.sender->pid}).value);
      out->mutable_sender()->set_user(queued.sender->uid);
      out->mutable_sender()->set_group(queued.sender->gid);
    }
    if (message.type() == SOCK_DGRAM) out->set_sender_address(queued.address);
  }
  return {};
}

}  // namespace

KindInfo UnixSocketKind::info() const {
  return {
      "unix-socket", "Sockets",
      "unix sockets: pairs, connections, listeners, datagrams; names, options, content with descriptors and "
      "credentials, shut-down directions",
      Support::kPartial,
      "a connection that leaves the session is closed as by its peer; data that came by a connection that "
      "was "
      "not accepted yet is refused"};
}

bool UnixSocketKind::recognises(const OpenFile& file, const Observation&) const {
  return is_socket(file) && socket_option(file.duplicate.get(), SOL_SOCKET, SO_DOMAIN) == AF_UNIX;
}

Result<std::string> UnixSocketKind::observe(const OpenFile& file, Observation& tree) const {
  int fd = file.duplicate.get();
  auto diag = diag_of(file, tree);
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
  STASIS_CHECK(observe_queue(file, tree, message));
  return pack(message);
}

Result<Fd> UnixSocketKind::make(const Record& record, Making& context) const {
  return make_unix_socket(record, context);
}

Result<void> UnixSocketKind::settle(const Record& record, int fd, Making& context, Round round) const {
  return settle_unix_socket(record, fd, context, round);
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

Result<void> UnixSocketKind::relocate(Record& record, const Place& place) const {
  STASIS_TRY(auto message, unpack<schema::UnixSocket>(record));
  STASIS_TRY(*message.mutable_address(), relocated(message.address(), place));
  STASIS_TRY(*message.mutable_peer_address(), relocated(message.peer_address(), place));
  for (auto& queued : *message.mutable_queue()) {
    STASIS_TRY(*queued.mutable_sender_address(), relocated(queued.sender_address(), place));
  }
  message.set_directory(place(message.directory()));
  record.payload = pack(message);
  return {};
}

}  // namespace stasis::resource

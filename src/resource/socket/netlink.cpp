#include "resource/socket/netlink.h"

#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <sstream>

#include "resource/payload.h"
#include "resource/refusal.h"
#include "resource/reopen.h"
#include "resource/socket/options.h"
#include "resource/socket/socket.h"
#include "schema/kinds/socket.pb.h"

namespace stasis::resource {
namespace {

constexpr size_t kMostGroups = 65536;  // generic netlink, which has the most, counts some hundred

sockaddr_nl parse(const std::string& bytes) {
  sockaddr_nl address = {};
  memcpy(&address, bytes.data(), std::min(bytes.size(), sizeof address));
  return address;
}

// Every socket has a peer for getpeername(): the kernel, unless connect() named another.
bool is_kernel(const sockaddr_nl& peer) { return peer.nl_pid == 0 && peer.nl_groups == 0; }

uint32_t port_of(int fd) { return parse(local_address(fd)).nl_pid; }

// With its groups, which a bind() without them would leave.
int bind_port(int fd, uint32_t port) {
  sockaddr_nl address = parse(local_address(fd));
  address.nl_pid = port;
  return ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
}

int join(int fd, uint32_t group) {
  return setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group);
}

Result<std::vector<uint32_t>> groups_of(const OpenFile& file) {
  std::vector<uint32_t> words(kMostGroups / 32);
  auto length = static_cast<socklen_t>(words.size() * sizeof(uint32_t));
  if (getsockopt(file.duplicate.get(), SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, words.data(), &length) < 0)
    return cannot_observe(file, "NETLINK_LIST_MEMBERSHIPS");
  if (length > words.size() * sizeof(uint32_t)) return refusal(file, "it has too many multicast groups");
  std::vector<uint32_t> groups;
  for (uint32_t bit = 0; bit < length * 8; ++bit) {
    if (words[bit / 32] >> (bit % 32) & 1) groups.push_back(bit + 1);
  }
  return groups;
}

// The Dump column of "sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode".
bool dump_is_running(const OpenFile& file) {
  auto text = read_file(fmt::format("/proc/{}/net/netlink", file.task));
  if (!text.ok()) return false;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string socket, protocol, port, groups, received, sent, dump, locks, drops, inode;
    words >> socket >> protocol >> port >> groups >> received >> sent >> dump >> locks >> drops >> inode;
    if (inode == std::to_string(file.status.st_ino)) return dump != "0";
  }
  return false;
}

bool has_messages(int fd) {
  std::array<uint32_t, SK_MEMINFO_VARS> memory = {};
  socklen_t length = sizeof memory;
  if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory.data(), &length) < 0) return true;
  return memory[SK_MEMINFO_RMEM_ALLOC] != 0;
}

// An error that waits would be taken away by a look into the queue.
bool has_error(int fd) {
  pollfd state = {fd, 0, 0};
  return poll(&state, 1, 0) == 1 && (state.revents & POLLERR);
}

// Whether the first message came by multicast; netlink has no SO_PEEK_OFF to see the others. No more than the
// header is asked for: the kernel makes the parts of a dump as large as the largest buffer it was ever given.
Result<bool> first_is_multicast(const OpenFile& file, const schema::NetlinkSocket& message) {
  nlmsghdr header = {};
  iovec vector = {&header, sizeof header};
  sockaddr_nl sender = {};
  alignas(cmsghdr) std::array<char, 256> control;
  msghdr peeked = {};
  peeked.msg_name = &sender;
  peeked.msg_namelen = sizeof sender;
  peeked.msg_iov = &vector;
  peeked.msg_iovlen = 1;
  peeked.msg_control = control.data();
  peeked.msg_controllen = control.size();
  ssize_t count = recvmsg(file.duplicate.get(), &peeked, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (count < 0 && errno == EAGAIN) return true;
  if (count < 0) return cannot_observe(file, "look into the queue");
  bool multicast = sender.nl_groups != 0;
  for (cmsghdr* entry = CMSG_FIRSTHDR(&peeked); entry; entry = CMSG_NXTHDR(&peeked, entry)) {
    if (entry->cmsg_level == SOL_NETLINK && entry->cmsg_type == NETLINK_PKTINFO) {
      nl_pktinfo info = {};
      memcpy(&info, CMSG_DATA(entry), sizeof info);
      return info.group != 0;
    }
  }
  // The mask has no bit for a group above 32; but an answer is addressed to us.
  bool high_groups = !message.groups().empty() && *message.groups().rbegin() > 32;
  return multicast || (high_groups && sender.nl_pid == 0 && header.nlmsg_pid != message.port());
}

Result<void> observe_queue(const OpenFile& file, const schema::NetlinkSocket& message, Observation& tree) {
  const char* hint = "try again when the program has read them";
  if (dump_is_running(file))
    return refusal_for_now(file, "answers of the kernel are on their way to it", hint);
  bool error = has_error(file.duplicate.get());
  if (!error && !has_messages(file.duplicate.get())) return {};
  bool only_events = message.protocol() == NETLINK_KOBJECT_UEVENT;
  if (!only_events) {
    if (error) return refusal_for_now(file, "an error waits in it (messages to it were lost)", hint);
    STASIS_TRY(bool multicast, first_is_multicast(file, message));
    if (!multicast) return refusal_for_now(file, "answers wait in its queue", hint);
  }
  tree.warn(fmt::format("{}: events that it has not read yet are lost in a restart", file.describe()));
  return {};
}

std::string lacks(std::string_view what, int error) {
  return fmt::format("{} could not be restored here: {}", what, strerror(error));
}

// Does on another socket what a restart will have to do, as far as it may need privileges.
Result<void> rehearse(const OpenFile& file, const schema::NetlinkSocket& message) {
  const char* hint = "run stasis as root";
  Fd fd(::socket(AF_NETLINK, message.type() | SOCK_CLOEXEC, message.protocol()));
  if (!fd) return refusal(file, lacks("the socket", errno), hint);
  for (uint32_t group : message.groups()) {
    if (join(fd.get(), group) < 0)
      return refusal(file, lacks(fmt::format("membership of its multicast group {}", group), errno), hint);
  }
  int on = 1;
  if (socket_option(file.duplicate.get(), SOL_NETLINK, NETLINK_LISTEN_ALL_NSID) == 1 &&
      setsockopt(fd.get(), SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, &on, sizeof on) < 0) {
    return refusal(file, lacks("NETLINK_LISTEN_ALL_NSID", errno), hint);
  }
  if (!message.peer_address().empty() && connect_to(fd.get(), message.peer_address()) < 0)
    return refusal(file, lacks("its connection", errno), hint);
  return {};
}

// Not bound yet when its port id is taken. A bind() that failed leaves the port id behind for getsockname(),
// so that is then another socket.
Result<Fd> bound_socket(const Record& record, const schema::NetlinkSocket& message) {
  STASIS_TRY(Fd fd, new_socket(record, AF_NETLINK, message.type(), message.protocol()));
  if (message.port() == 0 || bind_port(fd.get(), message.port()) == 0) return fd;
  if (errno != EADDRINUSE) return cannot_make(record, fmt::format("bind to port id {}", message.port()));
  return new_socket(record, AF_NETLINK, message.type(), message.protocol());
}

constexpr std::pair<int, std::string_view> kNames[] = {
    {NETLINK_ROUTE, "route"},         {NETLINK_USERSOCK, "usersock"},     {NETLINK_SOCK_DIAG, "sock_diag"},
    {NETLINK_XFRM, "xfrm"},           {NETLINK_AUDIT, "audit"},           {NETLINK_CONNECTOR, "connector"},
    {NETLINK_NETFILTER, "netfilter"}, {NETLINK_KOBJECT_UEVENT, "uevent"}, {NETLINK_GENERIC, "generic"},
};

std::string name_of(int protocol) {
  for (const auto& [number, name] : kNames) {
    if (number == protocol) return std::string(name);
  }
  return fmt::format("protocol {}", protocol);
}

}  // namespace

KindInfo NetlinkKind::info() const {
  return {
      "netlink", "Sockets", "netlink sockets: port id, multicast groups, filter, options", Support::kPartial,
      "events that were not read yet are lost, with what waits behind them, as netlink itself loses them; "
      "a checkpoint is refused while answers wait to be read; a port id that is taken becomes another; "
      "numbers of generic netlink families and groups are those of the running kernel"};
}

bool NetlinkKind::recognises(const OpenFile& file, const Observation&) const {
  return is_socket(file) && socket_option(file.duplicate.get(), SOL_SOCKET, SO_DOMAIN) == AF_NETLINK;
}

Result<std::string> NetlinkKind::observe(const OpenFile& file, Observation& tree) const {
  int fd = file.duplicate.get();
  schema::NetlinkSocket message;
  message.set_type(socket_option(fd, SOL_SOCKET, SO_TYPE));
  message.set_protocol(socket_option(fd, SOL_SOCKET, SO_PROTOCOL));
  message.set_port(port_of(fd));
  STASIS_TRY(auto groups, groups_of(file));
  message.mutable_groups()->Add(groups.begin(), groups.end());
  std::string peer = peer_address(fd);
  if (!is_kernel(parse(peer))) message.set_peer_address(std::move(peer));
  STASIS_CHECK(observe_options(file, *message.mutable_options()));
  STASIS_CHECK(rehearse(file, message));
  STASIS_CHECK(observe_queue(file, message, tree));
  return pack(message);
}

Result<Fd> NetlinkKind::make(const Record& record, Making&) const {
  STASIS_TRY(auto message, unpack<schema::NetlinkSocket>(record));
  STASIS_TRY(Fd fd, bound_socket(record, message));
  // The filter and the sizes come before the groups: events begin to arrive with these.
  for (auto stage : {OptionStage::kBeforeBind, OptionStage::kMade, OptionStage::kFilled}) {
    STASIS_CHECK(apply_options(record, fd.get(), message.options(), stage));
  }
  for (uint32_t group : message.groups()) {
    if (join(fd.get(), group) < 0) {
      int error = errno;
      return cannot_make(record, fmt::format("join multicast group {}", group), error,
                         error == EPERM ? "only root may: restart as root" : "");
    }
  }
  STASIS_CHECK(set_status_flags(fd.get(), record.flags));
  return fd;
}

// A port id that is taken is replaced by one of the kernel's choice, when every other socket has its own. A
// program that is told nothing of it may go on: the kernel answers to whom it was asked by.
Result<void> NetlinkKind::fill(const Record& record, int fd, Making&) const {
  STASIS_TRY(auto message, unpack<schema::NetlinkSocket>(record));
  if (message.port() != 0 && port_of(fd) == 0 && bind_port(fd, 0) < 0)
    return cannot_make(record, "bind to any port id");
  if (!message.peer_address().empty() && connect_to(fd, message.peer_address()) < 0) {
    int error = errno;
    return cannot_make(record, "connect", error, error == EPERM ? "only root may: restart as root" : "");
  }
  return {};
}

std::string NetlinkKind::summary(const Record& record) const {
  auto message = unpack<schema::NetlinkSocket>(record);
  if (!message.ok()) return {};
  std::string text = name_of(message->protocol());
  text += message->port() == 0 ? ", unbound" : fmt::format(", port id {}", message->port());
  const char* separator = ", groups ";
  for (uint32_t group : message->groups()) {
    text += fmt::format("{}{}", separator, group);
    separator = " ";
  }
  return text;
}

}  // namespace stasis::resource

#include "resource/socket/options.h"

#include <linux/filter.h>
#include <linux/icmp.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "resource/refusal.h"
#include "resource/socket/socket.h"

// Newer than the C library's headers.
#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif

namespace stasis::resource {
namespace {

struct Option {
  int level;
  int name;
  OptionStage stage;
};

constexpr auto kBeforeBind = OptionStage::kBeforeBind;
constexpr auto kMade = OptionStage::kMade;
constexpr auto kFilled = OptionStage::kFilled;

// Newer than the C library's headers, or only in the kernel's.
constexpr int kUdpLite = 136, kSendCoverage = 10, kReceiveCoverage = 11;  // net/udplite.h of the kernel
constexpr int kLocalPortRange = 51, kIgnoreOutgoing = 23, kMulticastAllOfIpv6 = 29;
constexpr int kPreferBusyPoll = 69, kTransmitRehash = 74;

// In the order in which they are set. Buffer sizes are not here: see below.
constexpr Option kOptions[] = {
    {IPPROTO_IPV6, IPV6_TRANSPARENT, kBeforeBind},
    {IPPROTO_IPV6, IPV6_FREEBIND, kBeforeBind},
    {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, kBeforeBind},
    {IPPROTO_IP, kLocalPortRange, kBeforeBind},
    {IPPROTO_TCP, TCP_MAXSEG, kBeforeBind},
    {IPPROTO_UDP, UDP_NO_CHECK6_TX, kMade},
    {IPPROTO_UDP, UDP_NO_CHECK6_RX, kMade},
    {IPPROTO_UDP, UDP_SEGMENT, kMade},
    {IPPROTO_UDP, UDP_GRO, kMade},
    {kUdpLite, kSendCoverage, kMade},
    {kUdpLite, kReceiveCoverage, kMade},
    {IPPROTO_RAW, ICMP_FILTER, kMade},
    {IPPROTO_ICMPV6, ICMP6_FILTER, kMade},
    {IPPROTO_IP, IP_HDRINCL, kMade},
    {IPPROTO_IP, IP_NODEFRAG, kMade},
    {SOL_PACKET, PACKET_VERSION, kMade},
    {SOL_PACKET, PACKET_AUXDATA, kMade},
    {SOL_PACKET, PACKET_ORIGDEV, kMade},
    {SOL_PACKET, PACKET_VNET_HDR, kMade},
    {SOL_PACKET, PACKET_RESERVE, kMade},
    {SOL_PACKET, PACKET_LOSS, kMade},
    {SOL_PACKET, PACKET_TIMESTAMP, kMade},
    {SOL_PACKET, PACKET_QDISC_BYPASS, kMade},
    {SOL_PACKET, kIgnoreOutgoing, kMade},
    // While sockets of one port are made one after the other, all of them have SO_REUSEADDR; see tcp.cpp.
    {SOL_SOCKET, SO_REUSEADDR, kFilled},
    {SOL_SOCKET, SO_REUSEPORT, kBeforeBind},
    {SOL_SOCKET, SO_BINDTODEVICE, kBeforeBind},
    {IPPROTO_IPV6, IPV6_V6ONLY, kBeforeBind},
    {IPPROTO_IP, IP_FREEBIND, kBeforeBind},
    {IPPROTO_IP, IP_TRANSPARENT, kBeforeBind},
    {SOL_SOCKET, SO_KEEPALIVE, kMade},
    {SOL_SOCKET, SO_BROADCAST, kMade},
    {SOL_SOCKET, SO_OOBINLINE, kMade},
    {SOL_SOCKET, SO_DONTROUTE, kMade},
    {IPPROTO_IP, IP_TOS, kMade},  // also sets the priority
    {IPPROTO_IPV6, IPV6_TCLASS, kMade},
    {SOL_SOCKET, SO_PRIORITY, kMade},
    {SOL_SOCKET, SO_MARK, kMade},
    {SOL_SOCKET, SO_LINGER, kMade},
    {SOL_SOCKET, SO_RCVLOWAT, kMade},
    {SOL_SOCKET, SO_RCVTIMEO, kMade},
    {SOL_SOCKET, SO_SNDTIMEO, kMade},
    {SOL_SOCKET, SO_TIMESTAMP, kMade},
    {SOL_SOCKET, SO_TIMESTAMPNS, kMade},
    {SOL_SOCKET, SO_TIMESTAMPING, kMade},
    {SOL_SOCKET, SO_RXQ_OVFL, kMade},
    {SOL_SOCKET, SO_NO_CHECK, kMade},
    {SOL_SOCKET, SO_ZEROCOPY, kMade},
    {SOL_SOCKET, SO_PASSCRED, kMade},
    {SOL_SOCKET, SO_PASSSEC, kMade},
    {SOL_SOCKET, SO_PASSPIDFD, kMade},
    {SOL_SOCKET, SO_BUSY_POLL, kMade},
    {SOL_SOCKET, kPreferBusyPoll, kMade},
    {SOL_SOCKET, SO_MAX_PACING_RATE, kMade},
    {SOL_SOCKET, kTransmitRehash, kMade},
    {SOL_SOCKET, SO_SELECT_ERR_QUEUE, kMade},
    {SOL_SOCKET, SO_WIFI_STATUS, kMade},
    {SOL_SOCKET, SO_NOFCS, kMade},
    {SOL_SOCKET, SO_PEEK_OFF, kFilled},
    {SOL_SOCKET, SO_LOCK_FILTER, kFilled},
    {IPPROTO_IP, IP_TTL, kMade},
    {IPPROTO_IP, IP_PKTINFO, kMade},
    {IPPROTO_IP, IP_RECVTTL, kMade},
    {IPPROTO_IP, IP_RECVTOS, kMade},
    {IPPROTO_IP, IP_RECVERR, kMade},
    {IPPROTO_IP, IP_MTU_DISCOVER, kMade},
    {IPPROTO_IP, IP_MULTICAST_TTL, kMade},
    {IPPROTO_IP, IP_MULTICAST_LOOP, kMade},
    {IPPROTO_IP, IP_MULTICAST_ALL, kMade},
    {IPPROTO_IP, IP_RECVOPTS, kMade},
    {IPPROTO_IP, IP_RETOPTS, kMade},
    {IPPROTO_IP, IP_PASSSEC, kMade},
    {IPPROTO_IP, IP_ORIGDSTADDR, kMade},
    {IPPROTO_IP, IP_MINTTL, kMade},
    {IPPROTO_IP, IP_CHECKSUM, kMade},
    {IPPROTO_IP, IP_RECVFRAGSIZE, kMade},
    {IPPROTO_IPV6, kMulticastAllOfIpv6, kMade},
    {IPPROTO_IPV6, IPV6_RECVHOPOPTS, kMade},
    {IPPROTO_IPV6, IPV6_RECVDSTOPTS, kMade},
    {IPPROTO_IPV6, IPV6_RECVRTHDR, kMade},
    {IPPROTO_IPV6, IPV6_RECVPATHMTU, kMade},
    {IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, kMade},
    {IPPROTO_IPV6, IPV6_RECVFRAGSIZE, kMade},
    {IPPROTO_IPV6, IPV6_DONTFRAG, kMade},
    {IPPROTO_IPV6, IPV6_MINHOPCOUNT, kMade},
    {IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, kMade},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS, kMade},
    {IPPROTO_IPV6, IPV6_RECVPKTINFO, kMade},
    {IPPROTO_IPV6, IPV6_RECVHOPLIMIT, kMade},
    {IPPROTO_IPV6, IPV6_RECVTCLASS, kMade},
    {IPPROTO_IPV6, IPV6_RECVERR, kMade},
    {IPPROTO_IPV6, IPV6_MTU_DISCOVER, kMade},
    {IPPROTO_IPV6, IPV6_MULTICAST_HOPS, kMade},
    {IPPROTO_IPV6, IPV6_MULTICAST_LOOP, kMade},
    {SOL_NETLINK, NETLINK_PKTINFO, kMade},
    {SOL_NETLINK, NETLINK_BROADCAST_ERROR, kMade},
    {SOL_NETLINK, NETLINK_NO_ENOBUFS, kMade},
    {SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, kMade},
    {SOL_NETLINK, NETLINK_CAP_ACK, kMade},
    {SOL_NETLINK, NETLINK_EXT_ACK, kMade},
    {SOL_NETLINK, NETLINK_GET_STRICT_CHK, kMade},
    {IPPROTO_TCP, TCP_CONGESTION, kMade},
    {IPPROTO_TCP, TCP_NODELAY, kMade},
    {IPPROTO_TCP, TCP_KEEPIDLE, kMade},
    {IPPROTO_TCP, TCP_KEEPINTVL, kMade},
    {IPPROTO_TCP, TCP_KEEPCNT, kMade},
    {IPPROTO_TCP, TCP_SYNCNT, kMade},
    {IPPROTO_TCP, TCP_LINGER2, kMade},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, kMade},
    {IPPROTO_TCP, TCP_FASTOPEN, kMade},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT, kMade},
    {IPPROTO_TCP, TCP_FASTOPEN_CONNECT, kMade},
    {IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, kMade},
    {IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, kMade},
    {IPPROTO_TCP, TCP_SAVE_SYN, kMade},
    {IPPROTO_TCP, TCP_INQ, kMade},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT, kFilled},  // the listener would not give us a connection without data
    {IPPROTO_TCP, TCP_CORK, kFilled},
};

constexpr int kSendLocked = 1, kReceiveLocked = 2;  // SOCK_SNDBUF_LOCK, SOCK_RCVBUF_LOCK

std::string value_of(int fd, int level, int name) {
  std::array<char, 64> value = {};
  socklen_t length = value.size();
  if (getsockopt(fd, level, name, value.data(), &length) < 0) return {};
  return {value.data(), std::min<size_t>(length, value.size())};
}

// An accepted connection shows a multicast TTL of its own that nobody may set.
bool is_for_datagrams(int level, int name) {
  return (level == IPPROTO_IP && (name == IP_MULTICAST_TTL || name == IP_MULTICAST_LOOP)) ||
         (level == IPPROTO_IPV6 && (name == IPV6_MULTICAST_HOPS || name == IPV6_MULTICAST_LOOP));
}

bool is_level_of(int level, int domain, int type, int protocol) {
  if (level == SOL_SOCKET) return true;
  if (level == SOL_NETLINK || domain == AF_NETLINK) return level == SOL_NETLINK && domain == AF_NETLINK;
  if (level == SOL_PACKET || domain == AF_PACKET) return level == SOL_PACKET && domain == AF_PACKET;
  if (domain == AF_UNIX) return false;
  if (level == IPPROTO_TCP) return type == SOCK_STREAM;
  if (level == IPPROTO_UDP || level == kUdpLite) return type == SOCK_DGRAM && protocol == level;
  if (level == IPPROTO_RAW) return type == SOCK_RAW && protocol == IPPROTO_ICMP;
  if (level == IPPROTO_ICMPV6) return type == SOCK_RAW && protocol == IPPROTO_ICMPV6;
  // IPv6 sockets speak IPv4, too.
  return level == IPPROTO_IP ? domain == AF_INET || domain == AF_INET6 : domain == AF_INET6;
}

int option_int(int fd, int name) {
  std::string value = value_of(fd, SOL_SOCKET, name);
  int result = 0;
  if (value.size() == sizeof result) memcpy(&result, value.data(), sizeof result);
  return result;
}

void save(SocketOptions& options, int level, int name, std::string value) {
  auto* option = options.Add();
  option->set_level(level);
  option->set_name(name);
  option->set_value(std::move(value));
}

// The kernel doubles what is set, to have room for its own bookkeeping, and gives the doubled value back.
// Beyond the system's limit only root may set a size.
Result<void> set_buffer(const Record& record, int fd, const schema::SocketOption& option) {
  int size = 0;
  if (option.value().size() != sizeof size) return {};
  memcpy(&size, option.value().data(), sizeof size);
  if (option_int(fd, option.name()) == size) return {};
  int half = size / 2;
  int force = option.name() == SO_SNDBUF ? SO_SNDBUFFORCE : SO_RCVBUFFORCE;
  if (setsockopt(fd, SOL_SOCKET, force, &half, sizeof half) == 0) return {};
  if (setsockopt(fd, SOL_SOCKET, option.name(), &half, sizeof half) < 0)
    return cannot_make(record, "buffer size");
  return {};
}

// The socket's filter as the program gave it. It is restored when the queue is filled: what waits in it would
// have to pass it once more.
Result<void> observe_filter(const OpenFile& file, SocketOptions& options) {
  int fd = file.duplicate.get();
  socklen_t count = 0;  // of instructions
  if (getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, nullptr, &count) < 0) {
    if (errno != EACCES) return {};
    return refusal(file,
                   "a BPF program is attached to it (SO_ATTACH_BPF), which the kernel does not give back",
                   "detach it by SO_DETACH_FILTER for the time of the checkpoint");
  }
  std::string filter(count * sizeof(sock_filter), '\0');
  if (count > 0 && getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, filter.data(), &count) < 0) {
    return cannot_observe(file, "SO_GET_FILTER");
  }
  if (!filter.empty()) save(options, SOL_SOCKET, SO_ATTACH_FILTER, std::move(filter));
  return {};
}

Result<void> set_filter(const Record& record, int fd, const std::string& filter) {
  std::vector<sock_filter> instructions(std::min<size_t>(filter.size() / sizeof(sock_filter), BPF_MAXINSNS));
  memcpy(instructions.data(), filter.data(), instructions.size() * sizeof(sock_filter));
  sock_fprog program = {static_cast<unsigned short>(instructions.size()), instructions.data()};
  if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0)
    return cannot_make(record, "SO_ATTACH_FILTER");
  return {};
}

bool is_buffer_size(const schema::SocketOption& option) {
  return option.level() == SOL_SOCKET && (option.name() == SO_SNDBUF || option.name() == SO_RCVBUF);
}

// Nothing: it is none of ours.
std::optional<OptionStage> stage_of(const schema::SocketOption& option) {
  if (is_buffer_size(option)) return OptionStage::kBeforeBind;
  if (option.level() == SOL_SOCKET && option.name() == SO_BUF_LOCK) return OptionStage::kBeforeBind;
  if (option.level() == SOL_SOCKET && option.name() == SO_ATTACH_FILTER) return OptionStage::kFilled;
  auto row = std::find_if(std::begin(kOptions), std::end(kOptions), [&](const Option& candidate) {
    return candidate.level == option.level() && candidate.name == option.name();
  });
  return row == std::end(kOptions) ? std::nullopt : std::optional(row->stage);
}

Result<void> set(const Record& record, int fd, const schema::SocketOption& option) {
  if (value_of(fd, option.level(), option.name()) == option.value()) return {};
  if (setsockopt(fd, option.level(), option.name(), option.value().data(),
                 static_cast<socklen_t>(option.value().size())) < 0) {
    return cannot_make(record, fmt::format("socket option {} of level {}", option.name(), option.level()),
                       errno, errno == EPERM ? "only root may set it: restart as root" : "");
  }
  return {};
}

}  // namespace

Result<void> observe_options(const OpenFile& file, SocketOptions& options) {
  int fd = file.duplicate.get();
  int domain = option_int(fd, SO_DOMAIN), type = option_int(fd, SO_TYPE);
  const int protocol = option_int(fd, SO_PROTOCOL);
  STASIS_CHECK(observe_filter(file, options));
  for (const Option& option : kOptions) {
    if (!is_level_of(option.level, domain, type, protocol)) continue;
    // Of a connection it is what both ends agreed upon, also when that has ended.
    if (option.level == IPPROTO_TCP && option.name == TCP_MAXSEG && !peer_address_in_any_state(fd).empty())
      continue;
    if (type == SOCK_STREAM && is_for_datagrams(option.level, option.name)) continue;
    std::string value = value_of(fd, option.level, option.name);
    if (!value.empty()) save(options, option.level, option.name, std::move(value));
  }
  // A size that the program never set grows by itself, and must go on doing so.
  int locked = option_int(fd, SO_BUF_LOCK);
  if (locked & kSendLocked) save(options, SOL_SOCKET, SO_SNDBUF, value_of(fd, SOL_SOCKET, SO_SNDBUF));
  if (locked & kReceiveLocked) save(options, SOL_SOCKET, SO_RCVBUF, value_of(fd, SOL_SOCKET, SO_RCVBUF));
  // After the sizes, as setting one locks it.
  if (std::string lock = value_of(fd, SOL_SOCKET, SO_BUF_LOCK); !lock.empty())
    save(options, SOL_SOCKET, SO_BUF_LOCK, std::move(lock));
  return {};
}

SocketOptions without(const SocketOptions& options, int level, int name) {
  SocketOptions rest;
  for (const auto& option : options) {
    if (option.level() != level || option.name() != name) *rest.Add() = option;
  }
  return rest;
}

Result<void> apply_option(const Record& record, int fd, const SocketOptions& options, int level, int name) {
  for (const auto& option : options) {
    if (option.level() == level && option.name() == name) STASIS_CHECK(set(record, fd, option));
  }
  return {};
}

Result<void> apply_options(const Record& record, int fd, const SocketOptions& options, OptionStage stage) {
  for (const auto& option : options) {
    if (stage_of(option) != stage) continue;
    if (is_buffer_size(option)) {
      STASIS_CHECK(set_buffer(record, fd, option));
    } else if (option.level() == SOL_SOCKET && option.name() == SO_ATTACH_FILTER) {
      STASIS_CHECK(set_filter(record, fd, option.value()));
    } else {
      STASIS_CHECK(set(record, fd, option));
    }
  }
  return {};
}

}  // namespace stasis::resource

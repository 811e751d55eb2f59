#include "kernel/rtnetlink.h"

#include <sys/socket.h>

#include <algorithm>

namespace stasis::kernel {
namespace {

constexpr size_t kLongestAttribute = 0xffff - NLA_HDRLEN;
// The kernel makes its datagrams no larger than the buffer that it has seen.
constexpr size_t kBuffer = 64 << 10;

size_t aligned(size_t size) { return NLMSG_ALIGN(size); }

}  // namespace

NetlinkRequest::NetlinkRequest(uint16_t type, uint16_t flags, std::string_view head) {
  nlmsghdr header = {};
  header.nlmsg_type = type;
  header.nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
  bytes_.assign(reinterpret_cast<const char*>(&header), sizeof header);
  add_raw(head);
}

void NetlinkRequest::add_raw(std::string_view bytes) {
  bytes_.append(bytes);
  bytes_.resize(aligned(bytes_.size()));
}

void NetlinkRequest::add(uint16_t type, std::string_view value) {
  value = value.substr(0, kLongestAttribute);
  nlattr attribute = {};
  attribute.nla_type = type;
  attribute.nla_len = static_cast<uint16_t>(NLA_HDRLEN + value.size());
  bytes_.append(reinterpret_cast<const char*>(&attribute), sizeof attribute);
  add_raw(value);
}

size_t NetlinkRequest::begin(uint16_t type) {
  const size_t begun = bytes_.size();
  add(type, {});
  return begun;
}

void NetlinkRequest::end(size_t begun) {
  const auto length = static_cast<uint16_t>(std::min<size_t>(bytes_.size() - begun, 0xffff));
  memcpy(&bytes_[begun + offsetof(nlattr, nla_len)], &length, sizeof length);
}

std::vector<NetlinkAttributeView> netlink_attributes(std::string_view bytes, size_t head) {
  std::vector<NetlinkAttributeView> found;
  size_t at = aligned(head);
  while (at + sizeof(nlattr) <= bytes.size()) {
    const auto attribute = netlink_value<nlattr>(bytes.substr(at, sizeof(nlattr)));
    if (attribute.nla_len < sizeof attribute || at + attribute.nla_len > bytes.size()) break;
    found.push_back({static_cast<uint16_t>(attribute.nla_type & NLA_TYPE_MASK),
                     bytes.substr(at + NLA_HDRLEN, attribute.nla_len - static_cast<size_t>(NLA_HDRLEN))});
    at += NLA_ALIGN(attribute.nla_len);
  }
  return found;
}

std::map<uint16_t, std::string_view> netlink_attribute_map(std::string_view bytes, size_t head) {
  std::map<uint16_t, std::string_view> found;
  for (const auto& attribute : netlink_attributes(bytes, head)) found[attribute.type] = attribute.value;
  return found;
}

std::string netlink_name(std::string_view bytes) { return std::string(bytes.substr(0, bytes.find('\0'))); }

Result<Netlink> Netlink::open(int protocol) {
  Fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
  if (!fd) return errno_error("ask the kernel about the network", "netlink");
  const int on = 1;
  // Words with its errors, and no copy of what was asked.
  ::setsockopt(fd.get(), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
  ::setsockopt(fd.get(), SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
  // Else some dumps ignore what is asked for, and tell everything.
  ::setsockopt(fd.get(), SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on);
  const timeval patience = {.tv_sec = 5, .tv_usec = 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  return Netlink(std::move(fd));
}

int Netlink::send(const NetlinkRequest& request) {
  std::string bytes = request.bytes();
  auto header = netlink_value<nlmsghdr>(bytes);
  header.nlmsg_len = static_cast<uint32_t>(bytes.size());
  header.nlmsg_seq = ++sequence_;
  memcpy(bytes.data(), &header, sizeof header);
  explanation_.clear();
  sockaddr_nl kernel = {};
  kernel.nl_family = AF_NETLINK;
  const ssize_t sent = ::sendto(fd_.get(), bytes.data(), bytes.size(), 0,
                                reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel);
  return sent < 0 ? errno : 0;
}

bool Netlink::receive(std::string& bytes) {
  bytes.resize(kBuffer);
  ssize_t count = 0;
  do {
    count = ::recv(fd_.get(), bytes.data(), bytes.size(), 0);
  } while (count < 0 && errno == EINTR);
  bytes.resize(static_cast<size_t>(std::max<ssize_t>(count, 0)));
  return count > 0;
}

namespace {

// Calls `use` for each message of a datagram until it returns false.
template <typename Use>
bool for_each_message(std::string_view bytes, const Use& use) {
  while (bytes.size() >= sizeof(nlmsghdr)) {
    const auto header = netlink_value<nlmsghdr>(bytes);
    if (header.nlmsg_len < sizeof header || header.nlmsg_len > bytes.size()) return true;
    if (!use(header, bytes.substr(NLMSG_HDRLEN, header.nlmsg_len - static_cast<size_t>(NLMSG_HDRLEN))))
      return false;
    bytes.remove_prefix(std::min<size_t>(aligned(header.nlmsg_len), bytes.size()));
  }
  return true;
}

// Behind the error number and the header of the request, since NETLINK_CAP_ACK is set.
std::string words_of_error(const nlmsghdr& header, std::string_view payload) {
  if ((header.nlmsg_flags & NLM_F_ACK_TLVS) == 0) return {};
  auto attributes = netlink_attribute_map(payload, sizeof(nlmsgerr));
  auto words = attributes.find(NLMSGERR_ATTR_MSG);
  return words == attributes.end() ? std::string() : netlink_name(words->second);
}

}  // namespace

int Netlink::ask(const NetlinkRequest& request, NetlinkMessage* reply) {
  NetlinkRequest acknowledged = request;
  auto header = netlink_value<nlmsghdr>(acknowledged.bytes());
  header.nlmsg_flags |= NLM_F_ACK;
  memcpy(acknowledged.bytes().data(), &header, sizeof header);
  if (int error = send(acknowledged); error != 0) return error;
  int result = ETIMEDOUT;
  std::string bytes;
  for (bool more = true; more && receive(bytes);) {
    more = for_each_message(bytes, [&](const nlmsghdr& answer, std::string_view payload) {
      if (answer.nlmsg_seq != sequence_) return true;
      if (answer.nlmsg_type != NLMSG_ERROR) {
        if (reply != nullptr) *reply = {answer.nlmsg_type, std::string(payload)};
        return true;
      }
      result = -netlink_value<nlmsgerr>(payload).error;
      explanation_ = words_of_error(answer, payload);
      return false;
    });
  }
  return result;
}

int Netlink::transact(const std::vector<NetlinkRequest>& requests, size_t& refused) {
  std::string bytes;
  const uint32_t first = sequence_ + 1;
  for (size_t i = 0; i < requests.size(); ++i) {
    std::string one = requests[i].bytes();
    auto header = netlink_value<nlmsghdr>(one);
    header.nlmsg_len = static_cast<uint32_t>(one.size());
    header.nlmsg_seq = ++sequence_;
    // The last one before the mark of the end is acknowledged when all have been done.
    if (i + 2 == requests.size()) header.nlmsg_flags |= NLM_F_ACK;
    memcpy(one.data(), &header, sizeof header);
    bytes += one;
  }
  explanation_.clear();
  refused = 0;
  const int room = static_cast<int>(std::min<size_t>(bytes.size() * 2 + kBuffer, 1 << 30));
  if (::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room) != 0)
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  sockaddr_nl kernel = {};
  kernel.nl_family = AF_NETLINK;
  if (::sendto(fd_.get(), bytes.data(), bytes.size(), 0, reinterpret_cast<const sockaddr*>(&kernel),
               sizeof kernel) < 0)
    return errno;
  int result = ETIMEDOUT;
  std::string answers;
  for (bool more = true; more && receive(answers);) {
    more = for_each_message(answers, [&](const nlmsghdr& answer, std::string_view payload) {
      const size_t index = answer.nlmsg_seq - first;
      if (answer.nlmsg_type != NLMSG_ERROR || index >= requests.size()) return true;
      result = -netlink_value<nlmsgerr>(payload).error;
      refused = index;
      explanation_ = words_of_error(answer, payload);
      return false;
    });
  }
  return result;
}

std::string Netlink::story_of(int error) const {
  return explanation_.empty() ? std::string(strerror(error))
                              : fmt::format("{} ({})", strerror(error), explanation_);
}

Netlink::Dump Netlink::dump_once(const NetlinkRequest& request, bool& interrupted) {
  Dump all;
  NetlinkRequest listing = request;
  auto header = netlink_value<nlmsghdr>(listing.bytes());
  header.nlmsg_flags |= NLM_F_DUMP;
  memcpy(listing.bytes().data(), &header, sizeof header);
  all.error = send(listing);
  if (all.error != 0) return all;
  all.error = ETIMEDOUT;
  std::string bytes;
  for (bool more = true; more && receive(bytes);) {
    more = for_each_message(bytes, [&](const nlmsghdr& answer, std::string_view payload) {
      if (answer.nlmsg_seq != sequence_) return true;
      interrupted = interrupted || (answer.nlmsg_flags & NLM_F_DUMP_INTR) != 0;
      if (answer.nlmsg_type == NLMSG_DONE) {
        all.error = payload.size() >= sizeof(int) ? -netlink_value<int>(payload) : 0;
        return false;
      }
      if (answer.nlmsg_type == NLMSG_ERROR) {
        all.error = -netlink_value<nlmsgerr>(payload).error;
        explanation_ = words_of_error(answer, payload);
        return false;
      }
      all.messages.push_back({answer.nlmsg_type, std::string(payload)});
      return true;
    });
  }
  return all;
}

Netlink::Dump Netlink::dump(const NetlinkRequest& request) {
  constexpr int kTries = 20;
  Dump all;
  for (int attempt = 0; attempt < kTries; ++attempt) {
    bool interrupted = false;
    all = dump_once(request, interrupted);
    if (!interrupted) break;
  }
  return all;
}

}  // namespace stasis::kernel

#include "resource/socket/queue.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "resource/refusal.h"
#include "resource/socket/socket.h"

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif

namespace stasis::resource {
namespace {

// Longer than any message that the default limits let a program send.
constexpr size_t kLongestMessage = size_t{1} << 20;

struct Peeked {
  ssize_t count = 0;
  bool truncated = false;
};

// One MSG_PEEK. The kernel installs descriptors that are in flight into us, too: they are closed and refused.
Result<Peeked> peek_once(const OpenFile& file, std::span<char> into) {
  iovec vector = {into.data(), into.size()};
  alignas(cmsghdr) std::array<char, 4096> control;
  msghdr message = {};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t count = recvmsg(file.duplicate.get(), &message, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (count < 0 && errno != EAGAIN) return cannot_observe(file, "look into the queue");
  if (count < 0) return Peeked{-1, false};
  bool in_flight = message.msg_flags & MSG_CTRUNC;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    in_flight = true;
    size_t descriptors = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t index = 0; index < descriptors; ++index) {
      int fd = -1;
      memcpy(&fd, CMSG_DATA(header) + index * sizeof fd, sizeof fd);
      close(fd);
    }
  }
  if (in_flight) {
    return refusal_for_now(file, "descriptors are in flight in it (SCM_RIGHTS)",
                           "try again when the program has received them");
  }
  return Peeked{count, (message.msg_flags & MSG_TRUNC) != 0};
}

// MSG_PEEK starts at SO_PEEK_OFF and moves it on, which walks through a queue of messages. The offset belongs
// to the socket, so it is put back at once; only a program that itself uses MSG_PEEK could ever notice.
class PeekOffset {
 public:
  explicit PeekOffset(int fd) : fd_(fd), original_(socket_option(fd, SOL_SOCKET, SO_PEEK_OFF)) {
    int start = 0;
    active_ = setsockopt(fd_, SOL_SOCKET, SO_PEEK_OFF, &start, sizeof start) == 0;
  }
  PeekOffset(const PeekOffset&) = delete;
  PeekOffset& operator=(const PeekOffset&) = delete;
  ~PeekOffset() {
    if (active_) setsockopt(fd_, SOL_SOCKET, SO_PEEK_OFF, &original_, sizeof original_);
  }
  bool active() const { return active_; }

 private:
  int fd_;
  int original_;
  bool active_ = false;
};

// Makes room in the send buffer for as long as it lives: what was received once may exceed the limit of its
// sender, because the kernel charges it by the number of pieces.
class LargeSendBuffer {
 public:
  LargeSendBuffer(int fd, size_t size)
      : fd_(fd),
        original_(socket_option(fd, SOL_SOCKET, SO_SNDBUF)),
        lock_(socket_option(fd, SOL_SOCKET, SO_BUF_LOCK)) {
    size_t wanted = 2 * size + 65536;
    if (original_ < 0 || static_cast<size_t>(original_) >= wanted) return;
    changed_ = true;
    int value = static_cast<int>(std::min<size_t>(wanted, 1 << 30));
    if (setsockopt(fd_, SOL_SOCKET, SO_SNDBUFFORCE, &value, sizeof value) < 0) {
      setsockopt(fd_, SOL_SOCKET, SO_SNDBUF, &value, sizeof value);
    }
  }
  LargeSendBuffer(const LargeSendBuffer&) = delete;
  LargeSendBuffer& operator=(const LargeSendBuffer&) = delete;
  ~LargeSendBuffer() {
    if (!changed_) return;
    int half = original_ / 2;
    setsockopt(fd_, SOL_SOCKET, SO_SNDBUF, &half, sizeof half);
    if (lock_ >= 0) setsockopt(fd_, SOL_SOCKET, SO_BUF_LOCK, &lock_, sizeof lock_);
  }

 private:
  int fd_;
  int original_;
  int lock_;
  bool changed_ = false;
};

}  // namespace

Result<std::string> peek_stream(const OpenFile& file) {
  int available = 0;
  if (ioctl(file.duplicate.get(), SIOCINQ, &available) < 0 || available <= 0) return std::string();
  auto size = static_cast<size_t>(available);
  std::string data(size, '\0');
  // With SO_PEEK_OFF set by the program, a peek would start there and move it.
  if (socket_option(file.duplicate.get(), SOL_SOCKET, SO_PEEK_OFF) < 0) {
    STASIS_TRY(Peeked peeked, peek_once(file, data));
    if (peeked.count == available) return data;
  }
  // A peek ends where the sender's credentials change: go on from there.
  PeekOffset offset(file.duplicate.get());
  for (size_t have = 0; have < size;) {
    STASIS_TRY(Peeked peeked, peek_once(file, std::span(data).subspan(have)));
    if (peeked.count <= 0 || !offset.active()) {
      return refusal(file, fmt::format("only {} of the {} bytes in its queue can be looked at", have, size),
                     "try again when the program has read them");
    }
    have += static_cast<size_t>(peeked.count);
  }
  return data;
}

Result<std::vector<std::string>> peek_messages(const OpenFile& file) {
  std::vector<std::string> messages;
  int available = 0;
  if (ioctl(file.duplicate.get(), SIOCINQ, &available) < 0) return messages;
  // Of a sequenced-packet socket this is the sum of all messages, of a datagram socket the length of the
  // first.
  bool is_sum = socket_option(file.duplicate.get(), SOL_SOCKET, SO_TYPE) == SOCK_SEQPACKET;
  if (available == 0 && is_sum) return messages;
  std::string buffer(kLongestMessage, '\0');
  PeekOffset offset(file.duplicate.get());
  for (int have = 0; !is_sum || have < available;) {
    STASIS_TRY(Peeked peeked, peek_once(file, buffer));
    if (peeked.count < 0) break;
    if (peeked.truncated || !offset.active()) {
      return refusal(file, "a message in its queue cannot be looked at whole",
                     "try again when the program has read it");
    }
    messages.push_back(buffer.substr(0, static_cast<size_t>(peeked.count)));
    have += static_cast<int>(peeked.count);
  }
  return messages;
}

Result<void> send_stream(const Record& record, int from, const std::string& data) {
  if (data.empty()) return {};
  LargeSendBuffer room(from, data.size());
  for (std::string_view rest = data; !rest.empty();) {
    ssize_t count = send(from, rest.data(), rest.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      return cannot_make(
          record, fmt::format("send {} bytes that had not been read", data.size()), errno,
          errno == EAGAIN ? "they do not fit: raise net.core.wmem_max, or restart as root" : "");
    }
    rest.remove_prefix(static_cast<size_t>(count));
  }
  return {};
}

Result<void> send_message(const Record& record, int from, const std::string& data) {
  LargeSendBuffer room(from, data.size());
  if (send(from, data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
    return cannot_make(record, fmt::format("send a message of {} bytes that had not been read", data.size()));
  }
  return {};
}

}  // namespace stasis::resource

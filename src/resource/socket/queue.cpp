#include "resource/socket/queue.h"

#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "resource/refusal.h"
#include "resource/socket/room.h"
#include "resource/socket/socket.h"
#include "stasis/types.h"

namespace stasis::resource {
namespace {

// Longer than any message that the default limits let a program send.
constexpr size_t kLongestMessage = size_t{1} << 20;

constexpr size_t kMostDescriptors = 253;  // SCM_MAX_FD of the kernel

struct Peeked {
  ssize_t count = 0;
  bool truncated = false;
  Queued more;  // all but the data
};

void take_control(msghdr& message, Queued& out) {
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET) continue;
    if (header->cmsg_type == SCM_CREDENTIALS && header->cmsg_len >= CMSG_LEN(sizeof(ucred))) {
      memcpy(&out.sender.emplace(), CMSG_DATA(header), sizeof(ucred));
    }
    if (header->cmsg_type != SCM_RIGHTS) continue;
    size_t descriptors = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t index = 0; index < descriptors; ++index) {
      int fd = -1;
      memcpy(&fd, CMSG_DATA(header) + index * sizeof fd, sizeof fd);
      out.descriptors.emplace_back(fd);
    }
  }
}

// One MSG_PEEK. The kernel installs what is in flight into us, too.
Result<Peeked> peek_once(const OpenFile& file, std::span<char> into) {
  iovec vector = {into.data(), into.size()};
  alignas(cmsghdr) std::array<char, 4096> control;
  sockaddr_storage from = {};
  msghdr message = {};
  message.msg_name = &from;
  message.msg_namelen = sizeof from;
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  Peeked result;
  result.count = recvmsg(file.duplicate.get(), &message, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (result.count < 0 && errno != EAGAIN) return cannot_observe(file, "look into the queue");
  if (result.count < 0) return result;
  take_control(message, result.more);
  if (message.msg_flags & MSG_CTRUNC) {
    return refusal_for_now(file, "not all that is in flight in it can be looked at",
                           "allow more open files (ulimit -n), or try again when it has been received");
  }
  result.truncated = (message.msg_flags & MSG_TRUNC) != 0;
  if (message.msg_namelen > sizeof(sa_family_t))
    result.more.address.assign(reinterpret_cast<char*>(&from),
                               std::min<size_t>(message.msg_namelen, sizeof from));
  return result;
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
  void go_to(size_t offset) {
    int value = static_cast<int>(offset);
    setsockopt(fd_, SOL_SOCKET, SO_PEEK_OFF, &value, sizeof value);
  }

 private:
  int fd_;
  int original_;
  bool active_ = false;
};

Error cannot_look(const OpenFile& file, size_t have, size_t size) {
  return refusal(file, fmt::format("only {} of the {} bytes in its queue can be looked at", have, size),
                 "try again when the program has read them");
}

// Memory that ends where nothing may be written any more.
class EndingBuffer {
 public:
  explicit EndingBuffer(size_t size) : size_(size), length_(page_up(size)) {
    void* start =
        mmap(nullptr, length_ + kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return;
    start_ = static_cast<char*>(start);
    mprotect(start_ + length_, kPageSize, PROT_NONE);
  }
  EndingBuffer(const EndingBuffer&) = delete;
  EndingBuffer& operator=(const EndingBuffer&) = delete;
  ~EndingBuffer() {
    if (start_) munmap(start_, length_ + kPageSize);
  }
  char* data() const { return start_ ? start_ + length_ - size_ : nullptr; }

 private:
  size_t size_, length_;
  char* start_ = nullptr;
};

// Where in a piece of a stream the write began with which the descriptors came; the piece ends with it. The
// kernel copies what was written at once as a whole or not at all: a buffer that is one byte too short, and
// says it is not, gets all but the last write.
size_t begin_of_write(const OpenFile& file, PeekOffset& offset, size_t start, size_t size) {
  EndingBuffer buffer(size - 1);
  offset.go_to(start);
  auto peeked = buffer.data() ? peek_once(file, {buffer.data(), size}) : Result<Peeked>(Peeked());
  offset.go_to(start + size);
  return peeked.ok() && peeked->count > 0 ? static_cast<size_t>(peeked->count) : 0;
}

// A peek ends behind what came with descriptors, and, where SO_PASSCRED is set, where the sender changes.
Result<std::vector<Queued>> peek_pieces(const OpenFile& file) {
  std::vector<Queued> pieces;
  int available = 0;
  if (ioctl(file.duplicate.get(), SIOCINQ, &available) < 0 || available <= 0) return pieces;
  const auto size = static_cast<size_t>(available);
  std::string data(size, '\0');
  PeekOffset offset(file.duplicate.get());
  if (!offset.active()) return cannot_look(file, 0, size);
  for (size_t have = 0; have < size;) {
    STASIS_TRY(Peeked peeked, peek_once(file, std::span(data).subspan(have)));
    if (peeked.count <= 0) return cannot_look(file, have, size);
    const auto count = static_cast<size_t>(peeked.count);
    size_t before = 0;
    if (!peeked.more.descriptors.empty()) before = begin_of_write(file, offset, have, count);
    if (before > 0) {
      Queued& first = pieces.emplace_back();
      first.data = data.substr(have, before);
      first.sender = peeked.more.sender;
    }
    peeked.more.data = data.substr(have + before, count - before);
    pieces.push_back(std::move(peeked.more));
    have += count;
  }
  return pieces;
}

Result<std::vector<Queued>> peek_messages(const OpenFile& file) {
  std::vector<Queued> messages;
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
    peeked.more.data = buffer.substr(0, static_cast<size_t>(peeked.count));
    messages.push_back(std::move(peeked.more));
    have += static_cast<int>(peeked.count);
  }
  return messages;
}

// One sendmsg(). Descriptors go with its first byte.
ssize_t send_once(int from, std::string_view data, const Sending& with, bool first) {
  iovec vector = {const_cast<char*>(data.data()), data.size()};
  sockaddr_storage to = {};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMostDescriptors * sizeof(int)) + CMSG_SPACE(sizeof(ucred))>
      control = {};
  msghdr message = {};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  if (!with.address.empty()) {
    message.msg_name = &to;
    message.msg_namelen = static_cast<socklen_t>(std::min(with.address.size(), sizeof to));
    memcpy(&to, with.address.data(), message.msg_namelen);
  }
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  size_t used = 0;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  auto add = [&](int type, const void* content, size_t size) {
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = type;
    header->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(header), content, size);
    used += CMSG_SPACE(size);
    header = CMSG_NXTHDR(&message, header);
  };
  if (with.sender) {
    ucred who = *with.sender;
    who.pid = getpid();
    add(SCM_CREDENTIALS, &who, sizeof who);
  }
  const size_t descriptors = std::min(with.descriptors.size(), kMostDescriptors);
  if (first && descriptors > 0) add(SCM_RIGHTS, with.descriptors.data(), descriptors * sizeof(int));
  message.msg_controllen = used;
  if (used == 0) message.msg_control = nullptr;
  return sendmsg(from, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

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
  PeekOffset offset(file.duplicate.get());
  for (size_t have = 0; have < size;) {
    STASIS_TRY(Peeked peeked, peek_once(file, std::span(data).subspan(have)));
    if (peeked.count <= 0 || !offset.active()) return cannot_look(file, have, size);
    have += static_cast<size_t>(peeked.count);
  }
  return data;
}

Result<std::shared_ptr<const std::vector<Queued>>> peek_queue(const OpenFile& file) {
  if (file.queue) return file.queue;
  std::vector<Queued> found;
  pollfd state = {file.duplicate.get(), POLLIN, 0};
  if (poll(&state, 1, 0) > 0) {
    const bool stream = socket_option(file.duplicate.get(), SOL_SOCKET, SO_TYPE) == SOCK_STREAM;
    STASIS_TRY(found, stream ? peek_pieces(file) : peek_messages(file));
  }
  file.queue = std::make_shared<const std::vector<Queued>>(std::move(found));
  return file.queue;
}

Result<void> send_stream(const Record& record, int from, std::string_view data, const Sending& with) {
  if (data.empty()) return {};
  LargeSendBuffer room(from, data.size());
  bool first = true;
  for (std::string_view rest = data; !rest.empty();) {
    ssize_t count = send_once(from, rest, with, first);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      return cannot_make(
          record, fmt::format("send {} bytes that had not been read", data.size()), errno,
          errno == EAGAIN ? "they do not fit: raise net.core.wmem_max, or restart as root" : "");
    }
    first = false;
    rest.remove_prefix(static_cast<size_t>(count));
  }
  return {};
}

Result<void> send_message(const Record& record, int from, std::string_view data, const Sending& with) {
  LargeSendBuffer room(from, data.size());
  if (send_once(from, data, with, true) < 0) {
    return cannot_make(record, fmt::format("send a message of {} bytes that had not been read", data.size()));
  }
  return {};
}

}  // namespace stasis::resource

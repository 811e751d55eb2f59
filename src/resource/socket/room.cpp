#include "resource/socket/room.h"

#include <sys/socket.h>

#include <algorithm>
#include <cstdlib>

#include "resource/socket/socket.h"
#include "stasis/fd.h"

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif

namespace stasis::resource {
namespace {

constexpr int kReceiveLocked = 2;  // SOCK_RCVBUF_LOCK
constexpr int kMuch = 1 << 30;

// What anybody may set; the kernel doubles it.
int most_without_rights() {
  constexpr int kUsual = 212'992;
  auto text = read_file("/proc/sys/net/core/rmem_max", 32);
  const int value = text.ok() ? std::atoi(text->c_str()) : 0;
  return value > 0 ? value : kUsual;
}

void set(int fd, int name, int value) { setsockopt(fd, SOL_SOCKET, name, &value, sizeof value); }

}  // namespace

LargeSendBuffer::LargeSendBuffer(int fd, size_t size)
    : fd_(fd),
      original_(socket_option(fd, SOL_SOCKET, SO_SNDBUF)),
      lock_(socket_option(fd, SOL_SOCKET, SO_BUF_LOCK)) {
  size_t wanted = 2 * size + 65536;
  if (original_ < 0 || static_cast<size_t>(original_) >= wanted) return;
  changed_ = true;
  int value = static_cast<int>(std::min<size_t>(wanted, kMuch));
  if (setsockopt(fd_, SOL_SOCKET, SO_SNDBUFFORCE, &value, sizeof value) < 0) set(fd_, SO_SNDBUF, value);
}

LargeSendBuffer::~LargeSendBuffer() {
  if (!changed_) return;
  set(fd_, SO_SNDBUF, original_ / 2);
  if (lock_ >= 0) set(fd_, SO_BUF_LOCK, lock_);
}

// SO_RCVLOWAT makes the buffer of a socket grow up to the system's limit (net.ipv4.tcp_rmem) and leaves it to
// itself otherwise. Where the program has set the size, only root can go beyond the limit for that
// (net.core.rmem_max); others make it one that was not set, if they can set it again.
RoomToReceive::RoomToReceive(int fd)
    : fd_(fd),
      low_water_(socket_option(fd, SOL_SOCKET, SO_RCVLOWAT)),
      lock_(socket_option(fd, SOL_SOCKET, SO_BUF_LOCK)) {
  if (lock_ >= 0 && (lock_ & kReceiveLocked) != 0) {
    size_ = socket_option(fd, SOL_SOCKET, SO_RCVBUF);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &kMuch, sizeof kMuch) == 0) return;
    if (size_ > 2 * most_without_rights()) {
      size_ = 0;
      return;
    }
    set(fd, SO_BUF_LOCK, lock_ & ~kReceiveLocked);
  }
  set(fd, SO_RCVLOWAT, kMuch);
}

RoomToReceive::~RoomToReceive() {
  if (size_ > 0) {
    set(fd_, SO_RCVBUF, size_ / 2);
    set(fd_, SO_BUF_LOCK, lock_);
  }
  if (low_water_ > 0) set(fd_, SO_RCVLOWAT, low_water_);
}

void RoomToReceive::announce() const {
  char byte;
  recv(fd_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
}

}  // namespace stasis::resource

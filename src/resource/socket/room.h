// More room in the buffers of a socket, for as long as it is needed.
#pragma once

#include <cstddef>

namespace stasis::resource {

// Makes room in the send buffer for as long as it lives: what was received once may exceed the limit of its
// sender, because the kernel charges it by the number of pieces.
class LargeSendBuffer {
 public:
  LargeSendBuffer(int fd, size_t size);
  LargeSendBuffer(const LargeSendBuffer&) = delete;
  LargeSendBuffer& operator=(const LargeSendBuffer&) = delete;
  ~LargeSendBuffer();

 private:
  int fd_;
  int original_;
  int lock_;
  bool changed_ = false;
};

// Lets a TCP socket take what its sender could not send; its own limits hold again when this goes.
class RoomToReceive {
 public:
  explicit RoomToReceive(int fd);
  RoomToReceive(const RoomToReceive&) = delete;
  RoomToReceive& operator=(const RoomToReceive&) = delete;
  ~RoomToReceive();
  // Tells the sender of the room: the kernel does so when something is read, also by MSG_PEEK.
  void announce() const;

 private:
  int fd_;
  int low_water_;
  int size_ = 0;
  int lock_;
};

}  // namespace stasis::resource

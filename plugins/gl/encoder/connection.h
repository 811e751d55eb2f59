// The way to the server that starts a renderer and a keeper for this program, and the stream for questions
// that belong to no thread (configurations, contexts).
#pragma once

#include <cstdint>

#include "encoder/stream.h"

namespace stasis::gl {

class Connection {
 public:
  // Null when there is no server.
  static Stream* lock_control();
  static void unlock_control();
  // Of this thread, made when it is first asked for.
  static Stream* thread_stream();
  static uint32_t readers();
  static uint64_t program();  // a number of this process
  static uint32_t next_number();
};

// A question on the control stream.
class ControlCall {
 public:
  ControlCall() : stream_(Connection::lock_control()) {}
  ~ControlCall() {
    if (stream_ != nullptr) Connection::unlock_control();
  }
  explicit operator bool() const { return stream_ != nullptr; }
  template <typename T>
  T* begin(uint16_t op, size_t more = 0) {
    auto* packet = static_cast<T*>(stream_->begin(op, sizeof(T) + more));
    memset(reinterpret_cast<char*>(packet) + sizeof(Packet), 0, sizeof(T) - sizeof(Packet));
    return packet;
  }
  Answer ask() { return stream_->ask(); }

 private:
  Stream* stream_;
};

}  // namespace stasis::gl

// Where a thread of the program puts its calls. Loaded into the program: links nothing but libc and Xlib.
#pragma once

#include <cstring>

#include "wire/packet.h"
#include "wire/ring.h"

namespace stasis::gl {

struct Context;

constexpr size_t padded(size_t bytes) { return (bytes + 7) & ~size_t{7}; }
constexpr bool has_bytes(size_t payload) { return payload != kNull && payload != kOffset; }
constexpr size_t padded_payload(size_t payload) { return has_bytes(payload) ? padded(payload) : 0; }
constexpr size_t kAnySize = ~size_t{0};

// The answer to a question: a result, and what the driver wrote through each output pointer.
class Answer {
 public:
  explicit Answer(const char* at) : at_(at) {}
  template <typename T>
  T result() const {
    T value;
    memcpy(&value, at_, sizeof value);
    return value;
  }
  // The next output; the program's memory takes at most `capacity` bytes.
  void take(void* into, size_t capacity);
  const char* next(size_t& size);

 private:
  const char* at_;
  size_t offset_ = 8;
};

class Stream {
 public:
  // Room for one packet; it is there for the readers when the next one begins or publish() is called.
  void* begin(uint16_t op, size_t total) {
    total = padded(total);
    if (__builtin_expect(total > kLargestPacket, 0)) return begin_large(op, total);
    next_ = at_ + total;
    if (__builtin_expect(next_ > limit_, 0)) make_room();
    auto* packet = reinterpret_cast<Packet*>(data_ + at_ % kDataSize);
    packet->size = static_cast<uint32_t>(total);
    packet->op = op;
    packet->flags = 0;
    last_ = packet;
    return packet;
  }
  void commit_small() {
    at_ = next_;
    // Readers begin early enough to work beside us, and are not told of every call.
    constexpr uint64_t kOften = 16384;
    if (__builtin_expect(at_ - published_ > kOften, 0)) publish();
  }
  void commit() {
    if (__builtin_expect(large_ != nullptr, 0)) return send_large();
    commit_small();
  }
  void publish();
  // Commits, publishes and waits for the answer to the packet that was begun last.
  Answer ask();
  void set_flags(uint16_t flags) { last_->flags = static_cast<uint16_t>(last_->flags | flags); }

  // Not more than two frames ahead of what is shown, as with a driver.
  void limit_frames();

  static Stream* open(uint32_t id);
  static void close(Stream* stream);
  int file() const { return file_; }
  uint32_t id() const { return ring_->id; }

  Context* context = nullptr;  // current in this thread

 private:
  void* begin_large(uint16_t op, size_t total);
  void send_large();
  void make_room();
  void wait_for_readers(uint32_t seen);
  uint64_t slowest_reader() const;

  uint64_t at_ = 0, next_ = 0, limit_ = kDataSize, published_ = 0;
  char* data_ = nullptr;
  Packet* last_ = nullptr;
  char* large_ = nullptr;
  Ring* ring_ = nullptr;
  char* reply_ = nullptr;
  uint32_t replies_ = 0, frames_ = 0;
  int file_ = -1;
};

// Of the calling thread; null without a current context.
extern thread_local Stream* current_stream __attribute__((tls_model("initial-exec")));
inline Stream* stream() { return current_stream; }
// A call without a context does nothing.
#define STREAM_OR_RETURN(...) \
  Stream* s = stream();       \
  if (s == nullptr) return __VA_ARGS__

inline void copy(void* into, const void* from, size_t bytes) {
  if (from != nullptr) memcpy(into, from, bytes);
}
// Returns where the next payload goes.
inline char* put_payload(char* at, const void* from, size_t bytes) {
  if (!has_bytes(bytes)) return at;
  memcpy(at, from, bytes);
  return at + padded(bytes);
}

}  // namespace stasis::gl

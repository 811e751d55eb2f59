// Takes packets out of a ring, one after the other, those that came in pieces as a whole.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "wire/packet.h"
#include "wire/ring.h"

namespace stasis::gl {

// The stream says something that no encoder would. The program's connection is ended; nobody else notices.
struct BadStream {
  std::string what;
};

template <typename P>
const P& view(const Packet& header) {
  if (header.size < sizeof(P))
    throw BadStream{"its packet has " + std::to_string(header.size) + " bytes where " +
                    std::to_string(sizeof(P)) + " are needed"};
  return reinterpret_cast<const P&>(header);
}

class RingReader {
 public:
  // One that only looks leaves what it has seen in the ring.
  enum class Way { kTakes, kLooks };
  RingReader(Ring* ring, ReaderIndex index, Way way = Way::kTakes)
      : ring_(ring),
        takes_(way == Way::kTakes),
        self_(ring->reader[index]),
        data_(reinterpret_cast<const char*>(ring) + kHeaderSize + kReplySize),
        position_(self_.tail.load()),
        released_(position_),
        end_(position_) {}

  // Until `handle` returns false. A packet is gone when it returns. `idle` is called while there is nothing
  // to do, at first and whenever interrupt() has been called.
  void run(
      const std::function<bool(const Packet&)>& handle, const std::function<void()>& idle = [] {});
  // From any thread.
  static void interrupt(Ring& ring, ReaderIndex index);
  // The packets before `end`, all of which are there. Nothing when they have been dealt with.
  void run_to(uint64_t end, const std::function<bool(const Packet&)>& handle);
  // Called with a position before the writer learns that everything before it has been dealt with.
  void before_release(std::function<void(uint64_t)> call) { before_release_ = std::move(call); }
  // Everything before `position` is dealt with.
  void skip_to(uint64_t position);
  // Behind the packet that is being handled, or was last; those that came in pieces count when they are
  // whole.
  uint64_t end_of_packet() const { return end_; }

 private:
  bool handle_piece(const Packet& packet, uint64_t end, const std::function<bool(const Packet&)>& handle);
  uint64_t wait_for_more(const std::function<void()>& idle);
  void release();

  const Packet& take(uint64_t head);
  void run_over(uint64_t head, bool& going, const std::function<bool(const Packet&)>& handle);

  Ring* ring_;
  bool takes_;
  Ring::Reader& self_;
  const char* data_;
  uint64_t position_, released_;
  uint64_t end_;
  std::vector<uint64_t> packet_;  // the one that is being handled
  std::vector<char> large_;       // pieces of one that is not complete
  std::function<void(uint64_t)> before_release_;
};

// Wakes a writer that waits for room or for a frame to be shown.
void wake_writer(Ring& ring);
void wake_all(const void* futex);

}  // namespace stasis::gl

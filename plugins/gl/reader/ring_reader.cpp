#include "reader/ring_reader.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>

namespace stasis::gl {

void wake_all(const void* futex) { ::syscall(SYS_futex, futex, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0); }

void wake_writer(Ring& ring) {
  if (ring.writer_sleeping.load() == 0) return;
  ring.progress.fetch_add(1);
  wake_all(&ring.progress);
}

uint64_t RingReader::wait_for_more(const std::function<void()>& idle) {
  for (;;) {
    const uint64_t head = ring_->head.load(std::memory_order_acquire);
    if (head != position_) return head;
    idle();
    self_.sleeping.store(1);
    if (ring_->head.load() == position_)
      ::syscall(SYS_futex, &self_.sleeping, FUTEX_WAIT, 1, nullptr, nullptr, 0);
    self_.sleeping.store(0);
  }
}

void RingReader::interrupt(Ring& ring, ReaderIndex index) {
  ring.reader[index].sleeping.store(0);
  wake_all(&ring.reader[index].sleeping);
}

void RingReader::release() {
  if (!takes_ || released_ == position_) return;
  released_ = position_;
  if (before_release_) before_release_(position_);
  self_.tail.store(position_);
  wake_writer(*ring_);
}

void RingReader::skip_to(uint64_t position) {
  position_ = released_ = end_ = position;
  self_.tail.store(position);
  wake_writer(*ring_);
}

void RingReader::run(const std::function<bool(const Packet&)>& handle, const std::function<void()>& idle) {
  bool going = true;
  while (going) {
    release();
    run_over(wait_for_more(idle), going, handle);
  }
  release();
}

void RingReader::run_to(uint64_t end, const std::function<bool(const Packet&)>& handle) {
  if (end <= position_) return;
  bool going = true;
  run_over(end, going, handle);
  release();
}

// The program can write to what is in the ring at any time. So a packet is copied before anything in it is
// looked at: what has been checked stays as it was.
const Packet& RingReader::take(uint64_t head) {
  if (head - position_ < sizeof(Packet)) throw BadStream{"the ring ends within a packet"};
  const char* place = data_ + position_ % kDataSize;
  Packet packet;
  std::memcpy(&packet, place, sizeof packet);
  if (packet.size < sizeof(Packet) || packet.size % 8 != 0 || packet.size > head - position_)
    throw BadStream{"the size of a packet (" + std::to_string(packet.size) + ")"};
  // Most packets are small: copying so much of any takes less time than finding out how long it is. Behind
  // each place there is more that is mapped.
  constexpr size_t kSmall = 64;
  static_assert(kSmall <= kDataSize);
  if (packet_.size() < std::max(kSmall, size_t{packet.size}) / 8)
    packet_.resize(std::max(kSmall, size_t{packet.size}) / 8);
  if (packet.size <= kSmall) {
    std::memcpy(packet_.data(), place, kSmall);
  } else {
    std::memcpy(packet_.data(), place, packet.size);
  }
  std::memcpy(packet_.data(), &packet, sizeof packet);
  return *reinterpret_cast<const Packet*>(packet_.data());
}

void RingReader::run_over(uint64_t head, bool& going, const std::function<bool(const Packet&)>& handle) {
  // Not at every packet: the writer looks only when it is short of room.
  constexpr uint64_t kOften = kDataSize / 16;
  if (head - position_ > kDataSize) throw BadStream{"more is said to be there than there is room for"};
  if (position_ % 8 != 0) throw BadStream{"a position between packets"};
  while (going && position_ != head) {
    const Packet& packet = take(head);
    const uint64_t end = position_ + packet.size;
    if (packet.op == kOpPiece) {
      going = handle_piece(packet, end, handle);
    } else {
      end_ = end;
      going = handle(packet);
    }
    position_ = end;
    if (position_ - released_ >= kOften) release();
  }
}

// Only what has come takes memory, whatever the first piece says of the whole.
bool RingReader::handle_piece(const Packet& packet, uint64_t end,
                              const std::function<bool(const Packet&)>& handle) {
  const auto& piece = view<Piece>(packet);
  if (piece.at == 0) {
    large_.clear();
    constexpr uint32_t kAtOnce = 64U << 20;
    large_.reserve(std::min(piece.total, kAtOnce));
  }
  if (piece.at != large_.size() || piece.at >= piece.total || piece.total < sizeof(Packet))
    throw BadStream{"a piece that does not belong to the ones before it"};
  const size_t fits = std::min<size_t>(packet.size - sizeof(Piece), piece.total - piece.at);
  const char* bytes = reinterpret_cast<const char*>(&piece + 1);
  large_.insert(large_.end(), bytes, bytes + fits);
  if (large_.size() < piece.total) return true;
  const std::vector<char> whole = std::move(large_);
  large_.clear();
  const auto& assembled = *reinterpret_cast<const Packet*>(whole.data());
  if (assembled.size != whole.size() || assembled.size % 8 != 0 || assembled.op == kOpPiece)
    throw BadStream{"pieces of nothing"};
  end_ = end;
  return handle(assembled);
}

}  // namespace stasis::gl

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

void RingReader::run_over(uint64_t head, bool& going, const std::function<bool(const Packet&)>& handle) {
  // Not at every packet: the writer looks only when it is short of room.
  constexpr uint64_t kOften = kDataSize / 16;
  if (head - position_ > kDataSize) throw BadStream{"more is said to be there than there is room for"};
  while (going && position_ != head) {
    const auto& packet = *reinterpret_cast<const Packet*>(data_ + position_ % kDataSize);
    const uint32_t size = packet.size;
    if (size < sizeof(Packet) || size % 8 != 0 || size > head - position_)
      throw BadStream{"the size of a packet"};
    const uint64_t end = position_ + size;
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

bool RingReader::handle_piece(const Packet& packet, uint64_t end,
                              const std::function<bool(const Packet&)>& handle) {
  const auto& piece = view<Piece>(packet);
  const size_t bytes = packet.size - sizeof(Piece);
  if (piece.at == 0) large_.assign((size_t{piece.total} + 7) / 8, 0);
  if (piece.total > large_.size() * 8 || piece.at > piece.total) throw BadStream{"a piece beyond its packet"};
  const size_t fits = std::min<size_t>(bytes, piece.total - piece.at);
  std::memcpy(reinterpret_cast<char*>(large_.data()) + piece.at, &piece + 1, fits);
  if (piece.at + fits < piece.total) return true;
  std::vector<uint64_t> whole = std::move(large_);
  large_.clear();
  const auto& assembled = *reinterpret_cast<const Packet*>(whole.data());
  if (assembled.size != piece.total || assembled.op == kOpPiece) throw BadStream{"pieces of nothing"};
  end_ = end;
  return handle(assembled);
}

}  // namespace stasis::gl

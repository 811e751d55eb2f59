#include "encoder/stream.h"

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>

#include "encoder/connection.h"
#include "generated/commands.h"

namespace stasis::gl {

thread_local Stream* current_stream __attribute__((tls_model("initial-exec"))) = nullptr;

namespace {

std::atomic<uint64_t> publications;

void futex_wait(const std::atomic<uint32_t>& word, uint32_t value) {
  syscall(SYS_futex, &word, FUTEX_WAIT, value, nullptr, nullptr, 0);
}
void futex_wake(const void* word) { syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0); }

}  // namespace

Stream* Stream::open(uint32_t id) {
  int file = memfd_create("stasis-gl-ring", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, kRingFileSize) < 0) return nullptr;
  void* room = mmap(nullptr, kRingFileSize + kDataSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (room == MAP_FAILED) return nullptr;
  constexpr int kProtection = PROT_READ | PROT_WRITE;
  char* base = static_cast<char*>(room);
  mmap(base, kRingFileSize, kProtection, MAP_SHARED | MAP_FIXED, file, 0);
  mmap(base + kRingFileSize, kDataSize, kProtection, MAP_SHARED | MAP_FIXED, file, kHeaderSize + kReplySize);
  auto* stream = static_cast<Stream*>(calloc(1, sizeof(Stream)));
  stream->ring_ = reinterpret_cast<Ring*>(base);
  stream->reply_ = base + kHeaderSize;
  stream->data_ = base + kHeaderSize + kReplySize;
  stream->limit_ = kDataSize;
  stream->file_ = file;
  stream->ring_->version = kRingVersion;
  stream->ring_->id = id;
  stream->ring_->readers = Connection::readers();
  stream->ring_->table = kCommandTable;
  stream->ring_->program = Connection::program();
  stream->ring_->magic = kRingMagic;
  return stream;
}

void Stream::close(Stream* stream) {
  stream->begin(kOpEndOfThread, sizeof(Packet));
  stream->commit_small();
  stream->publish();
  munmap(stream->ring_, kRingFileSize + kDataSize);
  ::close(stream->file_);
  free(stream);
}

void Stream::publish() {
  if (published_ == at_) return;
  published_ = at_;
  ring_->order.store(publications.fetch_add(1) + 1, std::memory_order_relaxed);
  ring_->head.store(at_, std::memory_order_seq_cst);
  for (uint32_t i = 0; i < ring_->readers; ++i) {
    if (ring_->reader[i].sleeping.load(std::memory_order_seq_cst) != 0 &&
        ring_->reader[i].sleeping.exchange(0) != 0)
      futex_wake(&ring_->reader[i].sleeping);
  }
}

uint64_t Stream::slowest_reader() const {
  uint64_t slowest = ~uint64_t{0};
  for (uint32_t i = 0; i < ring_->readers; ++i) {
    uint64_t tail = ring_->reader[i].tail.load(std::memory_order_acquire);
    if (tail < slowest) slowest = tail;
  }
  return slowest;
}

void Stream::wait_for_readers(uint32_t seen) { futex_wait(ring_->progress, seen); }

void Stream::make_room() {
  for (;;) {
    limit_ = slowest_reader() + kDataSize;
    if (next_ <= limit_) return;
    publish();
    uint32_t seen = ring_->progress.load();
    ring_->writer_sleeping.store(1);
    if (next_ > slowest_reader() + kDataSize) wait_for_readers(seen);
    ring_->writer_sleeping.store(0);
  }
}

Answer Stream::ask() {
  set_flags(kWantsReply);
  ring_->last_question.store(at_, std::memory_order_relaxed);
  commit();
  ++replies_;
  ring_->questions.store(replies_, std::memory_order_relaxed);
  publish();
  for (;;) {
    uint32_t number = ring_->reply_number.load(std::memory_order_acquire);
    if (number == replies_) return Answer(reply_);
    futex_wait(ring_->reply_number, number);
  }
}

void Stream::limit_frames() {
  constexpr uint32_t kAhead = 2;
  ++frames_;
  ring_->frames.store(frames_);
  for (;;) {
    uint32_t seen = ring_->progress.load();
    if (frames_ - ring_->frames_shown.load() <= kAhead) return;
    ring_->writer_sleeping.store(1);
    if (frames_ - ring_->frames_shown.load() > kAhead) wait_for_readers(seen);
    ring_->writer_sleeping.store(0);
  }
}

void* Stream::begin_large(uint16_t op, size_t total) {
  large_ = static_cast<char*>(malloc(total));
  auto* packet = reinterpret_cast<Packet*>(large_);
  packet->size = static_cast<uint32_t>(total);
  packet->op = op;
  packet->flags = 0;
  last_ = packet;
  return packet;
}

void Stream::send_large() {
  char* whole = large_;
  large_ = nullptr;
  const uint32_t total = reinterpret_cast<Packet*>(whole)->size;
  constexpr uint32_t kBytes = kLargestPacket - sizeof(Piece);
  for (uint32_t at = 0; at < total; at += kBytes) {
    uint32_t bytes = total - at < kBytes ? total - at : kBytes;
    auto* piece = static_cast<Piece*>(begin(kOpPiece, sizeof(Piece) + bytes));
    piece->total = total;
    piece->at = at;
    memcpy(piece + 1, whole + at, bytes);
    commit_small();
  }
  free(whole);
}

const char* Answer::next(size_t& size) {
  uint64_t bytes;
  memcpy(&bytes, at_ + offset_, sizeof bytes);
  const char* found = at_ + offset_ + sizeof bytes;
  offset_ += sizeof bytes + padded(bytes);
  size = bytes;
  return found;
}

void Answer::take(void* into, size_t capacity) {
  size_t size = 0;
  const char* from = next(size);
  if (into != nullptr) memcpy(into, from, size < capacity ? size : capacity);
}

}  // namespace stasis::gl

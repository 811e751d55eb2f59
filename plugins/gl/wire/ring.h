// The shared memory between a thread of the program (the writer) and the processes that read what it has
// recorded: the renderer and the keeper. One memory file a thread:
//
//   [Ring: one page] [reply area: kReplySize, sparse] [packets: kDataSize, which everybody maps twice in a
//   row]
//
// Mapped twice in a row, a packet never wraps: it starts below kDataSize and may end above it.
// Positions count bytes since the ring was made and never go back; a position modulo kDataSize is its place.
// Nothing in here is a pointer, so any reader can map it anywhere, also after a restart.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace stasis::gl {

constexpr uint32_t kRingMagic = 0x676c5354;  // "TSlg"
constexpr uint32_t kRingVersion = 2;
constexpr size_t kHeaderSize = 4096;
constexpr size_t kReplySize = size_t{64} << 20;
constexpr size_t kDataSize = size_t{16} << 20;
// The keeper stays behind, at the end of the last frame, so that one that a renderer has not finished can be
// drawn again from its beginning; but not further than this.
constexpr size_t kLongestFrame = kDataSize / 2;
constexpr size_t kRingFileSize = kHeaderSize + kReplySize + kDataSize;
constexpr size_t kLargestPacket = kDataSize / 32;  // what is larger goes in pieces, see kOpPiece

enum ReaderIndex : uint32_t { kRenderer = 0, kKeeper = 1, kReaders = 2 };

struct Ring {
  uint32_t magic, version;
  uint32_t id;       // of the ring among those of its process
  uint32_t readers;  // how many of the readers the writer waits for
  uint64_t table;    // kCommandTable: who was made from another one cannot read the packets
  uint64_t program;  // the same for all rings of a process, and different for every other
  std::atomic<uint32_t>
      questions;  // asked so far; more than `reply_number`: the last packet waits for its answer
  std::atomic<uint32_t> frames;         // finished by the program so far
  std::atomic<uint64_t> last_question;  // where it is

  // Written by the program. `head` is behind the last complete packet that readers may see.
  alignas(64) std::atomic<uint64_t> head;
  std::atomic<uint64_t> order;  // of the last publication among those of all rings of the process

  struct alignas(64) Reader {
    std::atomic<uint64_t> tail;      // everything before has been dealt with
    std::atomic<uint32_t> sleeping;  // it waits for `head` to change
  } reader[kReaders];

  // A futex: the writer waits for room, or for frames to be shown.
  alignas(64) std::atomic<uint32_t> writer_sleeping;
  std::atomic<uint32_t> progress;  // counts what a waiting writer may wait for
  std::atomic<uint32_t> frames_shown;

  // The answer to the one call that is waiting.
  alignas(64) std::atomic<uint32_t> reply_number;  // a futex: number of the last answer
  uint32_t reply_size;

  // Written by the renderer, to be shown: GL_RENDERER of the context that was made current last.
  char driver[96];
};
static_assert(sizeof(Ring) <= kHeaderSize);

}  // namespace stasis::gl

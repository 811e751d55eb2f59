#include "image/blocks.h"

#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>

namespace stasis::image {
namespace {

// Stays in the second-level cache between the kernel's copy and the sum.
constexpr size_t kChunk = 256 << 10;

}  // namespace

alignas(64) constexpr char kZeros[16 << 10] = {};

// Not initialized: clearing it would take longer than summing a small file.
struct BlockSummer::Buffers {
  alignas(64) char data[kChunk];
  XXH3_state_t state;
  uint64_t hole_size = 0;  // of the last block that was nothing but a hole
  uint64_t hole_sum = 0;
};

BlockSummer::BlockSummer() : buffers_(std::make_unique_for_overwrite<Buffers>()) {}
BlockSummer::~BlockSummer() = default;
BlockSummer::BlockSummer(BlockSummer&&) noexcept = default;
BlockSummer& BlockSummer::operator=(BlockSummer&&) noexcept = default;

Result<BlockSum> BlockSummer::sum(int fd, const std::string& name, uint64_t offset, uint64_t size) {
  BlockSum result;
  XXH3_state_t& state = buffers_->state;
  XXH3_64bits_reset(&state);
  const uint64_t end = offset + size;
  // Most of a large sparse file is holes as large as a block, whose sums are all the same.
  if (size == buffers_->hole_size) {
    off_t data = lseek(fd, static_cast<off_t>(offset), SEEK_DATA);
    if ((data < 0 && errno == ENXIO) || data >= static_cast<off_t>(end)) {
      result.sum = buffers_->hole_sum;
      return result;
    }
  }

  while (offset < end) {
    off_t data = lseek(fd, static_cast<off_t>(offset), SEEK_DATA);
    if (data < 0 && errno == ENXIO) {
      // Only a hole up to the end of the file, or the end itself: the caller has compared the size.
      data = static_cast<off_t>(end);
    } else if (data < 0) {
      return errno_error("read image", name);
    }
    const uint64_t data_start = std::min(static_cast<uint64_t>(data), end);
    for (; offset < data_start;) {
      const uint64_t part = std::min<uint64_t>(data_start - offset, sizeof kZeros);
      XXH3_64bits_update(&state, kZeros, part);
      offset += part;
    }
    if (offset == end) break;

    off_t hole = lseek(fd, static_cast<off_t>(offset), SEEK_HOLE);
    if (hole < 0) return errno_error("read image", name);
    // A file that is being written may have become denser since SEEK_DATA; the bytes that matter to us do not
    // change.
    const uint64_t data_end = std::min(std::max(static_cast<uint64_t>(hole), offset + 1), end);
    result.stored += data_end - offset;
    while (offset < data_end) {
      const uint64_t part = std::min<uint64_t>(data_end - offset, kChunk);
      const ssize_t got = pread(fd, buffers_->data, part, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return errno_error("read image", fmt::format("{}, offset {}", name, offset));
      if (got == 0) {
        return Error{"read image", name, fmt::format("it ends at offset {}, before its last block", offset),
                     "", ErrorCode::kDamaged};
      }
      XXH3_64bits_update(&state, buffers_->data, static_cast<size_t>(got));
      offset += static_cast<uint64_t>(got);
    }
  }
  result.sum = XXH3_64bits_digest(&state);
  if (result.stored == 0) {
    buffers_->hole_size = size;
    buffers_->hole_sum = result.sum;
  }
  return result;
}

}  // namespace stasis::image

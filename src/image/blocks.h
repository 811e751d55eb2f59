// Sums of a file's blocks, as the writer records and verify() compares them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "stasis/result.h"

namespace stasis::image {

struct BlockSum {
  uint64_t sum = 0;
  uint64_t stored = 0;  // bytes of the block that are not in holes
};

// Owns the buffer and the state of one thread's summing.
class BlockSummer {
 public:
  BlockSummer();
  ~BlockSummer();
  BlockSummer(BlockSummer&&) noexcept;
  BlockSummer& operator=(BlockSummer&&) noexcept;

  // The bytes [offset, offset + size) of the file. Holes are neither read nor, therefore, brought into the
  // page cache; they count as zeros. Moves the position of `fd`, so it must not be a descriptor that the
  // program or a child writes through.
  Result<BlockSum> sum(int fd, const std::string& name, uint64_t offset, uint64_t size);

 private:
  struct Buffers;
  std::unique_ptr<Buffers> buffers_;
};

}  // namespace stasis::image

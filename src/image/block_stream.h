// Sums of a file's blocks, computed from its bytes as they pass.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "schema/manifest.pb.h"
#include "stasis/result.h"

namespace stasis::image {

// Takes the bytes of a file in ascending order; what is left out is a hole and counts as zeros, without being
// summed again for each block.
class BlockStream {
 public:
  // Called with the number and the sum of each block, in order.
  using Sink = std::function<Result<void>(uint64_t index, uint64_t sum)>;
  BlockStream(uint64_t size, uint32_t block_size, Sink sink);
  ~BlockStream();
  BlockStream(const BlockStream&) = delete;
  BlockStream& operator=(const BlockStream&) = delete;

  Result<void> data(uint64_t offset, std::span<const char> bytes);
  // All else is a hole.
  Result<void> end();

 private:
  struct State;
  Result<void> zeros(uint64_t up_to);
  Result<void> finish_block();
  std::unique_ptr<State> state_;
};

// A sink that compares with what the manifest says: kDamaged, with file and offset, when it is something
// else. An unsummed file is always right. `file` must live as long.
BlockStream::Sink compare_with(const schema::ImageFile& file, std::string step, std::string path,
                               std::string hint);

}  // namespace stasis::image

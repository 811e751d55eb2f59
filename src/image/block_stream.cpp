#include "image/block_stream.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>

namespace stasis::image {
namespace {

constexpr size_t kZeroBytes = 16 << 10;
alignas(64) constexpr char kZeros[kZeroBytes] = {};

uint64_t sum_of_zeros(uint64_t size, XXH3_state_t* state) {
  XXH3_64bits_reset(state);
  for (; size > 0; size -= std::min<uint64_t>(size, kZeroBytes))
    XXH3_64bits_update(state, kZeros, std::min<uint64_t>(size, kZeroBytes));
  return XXH3_64bits_digest(state);
}

}  // namespace

struct BlockStream::State {
  uint64_t size;
  uint32_t block_size;
  Sink sink;
  uint64_t at = 0;
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> sum{XXH3_createState(), XXH3_freeState};
  uint64_t hole_size = 0;  // of the last block that was a hole
  uint64_t hole_sum = 0;

  uint64_t block_end() const { return std::min(size, at - at % block_size + block_size); }
};

BlockStream::BlockStream(uint64_t size, uint32_t block_size, Sink sink)
    : state_(std::make_unique<State>(State{size, block_size, std::move(sink)})) {}
BlockStream::~BlockStream() = default;

Result<void> BlockStream::zeros(uint64_t up_to) {
  State& state = *state_;
  while (state.at < up_to) {
    const uint64_t end = state.block_end();
    if (state.at % state.block_size == 0 && end <= up_to) {
      const uint64_t size = end - state.at;
      if (state.hole_size != size) {
        state.hole_sum = sum_of_zeros(size, state.sum.get());
        state.hole_size = size;
      }
      STASIS_CHECK(state.sink(state.at / state.block_size, state.hole_sum));
      state.at = end;
      continue;
    }
    const uint64_t part = std::min({up_to, end, state.at + kZeroBytes}) - state.at;
    if (state.at % state.block_size == 0) XXH3_64bits_reset(state.sum.get());
    XXH3_64bits_update(state.sum.get(), kZeros, part);
    state.at += part;
    if (state.at == end) STASIS_CHECK(finish_block());
  }
  return {};
}

Result<void> BlockStream::finish_block() {
  State& state = *state_;
  return state.sink((state.at - 1) / state.block_size, XXH3_64bits_digest(state.sum.get()));
}

Result<void> BlockStream::data(uint64_t offset, std::span<const char> bytes) {
  State& state = *state_;
  if (offset < state.at || offset > state.size || bytes.size() > state.size - offset)
    return Error{"sum a file", {}, "its parts are not in order", {}, ErrorCode::kFailed};
  STASIS_CHECK(zeros(offset));
  while (!bytes.empty()) {
    const uint64_t end = state.block_end();
    const size_t part = std::min<uint64_t>(bytes.size(), end - state.at);
    if (state.at % state.block_size == 0) XXH3_64bits_reset(state.sum.get());
    XXH3_64bits_update(state.sum.get(), bytes.data(), part);
    state.at += part;
    bytes = bytes.subspan(part);
    if (state.at == end) STASIS_CHECK(finish_block());
  }
  return {};
}

Result<void> BlockStream::end() { return zeros(state_->size); }

BlockStream::Sink compare_with(const schema::ImageFile& file, std::string step, std::string path,
                               std::string hint) {
  return [&file, step = std::move(step), path = std::move(path), hint = std::move(hint)](
             uint64_t index, uint64_t sum) -> Result<void> {
    if (file.unsummed() || sum == file.sums(static_cast<int>(index))) return {};
    return Error{step, path,
                 fmt::format("the block at offset {} is not what was saved", index * file.block_size()), hint,
                 ErrorCode::kDamaged};
  };
}

}  // namespace stasis::image

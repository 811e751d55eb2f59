// One zstd frame with a checksum, written by several threads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "image/byte_stream.h"

namespace stasis::image {

// zstd's own default: levels above it cost more time than most disks and networks.
inline constexpr int kDefaultLevel = 3;
inline constexpr int kHighestLevel = 19;

// Compresses into a descriptor with a thread for each processor. What it writes does not depend on their
// number.
class Compressor : public ByteSink {
 public:
  // `name` is for messages. The descriptor must live as long.
  Compressor(int fd, std::string name, int level);
  ~Compressor() override;
  Compressor(const Compressor&) = delete;
  Compressor& operator=(const Compressor&) = delete;

  Result<void> write(std::span<const char> bytes) override;
  // The end of the frame. Without it a reader takes the file for truncated.
  Result<void> finish();
  uint64_t written() const;  // compressed bytes

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The bytes in a file that holds one frame and nothing else; kDamaged otherwise, at the latest at its end.
// Needs no more memory than frames of Compressor need, whatever the file says.
class Decompressor : public ByteSource {
 public:
  Decompressor(int fd, std::string name);
  ~Decompressor() override;
  Decompressor(const Decompressor&) = delete;
  Decompressor& operator=(const Decompressor&) = delete;

  Result<size_t> read(std::span<char> bytes) override;
  uint64_t consumed() const;  // compressed bytes

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace stasis::image

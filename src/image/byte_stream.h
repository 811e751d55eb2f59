// What an archive is written to and read from: a compressed file, or memory in tests.
#pragma once

#include <cstddef>
#include <span>

#include "stasis/result.h"

namespace stasis::image {

class ByteSink {
 public:
  virtual ~ByteSink() = default;
  // All of it.
  virtual Result<void> write(std::span<const char> bytes) = 0;
};

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Some bytes; 0: there are no more, and nothing is wrong with that.
  virtual Result<size_t> read(std::span<char> bytes) = 0;
};

}  // namespace stasis::image

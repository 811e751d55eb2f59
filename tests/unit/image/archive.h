// Archives in memory.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>

#include "image/byte_stream.h"

namespace stasis::image {

class StringSink : public ByteSink {
 public:
  Result<void> write(std::span<const char> bytes) override {
    text.append(bytes.data(), bytes.size());
    return {};
  }
  std::string text;
};

// Gives at most `at_once` bytes at a time.
class StringSource : public ByteSource {
 public:
  explicit StringSource(std::string text, size_t at_once = SIZE_MAX)
      : text_(std::move(text)), at_once_(at_once) {}
  Result<size_t> read(std::span<char> bytes) override {
    const size_t count = std::min({bytes.size(), at_once_, text_.size() - at_});
    std::memcpy(bytes.data(), text_.data() + at_, count);
    at_ += count;
    return count;
  }

 private:
  std::string text_;
  size_t at_once_;
  size_t at_ = 0;
};

}  // namespace stasis::image

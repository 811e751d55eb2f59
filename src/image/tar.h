// The part of the pax archive format (POSIX.1-2001, with GNU's sparse files 1.0) that exports use: every tar
// reads what is written here, and only what was written here is read. See docs/image-format.md.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "image/byte_stream.h"

namespace stasis::image {

// Bytes of a file that are not in a hole.
struct Segment {
  uint64_t offset = 0;
  uint64_t size = 0;
  bool operator==(const Segment&) const = default;
};

struct Member {
  std::string name;  // of a directory: ends with a slash
  uint32_t mode = 0600;
  int64_t modified_ns = 0;
  uint64_t size = 0;              // holes included
  std::vector<Segment> segments;  // ascending, not empty, not overlapping

  bool is_directory() const { return name.ends_with('/'); }
  uint64_t stored() const;  // bytes of all segments
};

// More of them cost more memory than it is worth; the writer's caller fills holes then.
inline constexpr size_t kMostSegments = size_t{1} << 24;

class TarWriter {
 public:
  explicit TarWriter(ByteSink& sink);
  ~TarWriter();
  TarWriter(const TarWriter&) = delete;
  TarWriter& operator=(const TarWriter&) = delete;

  // First: a comment on the whole archive, which tells the reader that it is one of ours.
  Result<void> begin(std::string_view comment);
  // What precedes the member's bytes, which follow by data(): as many as its segments have.
  Result<void> add(const Member& member);
  Result<void> data(std::span<const char> bytes);
  Result<void> end();

  // XXH3 (128 bits, in hexadecimal digits) of all that was written. Only after the last byte of a member.
  Result<std::string> sum();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Safe for any input: an Error (kDamaged), or members whose numbers agree with each other. Names are anything
// without a NUL; what they may be is the caller's to say.
class TarReader {
 public:
  // `name` is for messages.
  TarReader(ByteSource& source, std::string name);
  ~TarReader();
  TarReader(const TarReader&) = delete;
  TarReader& operator=(const TarReader&) = delete;

  Result<void> begin(std::string_view comment);
  // The next member, after all data of the last one was read; nothing: the archive has ended, and so has the
  // source.
  Result<std::optional<Member>> next();
  // The next bytes of the member's segments: all that are asked for.
  Result<void> data(std::span<char> bytes);
  // Bytes that data() has not given yet.
  uint64_t left() const;
  // Of all bytes before the present member.
  std::string sum_before() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace stasis::image

// A process of the program that stands still, and makes system calls for us.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis {

// One mapping, as /proc/PID/maps shows it.
struct MappedRange {
  uint64_t start = 0, end = 0;  // bytes
  uint64_t offset = 0;          // into the file, bytes
  int protection = 0;           // PROT_*
  std::string name;
};

class Process {
 public:
  struct Call {
    long number = 0;                      // SYS_*
    std::array<uint64_t, 6> arguments{};  // pointers are addresses in the process
    int64_t result = 0;                   // after run(): as the kernel gives it, a negative errno on failure
  };

  virtual ~Process() = default;
  virtual HostTid task() const = 0;  // its main thread
  virtual NsTid pid() const = 0;     // as the program knows it
  // All of them, in one go and in their order. A call that fails is no Error, and does not stop the others.
  virtual Result<void> run(std::span<Call> calls) = 0;
  // Puts bytes into memory that is lent to the process, for calls to come. An Error when it is full
  // (about 64 KiB).
  virtual Result<RemotePtr> put(std::span<const std::byte> bytes) = 0;
  // Forgets what was put.
  virtual void forget() = 0;
  // Any memory of the process.
  virtual Result<void> read(RemotePtr from, std::span<std::byte> into) const = 0;
  virtual Result<void> write(RemotePtr to, std::span<const std::byte> bytes) = 0;
  virtual Result<std::vector<MappedRange>> mappings() const = 0;

  // A single one.
  Result<int64_t> call(long number, std::span<const uint64_t> arguments);
};

template <typename T>
requires std::is_trivially_copyable_v<T> std::span<const std::byte> bytes_of(const T& object) {
  return std::as_bytes(std::span(&object, 1));
}
inline std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

}  // namespace stasis

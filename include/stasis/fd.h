// An owned file descriptor and the whole-buffer reads and writes that everything here needs.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "stasis/result.h"

namespace stasis {

// Owns one descriptor of this process; closes it when destroyed. Empty when default-constructed or moved
// from.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

// openat() as a Result; always O_CLOEXEC.
Result<Fd> open_file(int dir, const std::string& path, int flags, mode_t mode = 0600);
Result<Fd> open_file(const std::string& path, int flags, mode_t mode = 0600);

// The whole content, for files whose size is not known before (as in /proc). `limit` bounds it.
Result<std::string> read_all(int fd, size_t limit = size_t{1} << 30);
Result<std::string> read_file(int dir, const std::string& path, size_t limit = size_t{1} << 30);
Result<std::string> read_file(const std::string& path, size_t limit = size_t{1} << 30);

// Writes all of it or fails.
Result<void> write_all(int fd, std::string_view data);
Result<void> pwrite_all(int fd, std::string_view data, off_t offset);
// Reads exactly data.size() bytes or fails.
Result<void> pread_all(int fd, std::span<char> data, off_t offset);

// A duplicate (close-on-exec) at a number not below `at_least`.
Result<Fd> duplicate(int fd, int at_least = 3);

}  // namespace stasis

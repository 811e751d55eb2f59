#include "stasis/fd.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>

namespace stasis {

void Fd::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

Result<Fd> open_file(int dir, const std::string& path, int flags, mode_t mode) {
  int fd = ::openat(dir, path.c_str(), flags | O_CLOEXEC, mode);
  if (fd < 0) return errno_error("open", path);
  return Fd(fd);
}

Result<Fd> open_file(const std::string& path, int flags, mode_t mode) {
  return open_file(AT_FDCWD, path, flags, mode);
}

Result<std::string> read_all(int fd, size_t limit) {
  std::string content;
  std::array<char, 16384> buffer;
  for (;;) {
    ssize_t count = ::read(fd, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno_error("read", {});
    if (count == 0) return content;
    content.append(buffer.data(), static_cast<size_t>(count));
    if (content.size() > limit) return errno_error("read", {}, EFBIG);
  }
}

Result<std::string> read_file(int dir, const std::string& path, size_t limit) {
  STASIS_TRY(Fd fd, open_file(dir, path, O_RDONLY));
  auto content = read_all(fd.get(), limit);
  if (!content.ok()) {
    Error error = std::move(content).error();
    error.object = path;
    return error;
  }
  return content;
}

Result<std::string> read_file(const std::string& path, size_t limit) {
  return read_file(AT_FDCWD, path, limit);
}

Result<void> write_all(int fd, std::string_view data) {
  while (!data.empty()) {
    ssize_t count = ::write(fd, data.data(), data.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno_error("write", {});
    data.remove_prefix(static_cast<size_t>(count));
  }
  return {};
}

Result<void> pwrite_all(int fd, std::string_view data, off_t offset) {
  while (!data.empty()) {
    ssize_t count = ::pwrite(fd, data.data(), data.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno_error("write", {});
    // The memory of a process that has ended takes nothing.
    if (count == 0) return Error{"write", {}, "nothing could be written", {}};
    data.remove_prefix(static_cast<size_t>(count));
    offset += count;
  }
  return {};
}

Result<void> pread_all(int fd, std::span<char> data, off_t offset) {
  while (!data.empty()) {
    ssize_t count = ::pread(fd, data.data(), data.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno_error("read", {});
    if (count == 0) return Error{"read", {}, "unexpected end of file", {}, ErrorCode::kDamaged};
    data = data.subspan(static_cast<size_t>(count));
    offset += count;
  }
  return {};
}

Result<Fd> duplicate(int fd, int at_least) {
  int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, at_least);
  if (copy < 0) return errno_error("duplicate a descriptor", {});
  return Fd(copy);
}

}  // namespace stasis

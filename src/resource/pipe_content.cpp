#include "resource/pipe_content.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "resource/reopen.h"

namespace stasis::resource {

Result<std::vector<std::string>> peek_pipe(int reading_end, bool packets) {
  std::vector<std::string> pieces;
  int available = 0;
  if (ioctl(reading_end, FIONREAD, &available) < 0) return errno_error("ask what is in a pipe", {});
  if (available == 0) return pieces;

  // tee() duplicates the slots of a pipe without consuming them, always from its beginning: the copy needs as
  // many slots as the original.
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) return errno_error("create a pipe", {});
  Fd reading(ends[0]), writing(ends[1]);
  int capacity = fcntl(reading_end, F_GETPIPE_SZ);
  if (capacity < 0 || fcntl(writing.get(), F_SETPIPE_SZ, capacity) < 0) {
    return errno_error("create a pipe", fmt::format("{} bytes", capacity), errno,
                       "this user has too many large pipes: see /proc/sys/fs/pipe-user-pages-soft");
  }
  ssize_t copied = tee(reading_end, writing.get(), static_cast<size_t>(available), SPLICE_F_NONBLOCK);
  if (copied < 0) return errno_error("duplicate what is in a pipe", {});
  if (copied != available) {
    return Error{"duplicate what is in a pipe",
                 {},
                 fmt::format("{} of {} bytes", copied, available),
                 {},
                 ErrorCode::kFailed};
  }
  writing.reset();

  // A packet is never longer than a page; slots keep the mark of a packet, so one read gives one packet.
  size_t longest = packets ? 4096 : static_cast<size_t>(available);
  for (int left = available; left > 0;) {
    std::string piece(longest, '\0');
    ssize_t count = read(reading.get(), piece.data(), piece.size());
    if (count <= 0) return errno_error("read the copy of a pipe", {}, count < 0 ? errno : EIO);
    piece.resize(static_cast<size_t>(count));
    left -= static_cast<int>(count);
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

Result<void> fill_pipe(int any_end, const std::vector<std::string>& pieces, bool packets) {
  if (pieces.empty()) return {};
  STASIS_TRY(Fd writing, reopen_pipe(any_end, O_WRONLY | O_NONBLOCK | (packets ? O_DIRECT : 0)));
  for (const std::string& piece : pieces) STASIS_CHECK(write_all(writing.get(), piece));
  return {};
}

}  // namespace stasis::resource

#include "kernel/write_tracker.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include "stasis/types.h"

namespace stasis::kernel {

namespace {

// <linux/userfaultfd.h> of Debian 12 is older.
constexpr uint64_t kWriteProtectAsync = 1 << 15;

}  // namespace

// What everybody may have. It limits only faults that somebody is asked about, and here nobody is.
const int WriteTracker::kFlags = O_CLOEXEC | UFFD_USER_MODE_ONLY;

Result<WriteTracker> WriteTracker::begin(Fd fd) {
  uffdio_api api = {};
  api.api = UFFD_API;
  api.features = kWriteProtectAsync | UFFD_FEATURE_PAGEFAULT_FLAG_WP;
  if (::ioctl(fd.get(), UFFDIO_API, &api) != 0) return errno_error("track writes", {});
  return WriteTracker(std::move(fd));
}

bool WriteTracker::is_dead(uint64_t unwatched) const {
  uffdio_writeprotect nothing = {};
  nothing.range = {unwatched, kPageSize};
  return ::ioctl(fd_.get(), UFFDIO_WRITEPROTECT, &nothing) != 0 && errno == ESRCH;
}

bool WriteTracker::watch(uint64_t start, uint64_t end) const {
  uffdio_register range = {};
  range.range = {start, end - start};
  range.mode = UFFDIO_REGISTER_MODE_WP;
  return ::ioctl(fd_.get(), UFFDIO_REGISTER, &range) == 0;
}

bool WriteTracker::protect(uint64_t start, uint64_t end) const {
  uffdio_writeprotect range = {};
  range.range = {start, end - start};
  range.mode = UFFDIO_WRITEPROTECT_MODE_WP;
  return ::ioctl(fd_.get(), UFFDIO_WRITEPROTECT, &range) == 0;
}

}  // namespace stasis::kernel

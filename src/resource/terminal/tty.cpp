#include "resource/terminal/tty.h"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

namespace stasis::resource {
namespace {

// Documentation/admin-guide/devices.txt
constexpr unsigned kFirstPtyMajor = 136, kLastPtyMajor = 143;
constexpr unsigned kTtyMajor = 5, kMasterMinor = 2;

}  // namespace

bool is_terminal(const OpenFile& file) {
  return S_ISCHR(file.status.st_mode) && !(file.flags & O_PATH) && tty_device(file.duplicate.get()) != 0;
}

bool is_master(const OpenFile& file) {
  return S_ISCHR(file.status.st_mode) && major(file.status.st_rdev) == kTtyMajor &&
         minor(file.status.st_rdev) == kMasterMinor && !(file.flags & O_PATH);
}

uint64_t tty_device(int fd) {
  unsigned device = 0;
  if (ioctl(fd, TIOCGDEV, &device) == 0) return device;
  // A slave that has hung up answers no ioctl any more, but its number still tells.
  struct stat status = {};
  if (fstat(fd, &status) == 0 && S_ISCHR(status.st_mode) && is_pty_slave(status.st_rdev))
    return status.st_rdev;
  return 0;
}

bool is_pty_slave(uint64_t device) {
  return major(device) >= kFirstPtyMajor && major(device) <= kLastPtyMajor;
}

uint32_t tty_index(int master) {
  unsigned index = 0;
  return ioctl(master, TIOCGPTN, &index) == 0 ? index : UINT32_MAX;
}

}  // namespace stasis::resource

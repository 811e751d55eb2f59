#include "resource/file/device.h"

#include <fcntl.h>
#include <linux/kd.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "resource/file/open_by_name.h"
#include "resource/file/removed.h"
#include "resource/payload.h"
#include "resource/refusal.h"
#include "schema/kinds/file.pb.h"

namespace stasis::resource {
namespace {

// Documentation/admin-guide/devices.txt
constexpr unsigned kMemoryDevices = 1;
constexpr unsigned kNull = 3, kZero = 5, kFull = 7, kRandom = 8, kUrandom = 9;

// A terminal of the host, whose state is not the program's: opened by name, it is the same one again.
constexpr unsigned kTtyMajor = 4, kOtherTtyMajor = 5;
constexpr unsigned kLastVirtual = 63, kConsole = 1;

bool is_console(dev_t device) {
  return (major(device) == kOtherTtyMajor && minor(device) == kConsole) ||
         (major(device) == kTtyMajor && minor(device) <= kLastVirtual);
}

bool has_no_state(dev_t device) {
  if (major(device) != kMemoryDevices) return false;
  unsigned number = minor(device);
  return number == kNull || number == kZero || number == kFull || number == kRandom || number == kUrandom;
}

}  // namespace

KindInfo DeviceKind::info() const {
  return {"device", "Descriptors",
          "/dev/null, zero, full, random, urandom, console, virtual terminals in text mode; block devices"};
}

bool DeviceKind::recognises(const OpenFile& file, const Observation&) const {
  if (S_ISBLK(file.status.st_mode)) return true;
  const dev_t device = file.status.st_rdev;
  return S_ISCHR(file.status.st_mode) && (has_no_state(device) || is_console(device));
}

Result<std::string> DeviceKind::observe(const OpenFile& file, Observation&) const {
  if (S_ISCHR(file.status.st_mode) && is_console(file.status.st_rdev)) {
    // Whoever draws on it, or takes the keys themselves, has made that of the terminal and goes on as if it
    // were.
    int mode = 0, keys = 0;
    const int fd = file.duplicate.get();
    const bool draws = ioctl(fd, KDGETMODE, &mode) == 0 && mode != KD_TEXT;
    const bool takes_keys = ioctl(fd, KDGKBMODE, &keys) == 0 && keys != K_XLATE && keys != K_UNICODE;
    if (draws || takes_keys)
      return refusal(file, "it is a virtual terminal in graphics mode, or with its keyboard in raw mode",
                     "leave the program's display before a checkpoint");
  }
  STASIS_TRY(auto message, observe_name(file));
  return pack(message);
}

Result<Fd> DeviceKind::make(const Record& record, Making& context) const {
  STASIS_TRY(auto message, unpack<schema::File>(record));
  // The terminal of whoever opens it is not what it should become.
  Record without_control = record;
  if (is_console(message.special())) without_control.flags |= O_NOCTTY;
  STASIS_TRY(Fd fd, open_by_name(without_control, message, context));
  if (S_ISBLK(message.mode()) && lseek(fd.get(), record.position, SEEK_SET) < 0)
    return cannot_make(record, "lseek");
  return fd;
}

Result<void> DeviceKind::fill(const Record& record, int, Making& context) const {
  STASIS_TRY(auto message, unpack<schema::File>(record));
  return message.removed() ? finish_removed(record, message, context) : Result<void>();
}

Result<void> DeviceKind::relocate(Record& record, const Place& place) const {
  return relocate_file(record, place);
}

}  // namespace stasis::resource

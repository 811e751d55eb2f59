#include "resource/file/device.h"

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

bool has_no_state(dev_t device) {
  if (major(device) != kMemoryDevices) return false;
  unsigned number = minor(device);
  return number == kNull || number == kZero || number == kFull || number == kRandom || number == kUrandom;
}

}  // namespace

KindInfo DeviceKind::info() const {
  return {"device", "Descriptors", "/dev/null, zero, full, random, urandom; block devices"};
}

bool DeviceKind::recognises(const OpenFile& file, const Observation&) const {
  return S_ISBLK(file.status.st_mode) || (S_ISCHR(file.status.st_mode) && has_no_state(file.status.st_rdev));
}

Result<std::string> DeviceKind::observe(const OpenFile& file, Observation&) const {
  STASIS_TRY(auto message, observe_name(file));
  return pack(message);
}

Result<Fd> DeviceKind::make(const Record& record, Making& context) const {
  STASIS_TRY(auto message, unpack<schema::File>(record));
  STASIS_TRY(Fd fd, open_by_name(record, message, context));
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

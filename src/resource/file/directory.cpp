#include "resource/file/directory.h"

#include <unistd.h>

#include "resource/file/open_by_name.h"
#include "resource/file/removed.h"
#include "resource/payload.h"
#include "resource/refusal.h"
#include "schema/kinds/file.pb.h"

namespace stasis::resource {

KindInfo DirectoryKind::info() const {
  return {"directory", "Descriptors", "directory, also one that was removed: path, position"};
}

bool DirectoryKind::recognises(const OpenFile& file, const Observation&) const {
  return S_ISDIR(file.status.st_mode);
}

Result<std::string> DirectoryKind::observe(const OpenFile& file, Observation&) const {
  STASIS_TRY(auto message, observe_name(file));
  return pack(message);
}

// The position in a directory is a cookie of the file system, good for as long as the directory lives there.
Result<Fd> DirectoryKind::make(const Record& record, Making& context) const {
  STASIS_TRY(auto message, unpack<schema::File>(record));
  STASIS_TRY(Fd fd, open_by_name(record, message, context));
  if (record.position != 0 && lseek(fd.get(), record.position, SEEK_SET) < 0)
    return cannot_make(record, "lseek");
  return fd;
}

Result<void> DirectoryKind::fill(const Record& record, int, Making& context) const {
  STASIS_TRY(auto message, unpack<schema::File>(record));
  return message.removed() ? finish_removed(record, message, context) : Result<void>();
}

Result<void> DirectoryKind::relocate(Record& record, const Place& place) const {
  return relocate_file(record, place);
}

}  // namespace stasis::resource

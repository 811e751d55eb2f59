#include "resource/file/path_only.h"

#include <fcntl.h>

#include "resource/file/open_by_name.h"
#include "resource/file/removed.h"
#include "resource/payload.h"
#include "schema/kinds/file.pb.h"

namespace stasis::resource {

KindInfo PathOnlyKind::info() const {
  return {"path", "Descriptors", "O_PATH descriptor, also of what was removed"};
}

bool PathOnlyKind::recognises(const OpenFile& file, const Observation&) const { return file.flags & O_PATH; }

Result<std::string> PathOnlyKind::observe(const OpenFile& file, Observation&) const {
  STASIS_TRY(auto message, observe_name(file));
  return pack(message);
}

Result<Fd> PathOnlyKind::make(const Record& record, Making& context) const {
  STASIS_TRY(auto message, unpack<schema::File>(record));
  return open_by_name(record, message, context);
}

Result<void> PathOnlyKind::fill(const Record& record, int, Making& context) const {
  STASIS_TRY(auto message, unpack<schema::File>(record));
  return message.removed() ? finish_removed(record, message, context) : Result<void>();
}

Result<void> PathOnlyKind::relocate(Record& record, const Place& place) const {
  return relocate_file(record, place);
}

}  // namespace stasis::resource

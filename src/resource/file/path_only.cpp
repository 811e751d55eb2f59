#include "resource/file/path_only.h"

#include <fcntl.h>

#include "resource/file/open_by_name.h"
#include "resource/payload.h"
#include "schema/kinds/file.pb.h"

namespace stasis::resource {

KindInfo PathOnlyKind::info() const {
  return {"path", "Descriptors", "O_PATH descriptor", Support::kPartial,
          "one whose file was removed is refused"};
}

bool PathOnlyKind::recognises(const OpenFile& file, const Observation&) const { return file.flags & O_PATH; }

Result<std::string> PathOnlyKind::observe(const OpenFile& file, Observation&) const {
  STASIS_TRY(auto message, observe_name(file));
  return pack(message);
}

Result<Fd> PathOnlyKind::make(const Record& record, Making&) const {
  STASIS_TRY(auto message, unpack<schema::File>(record));
  return open_by_name(record, message);
}

}  // namespace stasis::resource

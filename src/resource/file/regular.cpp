#include "resource/file/regular.h"

#include <unistd.h>

#include "resource/file/open_by_name.h"
#include "resource/payload.h"
#include "resource/refusal.h"
#include "schema/kinds/file.pb.h"

namespace stasis::resource {

KindInfo RegularFileKind::info() const {
  return {"file", "Descriptors", "regular file: path, flags, position; content of what is open for writing",
          Support::kPartial, "one that is open for reading only has the content of the file at restart"};
}

bool RegularFileKind::recognises(const OpenFile& file, const Observation&) const {
  return S_ISREG(file.status.st_mode) && file.link.starts_with('/');
}

Result<std::string> RegularFileKind::observe(const OpenFile& file, Observation&) const {
  STASIS_TRY(auto message, observe_name(file));
  return pack(message);
}

// A file that nobody has put back and that has changed since is what the program would have found after a
// pause, too; a position behind the end is allowed by the kernel.
Result<Fd> RegularFileKind::make(const Record& record, Making& context) const {
  STASIS_TRY(auto message, unpack<schema::File>(record));
  message.set_path(context.place_of(message.path()));
  STASIS_TRY(Fd fd, open_by_name(record, message, context));
  if (lseek(fd.get(), record.position, SEEK_SET) < 0 && errno != ESPIPE) return cannot_make(record, "lseek");
  return fd;
}

std::string RegularFileKind::summary(const Record& record) const {
  auto message = unpack<schema::File>(record);
  if (!message.ok()) return {};
  return fmt::format("{} at {} of {}", message->path(), record.position, message->size());
}

Result<void> RegularFileKind::relocate(Record& record, const Place& place) const {
  return relocate_file(record, place);
}

}  // namespace stasis::resource

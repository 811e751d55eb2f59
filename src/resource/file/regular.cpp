#include "resource/file/regular.h"

#include <unistd.h>

#include "resource/file/locks.h"
#include "resource/file/open_by_name.h"
#include "resource/payload.h"
#include "resource/refusal.h"
#include "schema/kinds/file.pb.h"

namespace stasis::resource {

KindInfo RegularFileKind::info() const {
  return {
      "file", "Descriptors", "regular file: path, flags, position, locks", Support::kPartial,
      "the content is that of the file at restart; of the locks of processes, those of a file's first owner"};
}

bool RegularFileKind::recognises(const OpenFile& file, const Observation&) const {
  return S_ISREG(file.status.st_mode) && file.link.starts_with('/');
}

Result<std::string> RegularFileKind::observe(const OpenFile& file, Observation&) const {
  STASIS_TRY(auto message, observe_name(file));
  STASIS_CHECK(observe_locks(file, message));
  return pack(message);
}

// A file that has grown or changed since is what the program would have found after a pause, too; a position
// behind the end is allowed by the kernel.
Result<Fd> RegularFileKind::make(const Record& record, Making&) const {
  STASIS_TRY(auto message, unpack<schema::File>(record));
  STASIS_TRY(Fd fd, open_by_name(record, message));
  if (lseek(fd.get(), record.position, SEEK_SET) < 0 && errno != ESPIPE) return cannot_make(record, "lseek");
  STASIS_CHECK(lock_description(record, fd.get(), message));
  return fd;
}

Result<void> RegularFileKind::finish(const Record& record, Finishing& owner) const {
  STASIS_TRY(auto message, unpack<schema::File>(record));
  return lock_as_process(record, owner, message);
}

std::string RegularFileKind::summary(const Record& record) const {
  auto message = unpack<schema::File>(record);
  if (!message.ok()) return {};
  return fmt::format("{} at {} of {}{}", message->path(), record.position, message->size(),
                     message->locks_size() > 0 ? ", locked" : "");
}

}  // namespace stasis::resource

#include "resource/file/unlinked.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "resource/content.h"
#include "resource/file/open_by_name.h"
#include "resource/file/removed.h"
#include "resource/file_search.h"
#include "resource/payload.h"
#include "resource/refusal.h"
#include "resource/reopen.h"
#include "schema/kinds/file.pb.h"

namespace stasis::resource {
namespace {

std::string object_key(const schema::File& message) {
  return fmt::format("unlinked:{:x}:{}", message.device(), message.inode());
}

Result<Fd> unnamed_file_in(const std::string& directory) {
  auto fd = open_file(directory, O_TMPFILE | O_RDWR, 0600);
  if (fd.ok()) return fd;
  // Not every file system has O_TMPFILE.
  std::string name = directory + "/.stasis-XXXXXX";
  int named = mkostemp(name.data(), O_CLOEXEC);
  if (named < 0) return errno_error("create a file", directory);
  unlink(name.c_str());
  return Fd(named);
}

// As near to where it was as possible: on the same file system it has the same limits, speed and features.
Result<Fd> unnamed_file_near(const Record& record, const std::string& path) {
  for (std::string directory = directory_of(path);; directory = directory_of(directory)) {
    if (auto fd = unnamed_file_in(directory); fd.ok()) return fd;
    if (directory == "/") break;
  }
  const char* configured = getenv("TMPDIR");
  for (std::string directory : {configured ? configured : "/var/tmp", "/var/tmp", "/tmp"}) {
    if (auto fd = unnamed_file_in(directory); fd.ok()) return fd;
  }
  return cannot_make(record, "a file without a name near " + path, errno,
                     "set TMPDIR to a directory that can be written");
}

// Under the name that it had, which /proc/PID/fd goes on to show; if that is taken, it has none at all.
Result<Fd> create_and_remove(const Record& record, const std::string& path) {
  Way way(path);
  auto named = open_file(path, O_RDWR | O_CREAT | O_EXCL);
  if (!named.ok()) return unnamed_file_near(record, path);
  if (unlink(path.c_str()) < 0) return cannot_make(record, path);
  return named;
}

Result<Fd> make_object(const Record& record, const schema::File& message, Making& context) {
  STASIS_TRY(Fd object, create_and_remove(record, message.path()));
  STASIS_TRY(Fd content, context.open_image_file(message.content()));
  if (auto copied = copy_content(content.get(), object.get()); !copied.ok()) {
    return std::move(copied).error().within("restore " + record.describe());
  }
  return object;
}

}  // namespace

KindInfo UnlinkedFileKind::info() const {
  return {"unlinked-file", "Descriptors",
          "file without a name (O_TMPFILE, removed while open): content, sharing"};
}

bool UnlinkedFileKind::recognises(const OpenFile& file, const Observation&) const {
  return S_ISREG(file.status.st_mode) && name_of(file).state == Name::kDeleted;
}

Result<std::string> UnlinkedFileKind::observe(const OpenFile& file, Observation& tree) const {
  if (file.status.st_nlink > 0) {
    tree.warn(
        fmt::format("{}: the name it was opened by is gone, and another one was not found; after a restart "
                    "it is a file of "
                    "its own",
                    file.describe()));
  }
  schema::File message;
  message.set_path(name_of(file).path);
  message.set_mode(file.status.st_mode);
  message.set_device(file.status.st_dev);
  message.set_inode(file.status.st_ino);
  message.set_size(static_cast<uint64_t>(file.status.st_size));
  message.set_modified_ns(file.status.st_mtim.tv_sec * 1'000'000'000 + file.status.st_mtim.tv_nsec);
  message.set_accessed_ns(file.status.st_atim.tv_sec * 1'000'000'000 + file.status.st_atim.tv_nsec);
  message.set_user(file.status.st_uid);
  message.set_group(file.status.st_gid);
  message.set_owned(true);
  message.set_content(content_name("unlinked", file.status));
  STASIS_CHECK(save_content(file, message.content(), tree));
  return pack(message);
}

Result<Fd> UnlinkedFileKind::make(const Record& record, Making& context) const {
  STASIS_TRY(auto message, unpack<schema::File>(record));
  Fd& object = context.shared_objects()[object_key(message)];
  if (!object) {
    STASIS_TRY(object, make_object(record, message, context));
  }
  // O_TMPFILE is a flag that F_GETFL keeps; opening with it again would ask for another new file.
  auto fd = reopen_on_mount_of(message.path(), object.get(),
                               open_flags(record.flags & ~static_cast<uint32_t>(O_TMPFILE)));
  if (!fd.ok()) return std::move(fd).error().within("restore " + record.describe());
  if (record.flags & O_PATH) return fd;
  if (lseek(fd->get(), record.position, SEEK_SET) < 0) return cannot_make(record, "lseek");
  return fd;
}

// Owner, mode and time come when every description is open: the mode may forbid opening, and a write would
// change the time.
Result<void> UnlinkedFileKind::fill(const Record& record, int, Making& context) const {
  STASIS_TRY(auto message, unpack<schema::File>(record));
  int object = context.shared_objects()[object_key(message)].get();
  // Only root can give a file away; whoever is in a group may have given it to that.
  if (message.owned() && fchown(object, message.user(), message.group()) < 0 && geteuid() == 0 &&
      errno != EINVAL)
    return cannot_make(record, "fchown");
  if (fchmod(object, message.mode() & 07777) < 0) return cannot_make(record, "fchmod");
  timespec modified = to_timespec(message.modified_ns());
  timespec accessed = message.owned() ? to_timespec(message.accessed_ns()) : timespec{0, UTIME_OMIT};
  timespec times[2] = {accessed, modified};
  if (futimens(object, times) < 0) return cannot_make(record, "futimens");
  return {};
}

std::string UnlinkedFileKind::summary(const Record& record) const {
  auto message = unpack<schema::File>(record);
  if (!message.ok()) return {};
  return fmt::format("{} without a name, at {} of {}", message->path(), record.position, message->size());
}

Result<void> UnlinkedFileKind::relocate(Record& record, const Place& place) const {
  return relocate_file(record, place);
}

}  // namespace stasis::resource

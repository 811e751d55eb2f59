#include "resource/file/open_by_name.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>

#include "kernel/proc.h"
#include "resource/file/removed.h"
#include "resource/file_search.h"
#include "resource/payload.h"
#include "resource/refusal.h"
#include "resource/reopen.h"

namespace stasis::resource {
namespace {

std::string_view type_name(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return "a regular file";
    case S_IFDIR:
      return "a directory";
    case S_IFIFO:
      return "a FIFO";
    case S_IFCHR:
      return "a character device";
    case S_IFBLK:
      return "a block device";
    case S_IFLNK:
      return "a symbolic link";
    case S_IFSOCK:
      return "a socket";
    default:
      return "something else";
  }
}

// A file can be open for writing though its mode forbids it: it was created that way, or changed since. Its
// owner may open it again by lifting the mode for a moment.
Result<Fd> open_against_mode(const Record& record, const std::string& path, int flags) {
  STASIS_TRY(Fd place, open_file(path, O_PATH));
  struct stat status = {};
  if (fstat(place.get(), &status) < 0 || !S_ISREG(status.st_mode) || status.st_uid != geteuid()) {
    return cannot_make(record, path, EACCES, "the program had it open, but this user may not open it now");
  }
  std::string link = kernel::own_descriptor(place.get());
  if (chmod(link.c_str(), (status.st_mode & 07777) | 0600) < 0) return cannot_make(record, path);
  auto fd = reopen(place.get(), flags);
  if (chmod(link.c_str(), status.st_mode & 07777) < 0) return cannot_make(record, path);
  return fd;
}

Result<Fd> open_any(const Record& record, const std::string& path) {
  int flags = open_flags(record.flags);
  auto fd = open_file(path, flags);
  if (fd.ok()) return fd;
  int error = errno;
  // O_NOATIME is for the file's owner only and changes nothing that a program could see through the
  // descriptor.
  if (error == EPERM && flags & O_NOATIME) return open_file(path, flags & ~O_NOATIME);
  if (error == EACCES) return open_against_mode(record, path, flags);
  return cannot_make(
      record, path, error,
      error == ENOENT || error == ENOTDIR ? "the program had it open: put it back to restart" : "");
}

}  // namespace

Result<schema::File> observe_name(const OpenFile& file) {
  NamedPath name = name_of(file);
  if (name.state == Name::kDeleted) return observe_removed(file, name.path);
  if (name.state == Name::kLeadsElsewhere) {
    return refusal(file, "its name does not lead to it: something else is mounted there, or replaced it",
                   "only files that can be opened by their name can be restored");
  }
  schema::File message;
  message.set_path(name.path);
  message.set_mode(file.status.st_mode);
  message.set_device(file.status.st_dev);
  message.set_inode(file.status.st_ino);
  message.set_size(static_cast<uint64_t>(file.status.st_size));
  message.set_special(file.status.st_rdev);
  return message;
}

Result<Fd> open_by_name(const Record& record, const schema::File& message, Making& context) {
  if (message.removed()) return open_removed(record, message, context);
  // Look before opening: opening a FIFO may block, and opening a device may do anything.
  struct stat status = {};
  int follow = S_ISLNK(message.mode()) ? AT_SYMLINK_NOFOLLOW : 0;
  if (fstatat(AT_FDCWD, message.path().c_str(), &status, follow) < 0) {
    return cannot_make(
        record, message.path(), errno,
        errno == ENOENT || errno == ENOTDIR ? "the program had it open: put it back to restart" : "");
  }
  bool same_device =
      !(S_ISCHR(message.mode()) || S_ISBLK(message.mode())) || status.st_rdev == message.special();
  if ((status.st_mode & S_IFMT) != (message.mode() & S_IFMT) || !same_device) {
    return Error{"restore " + record.describe(), message.path(),
                 fmt::format("it was {}, and now is {}", type_name(message.mode()),
                             same_device ? type_name(status.st_mode) : "another device"),
                 "put the file of the program back to restart"};
  }
  return open_any(record, message.path());
}

namespace {

uint64_t mount_of(int fd) {
  struct statx status = {};
  return statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &status) == 0 ? status.stx_mnt_id : 0;
}

// By a directory that is left on the way to the name.
Fd directory_towards(const std::string& path) {
  for (std::string directory = directory_of(path);; directory = directory_of(directory)) {
    Fd opened(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (opened || directory == "/") return opened;
  }
}

}  // namespace

// The kernel opens what a handle names by any mount of its file system, for root. For others the file is the
// same, and only the number of its mount differs.
Result<Fd> reopen_on_mount_of(const std::string& path, int object, int flags) {
  const Fd directory = directory_towards(path);
  struct stat there = {}, status = {};
  if (!directory || mount_of(directory.get()) == mount_of(object) || fstat(directory.get(), &there) != 0 ||
      fstat(object, &status) != 0 || there.st_dev != status.st_dev)
    return reopen(object, flags);
  alignas(file_handle) std::array<char, sizeof(file_handle) + MAX_HANDLE_SZ> storage = {};
  auto* handle = reinterpret_cast<file_handle*>(storage.data());
  handle->handle_bytes = MAX_HANDLE_SZ;
  int mount = 0;
  if (name_to_handle_at(object, "", handle, &mount, AT_EMPTY_PATH) == 0) {
    Fd opened(open_by_handle_at(directory.get(), handle, flags & ~O_NOFOLLOW));
    if (opened) return opened;
  }
  return reopen(object, flags);
}

Result<void> relocate_file(Record& record, const DescriptorKind::Place& place) {
  return change<schema::File>(record, [&](schema::File& file) { file.set_path(place(file.path())); });
}

}  // namespace stasis::resource

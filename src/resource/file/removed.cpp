#include "resource/file/removed.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>

#include "base/clock.h"
#include "kernel/proc.h"
#include "resource/file/open_by_name.h"
#include "resource/file_search.h"
#include "resource/refusal.h"
#include "resource/reopen.h"

namespace stasis::resource {
namespace {

std::string object_key(const schema::File& message) {
  return fmt::format("removed:{:x}:{}", message.device(), message.inode());
}

int create(const schema::File& message, const char* name) {
  switch (message.mode() & S_IFMT) {
    case S_IFDIR:
      return mkdir(name, 0700);
    case S_IFLNK:
      return symlink(message.target().c_str(), name);
    default:
      return mknod(name, (message.mode() & S_IFMT) | 0600, message.special());
  }
}

// It may have been where nothing can be made any more.
std::vector<std::string> possible_names(const Record& record, const schema::File& message) {
  const std::string spare = fmt::format("/.stasis-{}-{}", getpid(), record.id);
  return {message.path(), directory_of(message.path()) + spare, "/var/tmp" + spare, "/tmp" + spare};
}

Result<Fd> make_object(const Record& record, const schema::File& message) {
  Way way(message.path());
  int error = 0;
  for (const std::string& name : possible_names(record, message)) {
    if (create(message, name.c_str()) != 0) {
      error = errno;
      continue;
    }
    Fd object(open(name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    error = errno;
    if (message.owned() && lchown(name.c_str(), message.user(), message.group()) != 0 && geteuid() == 0)
      error = errno;
    if (S_ISDIR(message.mode()) ? rmdir(name.c_str()) != 0 : unlink(name.c_str()) != 0) error = errno;
    if (object) return object;
  }
  return cannot_make(record, message.path(), error,
                     error == EPERM ? "only root can make a device: restart it as root" : "");
}

}  // namespace

Way::Way(const std::string& path) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    std::string directory = path.substr(0, slash);
    if (mkdir(directory.c_str(), 0700) == 0) made_.push_back(std::move(directory));
  }
}

Way::~Way() {
  for (auto directory = made_.rbegin(); directory != made_.rend(); ++directory) rmdir(directory->c_str());
}

Result<schema::File> observe_removed(const OpenFile& file, const std::string& path) {
  schema::File message;
  message.set_path(path);
  message.set_mode(file.status.st_mode);
  message.set_device(file.status.st_dev);
  message.set_inode(file.status.st_ino);
  message.set_special(file.status.st_rdev);
  message.set_removed(true);
  message.set_user(file.status.st_uid);
  message.set_group(file.status.st_gid);
  message.set_modified_ns(file.status.st_mtim.tv_sec * 1'000'000'000 + file.status.st_mtim.tv_nsec);
  message.set_accessed_ns(file.status.st_atim.tv_sec * 1'000'000'000 + file.status.st_atim.tv_nsec);
  message.set_owned(true);
  if (!S_ISLNK(file.status.st_mode)) return message;
  std::array<char, 4096> target;
  ssize_t length = readlinkat(file.duplicate.get(), "", target.data(), target.size());
  if (length < 0) return cannot_observe(file, "read the link");
  message.set_target(std::string(target.data(), static_cast<size_t>(length)));
  return message;
}

Result<Fd> open_removed(const Record& record, const schema::File& message, Making& context) {
  Fd& object = context.shared_objects()[object_key(message)];
  if (!object) {
    STASIS_TRY(object, make_object(record, message));
  }
  // A link is never followed, so it cannot be opened again; nothing can be changed through it, either.
  if (S_ISLNK(message.mode())) return duplicate(object.get());
  auto fd = reopen_on_mount_of(message.path(), object.get(), open_flags(record.flags));
  if (!fd.ok()) return std::move(fd).error().within("restore " + record.describe());
  return fd;
}

Result<void> finish_removed(const Record& record, const schema::File& message, Making& context) {
  if (S_ISLNK(message.mode())) return {};
  const std::string place = kernel::own_descriptor(context.shared_objects()[object_key(message)].get());
  if (chmod(place.c_str(), message.mode() & 07777) < 0) return cannot_make(record, "chmod");
  const timespec times[2] = {to_timespec(message.accessed_ns()), to_timespec(message.modified_ns())};
  if (utimensat(AT_FDCWD, place.c_str(), times, 0) < 0) return cannot_make(record, "utimensat");
  return {};
}

}  // namespace stasis::resource

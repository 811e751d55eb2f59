#include "resource/reopen.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

#include "kernel/proc.h"
#include "resource/refusal.h"

namespace stasis::resource {
namespace {

constexpr std::string_view kDeletedMark = " (deleted)";
constexpr uint32_t kSettable = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME;

bool leads_to(const OpenFile& file, const std::string& path) {
  if (file.root >= 0) {
    struct stat found = {};
    const size_t below = path.find_first_not_of('/');
    return fstatat(file.root, below == std::string::npos ? "." : path.c_str() + below, &found,
                   AT_NO_AUTOMOUNT | AT_SYMLINK_NOFOLLOW) == 0 &&
           found.st_dev == file.status.st_dev && found.st_ino == file.status.st_ino;
  }
  // Through the task's own root: it may live in another mount namespace. In a chroot its root is below ours,
  // and what it has open from before may be outside of it.
  std::string root = fmt::format("/proc/{}/root", file.task), there = root + path;
  std::array<char, 4096> target;
  const ssize_t length = readlink(root.c_str(), target.data(), target.size());
  if (length > 1) {
    const std::string_view directory(target.data(), static_cast<size_t>(length));
    const bool inside =
        path.starts_with(directory) && (path.size() == directory.size() || path[directory.size()] == '/');
    there = inside ? root + path.substr(directory.size()) : path;
  }
  struct stat found = {};
  int flags = AT_NO_AUTOMOUNT | (S_ISLNK(file.status.st_mode) ? AT_SYMLINK_NOFOLLOW : 0);
  return fstatat(AT_FDCWD, there.c_str(), &found, flags) == 0 && found.st_dev == file.status.st_dev &&
         found.st_ino == file.status.st_ino;
}

}  // namespace

NamedPath name_of(const OpenFile& file) {
  if (!file.link.starts_with('/')) return {Name::kLeadsElsewhere, file.link};
  if (leads_to(file, file.link)) return {Name::kLeadsToFile, file.link};
  if (file.link.ends_with(kDeletedMark)) {
    return {Name::kDeleted, file.link.substr(0, file.link.size() - kDeletedMark.size())};
  }
  // The last link can go without this name being removed by us (network file systems); no name is left then
  // either.
  return {file.status.st_nlink == 0 ? Name::kDeleted : Name::kLeadsElsewhere, file.link};
}

int open_flags(uint32_t saved) {
  // F_GETFL never gives O_CREAT and its like, but an image could. O_ASYNC at open time has no owner to
  // signal.
  constexpr uint32_t kOnce = O_CREAT | O_EXCL | O_TRUNC | O_ASYNC;
  return static_cast<int>((saved & ~kOnce) | O_NOCTTY | O_CLOEXEC);
}

Result<Fd> reopen(int fd, int flags) { return open_file(kernel::own_descriptor(fd), flags & ~O_NOFOLLOW); }

Result<Fd> reopen_pipe(int fd, uint32_t saved_flags) {
  STASIS_TRY(Fd again, reopen(fd, open_flags(saved_flags & ~static_cast<uint32_t>(O_DIRECT))));
  STASIS_CHECK(set_status_flags(again.get(), saved_flags));
  return again;
}

Result<void> put_in_place(const Record& record, int64_t opened, Finishing& owner) {
  const auto number = static_cast<uint64_t>(owner.number());
  const auto fresh = static_cast<uint64_t>(opened);
  STASIS_TRY(int64_t flags, owner.call(SYS_fcntl, std::array{number, uint64_t{F_GETFD}}));
  const uint64_t close_on_exec = flags > 0 && (flags & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0;
  STASIS_TRY(int64_t placed, owner.call(SYS_dup3, std::array{fresh, number, close_on_exec}));
  if (placed < 0) return cannot_make(record, "dup3", static_cast<int>(-placed));
  STASIS_TRY(int64_t closed, owner.call(SYS_close, std::array{fresh}));
  if (closed < 0) return cannot_make(record, "close", static_cast<int>(-closed));
  return {};
}

Result<void> set_status_flags(int fd, uint32_t saved) {
  int present = fcntl(fd, F_GETFL);
  if (present < 0) return errno_error("read status flags", {});
  int wanted = static_cast<int>((static_cast<uint32_t>(present) & ~kSettable) | (saved & kSettable));
  if (wanted != present && fcntl(fd, F_SETFL, wanted) < 0) return errno_error("set status flags", {});
  return {};
}

}  // namespace stasis::resource

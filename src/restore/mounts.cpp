#include "restore/mounts.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "base/clock.h"
#include "stasis/fd.h"

namespace stasis::restore {
namespace {

using schema::Mount;
using schema::MountedFile;

constexpr const char* kStep = "restart: mount what the program had mounted";
constexpr unsigned kSetGroup = 0x100;  // MOVE_MOUNT_SET_GROUP, Linux 5.15

Result<void> write_runs(const MountedFile& file, int content, int to) {
  std::string buffer;
  for (const auto& run : file.runs()) {
    for (uint64_t done = 0; done < run.size(); done += buffer.size()) {
      buffer.resize(std::min<uint64_t>(run.size() - done, 1 << 20));
      STASIS_CHECK(pread_all(content, buffer, static_cast<off_t>(run.place() + done)));
      STASIS_CHECK(pwrite_all(to, buffer, static_cast<off_t>(run.offset() + done)));
    }
  }
  if (::ftruncate(to, static_cast<off_t>(file.size())) != 0) return errno_error(kStep, file.path());
  return {};
}

bool is_below(const std::string& path) { return ("/" + path + "/").find("/../") == std::string::npos; }

class Contents {
 public:
  Contents(const Mount& mount, int content) : mount_(mount), content_(content) {}

  Result<void> put() const {
    for (const auto& file : mount_.files()) {
      if (!is_below(file.path()) || (file.other_name() && !is_below(file.target())))
        return Error{
            kStep, path_of(file.path()), "it is not a path below the mount", {}, ErrorCode::kDamaged};
      STASIS_CHECK(make(file));
      if (!file.other_name()) STASIS_CHECK(set_attributes(file));
    }
    // What was made in a directory has changed its time.
    for (auto file = mount_.files().rbegin(); file != mount_.files().rend(); ++file) {
      if (S_ISDIR(file->mode())) set_time(*file);
    }
    return {};
  }

 private:
  std::string path_of(const std::string& path) const {
    return path.empty() ? mount_.point() : mount_.point() + "/" + path;
  }

  Result<void> make(const MountedFile& file) const {
    const std::string path = path_of(file.path());
    int done = 0;
    if (file.other_name()) {
      done = ::link(path_of(file.target()).c_str(), path.c_str());
    } else if (S_ISDIR(file.mode())) {
      done = file.path().empty() ? 0 : ::mkdir(path.c_str(), 0700);
    } else if (S_ISLNK(file.mode())) {
      done = ::symlink(file.target().c_str(), path.c_str());
    } else if (S_ISREG(file.mode())) {
      STASIS_TRY(Fd fd, open_file(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
      return write_runs(file, content_, fd.get());
    } else {
      done = ::mknod(path.c_str(), file.mode(), file.device());
    }
    return done == 0 ? Result<void>() : errno_error(kStep, path);
  }

  Result<void> set_attributes(const MountedFile& file) const {
    const std::string path = path_of(file.path());
    struct stat now = {};
    if (::lstat(path.c_str(), &now) != 0) return errno_error(kStep, path);
    if ((now.st_uid != file.user() || now.st_gid != file.group()) &&
        ::lchown(path.c_str(), file.user(), file.group()) != 0)
      return errno_error(kStep, path);
    if (!S_ISLNK(file.mode()) && ::chmod(path.c_str(), file.mode() & 07777) != 0)
      return errno_error(kStep, path);
    set_time(file);
    return {};
  }

  void set_time(const MountedFile& file) const {
    const timespec times[2] = {{0, UTIME_OMIT}, to_timespec(file.modified_ns())};
    ::utimensat(AT_FDCWD, path_of(file.path()).c_str(), times, AT_SYMLINK_NOFOLLOW);
  }

  const Mount& mount_;
  int content_;
};

Error cannot_mount(const Mount& mount, int error = errno) {
  return errno_error(kStep, fmt::format("{} ({}) at {}", mount.source(), mount.type(), mount.point()), error,
                     error == EPERM    ? "restart as root"
                     : error == ENOENT ? "the directory is needed on this host, too"
                                       : "");
}

// A mount point on a file system of the host may have gone.
Result<void> make_point(const Mount& mount, bool directory) {
  struct stat status = {};
  if (::lstat(mount.point().c_str(), &status) == 0) return {};
  for (size_t slash = mount.point().find('/', 1); slash != std::string::npos;
       slash = mount.point().find('/', slash + 1))
    ::mkdir(mount.point().substr(0, slash).c_str(), 0755);
  if (directory) {
    if (::mkdir(mount.point().c_str(), 0755) != 0) return cannot_mount(mount);
  } else {
    STASIS_TRY([[maybe_unused]] Fd file, open_file(mount.point(), O_WRONLY | O_CREAT, 0644));
  }
  return {};
}

Result<void> set_flags(const Mount& mount) {
  if (::mount(nullptr, mount.point().c_str(), nullptr, MS_REMOUNT | MS_BIND | mount.flags(), nullptr) != 0)
    return cannot_mount(mount);
  return {};
}

Result<void> mount_new(const Mount& mount) {
  STASIS_CHECK(make_point(mount, true));
  const unsigned long flags = mount.flags() & ~static_cast<unsigned long>(MS_RDONLY);
  if (::mount(mount.source().c_str(), mount.point().c_str(), mount.type().c_str(), flags,
              mount.data().empty() ? nullptr : mount.data().c_str()) != 0)
    return cannot_mount(mount);
  return {};
}

Result<void> mount_one(const Mount& mount, const image::Image& image) {
  switch (mount.method()) {
    case Mount::NEW: {
      STASIS_CHECK(mount_new(mount));
      if (!mount.content().empty()) {
        STASIS_TRY(Fd content, image.open_file(mount.content()));
        STASIS_CHECK(Contents(mount, content.get()).put());
      }
      if (mount.read_only_system() && ::mount(nullptr, mount.point().c_str(), nullptr,
                                              MS_REMOUNT | MS_RDONLY | mount.flags(), nullptr) != 0)
        return cannot_mount(mount);
      return (mount.flags() & MS_RDONLY) != 0 ? set_flags(mount) : Result<void>();
    }
    case Mount::BIND: {
      struct stat source = {};
      if (::stat(mount.source().c_str(), &source) != 0) return cannot_mount(mount);
      STASIS_CHECK(make_point(mount, S_ISDIR(source.st_mode)));
      if (::mount(mount.source().c_str(), mount.point().c_str(), nullptr, MS_BIND, nullptr) != 0)
        return cannot_mount(mount);
      return set_flags(mount);
    }
    case Mount::CHANGED:
      return set_flags(mount);
    default:
      return {};
  }
}

// Groups are formed when everything is there: until then nothing would have come to a mount by itself.
class Propagation {
 public:
  Result<void> set(const Mount& mount) {
    if (mount.propagation() == 0 || mount.method() == Mount::LATER) return {};
    if (mount.propagation() == MS_SLAVE || mount.propagation() == MS_SHARED) {
      // A slave of somebody outside is one already.
      if (groups_.contains(mount.master())) STASIS_CHECK(join(mount, groups_[mount.master()], MS_SLAVE));
      if (mount.propagation() == MS_SLAVE) return {};
      if (groups_.contains(mount.group())) return join(mount, groups_[mount.group()], 0);
      groups_[mount.group()] = mount.point();
    }
    return change(mount, mount.propagation());
  }

 private:
  static Result<void> change(const Mount& mount, unsigned long propagation) {
    if (::mount(nullptr, mount.point().c_str(), nullptr, propagation, nullptr) != 0)
      return cannot_mount(mount);
    return {};
  }
  static Result<void> join(const Mount& mount, const std::string& member, unsigned long afterwards) {
    STASIS_CHECK(change(mount, MS_PRIVATE));
    if (::syscall(SYS_move_mount, AT_FDCWD, member.c_str(), AT_FDCWD, mount.point().c_str(), kSetGroup) != 0)
      return cannot_mount(mount);
    return afterwards != 0 ? change(mount, afterwards) : Result<void>();
  }
  std::map<uint32_t, std::string> groups_;
};

}  // namespace

Result<void> mount_again(const schema::Namespace& wanted, const image::Image& image) {
  for (auto point = wanted.unmounted().rbegin(); point != wanted.unmounted().rend(); ++point)
    ::umount2(point->c_str(), MNT_DETACH);
  for (const auto& mount : wanted.mounts()) STASIS_CHECK(mount_one(mount, image));
  Propagation propagation;
  for (const auto& mount : wanted.mounts()) STASIS_CHECK(propagation.set(mount));
  return {};
}

Result<void> mount_later(const schema::Namespace& wanted) {
  for (const auto& mount : wanted.mounts()) {
    if (mount.method() == Mount::LATER && mount.pid_namespace() == 0) STASIS_CHECK(mount_new(mount));
  }
  return {};
}

}  // namespace stasis::restore

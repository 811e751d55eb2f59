#include "restore/mounted_content.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "base/clock.h"
#include "stasis/fd.h"

namespace stasis::restore {
namespace {

using schema::MountedFile;

constexpr const char* kStep = "restart: put back what was mounted";

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

// The working directory is the root of the file system.
std::string place_of(const std::string& path) { return path.empty() ? "." : path; }

void make_way(const std::string& path) {
  for (size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1))
    ::mkdir(path.substr(0, slash).c_str(), 0755);
}

Result<void> make(const MountedFile& file, const std::string& path, int content) {
  int done = 0;
  if (file.other_name()) {
    done = ::link(file.target().c_str(), path.c_str());
  } else if (S_ISDIR(file.mode())) {
    done = ::mkdir(path.c_str(), 0700);
    if (done != 0 && errno == EEXIST) done = 0;
  } else if (S_ISLNK(file.mode())) {
    done = ::symlink(file.target().c_str(), path.c_str());
  } else if (S_ISREG(file.mode())) {
    STASIS_TRY(Fd fd, open_file(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
    return write_runs(file, content, fd.get());
  } else {
    done = ::mknod(path.c_str(), file.mode(), file.device());
  }
  return done == 0 ? Result<void>()
                   : errno_error(kStep, path, errno, errno == EPERM ? "restart as root" : "");
}

Result<void> set_attributes(const MountedFile& file, const std::string& path) {
  struct stat now = {};
  if (::lstat(path.c_str(), &now) != 0) return errno_error(kStep, path);
  if ((now.st_uid != file.user() || now.st_gid != file.group()) &&
      ::lchown(path.c_str(), file.user(), file.group()) != 0)
    return errno_error(kStep, path);
  // An ACL changes the mode, and capabilities go with a change of the owner.
  for (const auto& attribute : file.attributes()) {
    if (::lsetxattr(path.c_str(), attribute.name().c_str(), attribute.value().data(),
                    attribute.value().size(), 0) != 0)
      return errno_error(kStep, fmt::format("{} of {}", attribute.name(), path));
  }
  if (!S_ISLNK(file.mode()) && ::chmod(path.c_str(), file.mode() & 07777) != 0)
    return errno_error(kStep, path);
  return {};
}

void set_times(const MountedFile& file, const std::string& path) {
  const timespec times[2] = {to_timespec(file.accessed_ns()), to_timespec(file.modified_ns())};
  ::utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW);
}

}  // namespace

Result<void> put_file(const MountedFile& file, const std::string& path, int content) {
  STASIS_CHECK(make(file, path, content));
  if (!file.other_name()) STASIS_CHECK(set_attributes(file, path));
  return {};
}

Result<void> put_content(const schema::FileSystem& system, int root, int content) {
  if (::fchdir(root) != 0) return errno_error(kStep, system.source());
  for (const auto& file : system.files()) {
    make_way(file.path());
    STASIS_CHECK(put_file(file, place_of(file.path()), content));
  }
  // What was made in a directory has changed its time.
  for (auto file = system.files().rbegin(); file != system.files().rend(); ++file) {
    if (!file->other_name()) set_times(*file, place_of(file->path()));
  }
  return {};
}

}  // namespace stasis::restore

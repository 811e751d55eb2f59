#include "image/directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <memory>

namespace stasis::image {

Result<void> make_directories(const std::string& path) {
  // From the deepest one that exists: an ancestor that we may not even look at is not our concern.
  if (mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) return {};
  if (errno != ENOENT) return write_error("make directory", path, errno);
  const size_t slash = path.find_last_of('/', path.find_last_not_of('/'));
  if (slash == std::string::npos || slash == 0) return errno_error("make directory", path, ENOENT);
  STASIS_CHECK(make_directories(path.substr(0, slash)));
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return write_error("make directory", path, errno);
  return {};
}

Result<Fd> open_directory(const std::string& path) {
  // "dir/" would follow a symbolic link in spite of O_NOFOLLOW.
  const size_t last = path.find_last_not_of('/');
  const std::string bare = last == std::string::npos ? path : path.substr(0, last + 1);
  return open_file(bare, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

Result<void> check_ours(int fd, const std::string& path) {
  struct stat status;
  if (fstat(fd, &status) != 0) return errno_error("open image", path);
  if (status.st_uid != geteuid()) {
    return Error{"open image", path,
                 fmt::format("it belongs to user {}, you are user {}", status.st_uid, geteuid()),
                 "only your own images can be used: a restart runs the code in them", ErrorCode::kDenied};
  }
  if ((status.st_mode & 022) != 0) {
    return Error{"open image", path,
                 fmt::format("others may write to it (mode {:o})", status.st_mode & 07777),
                 "if you trust its contents: chmod go-rwx", ErrorCode::kDenied};
  }
  return {};
}

Result<std::vector<std::string>> directory_names(int fd, const std::string& path) {
  // fdopendir takes the descriptor over and shares its position with it, so it gets one of its own.
  int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (own < 0) return errno_error("list directory", path);
  std::unique_ptr<DIR, int (*)(DIR*)> stream(fdopendir(own), closedir);
  if (!stream) {
    close(own);
    return errno_error("list directory", path);
  }
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* entry = readdir(stream.get());
    if (entry == nullptr) break;
    std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(std::move(name));
  }
  if (errno != 0) return errno_error("list directory", path);
  std::sort(names.begin(), names.end());
  return names;
}

Result<void> remove_directory(int parent, const std::string& name) {
  auto directory = open_file(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (!directory) {
    if (directory.error().code == ErrorCode::kNotFound) return {};
    return std::move(directory).error();
  }
  STASIS_TRY(auto names, directory_names(directory->get(), name));
  for (const auto& file : names) {
    if (unlinkat(directory->get(), file.c_str(), 0) == 0 || errno == ENOENT) continue;
    // Only directories of mapped files (mapped_files.h) have others in them.
    if (errno != EISDIR) return errno_error("remove checkpoint", fmt::format("{}/{}", name, file));
    STASIS_CHECK(remove_directory(directory->get(), file));
  }
  if (unlinkat(parent, name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT)
    return errno_error("remove checkpoint", name);
  return {};
}

uint32_t checkpoint_number(const std::string& name) {
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || end != name.data() + name.size() || name.front() == '0') return 0;
  return number;
}

Error write_error(std::string step, std::string object, int error) {
  std::string hint;
  switch (error) {
    case ENOSPC:
      hint = "free space there, remove old checkpoints (stasis rm), or choose another place (--store)";
      break;
    case EDQUOT:
      hint =
          "your quota there is used up: remove old checkpoints (stasis rm) or choose another place (--store)";
      break;
    case EIO:
      hint = "the disk failed to write; see dmesg, or choose another place (--store)";
      break;
    case EROFS:
    case EACCES:
    case EPERM:
      hint = "choose a place that you may write to (--store)";
      break;
    default:
      break;
  }
  return errno_error(std::move(step), std::move(object), error, std::move(hint));
}

}  // namespace stasis::image

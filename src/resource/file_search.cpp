#include "resource/file_search.h"

#include <dirent.h>
#include <fcntl.h>

#include "kernel/proc.h"
#include "stasis/fd.h"

namespace stasis::resource {

std::string directory_of(const std::string& path) {
  size_t slash = path.rfind('/');
  return slash == 0 || slash == std::string::npos ? "/" : path.substr(0, slash);
}

FileSearch::FileSearch(HostTid task, uint64_t inode, std::function<bool(const struct stat&)> is_it, int root)
    : root_(root < 0 ? fmt::format("/proc/{}/root", task) : kernel::own_descriptor(root)),
      inode_(inode),
      is_it_(std::move(is_it)) {}

std::string FileSearch::look(const std::string& directory) {
  const std::string there = root_ + directory;
  Fd opened(open(there.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  DIR* list = opened ? fdopendir(opened.get()) : nullptr;
  if (list == nullptr) return {};
  opened.release();
  std::string found;
  for (const dirent* entry; found.empty() && left_ > 0 && (entry = readdir(list)) != nullptr; --left_) {
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    const std::string path = (directory == "/" ? "" : directory) + "/" + name;
    struct stat status = {};
    if (entry->d_ino == inode_ && fstatat(dirfd(list), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
        status.st_ino == inode_ && is_it_(status)) {
      found = path;
    } else if (entry->d_type == DT_DIR) {
      next_.push_back(path);
    }
  }
  closedir(list);
  return found;
}

std::string FileSearch::in(const std::string& directory) {
  return seen_.insert(directory).second ? look(directory) : std::string();
}

std::string FileSearch::below() {
  std::string found;
  while (found.empty() && !next_.empty() && left_ > 0) {
    const std::string directory = std::move(next_.front());
    next_.pop_front();
    found = in(directory);
  }
  next_.clear();
  return found;
}

}  // namespace stasis::resource

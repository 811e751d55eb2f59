#include "resource/watched_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "resource/file_search.h"

namespace stasis::resource {
namespace {

uint64_t kernel_device(dev_t device) {
  uint64_t major = (device >> 8 & 0xfff) | (device >> 32 & ~uint64_t{0xfff});
  uint64_t minor = (device & 0xff) | (device >> 12 & ~uint64_t{0xff});
  return major << 20 | minor;
}

std::string link_text(const std::string& link) {
  std::array<char, 4096> buffer;
  ssize_t length = readlink(link.c_str(), buffer.data(), buffer.size());
  return length > 0 ? std::string(buffer.data(), static_cast<size_t>(length)) : std::string();
}

bool is_watched(const std::string& root, const std::string& path, const WatchedFile& watched, int flags = 0) {
  struct stat status = {};
  return fstatat(AT_FDCWD, (root + path).c_str(), &status, flags) == 0 && status.st_ino == watched.inode &&
         (kernel_device(status.st_dev) == watched.device);
}

// The kernel's handle of the inode leads to it at once, but only with CAP_DAC_READ_SEARCH over the file
// system.
std::string path_by_handle(const OpenFile& file, const WatchedFile& watched,
                           const std::set<std::string>& likely) {
  if (watched.handle.empty() || watched.handle.size() > MAX_HANDLE_SZ) return {};
  alignas(file_handle) std::array<char, sizeof(file_handle) + MAX_HANDLE_SZ> storage = {};
  auto* handle = reinterpret_cast<file_handle*>(storage.data());
  handle->handle_bytes = static_cast<unsigned>(watched.handle.size());
  handle->handle_type = watched.handle_type;
  std::copy(watched.handle.begin(), watched.handle.end(), handle->f_handle);
  std::string root = fmt::format("/proc/{}/root", file.task);
  std::set<dev_t> tried;
  for (const std::string& path : likely) {
    struct stat status = {};
    if (stat((root + path).c_str(), &status) < 0 || kernel_device(status.st_dev) != watched.device) continue;
    if (!S_ISDIR(status.st_mode)) continue;
    if (!tried.insert(status.st_dev).second) continue;
    auto mount = open_file(root + path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (!mount.ok()) continue;
    Fd found(open_by_handle_at(mount->get(), handle, O_PATH | O_CLOEXEC));
    if (!found) continue;
    std::string name = link_text(fmt::format("/proc/self/fd/{}", found.get()));
    if (is_watched(root, name, watched, AT_SYMLINK_NOFOLLOW)) return name;
  }
  return {};
}

// Most watches are of places at hand; asking for those needs no privilege.
std::string path_by_search(const OpenFile& file, const WatchedFile& watched,
                           const std::set<std::string>& likely) {
  std::string root = fmt::format("/proc/{}/root", file.task);
  for (const std::string& path : likely) {
    if (is_watched(root, path, watched)) return path;
  }
  return {};
}

}  // namespace

void read_handle(const std::string& line, WatchedFile& out) {
  const size_t place = line.find("fhandle-bytes:");
  if (place == std::string::npos) return;
  unsigned bytes = 0, type = 0;
  int more = 0;
  if (sscanf(line.c_str() + place, "fhandle-bytes:%x fhandle-type:%x f_handle:%n", &bytes, &type, &more) <
          2 ||
      more <= 0)
    return;
  out.handle_type = static_cast<int>(type);
  const char* digits = line.c_str() + place + more;
  for (unsigned value = 0; sscanf(digits, "%2x", &value) == 1; digits += 2)
    out.handle.push_back(static_cast<unsigned char>(value));
}

std::set<std::string> likely_paths(const OpenFile& file, const Observation& tree) {
  std::set<std::string> paths = {"/",    "/etc", "/etc/resolv.conf", "/etc/localtime", "/dev",
                                 "/tmp", "/run", "/var/run"};
  auto add_with_parents = [&](std::string path) {
    while (path.starts_with('/') && path.size() > 1 && paths.insert(path).second) {
      size_t slash = path.rfind('/');
      path = slash == 0 ? "/" : path.substr(0, slash);
    }
  };
  for (const auto& other : tree.all()) add_with_parents(other->link);
  for (const char* link : {"cwd", "exe"})
    add_with_parents(link_text(fmt::format("/proc/{}/{}", file.task, link)));
  return paths;
}

std::string find_path(const OpenFile& file, const WatchedFile& watched, const std::set<std::string>& likely,
                      const Observation& tree) {
  std::string path = path_by_search(file, watched, likely);
  if (path.empty()) path = path_by_handle(file, watched, likely);
  if (!path.empty()) return path;
  FileSearch search(file.task, watched.inode, [&](const struct stat& status) {
    return kernel_device(status.st_dev) == watched.device;
  });
  std::set<std::string> directories;
  for (const auto& other : tree.all()) {
    if (!other->link.starts_with('/') || kernel_device(other->status.st_dev) != watched.device) continue;
    directories.insert(S_ISDIR(other->status.st_mode) ? other->link : directory_of(other->link));
  }
  directories.insert(link_text(fmt::format("/proc/{}/cwd", file.task)));
  for (const std::string& directory : directories) {
    if (path.empty()) path = search.in(directory);
  }
  return path.empty() ? search.below() : path;
}

bool is_link_itself(const OpenFile& file, const WatchedFile& watched, const std::string& path) {
  const std::string root = fmt::format("/proc/{}/root", file.task);
  struct stat status = {};
  return lstat((root + path).c_str(), &status) == 0 && S_ISLNK(status.st_mode) &&
         is_watched(root, path, watched, AT_SYMLINK_NOFOLLOW);
}

uint32_t open_description(const WatchedFile& watched, const Observation& tree) {
  for (const auto& other : tree.all()) {
    if (other->status.st_ino == watched.inode && kernel_device(other->status.st_dev) == watched.device)
      return other->id;
  }
  return 0;
}

}  // namespace stasis::resource

#include "resource/inotify.h"

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <set>
#include <sstream>
#include <vector>

#include "resource/payload.h"
#include "resource/refusal.h"
#include "schema/kinds/inotify.pb.h"

namespace stasis::resource {
namespace {

// Numbers of watches are given one after the other; higher ones are reached by adding and removing.
constexpr int kHighestNumber = 100'000;
// Bits of the mask that fdinfo shows and inotify_add_watch() accepts.
constexpr uint32_t kMask = IN_ALL_EVENTS | IN_EXCL_UNLINK | IN_ONESHOT;

struct Line {
  int number = 0;
  uint64_t inode = 0;
  uint64_t device = 0;  // as the kernel keeps it: major << 20 | minor
  uint32_t mask = 0;
  std::vector<unsigned char> handle;
  int handle_type = 0;
};

// "inotify wd:1 ino:2a sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8 fhandle-type:1
// f_handle:2a000000..."
std::vector<Line> parse(const std::string& fdinfo) {
  std::vector<Line> lines;
  std::istringstream text(fdinfo);
  for (std::string row; std::getline(text, row);) {
    Line line;
    unsigned long long inode = 0, device = 0;
    int place = 0;
    unsigned ignored = 0, bytes = 0;
    if (sscanf(row.c_str(), "inotify wd:%x ino:%llx sdev:%llx mask:%x%n",
               reinterpret_cast<unsigned*>(&line.number), &inode, &device, &line.mask, &place) < 4) {
      continue;
    }
    line.inode = inode;
    line.device = device;
    int more = 0;
    if (sscanf(row.c_str() + place, " ignored_mask:%x fhandle-bytes:%x fhandle-type:%x f_handle:%n", &ignored,
               &bytes, reinterpret_cast<unsigned*>(&line.handle_type), &more) == 3 &&
        more > 0) {
      const char* digits = row.c_str() + place + more;
      for (unsigned value = 0; sscanf(digits, "%2x", &value) == 1; digits += 2) {
        line.handle.push_back(static_cast<unsigned char>(value));
      }
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

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

bool is_watched(const std::string& root, const std::string& path, const Line& line) {
  struct stat status = {};
  return stat((root + path).c_str(), &status) == 0 && status.st_ino == line.inode &&
         (kernel_device(status.st_dev) == line.device);
}

// Places that programs watch: what they have open, where they are, and every directory on the way to there.
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

// The kernel's handle of the inode leads to it at once, but only with CAP_DAC_READ_SEARCH over the file
// system.
std::string path_by_handle(const OpenFile& file, const Line& line, const std::set<std::string>& likely) {
  if (line.handle.empty() || line.handle.size() > MAX_HANDLE_SZ) return {};
  alignas(file_handle) std::array<char, sizeof(file_handle) + MAX_HANDLE_SZ> storage = {};
  auto* handle = reinterpret_cast<file_handle*>(storage.data());
  handle->handle_bytes = static_cast<unsigned>(line.handle.size());
  handle->handle_type = line.handle_type;
  std::copy(line.handle.begin(), line.handle.end(), handle->f_handle);
  std::string root = fmt::format("/proc/{}/root", file.task);
  std::set<dev_t> tried;
  for (const std::string& path : likely) {
    struct stat status = {};
    if (stat((root + path).c_str(), &status) < 0 || kernel_device(status.st_dev) != line.device) continue;
    if (!tried.insert(status.st_dev).second) continue;
    auto mount = open_file(root + path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (!mount.ok()) continue;
    Fd found(open_by_handle_at(mount->get(), handle, O_PATH | O_CLOEXEC));
    if (!found) continue;
    std::string name = link_text(fmt::format("/proc/self/fd/{}", found.get()));
    if (is_watched(root, name, line)) return name;
  }
  return {};
}

// Most watches are of places at hand; asking for those needs no privilege.
std::string path_by_search(const OpenFile& file, const Line& line, const std::set<std::string>& likely) {
  std::string root = fmt::format("/proc/{}/root", file.task);
  for (const std::string& path : likely) {
    if (is_watched(root, path, line)) return path;
  }
  return {};
}

}  // namespace

KindInfo InotifyKind::info() const {
  return {"inotify", "Descriptors", "inotify: watches with their numbers", Support::kPartial,
          "the kernel tells the inode of a watch and not its path: for an ordinary user the path must be "
          "open, a working "
          "directory, or on the way to one; events that were not read yet are lost"};
}

bool InotifyKind::recognises(const OpenFile& file, const Observation&) const {
  return file.link == "anon_inode:inotify" || file.link == "anon_inode:[inotify]";
}

Result<std::string> InotifyKind::observe(const OpenFile& file, Observation& tree) const {
  schema::Inotify message;
  std::vector<Line> lines = parse(file.fdinfo);
  std::set<std::string> likely;
  if (!lines.empty()) likely = likely_paths(file, tree);
  for (const Line& line : lines) {
    std::string path = path_by_search(file, line, likely);
    if (path.empty()) path = path_by_handle(file, line, likely);
    if (path.empty()) {
      return refusal(
          file, fmt::format("the path of its watch {} (inode {}) cannot be found", line.number, line.inode),
          "checkpoint as root, or have the program keep the watched directory open");
    }
    if (line.number < 1 || line.number > kHighestNumber) {
      return refusal(file, fmt::format("its watch has the number {}", line.number),
                     "restart the program now and then");
    }
    auto* watch = message.add_watches();
    watch->set_number(line.number);
    watch->set_path(path);
    watch->set_mask(line.mask & kMask);
  }
  std::sort(message.mutable_watches()->begin(), message.mutable_watches()->end(),
            [](const auto& a, const auto& b) { return a.number() < b.number(); });
  int unread = 0;
  if (ioctl(file.duplicate.get(), FIONREAD, &unread) == 0 && unread > 0) {
    tree.warn(fmt::format("{}: events that were not read yet are missing after a restart", file.describe()));
  }
  return pack(message);
}

Result<Fd> InotifyKind::make(const Record& record, Making&) const {
  STASIS_TRY(auto message, unpack<schema::Inotify>(record));
  Fd fd(inotify_init1(IN_CLOEXEC | (record.flags & O_NONBLOCK ? IN_NONBLOCK : 0)));
  if (!fd) return cannot_make(record, "inotify_init1");
  int next = 1;
  for (const auto& watch : message.watches()) {
    if (watch.number() > kHighestNumber) return cannot_make(record, "watch number", ERANGE);
    // Removing a watch queues an IN_IGNORED event, so a placeholder is watched on an instance that is read
    // empty below.
    for (; next < watch.number(); ++next) {
      int number = inotify_add_watch(fd.get(), "/", IN_UNMOUNT);
      if (number < 0) return cannot_make(record, "inotify_add_watch");
      inotify_rm_watch(fd.get(), number);
    }
    int number = inotify_add_watch(fd.get(), watch.path().c_str(), watch.mask());
    if (number < 0)
      return cannot_make(record, watch.path(), errno, "the program watched it: put it back to restart");
    if (number != watch.number()) {
      return Error{"restore " + record.describe(),
                   watch.path(),
                   fmt::format("the kernel numbered the watch {} instead of {}", number, watch.number()),
                   {}};
    }
    next = number + 1;
  }
  std::array<char, 65536> ignored;
  for (int waiting = 0; ioctl(fd.get(), FIONREAD, &waiting) == 0 && waiting > 0;) {
    if (read(fd.get(), ignored.data(), ignored.size()) <= 0) break;
  }
  return fd;
}

std::string InotifyKind::summary(const Record& record) const {
  auto message = unpack<schema::Inotify>(record);
  return message.ok() ? fmt::format("{} watches", message->watches_size()) : std::string();
}

}  // namespace stasis::resource

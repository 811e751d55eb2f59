#include "inspect/mounts.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <optional>
#include <sstream>

#include "kernel/proc.h"

namespace stasis::inspect {
namespace {

using kernel::Mount;

bool is_in_memory(const std::string& type) { return type == "tmpfs" || type == "ramfs"; }

bool can_be_made(const Mount& mount) {
  constexpr std::string_view kTypes[] = {"tmpfs",   "ramfs",   "sysfs",    "devpts",      "mqueue",
                                         "overlay", "debugfs", "tracefs",  "securityfs",  "cgroup2",
                                         "cgroup",  "pstore",  "configfs", "binfmt_misc", "fusectl"};
  return std::find(std::begin(kTypes), std::end(kTypes), mount.type) != std::end(kTypes) ||
         mount.source.starts_with("/dev/");
}

Error refuse(const Mount& mount, std::string cause) {
  return Error{"save", fmt::format("the mount of {} ({}) at {}", mount.source, mount.type, mount.point),
               std::move(cause), "unmount it before a checkpoint", ErrorCode::kRefused};
}

std::string joined(const std::string& directory, const std::string& below) {
  if (below.empty() || below == "/") return directory;
  return directory == "/" ? below : directory + below;
}

// The path below `directory`, with its slash; nothing when it is not below.
std::optional<std::string> below(const std::string& path, const std::string& directory) {
  if (directory == "/") return path == "/" ? "" : path;
  if (path == directory) return "";
  if (path.starts_with(directory + "/")) return path.substr(directory.size());
  return std::nullopt;
}

// Options of the file system that mount() takes again.
std::string data_of(const Mount& mount) {
  std::string data;
  std::istringstream words(mount.super_options);
  for (std::string word; std::getline(words, word, ',');) {
    constexpr std::string_view kLeftOut[] = {"rw", "ro", "seclabel", "inode64", "inode32"};
    if (std::find(std::begin(kLeftOut), std::end(kLeftOut), word) != std::end(kLeftOut)) continue;
    const bool known = mount.type != "overlay" || word.starts_with("lowerdir") ||
                       word.starts_with("upperdir") || word.starts_with("workdir");
    if (known) data += (data.empty() ? "" : ",") + word;
  }
  return data;
}

uint64_t propagation_of(const Mount& mount) {
  if (mount.unbindable) return MS_UNBINDABLE;
  if (mount.shared != 0) return MS_SHARED;
  return mount.master != 0 ? MS_SLAVE : MS_PRIVATE;
}

class Comparison {
 public:
  Comparison(const MountsBefore& before, const std::vector<Mount>& now, schema::Namespace& out)
      : before_(before),
        now_(now),
        out_(out),
        first_used_(before.first.size()),
        outside_used_(before.outside.size()) {}

  Result<void> run(OwnProc own_proc) {
    bool skip_proc = own_proc == OwnProc::kLeaveOut;
    for (const Mount& mount : now_) {
      const Mount* same = take_same(before_.first, first_used_, mount);
      const Mount* outside = take_same(before_.outside, outside_used_, mount);
      if (same == nullptr) same = outside;
      if (same != nullptr) {
        add_change(mount, *same);
        seen_.push_back(&mount);
        continue;
      }
      if (mount.point == "/")
        return refuse(mount, "it has taken the place of the root directory (pivot_root)");
      if (skip_proc && mount.type == "proc" && mount.point == "/proc") {
        skip_proc = false;
        continue;
      }
      if (mount.type == "proc") {
        add(mount, schema::Mount::LATER);
        continue;
      }
      STASIS_CHECK(add_new(mount));
      seen_.push_back(&mount);
    }
    for (size_t i = 0; i < before_.first.size(); ++i) {
      // What has gone outside, too, has gone by itself.
      const Mount& mount = before_.first[i];
      if (first_used_[i] || mount.type == "proc" || !take_same(before_.outside, outside_used_, mount))
        continue;
      out_.add_unmounted(mount.point);
    }
    return {};
  }

 private:
  static const Mount* take_same(const std::vector<Mount>& among, std::vector<bool>& used,
                                const Mount& mount) {
    for (size_t i = 0; i < among.size(); ++i) {
      const Mount& other = among[i];
      if (used[i] || other.point != mount.point || other.device != mount.device || other.root != mount.root)
        continue;
      used[i] = true;
      return &other;
    }
    return nullptr;
  }

  schema::Mount& add(const Mount& mount, schema::Mount::Method method) {
    schema::Mount& added = *out_.add_mounts();
    added.set_method(method);
    added.set_point(mount.point);
    added.set_type(mount.type);
    added.set_source(mount.source);
    added.set_flags(kernel::mount_flags(mount.options));
    added.set_device(mount.device);
    added.set_propagation(propagation_of(mount));
    added.set_group(static_cast<uint32_t>(mount.shared));
    added.set_master(static_cast<uint32_t>(mount.master));
    return added;
  }

  // What is shared outside the session is a slave in it.
  void add_change(const Mount& mount, const Mount& before) {
    const bool flags = mount.options != before.options;
    const uint64_t expected = before.shared != 0 ? uint64_t{MS_SLAVE} : propagation_of(before);
    const bool propagation =
        propagation_of(mount) != propagation_of(before) && propagation_of(mount) != expected;
    if (!flags && !propagation) return;
    schema::Mount& changed = add(mount, schema::Mount::CHANGED);
    if (!propagation) changed.set_propagation(0);
  }

  Result<void> add_new(const Mount& mount) {
    if (mount.root.find("//deleted") != std::string::npos)
      return refuse(mount, "the file or directory that is mounted has been removed");
    // Where the same is to be seen already.
    for (auto other = seen_.rbegin(); other != seen_.rend(); ++other) {
      if ((*other)->device != mount.device) continue;
      auto rest = below(mount.root, (*other)->root);
      if (!rest) continue;
      schema::Mount& added = add(mount, schema::Mount::BIND);
      added.set_source(joined((*other)->point, *rest));
      return {};
    }
    // A copy of a namespace shows a file system, whose own mount may be gone, at its root only.
    if (mount.root != "/" || !can_be_made(mount))
      return refuse(mount, mount.root != "/" ? "what it shows is mounted nowhere else"
                                             : "this type of file system is not supported inside a session");
    schema::Mount& added = add(mount, schema::Mount::NEW);
    added.set_data(data_of(mount));
    added.set_read_only_system((kernel::mount_flags(mount.super_options) & MS_RDONLY) != 0);
    return {};
  }

  const MountsBefore& before_;
  const std::vector<Mount>& now_;
  schema::Namespace& out_;
  std::vector<bool> first_used_, outside_used_;
  std::vector<const Mount*> seen_;
};

constexpr size_t kMostDepth = 200;

// Walks through one file system.
class Walk {
 public:
  Walk(schema::Mount& mount, Fd content) : mount_(mount), content_(std::move(content)) {}

  Result<void> enter(int directory, const std::string& path, size_t depth) {
    struct stat status = {};
    if (::fstat(directory, &status) != 0) return errno_error(kStep, shown(path));
    if (depth == 0 && status.st_dev != mount_.device())
      return Error{kStep, shown(path), "something else is mounted over it", "unmount that",
                   ErrorCode::kRefused};
    add(path, status);
    if (depth > kMostDepth)
      return Error{kStep, shown(path), "its directories are too deep", {}, ErrorCode::kRefused};
    int again = ::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    std::unique_ptr<DIR, int (*)(DIR*)> stream(again < 0 ? nullptr : ::fdopendir(again), ::closedir);
    if (!stream) return errno_error(kStep, shown(path));
    while (const dirent* entry = ::readdir(stream.get())) {
      const std::string name = entry->d_name;
      if (name == "." || name == "..") continue;
      const std::string below = path.empty() ? name : fmt::format("{}/{}", path, name);
      STASIS_CHECK(visit(directory, name, below, depth));
    }
    return {};
  }

 private:
  static constexpr const char* kStep = "save what is mounted";

  std::string shown(const std::string& path) const { return mount_.point() + "/" + path; }

  schema::MountedFile& add(const std::string& path, const struct stat& status) {
    schema::MountedFile& file = *mount_.add_files();
    file.set_path(path);
    file.set_mode(status.st_mode);
    file.set_user(status.st_uid);
    file.set_group(status.st_gid);
    file.set_device(status.st_rdev);
    file.set_size(static_cast<uint64_t>(status.st_size));
    file.set_modified_ns(int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec);
    return file;
  }

  Result<void> visit(int directory, const std::string& name, const std::string& path, size_t depth) {
    struct stat status = {};
    if (::fstatat(directory, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0)
      return errno_error(kStep, shown(path));
    if (status.st_dev != mount_.device()) {
      add_mount_point(path, status);
      return {};
    }
    if (S_ISDIR(status.st_mode)) {
      Fd below(::openat(directory, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (!below) return errno_error(kStep, shown(path));
      return enter(below.get(), path, depth + 1);
    }
    // A socket that is bound to a name makes it again.
    if (S_ISSOCK(status.st_mode)) return {};
    if (status.st_nlink > 1) {
      auto [first, is_first] = linked_.try_emplace(status.st_ino, path);
      if (!is_first) {
        schema::MountedFile& file = add(path, status);
        file.set_target(first->second);
        file.set_other_name(true);
        return {};
      }
    }
    schema::MountedFile& file = add(path, status);
    if (S_ISLNK(status.st_mode)) {
      std::array<char, 4096> target;
      ssize_t length = ::readlinkat(directory, name.c_str(), target.data(), target.size());
      if (length < 0) return errno_error(kStep, shown(path));
      file.set_target(target.data(), static_cast<size_t>(length));
    } else if (S_ISREG(status.st_mode) && status.st_size > 0) {
      return copy(directory, name, path, file);
    }
    return {};
  }

  // Something else is mounted there; what is below does not show, but there is a place for it.
  void add_mount_point(const std::string& path, const struct stat& status) {
    struct stat place = status;
    if (!S_ISDIR(place.st_mode)) place.st_mode = S_IFREG | 0600;
    place.st_size = 0;
    add(path, place);
  }

  Result<void> copy(int directory, const std::string& name, const std::string& path,
                    schema::MountedFile& file) {
    Fd from(::openat(directory, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    if (!from) return errno_error(kStep, shown(path));
    std::string buffer;
    for (off_t at = 0; at < static_cast<off_t>(file.size());) {
      const off_t start = ::lseek(from.get(), at, SEEK_DATA);
      if (start < 0 && errno == ENXIO) break;
      const off_t end = start < 0 ? -1 : ::lseek(from.get(), start, SEEK_HOLE);
      if (end < 0) return errno_error(kStep, shown(path));
      auto* run = file.add_runs();
      run->set_offset(static_cast<uint64_t>(start));
      run->set_size(static_cast<uint64_t>(end - start));
      run->set_place(used_);
      for (off_t done = start; done < end;) {
        buffer.resize(static_cast<size_t>(std::min<off_t>(end - done, 1 << 20)));
        STASIS_CHECK(pread_all(from.get(), buffer, done));
        STASIS_CHECK(pwrite_all(content_.get(), buffer, static_cast<off_t>(used_)));
        used_ += buffer.size();
        done += static_cast<off_t>(buffer.size());
      }
      at = end;
    }
    return {};
  }

  schema::Mount& mount_;
  Fd content_;
  uint64_t used_ = 0;
  std::map<ino_t, std::string> linked_;
};

}  // namespace

Result<void> compare_mounts(const MountsBefore& before, const std::vector<kernel::Mount>& now,
                            OwnProc own_proc, schema::Namespace& out) {
  return Comparison(before, now, out).run(own_proc);
}

Result<void> save_contents(HostTid task, image::Writer& writer, schema::Namespace& out) {
  int number = 0;
  for (auto& mount : *out.mutable_mounts()) {
    ++number;
    if (mount.method() != schema::Mount::NEW || !is_in_memory(mount.type())) continue;
    mount.set_content(fmt::format("mount-{}-{}", out.id(), number));
    STASIS_TRY(Fd content, writer.create_file(mount.content()));
    STASIS_TRY(Fd root, kernel::open_proc(task, "root" + mount.point(), O_RDONLY | O_DIRECTORY));
    Walk walk(mount, std::move(content));
    STASIS_CHECK(walk.enter(root.get(), "", 0));
  }
  return {};
}

}  // namespace stasis::inspect

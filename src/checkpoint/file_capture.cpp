#include "checkpoint/file_capture.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "resource/content.h"
#include "resource/file/locks.h"
#include "resource/reopen.h"

namespace stasis::checkpoint {
namespace {

constexpr std::pair<FileMode, std::string_view> kModes[] = {{FileMode::kAuto, "auto"},
                                                            {FileMode::kReflink, "reflink"},
                                                            {FileMode::kCopy, "copy"},
                                                            {FileMode::kNone, "none"}};

// File systems whose files are doors to the kernel, not content.
bool is_content(int fd) {
  constexpr unsigned long kDoors[] = {
      PROC_SUPER_MAGIC, SYSFS_MAGIC,      CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC,
      TRACEFS_MAGIC,    SECURITYFS_MAGIC, SELINUX_MAGIC,      BPF_FS_MAGIC,        EFIVARFS_MAGIC,
      PSTOREFS_MAGIC,   BINFMTFS_MAGIC,   NSFS_MAGIC,         DEVPTS_SUPER_MAGIC,  0x62656570 /* configfs */,
      0x65735543 /* fusectl */};
  struct statfs fs = {};
  if (::fstatfs(fd, &fs) != 0) return false;
  return std::find(std::begin(kDoors), std::end(kDoors), static_cast<unsigned long>(fs.f_type)) ==
         std::end(kDoors);
}

// What the program has mounted in memory is saved as a whole.
bool is_saved_with_mount(uint64_t device, const schema::Manifest& manifest) {
  const auto& systems = manifest.file_systems();
  return std::any_of(systems.begin(), systems.end(), [device](const auto& system) {
    return system.device() == device && !system.content().empty();
  });
}

// The path by which a restart finds a file before anything of the program's is mounted; empty: there is none.
std::string path_of(const std::string& path, const std::string& host_path) {
  if (host_path.empty()) return path;
  return host_path.starts_with('/') ? host_path : std::string();
}

std::string human(uint64_t bytes) {
  if (bytes < 10'000) return fmt::format("{} bytes", bytes);
  if (bytes < uint64_t{10} << 20) return fmt::format("{} KiB", bytes >> 10);
  if (bytes < uint64_t{10} << 30) return fmt::format("{} MiB", bytes >> 20);
  return fmt::format("{} GiB", bytes >> 30);
}

// Bytes that are not in holes. Room that was only reserved is a hole, too, though stat counts it. A file in
// very many pieces is not worth the time.
uint64_t data_in(int fd, uint64_t size, uint64_t at_most) {
  constexpr int kPieces = 4096;
  uint64_t data = 0;
  off_t at = 0;
  for (int piece = 0; at < static_cast<off_t>(size); ++piece) {
    const off_t start = ::lseek(fd, at, SEEK_DATA);
    if (start < 0) return errno == ENXIO ? data : at_most;
    const off_t end = ::lseek(fd, start, SEEK_HOLE);
    if (end < 0 || piece == kPieces) return at_most;
    data += static_cast<uint64_t>(end - start);
    at = end;
  }
  return data;
}

// One inode that the program can change.
struct WritableFile {
  struct stat status = {};
  std::vector<std::string> paths;
  std::string shown;  // for messages
  bool appended = true;
  Fd source;  // readable, a description of our own; empty: it may not be read
  Error unreadable;
  schema::CapturedFile::Method method = schema::CapturedFile::CONTENT;
  bool cloned = false;
  bool saved = false;
  bool leased = false;

  uint64_t size() const { return static_cast<uint64_t>(status.st_size); }
  uint64_t data() const { return std::min(size(), static_cast<uint64_t>(status.st_blocks) * 512); }
  std::string name() const { return resource::content_name("file", status); }
};

class Capture {
 public:
  Capture(inspect::DescriptorGraph& files, const FilePolicy& policy, bool ends, image::Writer& writer)
      : files_(files), policy_(policy), ends_(ends), writer_(writer) {}

  Result<void> find(std::span<const MappedFiles> mapped, const schema::Manifest& manifest) {
    for (size_t i = 0; i < files_.all().size(); ++i) {
      const resource::OpenFile& file = *files_.all()[i];
      const bool writable = (file.flags & O_ACCMODE) != O_RDONLY;
      if (!writable || manifest.descriptions(static_cast<int>(i)).kind() != "file") continue;
      if (!is_content(file.duplicate.get()) || is_saved_with_mount(file.status.st_dev, manifest)) continue;
      const std::string path = path_of(file.link, manifest.descriptions(static_cast<int>(i)).host_path());
      if (path.empty()) {
        files_.warn(
            fmt::format("{}: it is on a file system that the program has mounted itself; its content "
                        "is that of the restart",
                        file.describe()));
        continue;
      }
      WritableFile& candidate = at(file.status, path, file.describe());
      candidate.appended = candidate.appended && (file.flags & O_APPEND) != 0;
      if (candidate.source) continue;
      auto source = readable(file, candidate);
      if (source.ok()) {
        candidate.source = std::move(source).value();
      } else {
        candidate.unreadable = std::move(source).error();
      }
    }
    for (const MappedFiles& process : mapped) {
      for (const auto& facts : *process.mappings) {
        if (!is_saved_with_mount(facts.mapping.identity().device(), manifest))
          STASIS_CHECK(find(process, facts.mapping));
      }
    }
    return {};
  }

  Result<void> take() {
    if (candidates_.empty()) return {};
    std::vector<WritableFile*> left;
    for (auto& entry : candidates_) {
      WritableFile& candidate = entry.second;
      STASIS_CHECK(take_unreadable(candidate));
      if (!candidate.source) continue;
      STASIS_CHECK(hold(candidate));
      if (candidate.saved) continue;
      STASIS_CHECK(clone(candidate));
      if (!candidate.saved) left.push_back(&candidate);
    }
    // What was only appended to can do without a copy, so it comes last; small files come first.
    std::sort(left.begin(), left.end(), [](const WritableFile* a, const WritableFile* b) {
      if (a->appended != b->appended) return b->appended;
      return a->data() != b->data() ? a->data() < b->data() : a->paths < b->paths;
    });
    for (WritableFile* candidate : left) STASIS_CHECK(copy(*candidate));
    return {};
  }

  std::vector<HeldFile> held() { return std::move(held_); }

  void describe(schema::Manifest& manifest) const {
    for (const auto& entry : candidates_) {
      const WritableFile& candidate = entry.second;
      if (!candidate.saved) continue;
      auto* file = manifest.add_captured_files();
      file->set_path(candidate.paths.front());
      for (size_t i = 1; i < candidate.paths.size(); ++i) file->add_other_paths(candidate.paths[i]);
      file->set_method(candidate.method);
      if (candidate.method == schema::CapturedFile::CONTENT) file->set_content(candidate.name());
      file->set_cloned(candidate.cloned);
      file->set_appended(candidate.appended);
      file->set_mode(candidate.status.st_mode);
      file->set_user(candidate.status.st_uid);
      file->set_group(candidate.status.st_gid);
      file->set_device(candidate.status.st_dev);
      file->set_inode(candidate.status.st_ino);
      file->set_size(candidate.size());
      file->set_modified_ns(nanoseconds(candidate.status.st_mtim));
      file->set_changed_ns(nanoseconds(candidate.status.st_ctim));
    }
  }

 private:
  static int64_t nanoseconds(const timespec& time) {
    return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
  }

  WritableFile& at(const struct stat& status, const std::string& path, const std::string& shown) {
    WritableFile& candidate = candidates_[{status.st_dev, status.st_ino}];
    if (candidate.paths.empty()) {
      candidate.status = status;
      candidate.shown = shown;
    }
    if (std::find(candidate.paths.begin(), candidate.paths.end(), path) == candidate.paths.end())
      candidate.paths.push_back(path);
    return candidate;
  }

  // Opening a file breaks a write lease on it, and waits for that. Then it is read through the program's own
  // description, whose position must not move.
  static Result<Fd> readable(const resource::OpenFile& file, WritableFile& candidate) {
    candidate.leased = resource::has_write_lease(file);
    if (!candidate.leased) return resource::reopen(file.duplicate.get(), O_RDONLY);
    if ((file.flags & O_ACCMODE) == O_RDWR) return duplicate(file.duplicate.get());
    return Error{"read a file", file.describe(), "there is a lease on it that others must not break", {}};
  }

  // A mapping that the program can write through needs no descriptor any more.
  Result<void> find(const MappedFiles& process, const schema::Mapping& mapping) {
    if (mapping.kind() != schema::Mapping::SHARED_FILE || mapping.path().empty() ||
        (mapping.protection() & PROT_WRITE) == 0 || path_of(mapping.path(), mapping.host_path()).empty())
      return {};
    const std::string path = path_of(mapping.path(), mapping.host_path());
    const std::pair key{static_cast<dev_t>(mapping.identity().device()),
                        static_cast<ino_t>(mapping.identity().inode())};
    const std::string shown =
        fmt::format("mapping {:#x} of task {} ({})", mapping.start(), process.ns_pid, mapping.path());
    auto known = candidates_.find(key);
    if (known == candidates_.end()) {
      auto source = open_file(fmt::format("/proc/{}/root{}", process.pid, mapping.path()),
                              O_RDONLY | O_NOCTTY | O_NONBLOCK);
      struct stat status = {};
      if (source.ok() && ::fstat(source->get(), &status) != 0) source = errno_error("look at", shown);
      if (source.ok() && (status.st_dev != key.first || status.st_ino != key.second))
        source = Error{"look at", shown, "its name leads elsewhere", {}};
      if (source.ok() && !is_content(source->get())) return {};
      status.st_dev = key.first;
      status.st_ino = key.second;
      if (!source.ok()) {
        status.st_mode = S_IFREG;
        status.st_size = static_cast<off_t>(mapping.identity().size());
        status.st_mtim = {mapping.identity().modified_ns() / 1'000'000'000,
                          mapping.identity().modified_ns() % 1'000'000'000};
      }
      WritableFile& candidate = at(status, path, shown);
      if (source.ok()) {
        candidate.source = std::move(source).value();
      } else {
        candidate.unreadable = std::move(source).error();
      }
      candidate.appended = false;
      return {};
    }
    WritableFile& candidate = at(known->second.status, path, shown);
    candidate.appended = false;
    return {};
  }

  // A program may hold a file that its user may write and not read, or not even open any more.
  Result<void> take_unreadable(WritableFile& candidate) {
    if (candidate.source) return {};
    if (policy_.mode != FileMode::kAuto) {
      return Error{"save the content of " + candidate.shown, candidate.paths.front(),
                   candidate.unreadable.cause, "--files=auto leaves it out, with a warning",
                   ErrorCode::kRefused};
    }
    if (candidate.appended) {
      candidate.method = schema::CapturedFile::LENGTH;
      candidate.saved = true;
      return {};
    }
    files_.warn(fmt::format("{}: its content is not saved: {}", candidate.shown, candidate.unreadable.cause));
    return {};
  }

  // A small file is read faster than a new one is made for it in the store.
  Result<void> hold(WritableFile& candidate) {
    constexpr uint64_t kSmall = 256 << 10, kTogether = 1 << 20;
    const uint64_t room = std::min(kTogether, policy_.limit) - std::min(held_bytes_, policy_.limit);
    if (policy_.mode == FileMode::kReflink || candidate.size() > std::min(kSmall, room)) return {};
    HeldFile file{candidate.name(), std::string(candidate.size(), '\0')};
    // It may have become shorter meanwhile, by somebody outside of the session: then it is copied like a
    // large one.
    if (!pread_all(candidate.source.get(), file.content, 0).ok()) return {};
    held_bytes_ += file.content.size();
    copied_ += file.content.size();
    held_.push_back(std::move(file));
    candidate.saved = true;
    return {};
  }

  Result<void> clone(WritableFile& candidate) {
    const bool summed = candidate.data() <= policy_.limit - std::min(policy_.limit, summed_);
    STASIS_TRY(auto file, writer_.clone_file(candidate.name(), candidate.source.get(),
                                             summed ? image::Writer::Sums::kYes : image::Writer::Sums::kNo));
    if (!file) return {};
    if (summed) summed_ += candidate.data();
    candidate.cloned = true;
    candidate.saved = true;
    return {};
  }

  Result<void> copy(WritableFile& candidate) {
    if (candidate.leased) {
      return Error{
          "save the content of " + candidate.shown, candidate.paths.front(),
          "there is a lease on it (F_SETLEASE), and it is too large to be read without opening it",
          "a --store on the same Btrfs or XFS file system needs no reading; --files=none leaves it as it is",
          ErrorCode::kRefused};
    }
    if (policy_.mode == FileMode::kReflink) {
      return Error{
          "save the content of " + candidate.shown, candidate.paths.front(),
          "it cannot be cloned into the store",
          "--files=reflink needs a --store on the same Btrfs or XFS file system; --files=copy copies it",
          ErrorCode::kRefused};
    }
    const uint64_t room = policy_.limit - std::min(policy_.limit, copied_);
    uint64_t data = candidate.data();
    if (data > room) data = data_in(candidate.source.get(), candidate.size(), data);
    if (policy_.mode == FileMode::kAuto && data > room) return leave(candidate);
    copied_ += data;
    STASIS_TRY(Fd file, writer_.create_file(candidate.name()));
    auto copied = resource::copy_content(candidate.source.get(), file.get());
    if (!copied.ok()) {
      Error error = std::move(copied).error().within("save the content of " + candidate.shown);
      if (error.hint.empty())
        error.hint = "free some space, choose another --store, or leave it out with --files=none";
      return error;
    }
    candidate.saved = true;
    return {};
  }

  Result<void> leave(WritableFile& candidate) {
    if (candidate.appended) {
      candidate.method = schema::CapturedFile::LENGTH;
      candidate.saved = true;
      return {};
    }
    if (ends_) {
      candidate.method = schema::CapturedFile::IDENTITY;
      candidate.saved = true;
      files_.warn(
          fmt::format("{} ({}) is not copied: it must not be changed until the restart, and when it is, this "
                      "checkpoint is of no use any more (--files=copy copies it)",
                      candidate.paths.front(), human(candidate.size())));
      return {};
    }
    return Error{
        "save the content of " + candidate.shown,
        fmt::format("{} ({})", candidate.paths.front(), human(candidate.size())),
        fmt::format("together with what was copied already it is more than the {} that may be copied while "
                    "the program stands still",
                    human(policy_.limit)),
        "a --store on the same Btrfs or XFS file system needs no copy; --files=copy or a larger "
        "--files-limit copies it; --files=none leaves it as it is at the restart",
        ErrorCode::kRefused};
  }

  inspect::DescriptorGraph& files_;
  const FilePolicy& policy_;
  const bool ends_;
  image::Writer& writer_;
  std::map<std::pair<dev_t, ino_t>, WritableFile> candidates_;
  std::vector<HeldFile> held_;
  uint64_t held_bytes_ = 0;
  uint64_t copied_ = 0;
  uint64_t summed_ = 0;
};

}  // namespace

std::string_view file_mode_name(FileMode mode) {
  for (const auto& [known, name] : kModes) {
    if (known == mode) return name;
  }
  return "auto";
}

std::optional<FileMode> parse_file_mode(std::string_view name) {
  for (const auto& [mode, known] : kModes) {
    if (known == name) return mode;
  }
  return std::nullopt;
}

Result<std::vector<HeldFile>> capture_files(inspect::DescriptorGraph& files,
                                            std::span<const MappedFiles> mapped, const FilePolicy& policy,
                                            bool ends, image::Writer& writer, schema::Manifest& manifest) {
  if (policy.mode == FileMode::kNone) return std::vector<HeldFile>();
  Capture capture(files, policy, ends, writer);
  STASIS_CHECK(capture.find(mapped, manifest));
  STASIS_CHECK(capture.take());
  capture.describe(manifest);
  return capture.held();
}

Result<void> write_held_files(const std::vector<HeldFile>& files, image::Writer& writer) {
  for (const HeldFile& file : files) {
    STASIS_TRY(Fd target, writer.create_file(file.name));
    STASIS_CHECK(pwrite_all(target.get(), file.content, 0));
  }
  return {};
}

}  // namespace stasis::checkpoint

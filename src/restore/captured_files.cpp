#include "restore/captured_files.h"

#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/clock.h"
#include "image/blocks.h"
#include "image/directory.h"
#include "resource/content.h"

namespace stasis::restore {

using schema::CapturedFile;

namespace {

constexpr const char* kStep = "restart: put back a file";
constexpr const char* kKeepHint = "restart with --files=keep leaves all files as they are";
constexpr int kMostAsides = 10'000;

std::string directory_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == 0 ? "/" : path.substr(0, slash);
}
std::string base_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }

int64_t nanoseconds(const timespec& time) { return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec; }

// Size and times are as they were.
bool same_times(const CapturedFile& file, const struct stat& present) {
  return static_cast<uint64_t>(present.st_size) == file.size() && present.st_ino == file.inode() &&
         nanoseconds(present.st_mtim) == file.modified_ns() &&
         nanoseconds(present.st_ctim) == file.changed_ns();
}

// Every block of the two is the same block on the disk, so that nothing has to be read to know that they are
// equal. Linux, Documentation/filesystems/fiemap.rst.
bool same_blocks(int a, int b) {
  constexpr uint32_t kAtOnce = 256;
  constexpr uint32_t kUnknown = FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_ENCODED |
                                FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_NOT_ALIGNED;
  constexpr size_t kSize = sizeof(fiemap) + kAtOnce * sizeof(fiemap_extent);
  std::vector<uint64_t> buffers[2] = {std::vector<uint64_t>(kSize / 8 + 1),
                                      std::vector<uint64_t>(kSize / 8 + 1)};
  const int fds[2] = {a, b};
  for (uint64_t start = 0;;) {
    fiemap* maps[2];
    for (int i = 0; i < 2; ++i) {
      maps[i] = reinterpret_cast<fiemap*>(buffers[i].data());
      *maps[i] = fiemap{};
      maps[i]->fm_start = start;
      maps[i]->fm_length = ~uint64_t{0} - start;
      maps[i]->fm_flags = FIEMAP_FLAG_SYNC;
      maps[i]->fm_extent_count = kAtOnce;
      if (::ioctl(fds[i], FS_IOC_FIEMAP, maps[i]) != 0) return false;
    }
    const uint32_t count = maps[0]->fm_mapped_extents;
    if (count != maps[1]->fm_mapped_extents) return false;
    if (count == 0) return true;
    for (uint32_t i = 0; i < count; ++i) {
      const fiemap_extent& one = maps[0]->fm_extents[i];
      const fiemap_extent& other = maps[1]->fm_extents[i];
      if (one.fe_logical != other.fe_logical || one.fe_physical != other.fe_physical ||
          one.fe_length != other.fe_length || ((one.fe_flags | other.fe_flags) & kUnknown) != 0)
        return false;
      if ((one.fe_flags & FIEMAP_EXTENT_LAST) != 0) return (other.fe_flags & FIEMAP_EXTENT_LAST) != 0;
      start = one.fe_logical + one.fe_length;
    }
  }
}

// The owner of a file may ask the kernel for a lease, which it gives only when nobody has the file open for
// writing (fcntl(2), F_SETLEASE). The program itself does not exist yet.
bool others_write(const std::string& path) {
  auto fd = open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!fd.ok()) return false;
  if (::fcntl(fd->get(), F_SETLEASE, F_RDLCK) == 0) {
    ::fcntl(fd->get(), F_SETLEASE, F_UNLCK);
    return false;
  }
  return errno == EAGAIN;
}

void set_modified(int fd, int64_t modified_ns) {
  const timespec times[2] = {{0, UTIME_OMIT}, to_timespec(modified_ns)};
  ::futimens(fd, times);
}

// Access control lists, labels and the user's own: what can be had of them.
void copy_attributes(int from, int to) {
  if (::flistxattr(from, nullptr, 0) <= 0) return;
  std::string names(size_t{64} << 10, '\0');
  const ssize_t size = ::flistxattr(from, names.data(), names.size());
  std::string value(size_t{64} << 10, '\0');
  for (ssize_t at = 0; at < size; at += static_cast<ssize_t>(std::strlen(names.data() + at)) + 1) {
    const ssize_t length = ::fgetxattr(from, names.data() + at, value.data(), value.size());
    if (length >= 0 && ::fsetxattr(to, names.data() + at, value.data(), static_cast<size_t>(length), 0) != 0)
      continue;
  }
}

Result<void> copy_bytes(int from, int to, uint64_t start, uint64_t end, uint64_t target) {
  std::string buffer;
  while (start < end) {
    buffer.resize(std::min<uint64_t>(end - start, 1 << 20));
    STASIS_CHECK(pread_all(from, buffer, static_cast<off_t>(start)));
    STASIS_CHECK(pwrite_all(to, buffer, static_cast<off_t>(target)));
    start += buffer.size();
    target += buffer.size();
  }
  return {};
}

}  // namespace

CapturedFiles::CapturedFiles(const image::Image& image, FileUse use, std::string directory)
    : image_(image), use_(use), directory_(std::move(directory)) {
  for (const auto& memory : image_.manifest().memories()) {
    for (const auto& mapping : memory.mappings()) {
      if (mapping.kind() == schema::Mapping::SHARED_FILE && (mapping.protection() & PROT_WRITE) != 0)
        mapped_.insert(mapping.path());
    }
  }
}

CapturedFiles::~CapturedFiles() { undo(); }

Result<void> CapturedFiles::apply() {
  if (use_ == FileUse::kKeep) return {};
  for (const auto& file : image_.manifest().captured_files()) {
    auto done = use_ == FileUse::kCopies ? copy(file) : put_back(file);
    if (!done.ok()) {
      undo();
      return done;
    }
  }
  return {};
}

Result<void> CapturedFiles::put_back(const CapturedFile& file) {
  struct stat present = {};
  if (::lstat(file.path().c_str(), &present) != 0) {
    if (errno != ENOENT) return errno_error(kStep, file.path(), errno, kKeepHint);
    if (file.method() == CapturedFile::CONTENT) return create(file);
    // Whoever opens it says that it is not there, and what the program had of it.
    return {};
  }
  if (!S_ISREG(present.st_mode)) {
    return Error{kStep, file.path(), "it was a regular file, and now is something else",
                 "put the file of the program back to restart", ErrorCode::kRefused};
  }
  if (file.method() == CapturedFile::IDENTITY) return keep_identity(file);
  if (untouched(file, present)) return {};

  const bool same = present.st_ino == file.inode();
  const auto size = static_cast<uint64_t>(present.st_size);
  if (file.appended() && same && size >= file.size()) {
    bool intact = true;
    if (file.method() == CapturedFile::CONTENT) {
      STASIS_TRY(intact, has_content(file, file.path()));
    }
    if (intact) return size == file.size() ? Result<void>() : cut(file, present);
  }
  if (file.method() == CapturedFile::LENGTH) {
    notes_.push_back(
        fmt::format("{} is {} now, and is left as it is: of a file that is only appended to, the checkpoint "
                    "has the length "
                    "({} bytes) alone",
                    file.path(), same ? "shorter" : "another file", file.size()));
    return {};
  }
  if (size == file.size()) {
    STASIS_TRY(const bool equal, has_content(file, file.path()));
    if (equal) return {};
  }
  return replace(file, present);
}

// Times tell of a change, except in two cases: what is written through a mapping is dated when a page is
// first written after it was clean, which may have been long before the checkpoint; and the kernel's clock
// for files ticks in milliseconds, so a write right after the checkpoint may have the time of one right
// before.
bool CapturedFiles::untouched(const CapturedFile& file, const struct stat& present) const {
  constexpr int64_t kTickNs = 20'000'000;
  if (!same_times(file, present)) return false;
  if (file.changed_ns() + kTickNs > image_.manifest().clocks().realtime_ns()) return false;
  return !is_mapped(file);
}

bool CapturedFiles::is_mapped(const CapturedFile& file) const {
  return mapped_.contains(file.path()) ||
         std::any_of(file.other_paths().begin(), file.other_paths().end(),
                     [this](const std::string& path) { return mapped_.contains(path); });
}

Result<void> CapturedFiles::keep_identity(const CapturedFile& file) const {
  struct stat present = {};
  if (::lstat(file.path().c_str(), &present) != 0) return errno_error(kStep, file.path(), errno, kKeepHint);
  if (static_cast<uint64_t>(present.st_size) == file.size() &&
      nanoseconds(present.st_mtim) == file.modified_ns())
    return {};
  return Error{kStep, file.path(), "it was too large to be copied, and has changed since the checkpoint",
               fmt::format("put back what it was; {}, which may be what the program cannot bear", kKeepHint),
               ErrorCode::kRefused};
}

// Whether the file begins with the content that was saved; of what has no sums, whether it is that content.
Result<bool> CapturedFiles::has_content(const CapturedFile& file, const std::string& path) const {
  const auto& all = image_.manifest().files();
  const auto saved =
      std::find_if(all.begin(), all.end(), [&](const auto& entry) { return entry.name() == file.content(); });
  if (saved == all.end()) return false;
  auto fd = open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!fd.ok()) return false;
  if (saved->unsummed()) {
    struct stat present = {};
    STASIS_TRY(Fd content, image_.open_file(file.content()));
    return ::fstat(fd->get(), &present) == 0 && static_cast<uint64_t>(present.st_size) == file.size() &&
           same_blocks(fd->get(), content.get());
  }
  image::BlockSummer summer;
  for (int i = 0; i < saved->sums_size(); ++i) {
    const uint64_t offset = static_cast<uint64_t>(i) * saved->block_size();
    const uint64_t size = std::min<uint64_t>(saved->block_size(), saved->size() - offset);
    auto block = summer.sum(fd->get(), path, offset, size);
    if (!block.ok() || block->sum != saved->sums(i)) return false;
  }
  return true;
}

Result<std::string> CapturedFiles::own_directory() {
  if (!directory_made_) STASIS_CHECK(image::make_directories(directory_));
  directory_made_ = true;
  return directory_;
}

// A name for what is kept, beside the file if that directory may be written, else in our own.
Result<std::string> CapturedFiles::fresh_aside(const std::string& path) {
  std::string stem = fmt::format("{}.before-restart-{}", path, image_.manifest().id());
  if (::access(directory_of(path).c_str(), W_OK) != 0) {
    STASIS_TRY(std::string directory, own_directory());
    stem = directory + "/" + base_of(stem);
  }
  struct stat status = {};
  for (int number = 1; number < kMostAsides; ++number) {
    std::string name = number == 1 ? stem : fmt::format("{}-{}", stem, number);
    if (::lstat(name.c_str(), &status) != 0 && errno == ENOENT) return name;
  }
  return Error{kStep, path, "there are too many files that were kept before earlier restarts",
               fmt::format("remove {}*", stem), ErrorCode::kRefused};
}

Result<void> CapturedFiles::create(const CapturedFile& file) {
  auto made = open_file(file.path(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
  if (!made.ok()) return std::move(made).error().within(kStep);
  undo_.push_back({Undo::What::kRemove, file.path(), {}, 0});
  STASIS_TRY(Fd content, image_.open_file(file.content()));
  STASIS_CHECK(resource::copy_content(content.get(), made->get()));
  // Its group as far as we may; its owner is whoever restarts, unless that is root.
  if (::fchown(made->get(), file.user(), file.group()) != 0 &&
      ::fchown(made->get(), ~uid_t{0}, file.group()) != 0) {
  }
  if (::fchmod(made->get(), file.mode() & 0777) != 0) return errno_error(kStep, file.path());
  set_modified(made->get(), file.modified_ns());
  for (const auto& other : file.other_paths()) {
    if (::link(file.path().c_str(), other.c_str()) == 0) undo_.push_back({Undo::What::kRemove, other, {}, 0});
  }
  notes_.push_back(fmt::format("{} was gone, and is there again", file.path()));
  return {};
}

Result<void> CapturedFiles::replace(const CapturedFile& file, const struct stat& present) {
  // Another name would go on leading to the old inode, and so would the mappings of others: a file that is
  // mapped by several programs is their shared memory.
  if (present.st_nlink == 1 && !is_mapped(file)) {
    STASIS_TRY(const bool done, replace_by_exchange(file, present));
    if (done) return {};
  }
  return rewrite(file);
}

// The file is made under the name of what is kept, and then the two names are exchanged in one step: the name
// always leads to one of them, others may have the newer one open, and being killed at any moment loses
// nothing. False when the directory does not allow that.
Result<bool> CapturedFiles::replace_by_exchange(const CapturedFile& file, const struct stat& present) {
  const std::string& path = file.path();
  STASIS_TRY(const std::string aside, fresh_aside(path));
  if (directory_of(aside) != directory_of(path)) return false;
  auto made = open_file(aside, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
  if (!made.ok()) return false;
  const auto give_up = [&aside] { ::unlink(aside.c_str()); };
  auto content = image_.open_file(file.content());
  auto copied = content.ok() ? resource::copy_content(content->get(), made->get())
                             : Result<void>(std::move(content).error());
  if (!copied.ok()) {
    give_up();
    return std::move(copied).error().within(fmt::format("{}: {}", kStep, path));
  }
  if ((present.st_uid != ::geteuid() || present.st_gid != ::getegid()) &&
      ::fchown(made->get(), present.st_uid, present.st_gid) != 0) {
    give_up();
    return false;
  }
  if (auto old = open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK); old.ok())
    copy_attributes(old->get(), made->get());
  if (::fchmod(made->get(), present.st_mode & 07777) != 0) {
    give_up();
    return false;
  }
  set_modified(made->get(), file.modified_ns());
  if (::renameat2(AT_FDCWD, aside.c_str(), AT_FDCWD, path.c_str(), RENAME_EXCHANGE) != 0) {
    give_up();
    return false;
  }
  undo_.push_back({Undo::What::kExchange, path, aside, 0});
  notes_.push_back(fmt::format("{} is as of the checkpoint again; what it was is in {}", path, aside));
  return true;
}

// For files with several names, mapped files, mounted ones, and those in directories that we may not write:
// the old content is copied first.
Result<void> CapturedFiles::rewrite(const CapturedFile& file) {
  const std::string& path = file.path();
  auto target = open_file(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK);
  if (!target.ok()) {
    Error error = std::move(target).error().within(kStep);
    error.hint = kKeepHint;
    return error;
  }
  STASIS_TRY(std::string aside, fresh_aside(path));
  STASIS_TRY(Fd kept, open_file(aside, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
  if (auto copied = resource::copy_content(target->get(), kept.get()); !copied.ok()) {
    ::unlink(aside.c_str());
    return std::move(copied).error().within(fmt::format("keep {} aside", path));
  }
  undo_.push_back({Undo::What::kRewrite, path, aside, 0});
  STASIS_TRY(Fd content, image_.open_file(file.content()));
  if (::ftruncate(target->get(), 0) != 0) return errno_error(kStep, path);
  STASIS_CHECK(resource::copy_content(content.get(), target->get()));
  set_modified(target->get(), file.modified_ns());
  notes_.push_back(fmt::format("{} is as of the checkpoint again; what it was is in {}", path, aside));
  return {};
}

// A file that is only appended to has what it had; what came later is taken off. Unless somebody else writes
// to it, too: a log of several programs is not ours to cut.
Result<void> CapturedFiles::cut(const CapturedFile& file, const struct stat& present) {
  const std::string& path = file.path();
  if (others_write(path)) {
    notes_.push_back(fmt::format("{} is left as it is: another program has it open for writing", path));
    return {};
  }
  const auto size = static_cast<uint64_t>(present.st_size);
  STASIS_TRY(Fd target, open_file(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK));
  STASIS_TRY(std::string aside, fresh_aside(path));
  STASIS_TRY(Fd kept, open_file(aside, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
  if (auto copied = copy_bytes(target.get(), kept.get(), file.size(), size, 0); !copied.ok()) {
    ::unlink(aside.c_str());
    return std::move(copied).error().within(fmt::format("keep the end of {} aside", path));
  }
  if (::fchmod(kept.get(), present.st_mode & 0777) != 0) return errno_error(kStep, aside);
  undo_.push_back({Undo::What::kAppend, path, aside, file.size()});
  if (::ftruncate(target.get(), static_cast<off_t>(file.size())) != 0) return errno_error(kStep, path);
  notes_.push_back(
      fmt::format("{} ends where it ended at the checkpoint; what was appended since is in {}", path, aside));
  return {};
}

Result<void> CapturedFiles::copy(const CapturedFile& file) {
  STASIS_TRY(std::string directory, own_directory());
  std::string path;
  Fd made;
  for (int number = 1; number < kMostAsides && !made; ++number) {
    path = fmt::format("{}/{}", directory, base_of(file.path()));
    if (number > 1) path += fmt::format("-{}", number);
    auto opened = open_file(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    if (opened.ok()) {
      made = std::move(opened).value();
    } else if (errno != EEXIST) {
      return std::move(opened).error().within("restart: copy a file");
    }
  }
  undo_.push_back({Undo::What::kRemove, path, {}, 0});
  Fd source;
  if (file.method() == CapturedFile::CONTENT) {
    STASIS_TRY(source, image_.open_file(file.content()));
  } else {
    if (file.method() == CapturedFile::IDENTITY) STASIS_CHECK(keep_identity(file));
    auto opened = open_file(file.path(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    struct stat present = {};
    if (opened.ok() && ::fstat(opened->get(), &present) == 0 && S_ISREG(present.st_mode)) {
      source = std::move(opened).value();
    } else {
      notes_.push_back(
          fmt::format("{} cannot be read: its copy in the new session begins empty", file.path()));
    }
  }
  if (source) {
    auto copied = resource::copy_content(source.get(), made.get());
    if (!copied.ok()) return std::move(copied).error().within("restart: copy " + file.path());
  }
  struct stat have = {};
  if (file.method() == CapturedFile::LENGTH && ::fstat(made.get(), &have) == 0 &&
      static_cast<uint64_t>(have.st_size) > file.size() &&
      ::ftruncate(made.get(), static_cast<off_t>(file.size())) != 0)
    return errno_error("restart: copy a file", path);
  if (::fchmod(made.get(), (file.mode() & 0777) | 0600) != 0)
    return errno_error("restart: copy a file", path);
  set_modified(made.get(), file.modified_ns());
  copies_[file.path()] = path;
  for (const auto& other : file.other_paths()) copies_[other] = path;
  return {};
}

void CapturedFiles::undo() {
  while (!undo_.empty()) {
    const Undo step = std::move(undo_.back());
    undo_.pop_back();
    switch (step.what) {
      case Undo::What::kRemove:
        ::unlink(step.path.c_str());
        break;
      case Undo::What::kExchange:
        ::renameat2(AT_FDCWD, step.aside.c_str(), AT_FDCWD, step.path.c_str(), 0);
        break;
      case Undo::What::kRewrite:
      case Undo::What::kAppend: {
        auto from = open_file(step.aside, O_RDONLY);
        auto to = open_file(step.path, O_RDWR | O_NOFOLLOW);
        struct stat kept = {};
        if (!from.ok() || !to.ok() || ::fstat(from->get(), &kept) != 0) break;
        if (::ftruncate(to->get(), static_cast<off_t>(step.size)) != 0) break;
        auto written =
            step.what == Undo::What::kRewrite
                ? resource::copy_content(from->get(), to->get())
                : copy_bytes(from->get(), to->get(), 0, static_cast<uint64_t>(kept.st_size), step.size);
        if (written.ok()) ::unlink(step.aside.c_str());
        break;
      }
    }
  }
  if (directory_made_) ::rmdir(directory_.c_str());  // fails, rightly, when something is in it
  copies_.clear();
}

}  // namespace stasis::restore

#include "inspect/mounted_content.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>

#include "stasis/types.h"

namespace stasis::inspect {
namespace {

constexpr const char* kStep = "save what is mounted";
constexpr size_t kMostDepth = 200;

int64_t nanoseconds(const timespec& time) { return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec; }

// Looking must not show.
Result<Fd> open_unnoticed(const std::string& place, int flags) {
  auto file = open_file(place, O_RDONLY | O_NOATIME | O_NONBLOCK | O_NOCTTY | flags);
  return file.ok() ? std::move(file) : open_file(place, O_RDONLY | O_NONBLOCK | O_NOCTTY | flags);
}

void describe_status(const struct stat& status, schema::MountedFile& file) {
  file.set_mode(status.st_mode);
  file.set_user(status.st_uid);
  file.set_group(status.st_gid);
  file.set_device(status.st_rdev);
  file.set_size(static_cast<uint64_t>(status.st_size));
  file.set_modified_ns(nanoseconds(status.st_mtim));
  file.set_accessed_ns(nanoseconds(status.st_atim));
}

// ACLs and capabilities of programs are among them.
Result<void> describe_attributes(const std::string& place, schema::MountedFile& file) {
  std::string names(size_t{64} << 10, '\0'), value(size_t{64} << 10, '\0');
  const ssize_t length = ::llistxattr(place.c_str(), names.data(), names.size());
  if (length < 0 && errno != EOPNOTSUPP) return errno_error(kStep, file.path());
  for (ssize_t at = 0; at < length;) {
    const std::string name = names.c_str() + at;
    at += static_cast<ssize_t>(name.size()) + 1;
    const ssize_t size = ::lgetxattr(place.c_str(), name.c_str(), value.data(), value.size());
    if (size < 0) return errno_error(kStep, fmt::format("{} of {}", name, file.path()));
    auto* attribute = file.add_attributes();
    attribute->set_name(name);
    attribute->set_value(value.data(), static_cast<size_t>(size));
  }
  return {};
}

std::string place_of(int directory, const std::string& name) {
  return fmt::format("/proc/self/fd/{}/{}", directory, name);
}

}  // namespace

std::string MountedContent::shown(const std::string& path) const {
  return fmt::format("/{} of {} ({})", path, out_->source(), out_->type());
}

Result<void> MountedContent::add(int root, const std::string& path, schema::FileSystem& out) {
  out_ = &out;
  struct stat status = {};
  if (::fstat(root, &status) != 0) return errno_error(kStep, shown(path));
  const std::string place = fmt::format("/proc/self/fd/{}", root);
  if (S_ISDIR(status.st_mode)) {
    STASIS_TRY(Fd directory, open_unnoticed(place + "/.", O_DIRECTORY));
    return enter(directory.get(), path, 0);
  }
  schema::MountedFile& file = *out.add_files();
  file.set_path(path);
  return add_file(root, file);
}

Result<void> MountedContent::add_file(int fd, schema::MountedFile& file) {
  struct stat status = {};
  if (::fstat(fd, &status) != 0) return errno_error(kStep, file.path());
  describe_status(status, file);
  const std::string place = fmt::format("/proc/self/fd/{}", fd);
  if (S_ISREG(status.st_mode) && status.st_size > 0) return copy(place, file.path(), file);
  return {};
}

Result<void> MountedContent::enter(int directory, const std::string& path, size_t depth) {
  struct stat status = {};
  if (::fstat(directory, &status) != 0) return errno_error(kStep, shown(path));
  STASIS_TRY([[maybe_unused]] auto* described, describe(place_of(directory, "."), path, status));
  if (depth > kMostDepth)
    return Error{kStep, shown(path), "its directories are too deep", {}, ErrorCode::kRefused};
  const int again = ::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOATIME);
  std::unique_ptr<DIR, int (*)(DIR*)> stream(
      again < 0 ? ::fdopendir(::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC))
                : ::fdopendir(again),
      ::closedir);
  if (!stream) return errno_error(kStep, shown(path));
  while (const dirent* entry = ::readdir(stream.get())) {
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    STASIS_CHECK(visit(directory, name, path.empty() ? name : fmt::format("{}/{}", path, name), depth));
  }
  return {};
}

Result<schema::MountedFile*> MountedContent::describe(const std::string& place, const std::string& path,
                                                      const struct stat& status) {
  schema::MountedFile& file = *out_->add_files();
  file.set_path(path);
  describe_status(status, file);
  STASIS_CHECK(describe_attributes(place, file));
  return &file;
}

Result<void> MountedContent::visit(int directory, const std::string& name, const std::string& path,
                                   size_t depth) {
  struct stat status = {};
  if (::fstatat(directory, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0)
    return errno_error(kStep, shown(path));
  if (S_ISDIR(status.st_mode)) {
    Fd below(::openat(directory, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NOATIME));
    if (!below)
      below.reset(::openat(directory, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!below) return errno_error(kStep, shown(path));
    return enter(below.get(), path, depth + 1);
  }
  if (status.st_nlink > 1) {
    auto [first, is_first] = linked_.try_emplace(status.st_ino, path);
    if (!is_first) {
      schema::MountedFile& file = *out_->add_files();
      file.set_path(path);
      describe_status(status, file);
      file.set_target(first->second);
      file.set_other_name(true);
      return {};
    }
  }
  STASIS_TRY(auto* file, describe(place_of(directory, name), path, status));
  if (S_ISLNK(status.st_mode)) {
    std::array<char, 4096> target;
    const ssize_t length = ::readlinkat(directory, name.c_str(), target.data(), target.size());
    if (length < 0) return errno_error(kStep, shown(path));
    file->set_target(target.data(), static_cast<size_t>(length));
  } else if (S_ISREG(status.st_mode) && status.st_size > 0) {
    return copy(place_of(directory, name), path, *file);
  }
  return {};
}

Result<void> MountedContent::copy(const std::string& place, const std::string& path,
                                  schema::MountedFile& file) {
  STASIS_TRY(Fd from, open_unnoticed(place, 0));
  std::string buffer;
  for (off_t at = 0; at < static_cast<off_t>(file.size());) {
    const off_t start = ::lseek(from.get(), at, SEEK_DATA);
    if (start < 0 && errno == ENXIO) break;
    const off_t end = start < 0 ? -1 : ::lseek(from.get(), start, SEEK_HOLE);
    if (end < 0) return errno_error(kStep, path);
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

}  // namespace stasis::inspect

#include "image/reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "image/blocks.h"
#include "image/directory.h"
#include "image/format.h"
#include "image/mapped_files.h"

namespace stasis::image {
namespace {

Error not_an_image(const std::string& path, std::string cause, ErrorCode code = ErrorCode::kDamaged) {
  return {"open image", path, std::move(cause), "", code};
}

// Opening with O_NOFOLLOW says ELOOP of a symbolic link, which tells a user nothing.
Error explain(Error error, int code, const std::string& path) {
  if (code == ELOOP || code == ENOTDIR) {
    return not_an_image(path,
                        "it is a symbolic link or not a directory; images are opened by their real path",
                        ErrorCode::kRefused);
  }
  error.step = "open image";
  error.object = path;
  return error;
}

// A regular file of ours in the directory, opened for reading. O_NONBLOCK so that a FIFO in its place cannot
// hold us up.
Result<Fd> open_ours(int directory, const std::string& name, const std::string& path) {
  const int fd = openat(directory, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) {
    if (errno == ENOENT) return not_an_image(path, "it is missing");
    if (errno == ELOOP) return not_an_image(path, "it is a symbolic link", ErrorCode::kRefused);
    return errno_error("open image", path);
  }
  Fd file(fd);
  struct stat status;
  if (fstat(fd, &status) != 0) return errno_error("open image", path);
  if (!S_ISREG(status.st_mode)) return not_an_image(path, "it is not a regular file");
  STASIS_CHECK(check_ours(fd, path));
  return file;
}

Result<schema::Manifest> read_manifest(int directory, const std::string& path, uint64_t& sum) {
  const std::string name(kManifestName);
  STASIS_TRY(Fd file, open_ours(directory, name, path));
  struct stat status;
  if (fstat(file.get(), &status) != 0) return errno_error("open image", path);
  const auto size = static_cast<uint64_t>(status.st_size);
  if (size > kHeaderSize + kManifestLimit) {
    return not_an_image(path, fmt::format("its {} bytes are more than any checkpoint needs", size));
  }
  std::string bytes(size, '\0');
  if (auto read = pread_all(file.get(), bytes, 0); !read) {
    Error error = std::move(read).error();
    error.step = "open image";
    error.object = path;
    return error;
  }
  sum = block_sum(std::as_bytes(std::span(bytes)));
  auto manifest = parse_manifest(std::as_bytes(std::span(bytes)));
  if (!manifest) {
    Error error = std::move(manifest).error();
    if (error.step == "manifest" || error.step.starts_with("manifest:")) return error;
    error.step = "open image";
    error.object = path;
    return error;
  }
  return manifest;
}

// A clone without sums: that the disk still gives all of it, and on some file systems by their own sums that
// it is what was written.
Result<void> read_through(int fd, const std::string& path, uint64_t size) {
  std::string buffer(size_t{1} << 20, '\0');
  for (uint64_t at = 0; at < size;) {
    const off_t data = lseek(fd, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) return {};
    if (data < 0) return errno_error("verify image", path);
    at = static_cast<uint64_t>(data);
    if (at >= size) return {};
    const ssize_t got = pread(fd, buffer.data(), buffer.size(), data);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      Error error = errno_error("verify image", fmt::format("{}, offset {}", path, at));
      error.code = ErrorCode::kDamaged;
      return error;
    }
    if (got == 0) return {};
    at += static_cast<uint64_t>(got);
  }
  return {};
}

}  // namespace

Result<Image> Image::open(const std::string& directory) {
  Image image;
  image.directory_ = directory;
  while (image.directory_.size() > 1 && image.directory_.back() == '/') image.directory_.pop_back();

  auto opened = open_directory(image.directory_);
  if (!opened) return explain(std::move(opened).error(), errno, image.directory_);
  image.directory_fd_ = std::move(*opened);
  const int fd = image.directory_fd_.get();
  STASIS_CHECK(check_ours(fd, image.directory_));
  const std::string manifest_path = image.directory_ + "/" + std::string(kManifestName);
  if (faccessat(fd, kManifestName.data(), F_OK, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT) {
    return not_an_image(image.directory_, "there is no manifest in it: this is not a checkpoint",
                        ErrorCode::kNotFound);
  }
  STASIS_TRY(image.manifest_, read_manifest(fd, manifest_path, image.sum_));
  // Sizes now, contents in verify(): a truncated page file would otherwise be a SIGBUS in the restarted
  // program.
  for (const auto& file : image.manifest_.files()) {
    STASIS_TRY([[maybe_unused]] Fd checked, image.open_file(file.name()));
  }
  return image;
}

const schema::ImageFile* Image::find_file(const std::string& name) const {
  const auto& files = manifest_.files();
  const auto entry =
      std::find_if(files.begin(), files.end(), [&](const auto& file) { return file.name() == name; });
  return entry == files.end() ? nullptr : &*entry;
}

bool Image::link_file(const std::string& name, int directory, const std::string& new_name) const {
  return linkat(directory_fd_.get(), name.c_str(), directory, new_name.c_str(), 0) == 0;
}

Result<void> Image::link_carried_files(int directory) const {
  return link_carried(directory_fd_.get(), directory);
}

bool Image::is_entry(int directory, const std::string& name) const {
  struct stat ours, there;
  return fstat(directory_fd_.get(), &ours) == 0 &&
         fstatat(directory, name.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0 && ours.st_ino == there.st_ino &&
         ours.st_dev == there.st_dev;
}

Result<Fd> Image::open_file(const std::string& name) const {
  const std::string path = directory_ + "/" + name;
  const schema::ImageFile* entry = find_file(name);
  if (entry == nullptr) return not_an_image(path, "the manifest names no such file");
  STASIS_TRY(Fd file, open_ours(directory_fd_.get(), name, path));
  struct stat status;
  if (fstat(file.get(), &status) != 0) return errno_error("open image", path);
  if (static_cast<uint64_t>(status.st_size) != entry->size()) {
    return not_an_image(path,
                        fmt::format("it has {} bytes and should have {}", status.st_size, entry->size()));
  }
  return file;
}

uint64_t Image::logical_size() const {
  uint64_t total = 0;
  for (const auto& file : manifest_.files()) total += file.size();
  return total;
}

uint64_t Image::stored_size() const {
  uint64_t total = 0;
  for (const auto& file : manifest_.files()) total += file.stored();
  return total;
}

uint64_t Image::content_size() const {
  uint64_t total = 0;
  for (const auto& file : manifest_.files()) total += file.origin() == 0 ? file.size() : 0;
  // Layers that were imported with it are its own.
  std::set<std::string_view> shared;
  for (const auto& file : manifest_.files()) {
    if (file.origin() != 0) shared.insert(file.name());
  }
  auto add = [&](const auto& memories) {
    for (const auto& memory : memories) {
      for (const auto& run : memory.runs()) {
        if (run.layer() != 0 && shared.contains(memory.layers(static_cast<int>(run.layer()) - 1)))
          total += run.size();
      }
    }
  };
  add(manifest_.memories());
  add(manifest_.shared_memories());
  add(manifest_.system_v().segments());
  return total;
}

uint64_t Image::own_size() const {
  uint64_t total = 0;
  for (const auto& file : manifest_.files()) {
    struct stat status;
    const bool known = fstatat(directory_fd_.get(), file.name().c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0;
    if (!known || status.st_nlink == 1) total += file.stored();
  }
  return total;
}

Result<void> Image::verify(const std::function<void(uint64_t, uint64_t)>& progress) const {
  const uint64_t total = logical_size();
  uint64_t done = 0;
  BlockSummer summer;
  for (const auto& file : manifest_.files()) {
    const std::string path = directory_ + "/" + file.name();
    STASIS_TRY(Fd fd, open_file(file.name()));
    // Larger read-ahead; verify reads once and in order.
    (void)posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
    if (file.unsummed()) {
      STASIS_CHECK(read_through(fd.get(), path, file.size()));
      done += file.size();
      if (progress) progress(done, total);
      continue;
    }
    for (int i = 0; i < file.sums_size(); ++i) {
      const uint64_t offset = static_cast<uint64_t>(i) * file.block_size();
      const uint64_t size = std::min<uint64_t>(file.block_size(), file.size() - offset);
      STASIS_TRY(BlockSum block, summer.sum(fd.get(), path, offset, size));
      if (block.sum != file.sums(i)) {
        return Error{
            "verify image", path,
            fmt::format("the block of {} bytes at offset {} is not what was saved", size, offset),
            "restart from another checkpoint (stasis list), check this disk, and take the next one with "
            "--full: others may share this file",
            ErrorCode::kDamaged};
      }
      done += size;
      if (progress) progress(done, total);
    }
  }
  return {};
}

}  // namespace stasis::image

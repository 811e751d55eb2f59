#include "image/mapped_files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "image/directory.h"

namespace stasis::image {
namespace {

// What the kernel shows of a file that has its name: no other could be put below a directory of ours.
bool is_plain_path(std::string_view path) {
  if (path.size() < 2 || path.size() >= PATH_MAX || path.front() != '/' || path.find('\0') != path.npos)
    return false;
  for (size_t at = 0; at < path.size();) {
    const size_t next = std::min(path.find('/', at + 1), path.size());
    const std::string_view part = path.substr(at + 1, next - at - 1);
    if (part.empty() || part == "." || part == ".." || part.size() > NAME_MAX) return false;
    at = next;
  }
  return true;
}

int64_t modified_ns(const struct stat& status) {
  return int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
}

bool have_same_contents(const std::string& one, const std::string& other) {
  auto first = open_file(one, O_RDONLY | O_NONBLOCK);
  auto second = open_file(other, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!first || !second) return false;
  std::string left(size_t{256} << 10, '\0'), right(left.size(), '\0');
  for (off_t at = 0;;) {
    const ssize_t got = pread(first->get(), left.data(), left.size(), at);
    const ssize_t there = pread(second->get(), right.data(), right.size(), at);
    if (got != there || got < 0 ||
        left.compare(0, static_cast<size_t>(got), right, 0, static_cast<size_t>(got)) != 0)
      return false;
    if (got == 0) return true;
    at += got;
  }
}

Result<Fd> make_directory(int parent, const std::string& name) {
  if (mkdirat(parent, name.c_str(), 0700) != 0 && errno != EEXIST) return write_error("import", name, errno);
  return open_file(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

}  // namespace

std::vector<MappedFile> mapped_files(const schema::Manifest& manifest) {
  std::set<std::string_view> captured;
  for (const auto& file : manifest.captured_files()) {
    if (file.method() != schema::CapturedFile::CONTENT) continue;
    captured.insert(file.path());
    captured.insert(file.other_paths().begin(), file.other_paths().end());
  }
  std::map<std::string, MappedFile> found;
  for (const auto& memory : manifest.memories()) {
    for (const auto& mapping : memory.mappings()) {
      const bool is_private = mapping.kind() == schema::Mapping::PRIVATE_FILE;
      if (!is_private && mapping.kind() != schema::Mapping::SHARED_FILE) continue;
      const std::string& path = mapping.host_path().empty() ? mapping.path() : mapping.host_path();
      if (!is_plain_path(path) || captured.contains(path)) continue;
      MappedFile& file = found[path];
      file.path = path;
      if (is_private || !file.is_private) {
        file.size = mapping.identity().size();
        file.modified_ns = mapping.identity().modified_ns();
      }
      file.is_private |= is_private;
      file.unmodified |= is_private && (mapping.protection() & PROT_WRITE) == 0;
    }
  }
  std::vector<MappedFile> files;
  files.reserve(found.size());
  for (auto& [path, file] : found) files.push_back(std::move(file));
  return files;
}

std::string problem_at_host(const MappedFile& file) {
  struct stat status;
  if (stat(file.path.c_str(), &status) != 0)
    return errno == ENOENT ? std::string("it is missing") : std::string(std::strerror(errno));
  if (!file.is_private) return {};
  if (static_cast<uint64_t>(status.st_size) != file.size)
    return fmt::format("it has {} bytes and had {}", status.st_size, file.size);
  if (file.unmodified && modified_ns(status) != file.modified_ns) return "it was modified at another time";
  return {};
}

std::vector<Difference> compare_with_host(const schema::Manifest& manifest, const std::string& carried_in) {
  std::vector<Difference> differences;
  for (const auto& file : mapped_files(manifest)) {
    Difference difference = {file.path, problem_at_host(file), carried_in + file.path};
    struct stat status;
    if (lstat(difference.carried.c_str(), &status) != 0 || !S_ISREG(status.st_mode))
      difference.carried.clear();
    if (!difference.carried.empty() && difference.problem != "it is missing") {
      difference.same_contents = have_same_contents(file.path, difference.carried);
      // What is written to through a shared mapping may well have changed.
      if (difference.problem.empty() && file.is_private && !difference.same_contents)
        difference.problem = "its contents are others";
    }
    if (!difference.problem.empty()) differences.push_back(std::move(difference));
  }
  return differences;
}

Result<Fd> CarriedFiles::create(const std::string& path, bool executable) {
  if (!is_plain_path(path))
    return Error{"import", path, "this is no path of a file", {}, ErrorCode::kDamaged};
  STASIS_TRY(Fd directory, make_directory(directory_, std::string(kCarriedDirectory)));
  const size_t last = path.find_last_of('/');
  for (size_t at = 1; at < last;) {
    const size_t next = path.find('/', at);
    STASIS_TRY(directory, make_directory(directory.get(), path.substr(at, next - at)));
    at = next + 1;
  }
  const std::string name = path.substr(last + 1);
  Fd file(openat(directory.get(), name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                 executable ? 0700 : 0600));
  if (!file) return write_error("import", path, errno);
  files_.push_back(path);
  return file;
}

Result<void> CarriedFiles::sync() {
  std::set<std::string> directories;
  const std::string top(kCarriedDirectory);
  for (const auto& path : files_) {
    STASIS_TRY(Fd file, open_file(directory_, top + path, O_RDONLY | O_NOFOLLOW));
    if (fdatasync(file.get()) != 0) return write_error("import", path, errno);
    for (size_t slash = path.find_last_of('/'); slash != path.npos;
         slash = slash == 0 ? path.npos : path.find_last_of('/', slash - 1))
      directories.insert(path.substr(0, slash));
  }
  for (const auto& path : directories) {
    STASIS_TRY(Fd directory, open_file(directory_, top + path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    if (fsync(directory.get()) != 0) return write_error("import", top + path, errno);
  }
  return {};
}

namespace {

Result<void> link_tree(const Fd& from, const Fd& to, const std::string& where) {
  STASIS_TRY(const auto names, directory_names(from.get(), where));
  for (const auto& name : names) {
    const std::string path = fmt::format("{}/{}", where, name);
    struct stat status;
    if (fstatat(from.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0)
      return errno_error("prune", path);
    if (S_ISDIR(status.st_mode)) {
      STASIS_TRY(Fd below, open_file(from.get(), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
      STASIS_TRY(Fd there, make_directory(to.get(), name));
      STASIS_CHECK(link_tree(below, there, path));
    } else if (linkat(from.get(), name.c_str(), to.get(), name.c_str(), 0) != 0) {
      return errno_error("prune", path);
    }
  }
  if (fsync(to.get()) != 0) return write_error("prune", where, errno);
  return {};
}

}  // namespace

Result<void> link_carried(int from, int to) {
  const std::string name(kCarriedDirectory);
  auto directory = open_file(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (!directory) {
    if (directory.error().code == ErrorCode::kNotFound) return {};
    return std::move(directory).error();
  }
  STASIS_TRY(Fd there, make_directory(to, name));
  return link_tree(*directory, there, name);
}

}  // namespace stasis::image

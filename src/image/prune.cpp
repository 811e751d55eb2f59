#include "image/prune.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <vector>

#include "image/reader.h"
#include "image/store.h"
#include "image/writer.h"

namespace stasis::image {
namespace {

// Less is not worth the writing.
constexpr uint64_t kWorthIt = 64 << 10;

using Inode = std::pair<dev_t, ino_t>;

struct Range {
  uint64_t start = 0;
  uint64_t end = 0;
};

// One page file, whatever its names.
struct SharedFile {
  uint64_t links = 0;  // names that it has
  uint64_t names = 0;  // of which we know
  uint64_t stored = 0;
  std::vector<Range> needed;
  // Once it has been written anew: where.
  std::string new_directory;
  std::string new_name;
};

class Pruner {
 public:
  explicit Pruner(std::string session_store) : store_(std::move(session_store)) {}

  Result<void> run() {
    STASIS_TRY(auto entries, list(store_));
    for (const auto& entry : entries) {
      if (!entry.problem.empty()) continue;
      auto image = Image::open(entry.directory);
      if (!image) continue;  // somebody removes it
      STASIS_CHECK(look_at(*image));
      images_.push_back(std::move(*image));
    }
    for (auto& [inode, file] : files_) merge(file.needed);
    for (const auto& image : images_) STASIS_CHECK(renew(image));
    return {};
  }

 private:
  static Result<Inode> identify(const Image& image, const std::string& name, struct stat& status) {
    STASIS_TRY(Fd file, image.open_file(name));
    if (fstat(file.get(), &status) != 0) return errno_error("prune", image.directory() + "/" + name);
    return Inode{status.st_dev, status.st_ino};
  }

  Result<void> look_at(const Image& image) {
    std::set<std::string> seen;
    const auto& manifest = image.manifest();
    STASIS_CHECK(look_at(image, manifest.memories(), seen));
    STASIS_CHECK(look_at(image, manifest.shared_memories(), seen));
    return look_at(image, manifest.system_v().segments(), seen);
  }

  template <typename Memories>
  Result<void> look_at(const Image& image, const Memories& memories, std::set<std::string>& seen) {
    for (const auto& memory : memories) {
      std::vector<SharedFile*> by_layer;
      auto add = [&](const std::string& name) -> Result<void> {
        by_layer.push_back(nullptr);
        if (name.empty()) return {};
        struct stat status = {};
        STASIS_TRY(const Inode inode, identify(image, name, status));
        SharedFile& file = files_[inode];
        by_layer.back() = &file;
        if (!seen.insert(name).second) return {};
        file.links = status.st_nlink;
        file.stored = image.find_file(name)->stored();
        ++file.names;
        return {};
      };
      STASIS_CHECK(add(memory.page_file()));
      for (const auto& layer : memory.layers()) STASIS_CHECK(add(layer));
      for (const auto& run : memory.runs())
        by_layer[run.layer()]->needed.push_back({run.offset(), run.offset() + run.size()});
    }
    return {};
  }

  static void merge(std::vector<Range>& ranges) {
    std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.start < b.start; });
    std::vector<Range> merged;
    for (const Range& range : ranges) {
      if (!merged.empty() && range.start <= merged.back().end) {
        merged.back().end = std::max(merged.back().end, range.end);
      } else {
        merged.push_back(range);
      }
    }
    ranges = std::move(merged);
  }

  static bool is_wasteful(const SharedFile& file) {
    uint64_t needed = 0;
    for (const auto& range : file.needed) needed += range.end - range.start;
    return file.links == file.names && file.stored >= needed + kWorthIt;
  }

  SharedFile* wasteful(const Image& image, const std::string& name) {
    struct stat status = {};
    auto inode = identify(image, name, status);
    if (!inode) return nullptr;
    auto found = files_.find(*inode);
    return found != files_.end() && is_wasteful(found->second) ? &found->second : nullptr;
  }

  Result<void> renew(const Image& image) {
    const auto& entries = image.manifest().files();
    if (std::none_of(entries.begin(), entries.end(),
                     [&](const auto& entry) { return wasteful(image, entry.name()) != nullptr; }))
      return {};
    STASIS_TRY(Writer writer, Writer::create(store_));
    std::vector<std::pair<SharedFile*, std::string>> renewed;
    for (const auto& entry : entries) {
      SharedFile* file = wasteful(image, entry.name());
      if (file == nullptr) {
        STASIS_CHECK(share(writer, entry, image, entry.name()));
      } else if (!file->new_directory.empty()) {
        STASIS_TRY(const Image other, Image::open(file->new_directory));
        STASIS_CHECK(share(writer, entry, other, file->new_name));
      } else {
        STASIS_CHECK(copy_needed(writer, entry, image, *file));
        renewed.emplace_back(file, entry.name());
      }
    }
    schema::Manifest manifest = image.manifest();
    auto replaced = writer.replace(manifest, image);
    if (!replaced.ok() && replaced.error().code == ErrorCode::kNotFound)
      return {};  // nobody needs it any more
    STASIS_CHECK(std::move(replaced));
    for (auto& [file, name] : renewed) {
      file->new_directory = image.directory();
      file->new_name = name;
    }
    return {};
  }

  static Result<void> share(Writer& writer, const schema::ImageFile& entry, const Image& from,
                            const std::string& name_there) {
    if (writer.share_file(entry.name(), from, name_there, entry.origin())) return {};
    return errno_error("prune", from.directory() + "/" + name_there);
  }

  static Result<void> copy_needed(Writer& writer, const schema::ImageFile& entry, const Image& image,
                                  const SharedFile& file) {
    STASIS_TRY(Fd from, image.open_file(entry.name()));
    STASIS_TRY(Fd to, writer.create_file(entry.name(), entry.origin()));
    const std::string what = image.directory() + "/" + entry.name();
    if (ftruncate(to.get(), static_cast<off_t>(entry.size())) != 0) return errno_error("prune", what);
    std::string buffer;
    for (const auto& range : file.needed) {
      auto at = static_cast<off_t>(range.start), there = at;
      // Shares the blocks where the file system can.
      while (at < static_cast<off_t>(range.end)) {
        const ssize_t count =
            copy_file_range(from.get(), &at, to.get(), &there, range.end - static_cast<uint64_t>(at), 0);
        if (count <= 0) break;
      }
      for (auto next = static_cast<uint64_t>(at); next < range.end; next += buffer.size()) {
        buffer.resize(std::min<uint64_t>(range.end - next, 1 << 20));
        STASIS_CHECK(pread_all(from.get(), buffer, static_cast<off_t>(next)));
        STASIS_CHECK(pwrite_all(to.get(), buffer, static_cast<off_t>(next)));
      }
    }
    return {};
  }

  std::string store_;
  std::vector<Image> images_;
  std::map<Inode, SharedFile> files_;
};

}  // namespace

Result<void> prune(const std::string& session_store) { return Pruner(session_store).run(); }

Result<uint64_t> disk_usage(const std::string& session_store) {
  std::error_code problem;
  std::set<ino_t> seen;
  uint64_t total = 0;
  std::filesystem::recursive_directory_iterator walk(session_store, problem), end;
  while (!problem && walk != end) {
    struct stat status;
    // What is removed meanwhile does not count.
    if (lstat(walk->path().c_str(), &status) == 0 && seen.insert(status.st_ino).second)
      total += static_cast<uint64_t>(status.st_blocks) * 512;
    walk.increment(problem);
  }
  if (problem && problem.value() != ENOENT) return errno_error("prune", session_store, problem.value());
  return total;
}

}  // namespace stasis::image

#include "resource/content.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <any>
#include <set>
#include <vector>

#include "resource/file/locks.h"
#include "resource/refusal.h"
#include "resource/reopen.h"

namespace stasis::resource {
namespace {

constexpr size_t kChunk = size_t{1} << 20;

bool is_zero(std::span<const char> bytes) {
  return bytes.empty() || (bytes[0] == 0 && memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

// copy_file_range() within a file system that can share or copy blocks itself; else through our memory, where
// runs of zeros (of file systems that report no holes) become holes again.
Result<void> copy_range(int from, int to, off_t start, off_t end) {
  off_t in = start, out = start;
  while (in < end) {
    ssize_t count = copy_file_range(from, &in, to, &out, static_cast<size_t>(end - in), 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
  }
  std::vector<char> buffer(std::min(kChunk, static_cast<size_t>(end - in)));
  while (in < end) {
    size_t size = std::min(kChunk, static_cast<size_t>(end - in));
    std::span<char> piece(buffer.data(), size);
    STASIS_CHECK(pread_all(from, piece, in));
    if (!is_zero(piece)) STASIS_CHECK(pwrite_all(to, {piece.data(), piece.size()}, in));
    in += static_cast<off_t>(size);
  }
  return {};
}

// A file in hugetlbfs cannot be written, only mapped.
Result<void> copy_into_huge_pages(int from, int to, uint64_t size) {
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, to, 0);
  if (memory == MAP_FAILED)
    return errno_error("map reserved huge pages", {}, errno,
                       "reserve as many as the program had: sysctl vm.nr_hugepages");
  Result<void> result;
  for (uint64_t at = 0; at < size && result.ok();) {
    off_t data = lseek(from, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0) break;
    at = static_cast<uint64_t>(data);
    uint64_t count = std::min(uint64_t{kChunk}, size - at);
    result = pread_all(from, {static_cast<char*>(memory) + at, count}, data);
    at += count;
  }
  munmap(memory, size);
  return result;
}

}  // namespace

Result<void> copy_content(int from, int to) {
  struct stat status = {};
  if (fstat(from, &status) < 0) return errno_error("look at a file", {});
  if (ftruncate(to, status.st_size) < 0) return errno_error("set the size of a copy", {});
  if (status.st_size == 0) return {};
  struct statfs fs = {};
  if (fstatfs(to, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC)
    return copy_into_huge_pages(from, to, static_cast<uint64_t>(status.st_size));
  if (ioctl(to, FICLONE, from) == 0) return {};

  off_t at = 0;
  while (at < status.st_size) {
    off_t start = lseek(from, at, SEEK_DATA);
    if (start < 0 && errno == ENXIO) return {};  // the rest is a hole
    if (start < 0) return copy_range(from, to, at, status.st_size);
    off_t end = lseek(from, start, SEEK_HOLE);
    if (end < 0) end = status.st_size;
    STASIS_CHECK(copy_range(from, to, start, std::min(end, status.st_size)));
    at = end;
  }
  return {};
}

std::string content_name(std::string_view kind, const struct stat& status) {
  return fmt::format("{}-{:x}-{}", kind, status.st_dev, status.st_ino);
}

Result<void> save_content(const OpenFile& file, const std::string& name, Observation& tree) {
  // Several descriptions may be of it, of which some may have found a name.
  using Names = std::set<std::string>;
  std::any& saved = tree.memory("content: saved");
  if (!saved.has_value()) saved = Names();
  if (!std::any_cast<Names&>(saved).insert(name).second) return {};

  if (has_write_lease(file)) {
    return refusal(file, "it has no name any more, and there is a lease on it, which reading it would break",
                   "give the lease up before a checkpoint");
  }
  // A description of our own can be read at any place, also when the program's is for writing only, and does
  // not share its position with the program.
  // An access that the program has not made is not to be seen; but only the owner may do without.
  auto source = reopen(file.duplicate.get(), O_RDONLY | O_NOATIME);
  if (!source.ok()) source = reopen(file.duplicate.get(), O_RDONLY);
  if (!source.ok()) {
    return refusal(file, fmt::format("its content cannot be read: {}", source.error().cause),
                   "the file has no name any more and does not let its owner read it");
  }
  STASIS_TRY(Fd copy, tree.create_file(name));
  if (auto copied = copy_content(source->get(), copy.get()); !copied.ok()) {
    return std::move(copied).error().within("save the content of " + file.describe());
  }
  return {};
}

}  // namespace stasis::resource

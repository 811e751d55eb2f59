#include "image/export.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "image/block_stream.h"
#include "image/format.h"
#include "image/mapped_files.h"
#include "image/tar.h"

namespace stasis::image {
namespace {

constexpr size_t kChunk = size_t{1} << 20;

Error step_error(const std::string& path) { return errno_error("export", path); }

using Segments = std::vector<Segment>;

// Where the file has data, in whole pages.
Result<Segments> data_segments(int fd, const std::string& path, uint64_t size) {
  Segments segments;
  for (uint64_t at = 0; at < size;) {
    const off_t data = lseek(fd, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    if (data < 0) return step_error(path);
    const off_t hole = lseek(fd, data, SEEK_HOLE);
    if (hole < 0) return step_error(path);
    at = static_cast<uint64_t>(hole);
    const auto start = static_cast<uint64_t>(data);
    if (start >= size) break;
    segments.push_back({start, std::min(at, size) - start});
    if (segments.size() > kMostSegments) return Segments{{0, size}};
  }
  return segments;
}

// Both ascending.
Segments intersection(const Segments& some, const Segments& others) {
  Segments both;
  auto other = others.begin();
  for (const Segment& one : some) {
    const uint64_t end = one.offset + one.size;
    while (other != others.end() && other->offset + other->size <= one.offset) ++other;
    for (auto next = other; next != others.end() && next->offset < end; ++next) {
      const uint64_t from = std::max(one.offset, next->offset);
      const uint64_t to = std::min(end, next->offset + next->size);
      if (from < to) both.push_back({from, to - from});
    }
  }
  return both;
}

class Exporter {
 public:
  Exporter(const Image& image, ByteSink& sink, const ExportRequest& request)
      : image_(image), tar_(sink), request_(request), manifest_(image.manifest()) {}

  Result<Exported> run() {
    STASIS_CHECK(plan());
    STASIS_CHECK(plan_carried());
    top_ = fmt::format("{}-{}/", manifest_.session().empty() ? "checkpoint" : manifest_.session(),
                       manifest_.id());
    modified_ns_ = manifest_.clocks().realtime_ns();

    STASIS_CHECK(tar_.begin(kArchiveComment));
    STASIS_CHECK(tar_.add({.name = top_, .mode = 0700, .modified_ns = modified_ns_}));
    STASIS_CHECK(add_text(std::string(kManifestName), encode_manifest(manifest_)));
    for (int i = 0; i < manifest_.files_size(); ++i) STASIS_CHECK(add_file(i));
    STASIS_CHECK(add_carried());
    STASIS_TRY(const std::string sum, tar_.sum());
    STASIS_CHECK(add_text(std::string(kArchiveSum), sum + "\n"));
    STASIS_CHECK(tar_.end());
    return done_;
  }

 private:
  // Of the files that other checkpoints wrote: what this one has in them.
  void find_needed() {
    auto look_at = [&](const auto& memories) {
      for (const auto& memory : memories) {
        for (const auto& run : memory.runs()) {
          const std::string& name =
              run.layer() == 0 ? memory.page_file() : memory.layers(static_cast<int>(run.layer()) - 1);
          needed_[name].push_back({run.offset(), run.size()});
        }
      }
    };
    look_at(manifest_.memories());
    look_at(manifest_.shared_memories());
    look_at(manifest_.system_v().segments());
    for (auto& [name, segments] : needed_) {
      std::sort(segments.begin(), segments.end(),
                [](const Segment& a, const Segment& b) { return a.offset < b.offset; });
      Segments merged;
      for (const Segment& next : segments) {
        if (!merged.empty() && next.offset <= merged.back().offset + merged.back().size) {
          merged.back().size = std::max(merged.back().size, next.offset + next.size - merged.back().offset);
        } else {
          merged.push_back(next);
        }
      }
      segments = std::move(merged);
    }
  }

  // What of each file is going to be written, which the manifest has to say before the first of them.
  Result<void> plan() {
    find_needed();
    manifest_.clear_base();
    for (auto& file : *manifest_.mutable_files()) {
      const std::string path = image_.directory() + "/" + file.name();
      STASIS_TRY(Fd fd, image_.open_file(file.name()));
      STASIS_TRY(Segments segments, data_segments(fd.get(), path, file.size()));
      if (file.origin() != 0 && !file.unsummed()) {
        Segments ours = intersection(segments, needed_[file.name()]);
        if (ours != segments && ours.size() <= kMostSegments) {
          STASIS_CHECK(sum_again(file, fd.get(), path, segments, ours));
          segments = std::move(ours);
        }
      }
      file.clear_origin();
      uint64_t stored = 0;
      for (const Segment& segment : segments) stored += segment.size;
      file.set_stored(stored);
      total_ += stored;
      done_.stored += stored;
      done_.logical += file.size();
      plan_.push_back(std::move(segments));
    }
    return {};
  }

  using Take = std::function<Result<void>(uint64_t offset, std::span<const char> bytes)>;
  Result<void> read_segments(int fd, const std::string& path, const Segments& segments, const Take& take) {
    for (const Segment& segment : segments) {
      for (uint64_t at = segment.offset, end = at + segment.size; at < end;) {
        const ssize_t got =
            pread(fd, buffer_.data(), std::min<uint64_t>(buffer_.size(), end - at), static_cast<off_t>(at));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return step_error(path);
        if (got == 0) {
          return Error{"export", path, fmt::format("it ends at offset {}, and should not", at),
                       "export another checkpoint (stasis list)", ErrorCode::kDamaged};
        }
        STASIS_CHECK(take(at, {buffer_.data(), static_cast<size_t>(got)}));
        at += static_cast<uint64_t>(got);
      }
    }
    return {};
  }

  static BlockStream::Sink compare(const schema::ImageFile& file, const std::string& path) {
    return compare_with(file, "export", path, "export another checkpoint (stasis list)");
  }

  // The file with holes where it has pages that are not ours: compares its sums and puts others in their
  // place.
  Result<void> sum_again(schema::ImageFile& file, int fd, const std::string& path, const Segments& segments,
                         const Segments& ours) {
    const schema::ImageFile before = file;
    BlockStream old_sums(file.size(), file.block_size(), compare(before, path));
    BlockStream new_sums(file.size(), file.block_size(),
                         [&file](uint64_t index, uint64_t sum) -> Result<void> {
                           file.set_sums(static_cast<int>(index), sum);
                           return {};
                         });
    size_t first = 0;
    const Take sum = [&](uint64_t at, std::span<const char> bytes) -> Result<void> {
      STASIS_CHECK(old_sums.data(at, bytes));
      while (first < ours.size() && ours[first].offset + ours[first].size <= at) ++first;
      for (size_t i = first; i < ours.size() && ours[i].offset < at + bytes.size(); ++i) {
        const uint64_t from = std::max(at, ours[i].offset);
        const uint64_t to = std::min(at + bytes.size(), ours[i].offset + ours[i].size);
        STASIS_CHECK(new_sums.data(from, bytes.subspan(from - at, to - from)));
      }
      return {};
    };
    STASIS_CHECK(read_segments(fd, path, segments, sum));
    STASIS_CHECK(old_sums.end());
    return new_sums.end();
  }

  Result<void> plan_carried() {
    if (!request_.carry_mapped_files) return {};
    for (const MappedFile& file : mapped_files(manifest_)) {
      if (const std::string problem = problem_at_host(file); !problem.empty()) {
        return Error{"export", file.path, problem + ", so it is not what the program has mapped",
                     "without --self-contained the checkpoint can be exported alone", ErrorCode::kRefused};
      }
      STASIS_TRY(Fd fd, open_file(file.path, O_RDONLY | O_NONBLOCK));
      struct stat status;
      if (fstat(fd.get(), &status) != 0) return step_error(file.path);
      if (!S_ISREG(status.st_mode)) {
        return Error{"export", file.path, "it is no regular file, which alone can be carried",
                     "without --self-contained the checkpoint can be exported alone", ErrorCode::kRefused};
      }
      Member member;
      member.name = std::string(kCarriedDirectory) + file.path;
      member.mode = (status.st_mode & 0111) != 0 ? kCarriedProgramMode : kCarriedMode;
      member.modified_ns = int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
      member.size = static_cast<uint64_t>(status.st_size);
      STASIS_TRY(member.segments, data_segments(fd.get(), file.path, member.size));
      total_ += member.stored();
      done_.carried.push_back(file.path);
      carried_.push_back(std::move(member));
    }
    return {};
  }

  Result<void> add_text(const std::string& name, const std::string& text) {
    STASIS_CHECK(tar_.add({.name = top_ + name,
                           .modified_ns = modified_ns_,
                           .size = text.size(),
                           .segments = {{0, text.size()}}}));
    return tar_.data(text);
  }

  Result<void> write(std::span<const char> bytes) {
    STASIS_CHECK(tar_.data(bytes));
    written_ += bytes.size();
    if (request_.progress) request_.progress(written_, total_);
    return {};
  }

  Result<void> add_file(int index) {
    const schema::ImageFile& file = manifest_.files(index);
    const Segments& segments = plan_[static_cast<size_t>(index)];
    const std::string path = image_.directory() + "/" + file.name();
    STASIS_TRY(Fd fd, image_.open_file(file.name()));
    (void)posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
    STASIS_CHECK(tar_.add({.name = top_ + file.name(),
                           .modified_ns = modified_ns_,
                           .size = file.size(),
                           .segments = segments}));
    BlockStream sums(file.size(), file.block_size(), compare(file, path));
    const Take take = [&](uint64_t at, std::span<const char> bytes) -> Result<void> {
      if (!file.unsummed()) STASIS_CHECK(sums.data(at, bytes));
      return write(bytes);
    };
    STASIS_CHECK(read_segments(fd.get(), path, segments, take));
    return file.unsummed() ? Result<void>() : sums.end();
  }

  Result<void> add_carried() {
    if (carried_.empty()) return {};
    STASIS_CHECK(tar_.add(
        {.name = fmt::format("{}{}/", top_, kCarriedDirectory), .mode = 0700, .modified_ns = modified_ns_}));
    for (const Member& member : carried_) {
      const std::string path = member.name.substr(kCarriedDirectory.size());
      STASIS_TRY(Fd fd, open_file(path, O_RDONLY | O_NONBLOCK));
      Member named = member;
      named.name = top_ + member.name;
      STASIS_CHECK(tar_.add(named));
      STASIS_CHECK(read_segments(fd.get(), path, member.segments,
                                 [&](uint64_t, std::span<const char> bytes) { return write(bytes); }));
    }
    return {};
  }

  const Image& image_;
  TarWriter tar_;
  const ExportRequest& request_;
  schema::Manifest manifest_;  // of the export
  std::map<std::string, Segments> needed_;
  std::vector<Segments> plan_;  // by manifest_.files
  std::vector<Member> carried_;
  std::string top_;  // the directory in which all of it is
  std::vector<char> buffer_ = std::vector<char>(kChunk);
  int64_t modified_ns_ = 0;
  uint64_t total_ = 0;
  uint64_t written_ = 0;
  Exported done_;
};

}  // namespace

Result<Exported> export_image(const Image& image, ByteSink& sink, const ExportRequest& request) {
  return Exporter(image, sink, request).run();
}

}  // namespace stasis::image

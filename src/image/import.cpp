#include "image/import.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>

#include "image/block_stream.h"
#include "image/directory.h"
#include "image/export.h"
#include "image/format.h"
#include "image/tar.h"
#include "image/writer.h"

namespace stasis::image {
namespace {

constexpr size_t kChunk = size_t{1} << 20;
constexpr size_t kSumSize = 33;  // 32 digits and a line feed
constexpr const char* kHint = "nothing was imported; export it again, or copy the file again";

class Importer {
 public:
  Importer(ByteSource& source, const ImportRequest& request)
      : tar_(source, request.source), request_(request) {}

  Result<Imported> run() {
    STASIS_CHECK(tar_.begin(kArchiveComment));
    STASIS_CHECK(read_head());
    STASIS_TRY(const std::string store, choose_store());
    struct stat status;
    const bool is_new = lstat(store.c_str(), &status) != 0;
    auto imported = write_to(store);
    // Only an empty one goes.
    if (!imported.ok() && is_new) (void)rmdir(store.c_str());
    return imported;
  }

 private:
  Error damaged(std::string cause) const {
    return {"import", request_.source, std::move(cause), kHint, ErrorCode::kDamaged};
  }

  // The name below the archive's own directory.
  Result<void> expect(const std::optional<Member>& member, std::string_view what) const {
    if (!member) return damaged(fmt::format("it ends before {}", what));
    if (member->name != top_ + std::string(what))
      return damaged(fmt::format("\"{}\" is in the place of {}", printable(member->name), printable(what)));
    return {};
  }

  static std::string printable(std::string_view text) {
    std::string shown(text.substr(0, 200));
    std::replace_if(
        shown.begin(), shown.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
    return shown;
  }

  Result<void> read_head() {
    STASIS_TRY(const auto top, tar_.next());
    if (!top || !top->is_directory() || top->name.find('/') + 1 != top->name.size())
      return damaged("it does not begin with a directory");
    top_ = top->name;
    STASIS_TRY(const auto member, tar_.next());
    STASIS_CHECK(expect(member, kManifestName));
    STASIS_TRY(const std::string bytes, read_text(*member, kHeaderSize + kManifestLimit));
    auto manifest = parse_manifest(std::as_bytes(std::span(bytes)));
    if (!manifest.ok()) {
      Error error = damaged(std::move(manifest).error().message());
      error.hint.clear();
      return error;
    }
    manifest_ = std::move(*manifest);
    for (const auto& file : manifest_.files()) total_ += file.stored();
    return {};
  }

  // Grows as the bytes come: a header alone must not make us take the memory.
  Result<std::string> read_text(const Member& member, uint64_t limit) {
    if (member.stored() != member.size || member.size > limit)
      return damaged(fmt::format("{} has an impossible size", printable(member.name)));
    std::string text;
    while (tar_.left() > 0) {
      const size_t before = text.size();
      text.resize(before + std::min<uint64_t>(tar_.left(), kChunk));
      STASIS_CHECK(tar_.data(std::span(text).subspan(before)));
    }
    return text;
  }

  Result<std::string> choose_store() {
    if (!request_.name.empty()) manifest_.set_session(request_.name);
    if (manifest_.session().empty()) {
      return Error{"import", request_.source, "the checkpoint has no session's name", "give it one: --name",
                   ErrorCode::kUsage};
    }
    return request_.session_store(manifest_.session());
  }

  // Better now than after an hour. What is free may change, and a file system may know better.
  Result<void> check_space(const std::string& store) const {
    struct statvfs status;
    if (statvfs(store.c_str(), &status) != 0 || status.f_blocks == 0) return {};
    const uint64_t free = uint64_t{status.f_bavail} * status.f_frsize;
    if (free >= total_) return {};
    Error error = write_error("import", store, ENOSPC);
    error.cause = fmt::format("{} MiB are needed, and {} MiB are free", total_ >> 20, free >> 20);
    return error;
  }

  Result<Imported> write_to(const std::string& store) {
    STASIS_TRY(Writer writer, Writer::create(store));
    STASIS_CHECK(check_space(store));
    STASIS_TRY(const Fd directory, open_directory(writer.directory()));
    CarriedFiles carried(directory.get());
    for (const auto& file : manifest_.files()) STASIS_CHECK(read_file(file, writer));
    STASIS_CHECK(read_rest(carried));
    STASIS_CHECK(carried.sync());

    manifest_.clear_base();
    Imported done;
    done.session = manifest_.session();
    done.files = manifest_.files_size();
    done.carried = std::move(carried_);
    for (const auto& file : manifest_.files()) done.logical += file.size();
    STASIS_TRY(const auto published, writer.publish(manifest_));
    done.id = published.id;
    done.directory = published.directory;
    done.stored = published.stored;
    done.differences =
        compare_with_host(manifest_, fmt::format("{}/{}", published.directory, kCarriedDirectory));
    return done;
  }

  using Take = std::function<Result<void>(uint64_t offset, std::span<const char> bytes)>;
  Result<void> write_segments(const Member& member, int fd, const std::string& path, const Take& take) {
    if (ftruncate(fd, static_cast<off_t>(member.size)) != 0) return write_error("import", path, errno);
    for (const Segment& segment : member.segments) {
      for (uint64_t at = segment.offset, end = at + segment.size; at < end;) {
        const std::span<char> part(buffer_.data(), std::min<uint64_t>(buffer_.size(), end - at));
        STASIS_CHECK(tar_.data(part));
        STASIS_CHECK(take(at, part));
        if (auto wrote = pwrite_all(fd, {part.data(), part.size()}, static_cast<off_t>(at)); !wrote.ok())
          return write_error("import", path, errno);
        at += part.size();
        written_ += part.size();
        if (request_.progress) request_.progress(written_, std::max(total_, written_ + 1));
      }
    }
    return {};
  }

  Result<void> read_file(const schema::ImageFile& file, Writer& writer) {
    STASIS_TRY(const auto member, tar_.next());
    STASIS_CHECK(expect(member, file.name()));
    if (file.name() == kCarriedDirectory) return damaged("one of its files has a name that is another's");
    if (member->size != file.size() || member->stored() != file.stored()) {
      return damaged(fmt::format("{} has {} bytes, {} of them stored, and should have {} and {}", file.name(),
                                 member->size, member->stored(), file.size(), file.stored()));
    }
    STASIS_TRY(Fd fd,
               writer.create_file(file.name(), 0, file.unsummed() ? Writer::Sums::kNo : Writer::Sums::kYes));
    const std::string path = writer.directory() + "/" + file.name();
    BlockStream sums(
        file.size(), file.block_size(),
        compare_with(file, "import", fmt::format("{}: {}", request_.source, file.name()), kHint));
    const Take take = [&](uint64_t at, std::span<const char> bytes) -> Result<void> {
      if (!file.unsummed()) STASIS_CHECK(sums.data(at, bytes));
      // What lies before may be sent to the disk.
      writer.written(file.name(), at);
      return {};
    };
    STASIS_CHECK(write_segments(*member, fd.get(), path, take));
    if (!file.unsummed()) STASIS_CHECK(sums.end());
    writer.written(file.name(), file.size());
    return {};
  }

  // Mapped files, if there are any, and the sum of it all.
  Result<void> read_rest(CarriedFiles& carried) {
    STASIS_TRY(auto member, tar_.next());
    const std::string below = top_ + std::string(kCarriedDirectory);
    if (member && member->name == below + "/") {
      const auto expected = mapped_files(manifest_);
      auto next = expected.begin();
      for (;;) {
        STASIS_TRY(member, tar_.next());
        if (!member || !member->name.starts_with(below)) break;
        const std::string path = member->name.substr(below.size());
        // In their order, and each once.
        next = std::find_if(next, expected.end(), [&](const MappedFile& file) { return file.path == path; });
        if (next == expected.end() || (next->is_private && next->size != member->size))
          return damaged(fmt::format("{} is no file that the program has mapped", printable(path)));
        ++next;
        STASIS_CHECK(read_carried(*member, path, carried));
      }
    }
    STASIS_CHECK(expect(member, kArchiveSum));
    const std::string sum = tar_.sum_before();
    STASIS_TRY(const std::string stated, read_text(*member, kSumSize));
    if (stated != sum + "\n") return damaged("its checksum does not match its contents");
    STASIS_TRY(member, tar_.next());
    if (member) return damaged(fmt::format("it goes on with {} behind its end", printable(member->name)));
    return {};
  }

  Result<void> read_carried(const Member& member, const std::string& path, CarriedFiles& carried) {
    if (member.mode != kCarriedMode && member.mode != kCarriedProgramMode)
      return damaged(fmt::format("{} has an impossible mode", printable(path)));
    auto file = carried.create(path, member.mode == kCarriedProgramMode);
    if (!file.ok()) return std::move(file).error();
    const Take nothing = [](uint64_t, std::span<const char>) -> Result<void> { return {}; };
    STASIS_CHECK(write_segments(member, file->get(), path, nothing));
    constexpr int64_t kSecond = 1'000'000'000;
    const timespec modified = {.tv_sec = member.modified_ns / kSecond,
                               .tv_nsec = member.modified_ns % kSecond};
    const timespec times[2] = {modified, modified};
    if (futimens(file->get(), times) != 0) return write_error("import", path, errno);
    carried_.push_back(path);
    return {};
  }

  TarReader tar_;
  const ImportRequest& request_;
  std::string top_;
  schema::Manifest manifest_;
  std::vector<std::string> carried_;
  std::vector<char> buffer_ = std::vector<char>(kChunk);
  uint64_t total_ = 0;
  uint64_t written_ = 0;
};

}  // namespace

Result<Imported> import_image(ByteSource& source, const ImportRequest& request) {
  return Importer(source, request).run();
}

}  // namespace stasis::image

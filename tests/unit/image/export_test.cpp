#include "image/export.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <zstd.h>

#include "image/compression.h"
#include "image/directory.h"
#include "image/import.h"
#include "image/prune.h"
#include "image/tar.h"
#include "tests/unit/image/archive.h"
#include "tests/unit/image/sample.h"

namespace stasis::image {
namespace {

std::string export_to_text(const std::string& directory, bool carry = false) {
  auto image = Image::open(directory);
  EXPECT_TRUE(image.ok());
  StringSink sink;
  auto exported = export_image(*image, sink, {.carry_mapped_files = carry});
  EXPECT_TRUE(exported.ok()) << exported.error().message();
  return sink.text;
}

Result<Imported> import_text(const std::string& text, const std::string& store,
                             const std::string& name = {}) {
  StringSource source(text, 10'000);
  ImportRequest request;
  request.source = "a file";
  request.name = name;
  request.session_store = [&](const std::string& session) -> Result<std::string> {
    return store + "/" + session;
  };
  return import_image(source, request);
}

// The sample with a mapped file, and with a large file that is mostly a hole.
std::string write_large_sample(const std::string& session_store, const std::string& mapped) {
  auto writer = Writer::create(session_store);
  for (auto [name, size] : {std::pair("pages", size_t{0x4000}), std::pair("shared", size_t{0x2000})})
    EXPECT_TRUE(write_all(writer->create_file(name)->get(), pattern(size, 7)).ok());
  auto file = writer->create_file("large");
  EXPECT_EQ(ftruncate(file->get(), 64 << 20), 0);
  EXPECT_TRUE(pwrite_all(file->get(), pattern(8192, 8), 5 << 20).ok());
  auto manifest = sample_manifest();
  struct stat status;
  EXPECT_EQ(stat(mapped.c_str(), &status), 0);
  auto& memory = *manifest.mutable_memories(0);
  auto& mapping = *memory.add_mappings();
  mapping.set_start(0x30000);
  mapping.set_end(0x31000);
  mapping.set_kind(schema::Mapping::PRIVATE_FILE);
  mapping.set_path(mapped);
  mapping.mutable_identity()->set_size(static_cast<uint64_t>(status.st_size));
  mapping.mutable_identity()->set_modified_ns(int64_t{status.st_mtim.tv_sec} * 1'000'000'000 +
                                              status.st_mtim.tv_nsec);
  auto published = writer->publish(manifest);
  EXPECT_TRUE(published.ok()) << published.error().message();
  return published.ok() ? published->directory : std::string();
}

// Changes members on the way from one archive to another, whose sums are right.
using Change = std::function<void(Member& member, std::string& data)>;
std::string rewrite(const std::string& text, const Change& change, const std::string& drop = {}) {
  StringSource source(text);
  TarReader reader(source, "a file");
  StringSink sink;
  TarWriter writer(sink);
  EXPECT_TRUE(reader.begin(kArchiveComment).ok() && writer.begin(kArchiveComment).ok());
  for (;;) {
    auto member = reader.next();
    if (!member.ok() || !*member) break;
    std::string data(reader.left(), '\0');
    EXPECT_TRUE(reader.data(data).ok());
    if (!drop.empty() && (*member)->name.ends_with(drop)) continue;
    if ((*member)->name.ends_with(kArchiveSum)) data = writer.sum().value() + "\n";
    change(**member, data);
    EXPECT_TRUE(writer.add(**member).ok() && writer.data(data).ok());
  }
  EXPECT_TRUE(writer.end().ok());
  return sink.text;
}

void expect_refused(const std::string& text, const std::string& what) {
  TemporaryDirectory store;
  auto imported = import_text(text, store.path());
  ASSERT_FALSE(imported.ok()) << what;
  EXPECT_EQ(imported.error().code, ErrorCode::kDamaged) << what << ": " << imported.error().message();
  EXPECT_TRUE(names_in(store.path()).empty()) << what;
}

TEST(Export, WhatIsExportedIsImported) {
  TemporaryDirectory store, other;
  const std::string mapped = store.path() + "/library";
  ASSERT_TRUE(write_all(open_file(mapped, O_WRONLY | O_CREAT)->get(), pattern(5000, 3)).ok());
  const std::string text = export_to_text(write_large_sample(store.path() + "/sample", mapped));
  EXPECT_LT(text.size(), 100'000u);  // holes stay holes
  for (uint32_t id : {1, 2}) {
    auto imported = import_text(text, other.path());
    ASSERT_TRUE(imported.ok()) << imported.error().message();
    EXPECT_EQ(imported->id, id);
    EXPECT_EQ(imported->session, "sample");
    EXPECT_TRUE(imported->differences.empty());
  }
  auto before = Image::open(store.path() + "/sample/1"), after = Image::open(other.path() + "/sample/1");
  ASSERT_TRUE(after.ok() && after->verify().ok());
  EXPECT_EQ(after->manifest().SerializeAsString(), before->manifest().SerializeAsString());
  struct stat status;
  ASSERT_EQ(stat((other.path() + "/sample/1/large").c_str(), &status), 0);
  EXPECT_LE(status.st_blocks * 512, 16384);
  EXPECT_EQ(status.st_mode & 07777, 0600u);
  ASSERT_EQ(stat((other.path() + "/sample/1").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0700u);

  auto named = import_text(text, other.path(), "another");
  ASSERT_TRUE(named.ok());
  EXPECT_EQ(Image::open(other.path() + "/another/1")->manifest().session(), "another");
}

TEST(Export, AnIncrementStandsAlone) {
  constexpr size_t kLarge = 1 << 20;
  TemporaryDirectory store, other;
  const std::string session = store.path() + "/sample";
  auto first = Writer::create(session);
  for (auto [name, size] : {std::pair("pages", kLarge), std::pair("shared", size_t{0x2000})})
    ASSERT_TRUE(write_all(first->create_file(name)->get(), pattern(size, 7)).ok());
  auto manifest = sample_manifest();
  ASSERT_TRUE(first->publish(manifest).ok());
  auto base = Image::open(session + "/1");
  auto second = Writer::create(session);
  for (auto [name, size] : {std::pair("pages", size_t{0x4000}), std::pair("shared", size_t{0x2000})})
    ASSERT_TRUE(write_all(second->create_file(name)->get(), pattern(size, 8)).ok());
  ASSERT_TRUE(second->share_file("pages.1", *base, "pages", 1).has_value());
  manifest.set_base(1);
  auto& memory = *manifest.mutable_memories(0);
  memory.add_layers("pages.1");
  memory.mutable_runs(0)->set_layer(1);
  memory.mutable_runs(0)->set_offset(0x3000);
  auto published = second->publish(manifest);
  ASSERT_TRUE(published.ok()) << published.error().message();

  const std::string text = export_to_text(published->directory);
  // Pages of the first one that the second does not need stay at home.
  EXPECT_LT(text.size(), kLarge / 4);
  EXPECT_EQ(text.find(pattern(kLarge, 7).substr(0x10000, 4096)), std::string::npos);
  auto imported = import_text(text, other.path());
  ASSERT_TRUE(imported.ok()) << imported.error().message();
  auto image = Image::open(imported->directory);
  ASSERT_TRUE(image.ok() && image->verify().ok());
  EXPECT_EQ(image->manifest().base(), 0u);
  EXPECT_EQ(image->find_file("pages.1")->origin(), 0u);
  EXPECT_EQ(image->own_size(), image->stored_size());
  EXPECT_EQ(image->content_size(), image->logical_size());
  std::string page(0x2000, '\0');
  ASSERT_TRUE(pread_all(image->open_file("pages.1")->get(), page, 0x3000).ok());
  EXPECT_EQ(page, pattern(kLarge, 7).substr(0x3000, 0x2000));
}

TEST(Export, DamageIsNotExported) {
  TemporaryDirectory store;
  const std::string directory = write_sample(store.path() + "/sample");
  Fd file = open_file(directory + "/pages", O_WRONLY).value();
  ASSERT_TRUE(pwrite_all(file.get(), "x", 77).ok());
  StringSink sink;
  auto image = Image::open(directory);
  auto exported = export_image(*image, sink, {});
  ASSERT_FALSE(exported.ok());
  EXPECT_EQ(exported.error().code, ErrorCode::kDamaged);
  EXPECT_NE(exported.error().message().find("/pages"), std::string::npos) << exported.error().message();
}

TEST(Export, MappedFilesComeAlong) {
  TemporaryDirectory store, other;
  const std::string mapped = store.path() + "/library", content = pattern(5000, 3);
  ASSERT_TRUE(write_all(open_file(mapped, O_WRONLY | O_CREAT)->get(), content).ok());
  ASSERT_EQ(chmod(mapped.c_str(), 0755), 0);
  const std::string directory = write_large_sample(store.path() + "/sample", mapped);
  const std::string text = export_to_text(directory, true);
  auto imported = import_text(text, other.path());
  ASSERT_TRUE(imported.ok()) << imported.error().message();
  EXPECT_EQ(imported->carried, std::vector{mapped});
  EXPECT_TRUE(imported->differences.empty());
  const std::string carried = imported->directory + "/files" + mapped;
  struct stat status, original;
  ASSERT_TRUE(stat(carried.c_str(), &status) == 0 && stat(mapped.c_str(), &original) == 0);
  EXPECT_EQ(status.st_mode & 07777, 0700u);
  EXPECT_EQ(status.st_mtim.tv_sec, original.st_mtim.tv_sec);
  EXPECT_EQ(status.st_mtim.tv_nsec, original.st_mtim.tv_nsec);
  EXPECT_EQ(read_file(carried).value(), content);

  // A host that has it with another time, with other contents, of another size, or not at all.
  auto difference = [&] {
    auto again = import_text(text, other.path());
    EXPECT_TRUE(again.ok() && again->differences.size() == 1);
    return again->differences.at(0);
  };
  ASSERT_EQ(utimes(mapped.c_str(), nullptr), 0);
  EXPECT_EQ(difference().problem, "it was modified at another time");
  EXPECT_TRUE(difference().same_contents);
  ASSERT_TRUE(pwrite_all(open_file(mapped, O_WRONLY)->get(), "x", 77).ok());
  const timespec times[2] = {original.st_mtim, original.st_mtim};
  ASSERT_EQ(utimensat(AT_FDCWD, mapped.c_str(), times, 0), 0);
  EXPECT_EQ(difference().problem, "its contents are others");
  ASSERT_EQ(truncate(mapped.c_str(), 10), 0);
  EXPECT_EQ(difference().problem, "it has 10 bytes and had 5000");
  // Then it is not what was mapped, and cannot be carried either.
  StringSink sink;
  auto image = Image::open(directory);
  auto refused = export_image(*image, sink, {.carry_mapped_files = true});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kRefused);
  ASSERT_EQ(unlink(mapped.c_str()), 0);
  EXPECT_EQ(difference().problem, "it is missing");
  EXPECT_FALSE(difference().carried.empty());

  // They go with the checkpoint that has them: removed with it, kept when it is written again.
  ASSERT_TRUE(remove(imported->directory).ok());
  EXPECT_FALSE(std::filesystem::exists(imported->directory));
}

TEST(Export, MappedFilesStayWhenTheCheckpointIsReplaced) {
  TemporaryDirectory store;
  const std::string directory = write_sample(store.path() + "/sample");
  Fd opened = open_directory(directory).value();
  CarriedFiles files(opened.get());
  ASSERT_TRUE(files.create("/usr/lib/one", false).ok() && files.create("/usr/bin/two", true).ok());
  ASSERT_TRUE(files.sync().ok());
  EXPECT_FALSE(files.create("/usr/lib/one", false).ok());
  for (const char* path :
       {"one", "/", "/..", "/../one", "/usr/../one", "/usr//one", "/usr/./one", "/usr/", "//one"})
    EXPECT_FALSE(files.create(path, false).ok()) << path;
  EXPECT_FALSE(files.create("/usr/lib/one/two", false).ok());

  auto old = Image::open(directory);
  auto writer = Writer::create(store.path() + "/sample");
  for (const auto& file : old->manifest().files())
    ASSERT_TRUE(writer->share_file(file.name(), *old, file.name(), 0));
  auto manifest = old->manifest();
  ASSERT_TRUE(writer->replace(manifest, *old).ok());
  EXPECT_TRUE(std::filesystem::exists(directory + "/files/usr/lib/one"));
  EXPECT_TRUE(std::filesystem::exists(directory + "/files/usr/bin/two"));
}

TEST(Import, CutAnywhereItLeavesNothing) {
  TemporaryDirectory store;
  const std::string text = export_to_text(write_sample(store.path() + "/sample"));
  for (size_t size = 0; size < text.size(); size += 509)
    expect_refused(text.substr(0, size), fmt::format("{} bytes", size));
  for (size_t size = text.size() - 2049; size < text.size(); size += 16)
    expect_refused(text.substr(0, size), fmt::format("{} bytes", size));
  expect_refused(text + '\0', "a byte more");
}

TEST(Import, EveryBitCounts) {
  TemporaryDirectory store;
  const std::string text = export_to_text(write_sample(store.path() + "/sample"));
  // Up to the headers of the sum itself, which only zstd's checksum covers.
  const size_t end = text.find("sample-1/archive") * 8;
  ASSERT_LT(end, text.size() * 8);
  for (size_t bit = 0; bit < end; bit += 211) {
    std::string flipped = text;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    expect_refused(flipped, fmt::format("bit {} of {}", bit, end));
  }
}

TEST(Import, WhatItDoesNotKnowIsRefused) {
  TemporaryDirectory store;
  const std::string mapped = store.path() + "/library";
  ASSERT_TRUE(write_all(open_file(mapped, O_WRONLY | O_CREAT)->get(), pattern(5000, 3)).ok());
  const std::string text = export_to_text(write_large_sample(store.path() + "/sample", mapped), true);
  TemporaryDirectory other;
  auto nothing = [](Member&, std::string&) {};
  ASSERT_TRUE(import_text(rewrite(text, nothing), other.path()).ok());

  for (const char* gone : {"sample-1/", "/manifest", "/pages", "/large", "/files/", kArchiveSum.data()})
    expect_refused(rewrite(text, nothing, gone), fmt::format("without {}", gone));
  for (const char* name : {"pages", "large", "manifest"}) {
    for (const char* instead : {"sample-1/../pages", "/etc/passwd", "../../x", "pages", "sample-1/shared",
                                "sample-1/files", "sample-1/manifest", "sample-1/a/b", ""}) {
      if (instead == fmt::format("sample-1/{}", name)) continue;
      auto rename = [&](Member& member, std::string&) {
        if (member.name == fmt::format("sample-1/{}", name)) member.name = instead;
      };
      expect_refused(rewrite(text, rename), fmt::format("{} as {}", name, instead));
    }
  }
  for (const char* instead : {"/../../../x", "/etc/passwd", "/library/../library", "", "/", "//library"}) {
    auto rename = [&](Member& member, std::string&) {
      if (member.name.ends_with("/library")) member.name = std::string("sample-1/files") + instead;
    };
    expect_refused(rewrite(text, rename), fmt::format("library as {}", instead));
  }
  expect_refused(rewrite(text,
                         [&](Member& member, std::string& data) {
                           if (!member.name.ends_with("/large")) return;
                           // More than is declared, though the archive itself is consistent.
                           data = std::string(member.size, '\0');
                           member.segments = {{0, member.size}};
                         }),
                 "a file without its holes");
  expect_refused(rewrite(text,
                         [&](Member& member, std::string&) {
                           if (member.name.ends_with("/large")) member.size *= 2;
                         }),
                 "a larger file");
  expect_refused(rewrite(text,
                         [&](Member& member, std::string&) {
                           if (member.name.ends_with("/large")) member.segments[0].offset += 4096;
                         }),
                 "pages at another place");
  expect_refused(rewrite(text,
                         [&](Member&, std::string& data) {
                           if (data.size() == 0x4000) data[0x1234] ^= 1;
                         }),
                 "another byte in a page");
  expect_refused(rewrite(text,
                         [&](Member& member, std::string& data) {
                           if (member.name.ends_with(kArchiveSum)) data[5] = data[5] == '0' ? '1' : '0';
                         }),
                 "another sum");
  expect_refused(rewrite(text,
                         [&](Member& member, std::string& data) {
                           if (!member.name.ends_with("/library")) return;
                           data += data;
                           member.size = data.size();
                           member.segments = {{0, member.size}};
                         }),
                 "a larger mapped file");
  expect_refused(rewrite(text,
                         [&](Member& member, std::string&) {
                           if (member.name.ends_with("/library")) member.mode = 0755;
                         }),
                 "another mode");
}

TEST(Import, NamesAreTheCallersToRefuse) {
  TemporaryDirectory store;
  const std::string text = export_to_text(write_sample(store.path() + "/sample"));
  StringSource source(text);
  ImportRequest request;
  request.session_store = [](const std::string& name) -> Result<std::string> {
    return Error{"import", name, "not this one", {}, ErrorCode::kUsage};
  };
  auto imported = import_image(source, request);
  ASSERT_FALSE(imported.ok());
  EXPECT_EQ(imported.error().code, ErrorCode::kUsage);
}

class CompressedFile {
 public:
  explicit CompressedFile(const std::string& bytes) : file_(memfd_create("compressed", 0)) {
    EXPECT_TRUE(write_all(file_.get(), bytes).ok());
    lseek(file_.get(), 0, SEEK_SET);
  }
  // What is in it, or the error.
  Result<std::string> read() {
    Decompressor decompressor(file_.get(), "a file");
    std::string all;
    for (;;) {
      std::string part(7000, '\0');
      STASIS_TRY(const size_t got, decompressor.read(part));
      if (got == 0) return all;
      all.append(part, 0, got);
    }
  }

 private:
  Fd file_;
};

std::string compress(const std::string& text) {
  Fd file(memfd_create("compressed", 0));
  Compressor compressor(file.get(), "a file", kDefaultLevel);
  EXPECT_TRUE(compressor.write(text).ok() && compressor.finish().ok());
  std::string bytes(compressor.written(), '\0');
  EXPECT_TRUE(pread_all(file.get(), bytes, 0).ok());
  return bytes;
}

TEST(Compression, RoundTrip) {
  for (size_t size : {size_t{0}, size_t{1}, size_t{100'000}, size_t{20} << 20}) {
    const std::string text = pattern(size, 3);
    auto back = CompressedFile(compress(text)).read();
    ASSERT_TRUE(back.ok()) << back.error().message();
    EXPECT_TRUE(*back == text);
  }
}

TEST(Compression, DamageIsFound) {
  const std::string bytes = compress(pattern(300'000, 3));
  auto refused = [](const std::string& changed) {
    auto read = CompressedFile(changed).read();
    return !read.ok() && read.error().code == ErrorCode::kDamaged;
  };
  for (size_t size = 0; size < bytes.size(); size += 1 + bytes.size() / 500)
    ASSERT_TRUE(refused(bytes.substr(0, size))) << size;
  ASSERT_TRUE(refused(bytes.substr(0, bytes.size() - 1)));
  EXPECT_TRUE(refused(bytes + '\0'));
  EXPECT_TRUE(refused(bytes + bytes));  // a second frame, which zstd itself would go on with
  EXPECT_TRUE(refused("no zstd at all"));
  // What follows comes later than the end, or does not come.
  for (const char* later : {"x", ""}) {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
    Fd from(ends[0]), to(ends[1]);
    const std::string small = compress("a few words");
    for (char byte : small) ASSERT_EQ(write(to.get(), &byte, 1), 1);
    if (*later != '\0') {
      ASSERT_EQ(write(to.get(), later, 1), 1);
    }
    to.reset();
    Decompressor decompressor(from.get(), "a pipe");
    std::string text(100, '\0');
    size_t have = 0;
    Result<size_t> got = size_t{0};
    do {
      got = decompressor.read(std::span(text).subspan(have));
      have += got.ok() ? *got : 0;
    } while (got.ok() && *got > 0);
    EXPECT_EQ(got.ok(), *later == '\0');
    if (got.ok()) {
      EXPECT_EQ(text.substr(0, have), "a few words");
    }
  }
  size_t unnoticed = 0;
  for (size_t bit = 0; bit < bytes.size() * 8; bit += 1 + bytes.size() / 60) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    // A few bits mean nothing, as those of a length that is stated twice.
    auto read = CompressedFile(flipped).read();
    if (read.ok()) {
      ++unnoticed;
      EXPECT_TRUE(*read == pattern(300'000, 3)) << bit;
    }
  }
  EXPECT_LT(unnoticed, 5u);
}

// A frame that asks for a window of 1 GiB is none of ours.
TEST(Compression, MemoryIsBounded) {
  std::string bytes;
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, 30);
  ZSTD_CCtx_setParameter(context, ZSTD_c_enableLongDistanceMatching, 1);
  std::string text = pattern(1 << 20, 1), out(2 << 20, '\0');
  ZSTD_inBuffer in = {text.data(), text.size(), 0};
  ZSTD_outBuffer to = {out.data(), out.size(), 0};
  ZSTD_compressStream2(context, &to, &in, ZSTD_e_flush);
  ZSTD_compressStream2(context, &to, &in, ZSTD_e_end);
  ZSTD_freeCCtx(context);
  EXPECT_FALSE(CompressedFile(out.substr(0, to.pos)).read().ok());
}

}  // namespace
}  // namespace stasis::image

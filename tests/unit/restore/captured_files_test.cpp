// What becomes of the files of a checkpoint: put back or copied, the newer kept, everything undone on
// failure.
#include "restore/captured_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "resource/content.h"
#include "tests/unit/image/sample.h"

namespace stasis::restore {
namespace {

using image::names_in;
using schema::CapturedFile;

constexpr uint64_t kHole = 1 << 20;

class Captured : public testing::Test {
 protected:
  // A file with content and a hole.
  void write(const std::string& name, const std::string& text, int flags = O_TRUNC) {
    auto file = open_file(path(name), O_RDWR | O_CREAT | flags, 0640);
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(write_all(file->get(), text).ok());
  }
  std::string read(const std::string& name) { return read_file(path(name)).value(); }
  std::string path(const std::string& name) const { return directory.path() + "/files/" + name; }

  void SetUp() override { ASSERT_EQ(mkdir((directory.path() + "/files").c_str(), 0700), 0); }

  // Takes what the files have now as content, as a checkpoint does.
  void capture(std::vector<std::pair<std::string, CapturedFile::Method>> files, bool appended = false) {
    auto writer = image::Writer::create(directory.path() + "/store");
    ASSERT_TRUE(writer.ok());
    auto manifest = image::sample_manifest();
    for (auto [name, size] : {std::pair("pages", 0x4000), std::pair("shared", 0x2000)})
      ASSERT_EQ(ftruncate(writer->create_file(name)->get(), size), 0);
    for (const auto& [name, method] : files) {
      struct stat status;
      ASSERT_EQ(stat(path(name).c_str(), &status), 0);
      auto& file = *manifest.add_captured_files();
      file.set_path(path(name));
      file.set_method(method);
      file.set_appended(appended);
      file.set_mode(status.st_mode);
      file.set_user(status.st_uid);
      file.set_group(status.st_gid);
      file.set_device(status.st_dev);
      file.set_inode(status.st_ino);
      file.set_size(static_cast<uint64_t>(status.st_size));
      file.set_modified_ns(status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec);
      file.set_changed_ns(status.st_ctim.tv_sec * 1'000'000'000 + status.st_ctim.tv_nsec);
      if (method != CapturedFile::CONTENT) continue;
      file.set_content("file-" + name);
      auto source = open_file(path(name), O_RDONLY);
      ASSERT_TRUE(resource::copy_content(source->get(), writer->create_file(file.content())->get()).ok());
    }
    auto published = writer->publish(manifest);
    ASSERT_TRUE(published.ok()) << published.error().message();
    auto opened = image::Image::open(published->directory);
    ASSERT_TRUE(opened.ok()) << opened.error().message();
    image.emplace(std::move(opened).value());
  }

  std::string own() const { return directory.path() + "/store/files-1"; }
  std::vector<std::string> names() const {
    auto all = names_in(directory.path() + "/files");
    std::sort(all.begin(), all.end());
    return all;
  }

  image::TemporaryDirectory directory;
  std::optional<image::Image> image;
};

TEST_F(Captured, IsPutBackAndTheNewerIsKept) {
  write("a", "then");
  capture({{"a", CapturedFile::CONTENT}});
  write("a", "later, and longer");
  ASSERT_EQ(chmod(path("a").c_str(), 0604), 0);
  CapturedFiles files(*image, FileUse::kPutBack, own());
  ASSERT_TRUE(files.apply().ok());
  files.accept();
  EXPECT_EQ(read("a"), "then");
  EXPECT_EQ(read("a.before-restart-1"), "later, and longer");
  ASSERT_EQ(files.notes().size(), 1u);
  EXPECT_NE(files.notes()[0].find(path("a.before-restart-1")), std::string::npos);
  struct stat status;
  ASSERT_EQ(stat(path("a").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0604u);
  EXPECT_EQ(names().size(), 2u);
}

TEST_F(Captured, EveryRestartKeepsWhatItFinds) {
  write("a", "then");
  capture({{"a", CapturedFile::CONTENT}});
  for (const char* text : {"second", "third"}) {
    write("a", text);
    CapturedFiles files(*image, FileUse::kPutBack, own());
    ASSERT_TRUE(files.apply().ok());
    files.accept();
  }
  EXPECT_EQ(read("a.before-restart-1"), "second");
  EXPECT_EQ(read("a.before-restart-1-2"), "third");
}

TEST_F(Captured, TheSameContentIsLeftAlone) {
  write("a", "then");
  capture({{"a", CapturedFile::CONTENT}});
  write("a", "then");
  CapturedFiles files(*image, FileUse::kPutBack, own());
  ASSERT_TRUE(files.apply().ok());
  files.accept();
  EXPECT_EQ(names(), std::vector<std::string>{"a"});
}

// Times cannot tell of a write in the same tick of the kernel's clock, or through a mapping.
TEST_F(Captured, AWriteThatLeavesTheTimesIsSeen) {
  write("a", "then");
  capture({{"a", CapturedFile::CONTENT}});
  struct stat before;
  ASSERT_EQ(stat(path("a").c_str(), &before), 0);
  write("a", "THEN");
  auto& manifest = const_cast<schema::Manifest&>(image->manifest());
  struct stat after;
  ASSERT_EQ(stat(path("a").c_str(), &after), 0);
  auto& file = *manifest.mutable_captured_files(0);
  file.set_modified_ns(after.st_mtim.tv_sec * 1'000'000'000 + after.st_mtim.tv_nsec);
  file.set_changed_ns(after.st_ctim.tv_sec * 1'000'000'000 + after.st_ctim.tv_nsec);
  manifest.mutable_clocks()->set_realtime_ns(file.changed_ns() + 1'000'000);
  CapturedFiles files(*image, FileUse::kPutBack, own());
  ASSERT_TRUE(files.apply().ok());
  files.accept();
  EXPECT_EQ(read("a"), "then");
  // Long before the checkpoint, they do tell.
  write("a", "THEN");
  ASSERT_EQ(stat(path("a").c_str(), &after), 0);
  file.set_inode(after.st_ino);
  file.set_modified_ns(after.st_mtim.tv_sec * 1'000'000'000 + after.st_mtim.tv_nsec);
  file.set_changed_ns(after.st_ctim.tv_sec * 1'000'000'000 + after.st_ctim.tv_nsec);
  manifest.mutable_clocks()->set_realtime_ns(file.changed_ns() + 1'000'000'000);
  CapturedFiles untouched(*image, FileUse::kPutBack, own());
  ASSERT_TRUE(untouched.apply().ok());
  untouched.accept();
  EXPECT_EQ(read("a"), "THEN");
  // Unless it was mapped.
  auto& mapping = *manifest.mutable_memories(0)->mutable_mappings(0);
  mapping.set_kind(schema::Mapping::SHARED_FILE);
  mapping.set_path(path("a"));
  CapturedFiles mapped(*image, FileUse::kPutBack, own());
  ASSERT_TRUE(mapped.apply().ok());
  mapped.accept();
  EXPECT_EQ(read("a"), "then");
}

TEST_F(Captured, NotAcceptedIsUndone) {
  for (const char* name : {"exchanged", "rewritten", "gone", "cut"}) write(name, "then");
  ASSERT_EQ(link(path("rewritten").c_str(), path("other-name").c_str()), 0);
  capture({{"exchanged", CapturedFile::CONTENT},
           {"rewritten", CapturedFile::CONTENT},
           {"gone", CapturedFile::CONTENT}});
  write("exchanged", "later");
  write("rewritten", "later");
  unlink(path("gone").c_str());
  const auto before = names();
  {
    CapturedFiles files(*image, FileUse::kPutBack, own());
    ASSERT_TRUE(files.apply().ok());
    EXPECT_EQ(read("exchanged"), "then");
    EXPECT_EQ(read("other-name"), "then");
    EXPECT_EQ(read("gone"), "then");
  }
  EXPECT_EQ(read("exchanged"), "later");
  EXPECT_EQ(read("other-name"), "later");
  EXPECT_EQ(names(), before);
}

TEST_F(Captured, AnErrorUndoesWhatWasDone) {
  write("a", "then");
  write("z", "then");
  capture({{"a", CapturedFile::CONTENT}, {"z", CapturedFile::CONTENT}});
  write("a", "later");
  unlink(path("z").c_str());
  ASSERT_EQ(mkdir(path("z").c_str(), 0700), 0);
  CapturedFiles files(*image, FileUse::kPutBack, own());
  auto done = files.apply();
  ASSERT_FALSE(done.ok());
  EXPECT_EQ(done.error().code, ErrorCode::kRefused);
  EXPECT_EQ(read("a"), "later");
  EXPECT_EQ(names(), (std::vector<std::string>{"a", "z"}));
}

TEST_F(Captured, WhatWasAppendedIsTakenOff) {
  write("log", "one two");
  for (auto method : {CapturedFile::LENGTH, CapturedFile::CONTENT}) {
    capture({{"log", method}}, true);
    write("log", " three", O_APPEND);
    {
      CapturedFiles files(*image, FileUse::kPutBack, own());
      ASSERT_TRUE(files.apply().ok());
      EXPECT_EQ(read("log"), "one two");
    }
    EXPECT_EQ(read("log"), "one two three");
    EXPECT_EQ(names(), std::vector<std::string>{"log"});
    CapturedFiles files(*image, FileUse::kPutBack, own());
    ASSERT_TRUE(files.apply().ok());
    files.accept();
    EXPECT_EQ(read("log"), "one two");
    const std::string aside = fmt::format("log.before-restart-{}", image->manifest().id());
    EXPECT_EQ(read(aside), " three");
    unlink(path(aside).c_str());
  }
}

TEST_F(Captured, ALogOfOthersIsNotCut) {
  write("log", "one");
  capture({{"log", CapturedFile::LENGTH}}, true);
  write("log", " two", O_APPEND);
  auto other = open_file(path("log"), O_WRONLY | O_APPEND);
  CapturedFiles files(*image, FileUse::kPutBack, own());
  ASSERT_TRUE(files.apply().ok());
  files.accept();
  EXPECT_EQ(read("log"), "one two");
  ASSERT_EQ(files.notes().size(), 1u);
  EXPECT_NE(files.notes()[0].find("left as it is"), std::string::npos);
}

// A log that was turned over: the new one is another file, and with content the old one can be had again.
TEST_F(Captured, ALogThatWasTurnedOver) {
  write("log", "one");
  capture({{"log", CapturedFile::LENGTH}}, true);
  ASSERT_EQ(rename(path("log").c_str(), path("log.1").c_str()), 0);
  write("log", "new and longer");
  CapturedFiles files(*image, FileUse::kPutBack, own());
  ASSERT_TRUE(files.apply().ok());
  files.accept();
  EXPECT_EQ(read("log"), "new and longer");
  EXPECT_EQ(files.notes().size(), 1u);
}

TEST_F(Captured, WhatWasNotCopiedMustBeUnchanged) {
  write("a", "then");
  capture({{"a", CapturedFile::IDENTITY}});
  for (auto use : {FileUse::kPutBack, FileUse::kCopies}) {
    CapturedFiles files(*image, use, own());
    EXPECT_TRUE(files.apply().ok());
  }
  write("a", "more than then");
  for (auto use : {FileUse::kPutBack, FileUse::kCopies}) {
    CapturedFiles files(*image, use, own());
    auto done = files.apply();
    ASSERT_FALSE(done.ok());
    EXPECT_EQ(done.error().code, ErrorCode::kRefused);
    EXPECT_NE(done.error().message().find("--files=keep"), std::string::npos);
  }
  CapturedFiles files(*image, FileUse::kKeep, own());
  EXPECT_TRUE(files.apply().ok());
  EXPECT_EQ(read("a"), "more than then");
}

TEST_F(Captured, CopiesAreTheSessionsOwn) {
  write("a", "then");
  capture({{"a", CapturedFile::CONTENT}});
  write("a", "later");
  {
    CapturedFiles undone(*image, FileUse::kCopies, own());
    ASSERT_TRUE(undone.apply().ok());
    EXPECT_EQ(read_file(own() + "/a").value(), "then");
  }
  EXPECT_NE(access(own().c_str(), F_OK), 0);
  CapturedFiles files(*image, FileUse::kCopies, own());
  ASSERT_TRUE(files.apply().ok());
  files.accept();
  EXPECT_EQ(files.copies().at(path("a")), own() + "/a");
  EXPECT_EQ(read_file(own() + "/a").value(), "then");
  EXPECT_EQ(read("a"), "later");
  EXPECT_EQ(names(), std::vector<std::string>{"a"});
}

TEST_F(Captured, HolesStayHoles) {
  write("a", "then");
  ASSERT_EQ(truncate(path("a").c_str(), kHole), 0);
  capture({{"a", CapturedFile::CONTENT}});
  write("a", "later");
  CapturedFiles files(*image, FileUse::kPutBack, own());
  ASSERT_TRUE(files.apply().ok());
  files.accept();
  struct stat status;
  ASSERT_EQ(stat(path("a").c_str(), &status), 0);
  EXPECT_EQ(static_cast<uint64_t>(status.st_size), kHole);
  EXPECT_LT(static_cast<uint64_t>(status.st_blocks) * 512, kHole);
}

}  // namespace
}  // namespace stasis::restore

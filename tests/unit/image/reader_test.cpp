#include "image/reader.h"

#include "tests/unit/image/sample.h"

namespace stasis::image {
namespace {

// What open and verify together say of a checkpoint.
Result<void> judge(const std::string& directory) {
  auto image = Image::open(directory);
  if (!image.ok()) return image.error();
  return image->verify();
}

class Damage : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = write_sample(store_.path() + "/sample");
    ASSERT_TRUE(judge(directory_).ok());
  }
  std::string path(const std::string& name) const { return directory_ + "/" + name; }

  TemporaryDirectory store_;
  std::string directory_;
};

TEST_F(Damage, EveryFlippedBitIsFound) {
  for (const std::string name : {"manifest", "pages", "shared"}) {
    Fd file = open_file(path(name), O_RDWR).value();
    const std::string good = read_file(path(name)).value();
    ASSERT_FALSE(good.empty());
    for (size_t offset = 0; offset < good.size(); ++offset) {
      // All bits in the small manifest; in the files a different one of each byte.
      for (int bit = 0; bit < 8; ++bit) {
        if (name != "manifest" && bit != static_cast<int>(offset % 8)) continue;
        const char changed = static_cast<char>(good[offset] ^ (1 << bit));
        ASSERT_TRUE(pwrite_all(file.get(), {&changed, 1}, static_cast<off_t>(offset)).ok());
        const auto result = judge(directory_);
        ASSERT_FALSE(result.ok()) << name << " byte " << offset << " bit " << bit;
        ASSERT_EQ(result.error().code, ErrorCode::kDamaged);
        ASSERT_NE(result.error().message().find(name), std::string::npos) << result.error().message();
      }
      ASSERT_TRUE(pwrite_all(file.get(), {&good[offset], 1}, static_cast<off_t>(offset)).ok());
    }
  }
  EXPECT_TRUE(judge(directory_).ok());
}

TEST_F(Damage, EveryOtherLengthIsFound) {
  for (const std::string name : {"manifest", "pages"}) {
    const std::string good = read_file(path(name)).value();
    for (size_t length = 0; length < good.size(); length += name == "pages" ? 61 : 1) {
      ASSERT_EQ(truncate(path(name).c_str(), static_cast<off_t>(length)), 0);
      const auto result = Image::open(directory_);  // without reading the pages
      ASSERT_FALSE(result.ok()) << name << " " << length;
      ASSERT_EQ(result.error().code, ErrorCode::kDamaged) << result.error().message();
      Fd file = open_file(path(name), O_WRONLY).value();
      ASSERT_TRUE(pwrite_all(file.get(), good, 0).ok());
    }
    ASSERT_EQ(truncate(path(name).c_str(), static_cast<off_t>(good.size() + 1)), 0);
    EXPECT_FALSE(Image::open(directory_).ok());
    ASSERT_EQ(truncate(path(name).c_str(), static_cast<off_t>(good.size())), 0);
  }
  EXPECT_TRUE(judge(directory_).ok());
}

TEST_F(Damage, AMissingFileIsNamed) {
  ASSERT_EQ(unlink(path("shared").c_str()), 0);
  auto image = Image::open(directory_);
  ASSERT_FALSE(image.ok());
  EXPECT_EQ(image.error().code, ErrorCode::kDamaged);
  EXPECT_NE(image.error().message().find("shared"), std::string::npos);
}

TEST_F(Damage, LinksAndFifosAreRefused) {
  ASSERT_EQ(rename(path("shared").c_str(), path("elsewhere").c_str()), 0);
  ASSERT_EQ(symlink("elsewhere", path("shared").c_str()), 0);
  EXPECT_FALSE(Image::open(directory_).ok());
  ASSERT_EQ(unlink(path("shared").c_str()), 0);
  ASSERT_EQ(mkfifo(path("shared").c_str(), 0600), 0);
  EXPECT_FALSE(Image::open(directory_).ok());  // and does not wait for a writer
  ASSERT_EQ(unlink(path("shared").c_str()), 0);
  ASSERT_EQ(rename(path("elsewhere").c_str(), path("shared").c_str()), 0);
  EXPECT_TRUE(Image::open(directory_).ok());
  EXPECT_TRUE(Image::open(directory_ + "/").ok());

  const std::string link = store_.path() + "/link";
  ASSERT_EQ(symlink(directory_.c_str(), link.c_str()), 0);
  for (const std::string& name : {link, link + "/"}) {
    auto image = Image::open(name);
    ASSERT_FALSE(image.ok());
    EXPECT_EQ(image.error().code, ErrorCode::kRefused) << image.error().message();
  }
}

TEST_F(Damage, WhatOthersMayWriteIsRefused) {
  for (const std::string& name : {directory_, path("manifest"), path("pages")}) {
    struct stat status;
    ASSERT_EQ(stat(name.c_str(), &status), 0);
    for (mode_t extra : {0020, 0002}) {
      ASSERT_EQ(chmod(name.c_str(), (status.st_mode & 07777) | extra), 0);
      auto image = Image::open(directory_);
      ASSERT_FALSE(image.ok()) << name;
      EXPECT_EQ(image.error().code, ErrorCode::kDenied);
    }
    ASSERT_EQ(chmod(name.c_str(), status.st_mode & 07777), 0);
  }
  EXPECT_TRUE(Image::open(directory_).ok());
}

TEST_F(Damage, AnotherUsersIsRefused) {
  if (geteuid() != 0) GTEST_SKIP() << "giving files away needs root";
  for (const std::string& name : {directory_, path("manifest"), path("pages")}) {
    ASSERT_EQ(chown(name.c_str(), 12345, static_cast<gid_t>(-1)), 0);
    auto image = Image::open(directory_);
    ASSERT_FALSE(image.ok()) << name;
    EXPECT_EQ(image.error().code, ErrorCode::kDenied);
    EXPECT_NE(image.error().message().find("12345"), std::string::npos);
    ASSERT_EQ(chown(name.c_str(), 0, static_cast<gid_t>(-1)), 0);
  }
  EXPECT_TRUE(Image::open(directory_).ok());
}

TEST(Reader, WhatIsNoCheckpointIsSaid) {
  TemporaryDirectory directory;
  auto empty = Image::open(directory.path());
  ASSERT_FALSE(empty.ok());
  EXPECT_EQ(empty.error().code, ErrorCode::kNotFound);
  auto nothing = Image::open(directory.path() + "/none");
  ASSERT_FALSE(nothing.ok());
  EXPECT_EQ(nothing.error().code, ErrorCode::kNotFound);
  Fd text = open_file(directory.path() + "/manifest", O_WRONLY | O_CREAT).value();
  ASSERT_TRUE(write_all(text.get(), "a manifest of a quite different kind of thing").ok());
  auto other = Image::open(directory.path());
  ASSERT_FALSE(other.ok());
  EXPECT_EQ(other.error().code, ErrorCode::kDamaged);
}

TEST(Format, AnotherVersionIsSaid) {
  std::string bytes = encode_manifest(sample_manifest());
  bytes[8] = 9;
  auto parsed = parse_manifest(std::as_bytes(std::span(bytes)));
  ASSERT_FALSE(parsed.ok());
  EXPECT_NE(parsed.error().message().find("version 9"), std::string::npos);
}

TEST(Reader, ProgressReachesTheEnd) {
  TemporaryDirectory store;
  auto image = Image::open(write_sample(store.path() + "/sample"));
  ASSERT_TRUE(image.ok());
  uint64_t last = 0, all = 0;
  ASSERT_TRUE(image->verify([&](uint64_t done, uint64_t total) { last = done, all = total; }).ok());
  EXPECT_EQ(last, 0x6000u);
  EXPECT_EQ(all, last);
}

}  // namespace
}  // namespace stasis::image

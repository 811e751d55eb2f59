// Checkpoints that share page files.
#include "image/prune.h"
#include "tests/unit/image/sample.h"

namespace stasis::image {
namespace {

// The second checkpoint of the sample: one of two pages of each memory is in the first one's file.
struct Shared {
  std::string first;
  std::string second;
};

Shared write_shared(const std::string& session_store) {
  Shared made;
  made.first = write_sample(session_store);
  auto base = Image::open(made.first);
  auto writer = Writer::create(session_store);
  EXPECT_TRUE(base.ok() && writer.ok());
  auto pages = writer->create_file("pages");
  EXPECT_TRUE(write_all(pages->get(), pattern(0x2000, 8)).ok());
  auto shared = writer->create_file("shared");
  EXPECT_TRUE(write_all(shared->get(), pattern(0x2000, 9)).ok());
  EXPECT_TRUE(writer->share_file("pages.1", *base, "pages", 1).has_value());
  auto manifest = sample_manifest();
  manifest.set_base(1);
  for (int i = 0; i < 2; ++i) {
    auto& memory = *manifest.mutable_memories(i);
    memory.add_layers("pages.1");
    memory.mutable_runs(0)->set_size(0x1000);
    memory.mutable_runs(0)->set_layer(1);
    auto& run = *memory.add_runs();
    run.set_address(0x12000);
    run.set_size(0x1000);
    run.set_offset(static_cast<uint64_t>(i) * 0x1000);
  }
  auto published = writer->publish(manifest);
  EXPECT_TRUE(published.ok()) << published.error().message();
  if (published.ok()) made.second = published->directory;
  return made;
}

TEST(Sharing, EitherCheckpointIsWholeWithoutTheOther) {
  for (bool remove_first : {true, false}) {
    TemporaryDirectory store;
    auto made = write_shared(store.path() + "/sample");
    ASSERT_TRUE(remove(remove_first ? made.first : made.second).ok());
    auto image = Image::open(remove_first ? made.second : made.first);
    ASSERT_TRUE(image.ok()) << image.error().message();
    EXPECT_TRUE(image->verify().ok());
    EXPECT_EQ(read_all(image->open_file(remove_first ? "pages.1" : "pages")->get()).value(),
              pattern(0x4000, 7));
    EXPECT_EQ(image->own_size(), image->stored_size());
  }
}

TEST(Sharing, TheManifestSaysWhatIsWhose) {
  TemporaryDirectory store;
  auto made = write_shared(store.path() + "/sample");
  auto image = Image::open(made.second);
  ASSERT_TRUE(image.ok());
  EXPECT_EQ(image->find_file("pages.1")->origin(), 1u);
  EXPECT_EQ(image->find_file("pages")->origin(), 0u);
  EXPECT_EQ(image->logical_size(), 0x8000u);
  EXPECT_EQ(image->content_size(), 0x6000u);
  EXPECT_EQ(image->own_size(), 0x4000u);
}

// Who does not know layers would take the pages from the wrong file, so he must not take them at all.
TEST(Sharing, OnlyImagesWithLayersHaveTheNewVersion) {
  auto manifest = sample_manifest();
  EXPECT_EQ(encode_manifest(manifest)[8], 1);
  for (auto* layers :
       {manifest.mutable_memories(1)->mutable_layers(), manifest.mutable_shared_memories(0)->mutable_layers(),
        manifest.mutable_system_v()->add_segments()->mutable_layers()}) {
    layers->Add("pages.1");
    std::string bytes = encode_manifest(manifest);
    EXPECT_EQ(bytes[8], 2);
    bytes[8] = 1;
    EXPECT_FALSE(parse_manifest(std::as_bytes(std::span(bytes))).ok());
    layers->Clear();
  }
}

TEST(Sharing, DamageIsFoundUnderBothNames) {
  TemporaryDirectory store;
  auto made = write_shared(store.path() + "/sample");
  Fd file = open_file(made.first + "/pages", O_WRONLY).value();
  ASSERT_TRUE(pwrite_all(file.get(), "x", 77).ok());
  for (const auto& path : {made.first + "/pages", made.second + "/pages.1"}) {
    auto image = Image::open(path.substr(0, path.rfind('/')));
    auto verified = image->verify();
    ASSERT_FALSE(verified.ok());
    EXPECT_NE(verified.error().message().find(path), std::string::npos) << verified.error().message();
  }
}

TEST(Sharing, WhatCannotBeSharedIsNoFailure) {
  TemporaryDirectory store;
  auto base = Image::open(write_sample(store.path() + "/sample"));
  auto writer = Writer::create(store.path() + "/sample");
  EXPECT_FALSE(writer->share_file("other", *base, "none", 1).has_value());
  EXPECT_FALSE(writer->share_file("../other", *base, "pages", 1).has_value());
  ASSERT_TRUE(writer->share_file("other", *base, "pages", 1).has_value());
  EXPECT_FALSE(writer->share_file("other", *base, "shared", 1).has_value());
  writer->drop_shared_file("other");
  EXPECT_TRUE(names_in(writer->directory()).empty());
  // Somebody has removed it, but we still have it open.
  ASSERT_TRUE(remove(base->directory()).ok());
  EXPECT_FALSE(writer->share_file("other", *base, "pages", 1).has_value());
}

TEST(Prune, FreesWhatNobodyNeeds) {
  constexpr size_t kLarge = 1 << 20;
  TemporaryDirectory store;
  const std::string session = store.path() + "/sample";
  // As the sample, with pages that begin where others end.
  auto first = Writer::create(session);
  for (auto [name, size] : {std::pair("pages", kLarge), std::pair("shared", size_t{0x2000})})
    ASSERT_TRUE(write_all(first->create_file(name)->get(), pattern(size, 7)).ok());
  auto manifest = sample_manifest();
  ASSERT_TRUE(first->publish(manifest).ok());
  auto base = Image::open(session + "/1");
  for (int i = 2; i <= 3; ++i) {
    auto next = Writer::create(session);
    ASSERT_TRUE(write_all(next->create_file("shared")->get(), pattern(0x2000, 9)).ok());
    ASSERT_TRUE(next->share_file("pages.1", *base, "pages", 1).has_value());
    manifest = sample_manifest();
    for (int j = 0; j < 2; ++j) {
      auto& memory = *manifest.mutable_memories(j);
      memory.clear_page_file();
      memory.add_layers("pages.1");
      memory.mutable_runs(0)->set_layer(1);
      memory.mutable_runs(0)->set_offset(static_cast<uint64_t>(i) * 0x10000);
    }
    ASSERT_TRUE(next->publish(manifest).ok());
  }
  // Its own checkpoint needs little of it, but while that is there it is left alone by whom it does not
  // concern.
  Fd elsewhere = open_file(session, O_RDONLY | O_DIRECTORY).value();
  ASSERT_TRUE(base->link_file("pages", elsewhere.get(), "files-of-another"));
  ASSERT_TRUE(prune(session).ok());
  EXPECT_GE(Image::open(session + "/2")->find_file("pages.1")->stored(), kLarge);
  ASSERT_EQ(unlinkat(elsewhere.get(), "files-of-another", 0), 0);
  ASSERT_TRUE(remove(session + "/1").ok());

  const uint64_t before = disk_usage(session).value();
  ASSERT_TRUE(prune(session).ok());
  EXPECT_LE(disk_usage(session).value(), before - kLarge + 0x10000);
  EXPECT_EQ(names_in(session).size(), 2u);
  const std::string all = pattern(kLarge, 7);
  for (uint64_t i = 2; i <= 3; ++i) {
    auto image = Image::open(fmt::format("{}/{}", session, i));
    ASSERT_TRUE(image.ok()) << image.error().message();
    EXPECT_TRUE(image->verify().ok());
    EXPECT_EQ(image->find_file("pages.1")->origin(), 1u);
    std::string page(0x2000, '\0');
    ASSERT_TRUE(pread_all(image->open_file("pages.1")->get(), page, static_cast<off_t>(i * 0x10000)).ok());
    EXPECT_EQ(page, all.substr(i * 0x10000, 0x2000));
    EXPECT_EQ(image->own_size(), 0x2000u);
  }
}

// The newest one may be removed while it is written anew, and the next checkpoint has its number then.
TEST(Sharing, AnotherCheckpointWithTheSameNumberIsNotReplaced) {
  TemporaryDirectory store;
  const std::string session = store.path() + "/sample";
  auto made = write_shared(session);
  auto old = Image::open(made.second);
  ASSERT_TRUE(old.ok());
  auto writer = Writer::create(session);
  ASSERT_TRUE(writer.ok());
  for (const auto& file : old->manifest().files())
    ASSERT_TRUE(writer->share_file(file.name(), *old, file.name(), file.origin()).has_value());
  schema::Manifest manifest = old->manifest();
  ASSERT_TRUE(remove(made.second).ok());
  EXPECT_EQ(writer->replace(manifest, *old).error().code, ErrorCode::kNotFound);
  ASSERT_EQ(write_sample(session), made.second);
  EXPECT_EQ(writer->replace(manifest, *old).error().code, ErrorCode::kNotFound);
  auto newer = Image::open(made.second);
  ASSERT_TRUE(newer.ok());
  EXPECT_EQ(newer->manifest().base(), 0u);
}

}  // namespace
}  // namespace stasis::image

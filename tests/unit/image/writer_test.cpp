#include "image/writer.h"

#include <sys/mount.h>
#include <sys/wait.h>

#include <thread>

#include "tests/unit/image/sample.h"

namespace stasis::image {
namespace {

TEST(Writer, WhatIsWrittenIsRead) {
  TemporaryDirectory store;
  const std::string directory = write_sample(store.path() + "/deep/sample");
  EXPECT_EQ(directory, store.path() + "/deep/sample/1");
  auto image = Image::open(directory);
  ASSERT_TRUE(image.ok()) << image.error().message();
  EXPECT_TRUE(image->verify().ok());
  EXPECT_EQ(image->manifest().id(), 1u);
  EXPECT_EQ(image->manifest().tag(), "first");
  EXPECT_EQ(image->logical_size(), 0x6000u);
  auto file = image->open_file("pages");
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(read_all(file->get()).value(), pattern(0x4000, 7));
  EXPECT_FALSE(image->open_file("manifest").ok());
  EXPECT_FALSE(image->open_file("../1/pages").ok());
}

// Paths and the names of threads are bytes; the kernel cuts a name at 15 of them, in the middle of a
// character if need be.
TEST(Writer, TextNeedNotBeUtf8) {
  TemporaryDirectory store;
  auto writer = Writer::create(store.path() + "/sample");
  ASSERT_TRUE(writer.ok());
  for (auto [name, size] : {std::pair("pages", 0x4000), std::pair("shared", 0x2000)}) {
    auto file = writer->create_file(name);
    ASSERT_EQ(ftruncate(file->get(), size), 0);
  }
  auto manifest = sample_manifest();
  auto& process = *manifest.mutable_processes(0);
  process.set_comm("\xe2\x82");
  process.set_working_directory("/\xff");
  process.mutable_threads(0)->set_name("\xe2\x82");
  manifest.mutable_memories(0)->set_executable("/\xff");
  manifest.mutable_memories(0)->mutable_mappings(0)->set_path("/\xff");
  manifest.mutable_descriptions(0)->set_shown("/\xff");
  manifest.add_command("\xff");
  manifest.add_warnings("\xff");
  manifest.set_tag("\xff");
  auto published = writer->publish(manifest);
  ASSERT_TRUE(published.ok()) << published.error().message();
  auto image = Image::open(published->directory);
  ASSERT_TRUE(image.ok()) << image.error().message();
  EXPECT_EQ(image->manifest().SerializeAsString(), manifest.SerializeAsString());
}

// Where files can be cloned the content is there, else there is no file; either way the checkpoint is whole.
TEST(Writer, ClonesAreWholeOrNotThere) {
  TemporaryDirectory store;
  auto writer = Writer::create(store.path() + "/sample");
  ASSERT_TRUE(writer.ok());
  for (auto [name, size] : {std::pair("pages", 0x4000), std::pair("shared", 0x2000)}) {
    auto file = writer->create_file(name);
    ASSERT_EQ(ftruncate(file->get(), size), 0);
  }
  auto source = open_file(store.path() + "/source", O_RDWR | O_CREAT);
  ASSERT_TRUE(source.ok() && write_all(source->get(), pattern(3 << 20, 5)).ok());
  auto summed = writer->clone_file("summed", source->get(), Writer::Sums::kYes);
  auto unsummed = writer->clone_file("unsummed", source->get(), Writer::Sums::kNo);
  ASSERT_TRUE(summed.ok() && unsummed.ok());
  EXPECT_EQ(summed->has_value(), unsummed->has_value());
  EXPECT_FALSE(writer->clone_file("../up", source->get(), Writer::Sums::kYes).ok());
  const size_t clones = summed->has_value() ? 2 : 0;
  EXPECT_EQ(names_in(writer->directory()).size(), 2 + clones);
  auto manifest = sample_manifest();
  auto published = writer->publish(manifest);
  ASSERT_TRUE(published.ok()) << published.error().message();
  ASSERT_EQ(manifest.files_size(), static_cast<int>(2 + clones));
  auto image = Image::open(published->directory);
  ASSERT_TRUE(image.ok()) << image.error().message();
  EXPECT_TRUE(image->verify().ok());
  if (clones == 0) return;
  EXPECT_EQ(manifest.files(2).sums_size(), 3);
  EXPECT_EQ(manifest.files(3).sums_size(), 0);
  for (const char* name : {"summed", "unsummed"}) {
    EXPECT_EQ(read_all(image->open_file(name)->get()).value(), pattern(3 << 20, 5));
  }
}

TEST(Writer, NobodyElseMayRead) {
  TemporaryDirectory store;
  const mode_t old = umask(0);
  const std::string directory = write_sample(store.path() + "/sample");
  umask(old);
  struct stat status;
  ASSERT_EQ(stat(directory.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0700u);
  ASSERT_EQ(stat((store.path() + "/sample").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0700u);
  for (const auto& name : names_in(directory)) {
    ASSERT_EQ(stat((directory + "/" + name).c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, 0600u) << name;
  }
}

TEST(Writer, NumbersAscend) {
  TemporaryDirectory store;
  const std::string session = store.path() + "/sample";
  write_sample(session);
  write_sample(session);
  EXPECT_EQ(write_sample(session), session + "/3");
  ASSERT_TRUE(remove(session + "/1").ok());
  EXPECT_EQ(write_sample(session), session + "/4");
  // Also when somebody takes the next number between the look and the rename.
  auto writer = Writer::create(session);
  ASSERT_TRUE(writer.ok());
  write_sample(session);
  auto manifest = sample_manifest();
  for (auto [name, size] : {std::pair("pages", 0x4000), std::pair("shared", 0x2000)}) {
    auto file = writer->create_file(name);
    ASSERT_EQ(ftruncate(file->get(), size), 0);
  }
  auto published = writer->publish(manifest);
  ASSERT_TRUE(published.ok()) << published.error().message();
  EXPECT_EQ(published->id, 6u);
}

TEST(Writer, AbandonedLeavesNothing) {
  TemporaryDirectory store;
  {
    auto writer = Writer::create(store.path() + "/sample");
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE(writer->create_file("pages").ok());
    EXPECT_EQ(names_in(store.path() + "/sample").size(), 1u);
  }
  EXPECT_TRUE(names_in(store.path()).empty());
}

TEST(Writer, AbandonedLeavesTheStoreOfOthers) {
  TemporaryDirectory store;
  const std::string path = store.path() + "/sample";
  ASSERT_EQ(::mkdir(path.c_str(), 0700), 0);
  {
    auto writer = Writer::create(path);
    ASSERT_TRUE(writer.ok());
  }
  EXPECT_EQ(names_in(store.path()).size(), 1u);
  ASSERT_EQ(::rmdir(path.c_str()), 0);
}

TEST(Writer, RefusesNamesThatLeaveTheDirectory) {
  TemporaryDirectory store;
  auto writer = Writer::create(store.path() + "/sample");
  ASSERT_TRUE(writer.ok());
  for (const char* name : {"", ".", "..", "../x", "a/b", "manifest", "a\nb"}) {
    EXPECT_FALSE(writer->create_file(name).ok()) << name;
  }
  ASSERT_TRUE(writer->create_file("twice").ok());
  EXPECT_FALSE(writer->create_file("twice").ok());
}

TEST(Writer, RefusesToPublishWhatARestartWouldRefuse) {
  TemporaryDirectory store;
  auto writer = Writer::create(store.path() + "/sample");
  ASSERT_TRUE(writer.ok());
  auto manifest = sample_manifest();  // its page files do not exist
  EXPECT_FALSE(writer->publish(manifest).ok());
  EXPECT_FALSE(std::filesystem::exists(store.path() + "/sample/1"));
}

// A large file, written in steps by another process through the descriptor, with holes and an odd end: the
// sums that were made on the way are those of the final contents.
TEST(Writer, SumsWhileItGrows) {
  TemporaryDirectory store;
  auto writer = Writer::create(store.path() + "/sample");
  ASSERT_TRUE(writer.ok());
  auto file = writer->create_file("pages");
  auto shared = writer->create_file("shared");
  ASSERT_TRUE(file.ok() && shared.ok());
  ASSERT_TRUE(write_all(shared->get(), pattern(0x2000, 7)).ok());
  constexpr uint64_t kStep = 3 << 20;
  const std::string data = pattern(kStep, 3);
  for (uint64_t step = 0; step < 12; ++step) {
    const pid_t child = fork();
    if (child == 0) {
      if (step % 3 == 1) _exit(0);  // a hole
      _exit(pwrite_all(file->get(), data, static_cast<off_t>(step * kStep)).ok() ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_EQ(status, 0);
    writer->written("pages", (step + 1) * kStep);
  }
  ASSERT_TRUE(pwrite_all(file->get(), "the end", 12 * kStep + 12345).ok());
  auto manifest = sample_manifest();
  auto published = writer->publish(manifest);
  ASSERT_TRUE(published.ok()) << published.error().message();
  auto image = Image::open(published->directory);
  ASSERT_TRUE(image.ok()) << image.error().message();
  auto verified = image->verify();
  EXPECT_TRUE(verified.ok()) << verified.error().message();
  EXPECT_EQ(image->logical_size(), 12 * kStep + 12345 + 7 + 0x2000);
  EXPECT_LE(image->stored_size(), 9 * kStep + (1 << 20));

  // A byte in a hole is found as well as one in data.
  for (off_t offset : {off_t{0}, off_t{kStep + 5}, off_t{12 * kStep + 12345}}) {
    Fd raw = open_file(published->directory + "/pages", O_RDWR).value();
    char old = 0;
    ASSERT_TRUE(pread_all(raw.get(), {&old, 1}, offset).ok());
    const char changed = static_cast<char>(old ^ 4);
    ASSERT_TRUE(pwrite_all(raw.get(), {&changed, 1}, offset).ok());
    auto damaged = image->verify();
    EXPECT_FALSE(damaged.ok());
    EXPECT_EQ(damaged.error().code, ErrorCode::kDamaged);
    EXPECT_NE(damaged.error().message().find("pages"), std::string::npos);
    ASSERT_TRUE(pwrite_all(raw.get(), {&old, 1}, offset).ok());
  }
  EXPECT_TRUE(image->verify().ok());
}

// A killed writer's directory is removed by the next one; that of a living writer stays.
TEST(Writer, RemovesWhatTheDeadLeft) {
  TemporaryDirectory store;
  const std::string session = store.path() + "/sample";
  auto alive = Writer::create(session);
  ASSERT_TRUE(alive.ok());
  const pid_t child = fork();
  if (child == 0) {
    auto writer = Writer::create(session);
    if (!writer.ok() || !writer->create_file("pages").ok()) _exit(1);
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  std::filesystem::create_directory(session + "/removing-7-1");
  EXPECT_EQ(names_in(session).size(), 3u);
  auto next = Writer::create(session);
  ASSERT_TRUE(next.ok());
  EXPECT_EQ(names_in(session).size(), 2u);
  EXPECT_TRUE(std::filesystem::exists(alive->directory()));
  EXPECT_TRUE(std::filesystem::exists(next->directory()));
}

// Kills a writer at many moments: afterwards there are only whole checkpoints and directories that say they
// are not.
TEST(Writer, KilledAtAnyMomentLeavesOnlyWholeCheckpoints) {
  TemporaryDirectory store;
  const std::string session = store.path() + "/sample";
  for (int i = 0; i < 60; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      for (;;) write_sample(session);
    }
    usleep(static_cast<useconds_t>(500 + i * 137 % 5000));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    if (i % 10 != 9) continue;
    auto entries = list(session);
    ASSERT_TRUE(entries.ok());
    for (const auto& entry : *entries) {
      EXPECT_TRUE(entry.problem.empty()) << entry.problem;
      auto image = Image::open(entry.directory);
      ASSERT_TRUE(image.ok()) << image.error().message();
      EXPECT_TRUE(image->verify().ok());
    }
  }
  write_sample(session);
  for (const auto& name : names_in(session)) EXPECT_EQ(name.find("incomplete"), std::string::npos) << name;
}

TEST(Writer, SimultaneousWritersGetNumbersOfTheirOwn) {
  TemporaryDirectory store;
  const std::string session = store.path() + "/sample";
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 5; ++n) write_sample(session);
    });
  }
  for (auto& thread : threads) thread.join();
  auto entries = list(session);
  ASSERT_TRUE(entries.ok());
  ASSERT_EQ(entries->size(), 40u);
  EXPECT_EQ(entries->back().id, 40u);
  for (const auto& entry : *entries) EXPECT_TRUE(entry.problem.empty()) << entry.problem;
}

// A full disk: a file system of 4 MiB. The last good checkpoint stays, nothing else does.
TEST(Writer, FullDiskLeavesTheLastGoodOne) {
  TemporaryDirectory mount_point;
  if (mount("tmpfs", mount_point.path().c_str(), "tmpfs", 0, "size=4m,mode=0700") != 0) {
    GTEST_SKIP() << "mounting a small file system needs root";
  }
  const std::string session = mount_point.path() + "/sample";
  write_sample(session);
  const std::string data = pattern(1 << 20, 1);
  {
    auto writer = Writer::create(session);
    ASSERT_TRUE(writer.ok());
    auto file = writer->create_file("pages");
    ASSERT_TRUE(file.ok());
    Result<void> written;
    for (int i = 0; written.ok() && i < 8; ++i) written = write_all(file->get(), data);
    EXPECT_FALSE(written.ok());
    // The manifest finds no room either.
    auto manifest = sample_manifest();
    for (int i = 0; i < 4096; ++i) manifest.add_warnings(std::string(4096, 'x'));
    manifest.mutable_memories()->Clear();
    auto published = writer->publish(manifest);
    EXPECT_FALSE(published.ok());
  }
  EXPECT_EQ(names_in(session), std::vector<std::string>{"1"});
  EXPECT_TRUE(Image::open(session + "/1")->verify().ok());
  umount2(mount_point.path().c_str(), MNT_DETACH);
}

TEST(Writer, FullDiskIsNamedWithItsRemedy) {
  TemporaryDirectory mount_point;
  if (mount("tmpfs", mount_point.path().c_str(), "tmpfs", 0, "size=1m,mode=0700") != 0) {
    GTEST_SKIP() << "mounting a small file system needs root";
  }
  {
    auto writer = Writer::create(mount_point.path() + "/sample");
    ASSERT_TRUE(writer.ok());
    for (auto [name, size] : {std::pair("pages", 0x4000), std::pair("shared", 0x2000)}) {
      auto file = writer->create_file(name);
      ASSERT_TRUE(write_all(file->get(), pattern(static_cast<size_t>(size), 7)).ok());
    }
    auto manifest = sample_manifest();
    manifest.add_warnings(std::string(2 << 20, 'x'));
    auto published = writer->publish(manifest);
    ASSERT_FALSE(published.ok());
    const std::string message = published.error().message();
    EXPECT_NE(message.find("/manifest"), std::string::npos) << message;
    EXPECT_NE(message.find("No space left"), std::string::npos) << message;
    EXPECT_NE(message.find("stasis rm"), std::string::npos) << message;
  }
  EXPECT_TRUE(names_in(mount_point.path()).empty());
  umount2(mount_point.path().c_str(), MNT_DETACH);
}

TEST(Writer, RefusesAStoreOfSomebodyElse) {
  if (geteuid() != 0) GTEST_SKIP() << "giving a directory away needs root";
  TemporaryDirectory store;
  const std::string session = store.path() + "/sample";
  std::filesystem::create_directory(session);
  ASSERT_EQ(chown(session.c_str(), 12345, 12345), 0);
  auto writer = Writer::create(session);
  ASSERT_FALSE(writer.ok());
  EXPECT_EQ(writer.error().code, ErrorCode::kDenied);
}

}  // namespace
}  // namespace stasis::image

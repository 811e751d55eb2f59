// Files, directories, devices, /proc, memfd.
#include <linux/memfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "resource/file/locks.h"
#include "tests/unit/resource/fakes.h"

namespace stasis::resource {
namespace {

class Files : public ResourceTest {
 protected:
  Fd create(const std::string& name, std::string_view content, int flags = O_RDWR) {
    Fd fd = open_file(directory / name, O_CREAT | flags, 0644).value();
    EXPECT_TRUE(write_all(fd.get(), content).ok());
    return fd;
  }
  std::string pread_from(int fd, off_t offset, size_t size) {
    std::string text(size, '\0');
    ssize_t count = pread(fd, text.data(), size, offset);
    text.resize(count < 0 ? 0 : static_cast<size_t>(count));
    return text;
  }

  TemporaryDirectory directory;
};

TEST_F(Files, RegularFileKeepsPositionAndFlags) {
  Fd file = create("data", "0123456789"), append = open_file(directory / "data", O_WRONLY | O_APPEND).value();
  lseek(file.get(), 4, SEEK_SET);
  tree.add({file.get()});
  tree.add({append.get()});
  round_trip();
  EXPECT_EQ(read_now((*made)[1]), "456789");
  EXPECT_EQ(lseek(file.get(), 0, SEEK_CUR), 4) << "the original was disturbed";
  ASSERT_EQ(write((*made)[2], "end", 3), 3);
  EXPECT_EQ(pread_from(file.get(), 10, 10), "end");
}

TEST_F(Files, RenamedFileIsFoundByItsNewName) {
  Fd file = create("old", "content");
  std::filesystem::rename(directory / "old", directory / "new");
  tree.add({file.get()});
  round_trip();
  EXPECT_EQ(pread_from((*made)[1], 0, 10), "content");
}

TEST_F(Files, MissingAndReplacedFilesAreErrors) {
  Fd file = create("gone", "x"), other = create("other", "y");
  tree.add({file.get()});
  auto records = tree.observe();
  ASSERT_OK(records);
  unlink((directory / "gone").c_str());
  FakeMaking missing(image, *records);
  auto result = missing.run();
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.error().message().find(directory / "gone"), std::string::npos);
  EXPECT_FALSE(result.error().hint.empty());
  std::filesystem::create_directory(directory / "gone");
  FakeMaking replaced(image, *records);
  result = replaced.run();
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.error().cause.find("now is a directory"), std::string::npos);
}

TEST_F(Files, ReadOnlyModeDoesNotKeepTheOwnerOut) {
  Fd file = open_file(directory / "object", O_CREAT | O_RDWR, 0444).value();
  tree.add({file.get()});
  round_trip();
  EXPECT_EQ(fcntl((*made)[1], F_GETFL) & O_ACCMODE, O_RDWR);
  struct stat status = {};
  ASSERT_EQ(fstat((*made)[1], &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0444u);
}

TEST_F(Files, LocksOfDescriptions) {
  Fd whole = create("flock", "x"), range = create("range", "0123456789");
  ASSERT_EQ(flock(whole.get(), LOCK_EX), 0);
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_start = 2;
  lock.l_len = 3;
  ASSERT_EQ(fcntl(range.get(), F_OFD_SETLK, &lock), 0);
  schema::Description of_whole, of_range;
  ASSERT_OK(observe_locks(tree.add({whole.get()}), tree, of_whole));
  ASSERT_OK(observe_locks(tree.add({range.get()}), tree, of_range));
  of_range.set_shown("range");
  Fd whole_again = open_file(directory / "flock", O_RDWR).value();
  Fd range_again = open_file(directory / "range", O_RDWR).value();
  auto busy = lock_description(of_range, range_again.get());
  ASSERT_FALSE(busy.ok()) << "locked while the original still has the lock";
  EXPECT_NE(busy.error().message().find("range"), std::string::npos);
  EXPECT_NE(busy.error().message().find("bytes 2 to 4"), std::string::npos);
  whole.reset();
  range.reset();
  tree.end_program();
  ASSERT_OK(lock_description(of_whole, whole_again.get()));
  ASSERT_OK(lock_description(of_range, range_again.get()));
  Fd rival = open_file(directory / "flock", O_RDWR).value();
  EXPECT_EQ(flock(rival.get(), LOCK_EX | LOCK_NB), -1);
  rival = open_file(directory / "range", O_RDWR).value();
  EXPECT_EQ(fcntl(rival.get(), F_OFD_SETLK, &lock), -1);
  lock.l_start = 5;
  lock.l_len = 1;
  EXPECT_EQ(fcntl(rival.get(), F_OFD_SETLK, &lock), 0);
}

TEST_F(Files, RecordLocksAreSeenAndTheirHolderIsNamed) {
  Fd file = create("ranges", "0123456789");
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_start = 2;
  lock.l_len = 3;
  ASSERT_EQ(fcntl(file.get(), F_SETLK, &lock), 0);
  lock.l_type = F_RDLCK;
  lock.l_start = 7;
  lock.l_len = 0;
  ASSERT_EQ(fcntl(file.get(), F_SETLK, &lock), 0);
  const OpenFile& seen = tree.add({file.get()});
  schema::Description description;
  ASSERT_OK(observe_locks(seen, tree, description));
  EXPECT_EQ(description.locks_size(), 0) << "they are the process's";
  auto locks = record_locks(seen);
  ASSERT_EQ(locks.size(), 2u);
  EXPECT_EQ(locks[0].number(), file.get());
  EXPECT_TRUE(locks[0].exclusive());
  EXPECT_EQ(locks[0].start(), 2u);
  EXPECT_EQ(locks[0].length(), 3u);
  EXPECT_FALSE(locks[1].exclusive());
  EXPECT_EQ(locks[1].start(), 7u);
  EXPECT_EQ(locks[1].length(), 0u);
  std::string message = lock_refused("ranges", file.get(), as_flock(locks[0]), EAGAIN).message();
  EXPECT_NE(message.find(fmt::format("process {}", getpid())), std::string::npos) << message;
}

TEST_F(Files, UnlinkedFileIsOneFileForAllItsDescriptions) {
  Fd file = create("temporary", "");
  std::string text = "at the end";
  off_t far = 64 << 20;
  ASSERT_EQ(pwrite(file.get(), text.data(), text.size(), far), ssize_t(text.size()));
  Fd second = open_file(fmt::format("/proc/self/fd/{}", file.get()), O_WRONLY | O_APPEND).value();
  ASSERT_EQ(fchmod(file.get(), 0400), 0);
  unlink((directory / "temporary").c_str());
  lseek(file.get(), far, SEEK_SET);
  tree.add({second.get()});
  tree.add({file.get()});
  round_trip();
  EXPECT_EQ(tree.created.size(), 1u);
  EXPECT_EQ(read_now((*made)[2]), text);
  ASSERT_EQ(write((*made)[1], "!", 1), 1);
  EXPECT_EQ(read_now((*made)[2]), "!");
  struct stat status = {};
  ASSERT_EQ(fstat((*made)[2], &status), 0);
  EXPECT_EQ(status.st_nlink, 0u);
  EXPECT_EQ(status.st_mode & 07777, 0400u);
  EXPECT_EQ(status.st_size, far + 11);
  EXPECT_LT(status.st_blocks * 512, 1 << 20) << "the hole was filled";
  ASSERT_EQ(stat((image / *tree.created.begin()).c_str(), &status), 0);
  EXPECT_LT(status.st_blocks * 512, 1 << 20) << "the hole was filled in the image";
  EXPECT_EQ(lseek(file.get(), 0, SEEK_CUR), far) << "the original was disturbed";
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

TEST_F(Files, TemporaryFileAndSharedMemory) {
  Fd file = open_file(directory.path(), O_TMPFILE | O_RDWR).value();
  ASSERT_OK(write_all(file.get(), "unnamed"));
  std::string name = fmt::format("/stasis-test-{}", getpid());
  Fd memory(shm_open(name.c_str(), O_CREAT | O_RDWR, 0600));
  shm_unlink(name.c_str());
  ASSERT_OK(write_all(memory.get(), "shared"));
  tree.add({file.get()});
  tree.add({memory.get()});
  round_trip();
  EXPECT_EQ(pread_from((*made)[1], 0, 100), "unnamed");
  EXPECT_EQ(pread_from((*made)[2], 0, 100), "shared");
  struct stat before = {}, after = {};
  fstat(memory.get(), &before);
  fstat((*made)[2], &after);
  EXPECT_EQ(before.st_dev, after.st_dev) << "it left its file system";
}

TEST_F(Files, MemfdKeepsNameContentAndSeals) {
  Fd sealed(memfd_create("sealed", MFD_ALLOW_SEALING)), open_one(memfd_create("open", 0));
  ASSERT_OK(write_all(sealed.get(), "secret"));
  ASSERT_EQ(fcntl(sealed.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK), 0);
  ASSERT_OK(write_all(open_one.get(), "content"));
  Fd reader = open_file(fmt::format("/proc/self/fd/{}", open_one.get()), O_RDONLY).value();
  for (Fd* fd : {&sealed, &open_one, &reader}) tree.add({fd->get()});
  round_trip();
  EXPECT_EQ(fcntl((*made)[1], F_GET_SEALS), F_SEAL_WRITE | F_SEAL_SHRINK);
  EXPECT_EQ(fcntl((*made)[2], F_GET_SEALS), F_SEAL_SEAL);
  EXPECT_EQ(pread_from((*made)[1], 0, 100), "secret");
  EXPECT_EQ(std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", (*made)[1])),
            "/memfd:sealed (deleted)");
  ASSERT_EQ(pwrite((*made)[2], "C", 1, 0), 1);
  EXPECT_EQ(read_now((*made)[3]), "Content") << "one memfd became two";
}

TEST_F(Files, FutureWriteSealComesAfterMemory) {
  Fd fd(memfd_create("future", MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(fd.get(), 4096), 0);
  ASSERT_EQ(fcntl(fd.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
  tree.add({fd.get()});
  round_trip();
  void* memory = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, (*made)[1], 0);
  ASSERT_NE(memory, MAP_FAILED);
  FakeFinishing owner((*made)[1]);
  ASSERT_OK(find_descriptor_kind("memfd")->finish(made->records()[0], owner));
  EXPECT_EQ(fcntl((*made)[1], F_GET_SEALS), F_SEAL_FUTURE_WRITE);
  munmap(memory, 4096);
}

TEST_F(Files, DirectoriesPathsAndDevices) {
  create("entry", "x");
  Fd place = open_file(directory.path(), O_RDONLY | O_DIRECTORY).value();
  Fd path = open_file(directory / "entry", O_PATH).value(), null = open_file("/dev/null", O_RDWR).value();
  Fd random = open_file("/dev/urandom", O_RDONLY | O_NONBLOCK).value();
  for (Fd* fd : {&place, &path, &null, &random}) tree.add({fd->get()});
  round_trip();
  EXPECT_EQ(faccessat((*made)[1], "entry", F_OK, 0), 0);
  EXPECT_NE(fcntl((*made)[2], F_GETFL) & O_PATH, 0);
  EXPECT_EQ(write((*made)[3], "x", 1), 1);
  EXPECT_EQ(read_now((*made)[4], 8).size(), 8u);
}

TEST_F(Files, WhatWasRemovedIsMadeAgainAndRemoved) {
  std::filesystem::create_directories(directory / "way/gone");
  std::filesystem::create_symlink("somewhere", directory / "link");
  Fd place = open_file(directory / "way/gone", O_RDONLY | O_DIRECTORY).value();
  Fd same = open_file(directory / "way/gone", O_PATH).value();
  Fd link = open_file(directory / "link", O_PATH | O_NOFOLLOW).value();
  ASSERT_EQ(fchmod(place.get(), 0510), 0);
  std::filesystem::remove_all(directory / "way");
  std::filesystem::remove(directory / "link");
  for (Fd* fd : {&place, &same, &link}) tree.add({fd->get()});
  round_trip();
  struct stat one = {}, two = {};
  ASSERT_EQ(fstat((*made)[1], &one), 0);
  ASSERT_EQ(fstat((*made)[2], &two), 0);
  EXPECT_TRUE(S_ISDIR(one.st_mode));
  EXPECT_EQ(one.st_mode & 07777, 0510u);
  EXPECT_EQ(one.st_nlink, 0u);
  EXPECT_EQ(one.st_ino, two.st_ino) << "one directory became two";
  EXPECT_EQ(std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", (*made)[1])),
            directory / "way/gone (deleted)");
  char target[16] = {};
  EXPECT_EQ(readlinkat((*made)[3], "", target, sizeof target), 9);
  EXPECT_STREQ(target, "somewhere");
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

TEST_F(Files, ProcFilesOfTheSystemAndOfAProcess) {
  Fd meminfo = open_file("/proc/meminfo", O_RDONLY).value();
  Fd own = open_file(fmt::format("/proc/{}/comm", getpid()), O_RDONLY).value();
  lseek(own.get(), 2, SEEK_SET);
  tree.add({meminfo.get()});
  tree.add({own.get()});
  round_trip();
  EXPECT_EQ(read_now((*made)[1], 9), "MemTotal:");
  std::string expected = read_now(own.get());
  lseek(own.get(), 0, SEEK_SET);
  FakeFinishing owner(own.get());
  ASSERT_OK(find_descriptor_kind("proc")->finish(made->records()[1], owner));
  EXPECT_EQ(read_now(own.get()), expected) << "the owner did not open it anew at its position";
}

}  // namespace
}  // namespace stasis::resource

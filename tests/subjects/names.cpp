// Open files and what has happened to their names: removed, moved, linked, replaced, with their directories.
#include <dirent.h>
#include <sys/inotify.h>
#include <sys/sysmacros.h>

#include "subject.h"

namespace {

int made(const char* name, const char* content, int flags = O_RDWR) {
  int fd = open(subject::path(name), flags | O_CREAT, 0640);
  MUST(fd >= 0);
  MUST(write(fd, content, strlen(content)) == static_cast<ssize_t>(strlen(content)));
  return fd;
}

struct stat status_of(int fd) {
  struct stat st = {};
  CHECK_EQ(fstat(fd, &st), 0);
  return st;
}

bool holds(int fd, const char* content) {
  char back[256] = {};
  ssize_t size = pread(fd, back, sizeof back - 1, 0);
  return size == static_cast<ssize_t>(strlen(content)) && strcmp(back, content) == 0;
}

}  // namespace

CASE(directory_that_was_removed) {
  MUST(mkdir(subject::path("gone"), 0710) == 0);
  int fd = open(subject::path("gone"), O_RDONLY | O_DIRECTORY);
  MUST(fd >= 0 && rmdir(subject::path("gone")) == 0);
  subject::hold();
  struct stat st = status_of(fd);
  CHECK(S_ISDIR(st.st_mode));
  CHECK_EQ(st.st_mode & 0777, 0710u);
  CHECK_EQ(st.st_nlink, 0u);
  CHECK(openat(fd, "new", O_CREAT | O_WRONLY, 0600) < 0 && errno == ENOENT);
  CHECK(!subject::marked("gone"));
}

CASE(directory_that_was_replaced) {
  MUST(mkdir(subject::path("twice"), 0700) == 0);
  int fd = open(subject::path("twice"), O_RDONLY | O_DIRECTORY);
  MUST(fd >= 0 && rmdir(subject::path("twice")) == 0 && mkdir(subject::path("twice"), 0750) == 0);
  subject::hold();
  struct stat old = status_of(fd), now = {};
  CHECK_EQ(stat(subject::path("twice"), &now), 0);
  CHECK_EQ(old.st_nlink, 0u);
  CHECK_EQ(now.st_mode & 0777, 0750u);
}

CASE(working_directory_that_was_removed) {
  MUST(mkdir(subject::path("below"), 0700) == 0 && chdir(subject::path("below")) == 0);
  MUST(rmdir(subject::path("below")) == 0);
  subject::hold();
  char now[1024];
  CHECK(getcwd(now, sizeof now) == nullptr && errno == ENOENT);
  CHECK(open("new", O_CREAT | O_WRONLY, 0600) < 0 && errno == ENOENT);
  CHECK(!subject::marked("below"));
  struct stat st = {};
  CHECK_EQ(stat(".", &st), 0);
  CHECK_EQ(st.st_nlink, 0u);
}

CASE(directory_removed_and_open_and_worked_in) {
  MUST(mkdir(subject::path("one"), 0700) == 0 && mkdir(subject::path("one/two"), 0700) == 0);
  int fd = open(subject::path("one/two"), O_RDONLY | O_DIRECTORY);
  MUST(fd >= 0 && fchdir(fd) == 0);
  MUST(rmdir(subject::path("one/two")) == 0 && rmdir(subject::path("one")) == 0);
  subject::hold();
  struct stat here = {}, there = status_of(fd);
  CHECK_EQ(stat(".", &here), 0);
  CHECK_EQ(here.st_ino, there.st_ino);
  CHECK_EQ(here.st_nlink, 0u);
  CHECK(!subject::marked("one"));
}

CASE(file_removed_with_its_directory) {
  MUST(mkdir(subject::path("dir"), 0700) == 0);
  int fd = made("dir/file", "both are gone");
  int reader = open(subject::path("dir/file"), O_RDONLY);
  MUST(unlink(subject::path("dir/file")) == 0 && rmdir(subject::path("dir")) == 0);
  subject::hold();
  CHECK(holds(fd, "both are gone"));
  CHECK_EQ(pwrite(fd, "BOTH", 4, 0), 4);
  CHECK(holds(reader, "BOTH are gone"));
  CHECK_EQ(status_of(fd).st_nlink, 0u);
  CHECK(!subject::marked("dir"));
}

CASE(directory_was_replaced_by_another) {
  MUST(mkdir(subject::path("dir"), 0700) == 0);
  int fd = made("dir/file", "old");
  MUST(rename(subject::path("dir"), subject::path("moved")) == 0 && mkdir(subject::path("dir"), 0700) == 0);
  int other = made("dir/file", "new");
  subject::hold();
  CHECK(holds(fd, "old"));
  CHECK(holds(other, "new"));
  CHECK_EQ(pwrite(fd, "OLD", 3, 0), 3);
  char back[16];
  CHECK_EQ(subject::slurp(subject::path("moved/file"), back, sizeof back), 3);
  CHECK_EQ(strcmp(back, "OLD"), 0);
}

CASE(path_only) {
  int file = made("file", "seen");
  int fd = open(subject::path("file"), O_PATH);
  int directory = open(subject::path("."), O_PATH | O_DIRECTORY);
  MUST(symlink("file", subject::path("link")) == 0);
  int link = open(subject::path("link"), O_PATH | O_NOFOLLOW);
  MUST(file >= 0 && fd >= 0 && directory >= 0 && link >= 0);
  subject::hold();
  CHECK_EQ(status_of(fd).st_ino, status_of(file).st_ino);
  CHECK(fcntl(fd, F_GETFL) & O_PATH);
  char byte;
  CHECK(read(fd, &byte, 1) < 0 && errno == EBADF);
  int again = openat(directory, "file", O_RDONLY);
  CHECK(again >= 0 && holds(again, "seen"));
  char target[16] = {};
  CHECK_EQ(readlinkat(link, "", target, sizeof target), 4);
  CHECK_EQ(strcmp(target, "file"), 0);
}

CASE(path_only_of_what_was_removed) {
  int file = made("file", "invisible");
  int fd = open(subject::path("file"), O_PATH);
  MUST(unlink(subject::path("file")) == 0);
  MUST(mkdir(subject::path("dir"), 0700) == 0);
  int directory = open(subject::path("dir"), O_PATH | O_DIRECTORY);
  MUST(rmdir(subject::path("dir")) == 0);
  MUST(symlink("somewhere", subject::path("link")) == 0);
  int link = open(subject::path("link"), O_PATH | O_NOFOLLOW);
  MUST(unlink(subject::path("link")) == 0);
  int alone = made("alone", "only a path");
  int path_alone = open(subject::path("alone"), O_PATH);
  MUST(unlink(subject::path("alone")) == 0 && close(alone) == 0);
  MUST(fd >= 0 && directory >= 0 && link >= 0 && path_alone >= 0);
  subject::hold();
  CHECK(fcntl(fd, F_GETFL) & O_PATH);
  CHECK_EQ(status_of(fd).st_ino, status_of(file).st_ino);
  CHECK_EQ(status_of(fd).st_nlink, 0u);
  CHECK(S_ISDIR(status_of(directory).st_mode));
  char target[16] = {};
  CHECK_EQ(readlinkat(link, "", target, sizeof target), 9);
  char name[64];
  snprintf(name, sizeof name, "/proc/self/fd/%d", path_alone);
  int again = open(name, O_RDONLY);
  CHECK(again >= 0 && holds(again, "only a path"));
}

// The file of a descriptor has other names still: it must be that very file after, though /proc then shows
// another name, which is why it is not compared from outside.
CASE_WITH(other_name_is_left, subject::kBusy) {
  int fd = made("first", "linked");
  MUST(link(subject::path("first"), subject::path("second")) == 0);
  MUST(unlink(subject::path("first")) == 0);
  subject::hold();
  struct stat st = {};
  CHECK_EQ(stat(subject::path("second"), &st), 0);
  CHECK_EQ(st.st_ino, status_of(fd).st_ino);
  CHECK_EQ(st.st_nlink, 1u);
  CHECK_EQ(pwrite(fd, "LINKED", 6, 0), 6);
  char back[16];
  CHECK_EQ(subject::slurp(subject::path("second"), back, sizeof back), 6);
  CHECK_EQ(strcmp(back, "LINKED"), 0);
  CHECK(!subject::marked("first"));
}

CASE_WITH(other_name_is_in_another_directory, subject::kBusy) {
  MUST(mkdir(subject::path("there"), 0700) == 0);
  int fd = made("first", "far");
  MUST(link(subject::path("first"), subject::path("there/second")) == 0);
  MUST(unlink(subject::path("first")) == 0);
  int other = open(subject::path("there/second"), O_RDONLY);
  MUST(other >= 0);
  subject::hold();
  CHECK_EQ(pwrite(fd, "FAR", 3, 0), 3);
  CHECK(holds(other, "FAR"));
  CHECK_EQ(status_of(fd).st_ino, status_of(other).st_ino);
  CHECK_EQ(status_of(fd).st_nlink, 1u);
}

CASE(every_name_of_a_linked_file_is_gone) {
  int one = made("one", "two names");
  MUST(link(subject::path("one"), subject::path("two")) == 0);
  int two = open(subject::path("two"), O_RDWR | O_APPEND);
  MUST(two >= 0 && unlink(subject::path("one")) == 0 && unlink(subject::path("two")) == 0);
  subject::hold();
  CHECK_EQ(write(two, "!", 1), 1);
  CHECK(holds(one, "two names!"));
  CHECK_EQ(status_of(one).st_ino, status_of(two).st_ino);
  CHECK_EQ(status_of(one).st_nlink, 0u);
}

// The name leads to a file that was made later.
CASE(replaced_by_rename) {
  int old = made("file", "old content");
  int fresh = made("file.new", "new");
  MUST(rename(subject::path("file.new"), subject::path("file")) == 0);
  subject::hold();
  CHECK(holds(old, "old content"));
  CHECK_EQ(status_of(old).st_nlink, 0u);
  CHECK(holds(fresh, "new"));
  struct stat st = {};
  CHECK_EQ(stat(subject::path("file"), &st), 0);
  CHECK_EQ(st.st_ino, status_of(fresh).st_ino);
}

CASE(removed_and_owned_and_dated) {
  int fd = made("file", "dated");
  MUST(fchmod(fd, 0604) == 0);
  if (geteuid() == 0) MUST(fchown(fd, 1234, 2345) == 0);
  timespec times[2] = {{1'000'000'000, 5}, {1'100'000'000, 7}};
  MUST(futimens(fd, times) == 0 && unlink(subject::path("file")) == 0);
  subject::hold();
  struct stat st = status_of(fd);
  CHECK_EQ(st.st_mode & 07777, 0604u);
  if (geteuid() == 0) {
    CHECK_EQ(st.st_uid, 1234u);
    CHECK_EQ(st.st_gid, 2345u);
  }
  CHECK_EQ(st.st_mtim.tv_sec, 1'100'000'000);
  CHECK_EQ(st.st_mtim.tv_nsec, 7);
  CHECK_EQ(st.st_atim.tv_sec, 1'000'000'000);
}

// Looking at a file is not changing it.
CASE(times_stay) {
  int fd = made("file", "left alone");
  timespec times[2] = {{1'000'000'000, 5}, {1'100'000'000, 7}};
  MUST(futimens(fd, times) == 0);
  struct stat before = status_of(fd);
  subject::hold();
  struct stat after = status_of(fd);
  CHECK_EQ(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
  CHECK_EQ(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
  CHECK_EQ(after.st_ctim.tv_sec, before.st_ctim.tv_sec);
  CHECK_EQ(after.st_ctim.tv_nsec, before.st_ctim.tv_nsec);
}

CASE(times_of_a_mapped_file) {
  int fd = made("file", "mapped");
  MUST(ftruncate(fd, 4096) == 0);
  auto* memory = subject::map(4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  memory[0] = 'M';
  MUST(msync(memory, 4096, MS_SYNC) == 0);
  struct stat before = status_of(fd);
  subject::hold();
  struct stat after = status_of(fd);
  CHECK_EQ(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
  CHECK_EQ(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
  subject::pass(20);
  memory[1] = 'A';
  MUST(msync(memory, 4096, MS_SYNC) == 0);
  struct stat later = status_of(fd);
  CHECK(later.st_mtim.tv_sec > after.st_mtim.tv_sec || later.st_mtim.tv_nsec > after.st_mtim.tv_nsec);
}

CASE(fifo_that_was_removed) {
  MUST(mkfifo(subject::path("fifo"), 0600) == 0);
  int both = open(subject::path("fifo"), O_RDWR);
  int reader = open(subject::path("fifo"), O_RDONLY);
  MUST(both >= 0 && reader >= 0 && write(both, "inside", 6) == 6 && unlink(subject::path("fifo")) == 0);
  subject::hold();
  char back[16] = {};
  CHECK_EQ(read(reader, back, sizeof back), 6);
  CHECK_EQ(strcmp(back, "inside"), 0);
  CHECK_EQ(write(both, "more", 4), 4);
  CHECK_EQ(read(reader, back, sizeof back), 4);
  CHECK(!subject::marked("fifo"));
}

CASE(device_that_was_removed) {
  if (mknod(subject::path("null"), S_IFCHR | 0600, makedev(1, 3)) != 0) SKIP("only root makes devices");
  int fd = open(subject::path("null"), O_RDWR);
  if (fd < 0) SKIP("devices do not work on this file system");
  MUST(unlink(subject::path("null")) == 0);
  subject::hold();
  CHECK_EQ(write(fd, "away", 4), 4);
  CHECK_EQ(status_of(fd).st_rdev, makedev(1, 3));
  CHECK(!subject::marked("null"));
}

CASE(direct_and_synchronous) {
  made("file", "x");
  int direct = open(subject::path("file"), O_RDWR | O_DIRECT);
  if (direct < 0) SKIP("no direct I/O on this file system");
  int sync = open(subject::path("file"), O_RDWR | O_SYNC | O_NONBLOCK | O_APPEND);
  int data = open(subject::path("file"), O_WRONLY | O_DSYNC | O_NOATIME);
  MUST(sync >= 0 && data >= 0);
  int flags[3] = {fcntl(direct, F_GETFL), fcntl(sync, F_GETFL), fcntl(data, F_GETFL)};
  subject::hold();
  CHECK_EQ(fcntl(direct, F_GETFL), flags[0]);
  CHECK_EQ(fcntl(sync, F_GETFL), flags[1]);
  CHECK_EQ(fcntl(data, F_GETFL), flags[2]);
}

// What the mode of the file forbids by now.
CASE(opened_before_the_mode_changed) {
  int fd = made("file", "secret");
  MUST(fchmod(fd, 0) == 0);
  subject::hold();
  CHECK(holds(fd, "secret"));
  CHECK_EQ(status_of(fd).st_mode & 0777, 0u);
}

CASE(reading_a_directory) {
  MUST(mkdir(subject::path("many"), 0700) == 0);
  for (int i = 0; i < 300; ++i) {
    char name[32];
    snprintf(name, sizeof name, "many/file-%03d", i);
    close(made(name, "x"));
  }
  DIR* directory = opendir(subject::path("many"));
  MUST(directory != nullptr);
  int count = 0;
  for (; count < 100; ++count) MUST(readdir(directory) != nullptr);
  subject::hold();
  while (readdir(directory) != nullptr) ++count;
  CHECK_EQ(count, 302);
}

CASE(program_that_was_removed) {
  static char name[800];
  snprintf(name, sizeof name, "%s/program", subject::g_dir);
  // The case runs a copy of this program, which then removes its own file.
  pid_t pid = subject::child([] {
    char self[512] = {};
    MUST(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    int from = open(self, O_RDONLY), to = open(name, O_WRONLY | O_CREAT, 0755);
    MUST(from >= 0 && to >= 0);
    struct stat st = {};
    MUST(fstat(from, &st) == 0);
    for (off_t done = 0; done < st.st_size;) {
      ssize_t moved = copy_file_range(from, nullptr, to, nullptr, st.st_size - done, 0);
      MUST(moved > 0);
      done += moved;
    }
    close(to);
    execl(name, name, "program_without_a_file", nullptr);
    _exit(1);
  });
  JOIN(pid);
}
CASE_WITH(program_without_a_file, subject::kPart) {
  char before[800] = {}, after[800] = {};
  MUST(readlink("/proc/self/exe", before, sizeof before - 1) > 0 && unlink(before) == 0);
  MUST(readlink("/proc/self/exe", before, sizeof before - 1) > 0);
  subject::hold();
  CHECK(readlink("/proc/self/exe", after, sizeof after - 1) > 0);
  if (strcmp(before, after) != 0) subject::say("was %s, is %s", before, after);
  CHECK_EQ(strcmp(before, after), 0);
}

// Memory that is mapped from files, memfds, and the two kinds of named shared memory.
#include <sys/ipc.h>
#include <sys/shm.h>

#include "subject.h"

using subject::differs;
using subject::fill;
using subject::map;

namespace {
constexpr size_t kPage = 4096;
constexpr size_t kSize = 64 * kPage;

int file_with_content(const char* name, uint64_t seed) {
  static uint8_t buffer[kSize];
  fill(buffer, kSize, seed);
  int fd = open(subject::path(name), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
  MUST(fd >= 0);
  MUST(write(fd, buffer, kSize) == static_cast<ssize_t>(kSize));
  return fd;
}
}  // namespace

CASE(private_clean) {
  int fd = file_with_content("file", 1);
  auto* memory = map(kSize, PROT_READ, MAP_PRIVATE, fd);
  close(fd);
  subject::hold();
  CHECK_EQ(differs(memory, kSize, 1), -1);
}

CASE(private_dirtied) {
  int fd = file_with_content("file", 2);
  auto* memory = map(kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
  memory[5 * kPage] ^= 0xff;
  uint8_t changed = memory[5 * kPage];
  subject::hold();
  CHECK_EQ(memory[5 * kPage], changed);
  memory[5 * kPage] ^= 0xff;
  CHECK_EQ(differs(memory, kSize, 2), -1);
  // The file itself never saw the write, and a discarded page is the file's again.
  uint8_t byte;
  CHECK_EQ(pread(fd, &byte, 1, 5 * kPage), 1);
  CHECK_EQ(byte, memory[5 * kPage]);
  memory[7 * kPage] ^= 0xff;
  CHECK_EQ(madvise(memory + 7 * kPage, kPage, MADV_DONTNEED), 0);
  CHECK_EQ(differs(memory, kSize, 2), -1);
}

CASE(private_dirtied_then_read_only) {
  int fd = file_with_content("file", 3);
  auto* memory = map(kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
  fill(memory, kSize / 2, 33);
  MUST(mprotect(memory, kSize, PROT_READ) == 0);
  subject::hold();
  CHECK_EQ(differs(memory, kSize / 2, 33), -1);
  uint8_t rest[kPage];
  CHECK_EQ(pread(fd, rest, kPage, kSize / 2), static_cast<ssize_t>(kPage));
  CHECK_EQ(memcmp(memory + kSize / 2, rest, kPage), 0);
}

CASE(private_offset) {
  int fd = file_with_content("file", 4);
  auto* memory = map(8 * kPage, PROT_READ, MAP_PRIVATE, fd, 16 * kPage);
  uint8_t expected[8 * kPage];
  MUST(pread(fd, expected, sizeof expected, 16 * kPage) == sizeof expected);
  subject::hold();
  CHECK_EQ(memcmp(memory, expected, sizeof expected), 0);
}

// The area is larger than the file; its tail inside the last page is the process's own.
CASE(private_beyond_the_end) {
  int fd = open(subject::path("file"), O_CREAT | O_RDWR, 0644);
  MUST(fd >= 0 && write(fd, "hello", 5) == 5);
  auto* memory = map(4 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
  memcpy(memory + 100, "tail", 5);
  subject::hold();
  CHECK_EQ(memcmp(memory, "hello", 5), 0);
  CHECK_EQ(strcmp(reinterpret_cast<char*>(memory) + 100, "tail"), 0);
  CHECK_EQ(munmap(memory, 4 * kPage), 0);
}

CASE(shared_file) {
  int fd = file_with_content("file", 5);
  auto* memory = map(kSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  fill(memory, kSize, 6);
  subject::hold();
  CHECK_EQ(differs(memory, kSize, 6), -1);
  memory[3] = 0x42;
  uint8_t byte = 0;
  CHECK_EQ(pread(fd, &byte, 1, 3), 1);
  CHECK_EQ(byte, 0x42);
  byte = 0x43;
  CHECK_EQ(pwrite(fd, &byte, 1, 4), 1);
  CHECK_EQ(memory[4], 0x43);
}

CASE(shared_file_read_only) {
  close(file_with_content("file", 7));
  int fd = open(subject::path("file"), O_RDONLY | O_CLOEXEC);
  auto* memory = map(kSize, PROT_READ, MAP_SHARED, fd);
  close(fd);
  subject::hold();
  CHECK_EQ(differs(memory, kSize, 7), -1);
  // The descriptor was read-only, so the kernel must still refuse to make the area writable.
  CHECK_EQ(mprotect(memory, kPage, PROT_READ | PROT_WRITE), -1);
}

CASE(unlinked_private) {
  int fd = file_with_content("file", 8);
  auto* memory = map(kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
  close(fd);
  MUST(unlink(subject::path("file")) == 0);
  fill(memory, kPage, 88);
  subject::hold();
  CHECK_EQ(differs(memory, kPage, 88), -1);
  uint8_t* expected = map(kSize);
  fill(expected, kSize, 8);
  CHECK_EQ(memcmp(memory + kPage, expected + kPage, kSize - kPage), 0);
}

CASE(unlinked_shared) {
  int fd = file_with_content("file", 9);
  auto* memory = map(kSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  MUST(unlink(subject::path("file")) == 0);
  memory[0] ^= 1;
  subject::hold();
  memory[0] ^= 1;
  CHECK_EQ(differs(memory, kSize, 9), -1);
  uint8_t byte;
  memory[9] = 0x99;
  CHECK_EQ(pread(fd, &byte, 1, 9), 1);
  CHECK_EQ(byte, 0x99);
}

CASE(memfd_shared) {
  int fd = memfd_create("subject", MFD_CLOEXEC);
  MUST(fd >= 0 && ftruncate(fd, kSize) == 0);
  auto* memory = map(kSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  fill(memory, kSize, 10);
  lseek(fd, 123, SEEK_SET);
  subject::hold();
  CHECK_EQ(differs(memory, kSize, 10), -1);
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 123);
  struct stat st;
  CHECK_EQ(fstat(fd, &st), 0);
  CHECK_EQ(st.st_size, static_cast<off_t>(kSize));
  uint8_t byte = 0x77;
  CHECK_EQ(pwrite(fd, &byte, 1, 5), 1);
  CHECK_EQ(memory[5], 0x77);
}

CASE(memfd_only_mapped) {
  int fd = memfd_create("subject", 0);
  MUST(fd >= 0 && ftruncate(fd, kSize) == 0);
  auto* memory = map(kSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  close(fd);
  fill(memory, kSize, 11);
  pid_t pid = subject::child([&] {
    subject::mark("born");
    subject::await("go");
    CHECK_EQ(differs(memory, kSize, 11), -1);
    memory[0] = 0x5a;
    subject::mark("stored");
  });
  subject::await("born");
  subject::hold();
  subject::await("stored");
  CHECK_EQ(memory[0], 0x5a);
  JOIN(pid);
}

CASE(memfd_private) {
  int fd = memfd_create("subject", 0);
  MUST(fd >= 0 && ftruncate(fd, kSize) == 0);
  auto* whole = map(kSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  fill(whole, kSize, 12);
  auto* own = map(kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
  memset(own, 0x3c, kPage);
  subject::hold();
  CHECK_EQ(differs(whole, kSize, 12), -1);
  CHECK_EQ(own[0], 0x3c);
  CHECK_EQ(memcmp(own + kPage, whole + kPage, kSize - kPage), 0);
}

namespace {
// The file that is mapped there, of kSize bytes.
int open_mapped(unsigned char* start) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/map_files/%lx-%lx", reinterpret_cast<long>(start),
           reinterpret_cast<long>(start + kSize));
  return open(link, O_RDWR);
}
}  // namespace

// Memory that is shared and has no name can be opened, too, and mapped as a private copy.
CASE(private_copy_of_shared_anonymous_memory) {
  auto* shared = map(kSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  fill(shared, kSize, 14);
  int fd = open_mapped(shared);
  if (fd < 0) SKIP("this user may not open what a process has mapped");
  auto* own = map(kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
  own[kPage] = 0x3c;
  subject::hold();
  CHECK_EQ(differs(shared, kSize, 14), -1);
  CHECK_EQ(own[kPage], 0x3c);
  CHECK_EQ(memcmp(own, shared, kPage), 0);
  CHECK_EQ(memcmp(own + 2 * kPage, shared + 2 * kPage, kSize - 2 * kPage), 0);
  shared[2 * kPage] = 0x55;
  CHECK_EQ(own[2 * kPage], 0x55);
}

// The same where nobody has it open any more: all that could be read there is still there.
CASE(private_copy_of_shared_anonymous_memory_that_is_not_open) {
  auto* shared = map(kSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  fill(shared, kSize, 15);
  int fd = open_mapped(shared);
  if (fd < 0) SKIP("this user may not open what a process has mapped");
  auto* own = map(kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
  close(fd);
  own[kPage] = 0x3d;
  subject::hold();
  CHECK_EQ(differs(shared, kSize, 15), -1);
  CHECK_EQ(own[kPage], 0x3d);
  CHECK_EQ(memcmp(own, shared, kPage), 0);
  CHECK_EQ(memcmp(own + 2 * kPage, shared + 2 * kPage, kSize - 2 * kPage), 0);
}

// What memfd_create() gave is not counted as a writer, so the program in it can be executed while it is open;
// one that was opened for writing is.
CASE(memfd_that_is_executed) {
  int fd = memfd_create("script", 0);
  static const char script[] = "#!/bin/true";
  MUST(fd >= 0 && write(fd, script, sizeof script - 1) == static_cast<ssize_t>(sizeof script - 1));
  MUST(lseek(fd, 2, SEEK_SET) == 2 && fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK) == 0);
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  int reader = open(link, O_RDONLY);
  MUST(reader >= 0);
  auto executed = [fd] {
    pid_t pid = fork();
    MUST(pid >= 0);
    if (pid == 0) {
      char name[] = "true";
      char* arguments[] = {name, nullptr};
      char* environment[] = {nullptr};
      syscall(SYS_execveat, fd, "", arguments, environment, AT_EMPTY_PATH);
      _exit(errno == ETXTBSY ? 26 : 99);
    }
    int status = -1;
    MUST(waitpid(pid, &status, 0) == pid);
    return WEXITSTATUS(status);
  };
  MUST(executed() == 0);
  subject::hold();
  CHECK_EQ(executed(), 0);
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 2);
  CHECK_EQ(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK), O_RDWR | O_APPEND | O_NONBLOCK);
  int writer = open(link, O_RDWR);
  CHECK(writer >= 0);
  CHECK_EQ(executed(), 26);
}

CASE(memfd_not_mapped) {
  int fd = memfd_create("quiet", MFD_ALLOW_SEALING);
  static uint8_t buffer[kSize];
  fill(buffer, kSize, 13);
  MUST(fd >= 0 && write(fd, buffer, kSize) == static_cast<ssize_t>(kSize));
  subject::hold();
  memset(buffer, 0, kSize);
  CHECK_EQ(pread(fd, buffer, kSize, 0), static_cast<ssize_t>(kSize));
  CHECK_EQ(differs(buffer, kSize, 13), -1);
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), static_cast<off_t>(kSize));
  CHECK_EQ(fcntl(fd, F_GET_SEALS), 0);
}

CASE(memfd_sealed) {
  int fd = memfd_create("sealed", MFD_ALLOW_SEALING);
  MUST(fd >= 0 && write(fd, "fixed", 6) == 6);
  int seals = F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_WRITE;
  MUST(fcntl(fd, F_ADD_SEALS, seals) == 0);
  auto* memory = map(kPage, PROT_READ, MAP_SHARED, fd);
  subject::hold();
  CHECK_EQ(fcntl(fd, F_GET_SEALS), seals);
  CHECK_EQ(strcmp(reinterpret_cast<char*>(memory), "fixed"), 0);
  CHECK_EQ(pwrite(fd, "x", 1, 0), -1);
  CHECK_EQ(ftruncate(fd, 100), -1);
}

CASE(posix_shared_memory) {
  char name[64];
  snprintf(name, sizeof name, "/stasis-subject-%d-%lld", getpid(),
           static_cast<long long>(subject::nanoseconds(CLOCK_REALTIME)));
  int fd = shm_open(name, O_CREAT | O_RDWR, 0600);
  MUST(fd >= 0 && ftruncate(fd, kSize) == 0);
  auto* memory = map(kSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  fill(memory, kSize, 14);
  shm_unlink(name);
  subject::hold();
  CHECK_EQ(differs(memory, kSize, 14), -1);
  CHECK_EQ(pwrite(fd, "Z", 1, 0), 1);
  CHECK_EQ(memory[0], 'Z');
}

CASE(sysv_shared_memory) {
  int id = shmget(IPC_PRIVATE, kSize, IPC_CREAT | 0600);
  MUST(id >= 0);
  auto* memory = static_cast<uint8_t*>(shmat(id, nullptr, 0));
  MUST(memory != reinterpret_cast<uint8_t*>(-1));
  fill(memory, kSize, 15);
  subject::hold();
  CHECK_EQ(differs(memory, kSize, 15), -1);
  auto* second = static_cast<uint8_t*>(shmat(id, nullptr, 0));
  CHECK(second != reinterpret_cast<uint8_t*>(-1));
  if (second != reinterpret_cast<uint8_t*>(-1)) {
    second[1] = 0x21;
    CHECK_EQ(memory[1], 0x21);
  }
  shmctl(id, IPC_RMID, nullptr);
}

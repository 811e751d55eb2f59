// Reserved huge pages (hugetlb) in every kind of memory that can have them.
#include <sys/ipc.h>
#include <sys/shm.h>

#include "subject.h"

using subject::differs;
using subject::fill;

namespace {

constexpr size_t kPage = 2 << 20;
constexpr size_t kSize = 3 * kPage;

uint8_t* whole_or_skip(void* memory) {
  if (memory == MAP_FAILED) SKIP("no huge pages are reserved on this host");
  return static_cast<uint8_t*>(memory);
}

// That a mapping has such pages only smaps tells.
bool is_huge(const void* memory) {
  char line[512], begin[32];
  const int length = snprintf(begin, sizeof begin, "%lx-", reinterpret_cast<unsigned long>(memory));
  FILE* maps = fopen("/proc/self/smaps", "re");
  MUST(maps != nullptr);
  bool inside = false;
  unsigned long kilobytes = 0;
  while (fgets(line, sizeof line, maps) != nullptr && kilobytes == 0) {
    inside = inside || strncmp(line, begin, static_cast<size_t>(length)) == 0;
    if (inside) sscanf(line, "KernelPageSize: %lu kB", &kilobytes);
  }
  fclose(maps);
  return kilobytes == kPage / 1024;
}

// The second page is never touched by this process, the third by nobody.
void share_across_fork(uint8_t* memory) {
  fill(memory, kPage, 1);
  pid_t pid = subject::child([&] {
    fill(memory + kPage, kPage, 2);
    subject::mark("filled");
    subject::await("checked");
    CHECK_EQ(differs(memory, kPage, 1), -1);
    memory[0] = 0x5a;
    subject::mark("stored");
  });
  subject::await("filled");
  subject::hold();
  CHECK(is_huge(memory));
  CHECK_EQ(differs(memory, kPage, 1), -1);
  CHECK_EQ(differs(memory + kPage, kPage, 2), -1);
  CHECK_EQ(memory[2 * kPage], 0);
  subject::mark("checked");
  subject::await("stored");
  CHECK_EQ(memory[0], 0x5a);
  JOIN(pid);
}

}  // namespace

CASE(shared_across_fork) {
  share_across_fork(whole_or_skip(
      mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0)));
}

CASE(private_of_parent_and_child) {
  auto* memory = whole_or_skip(
      mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0));
  fill(memory, kPage, 3);
  subject::hold();
  CHECK(is_huge(memory));
  CHECK_EQ(differs(memory, kPage, 3), -1);
}

CASE(memfd_open) {
  int fd = memfd_create("huge", MFD_HUGETLB);
  if (fd < 0 || ftruncate(fd, kSize) != 0) SKIP("no huge pages are reserved on this host");
  auto* memory = whole_or_skip(mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  share_across_fork(memory);
  uint8_t byte = 0;
  CHECK_EQ(pread(fd, &byte, 1, 0), 1);
  CHECK_EQ(byte, 0x5a);
}

CASE(memfd_only_mapped) {
  int fd = memfd_create("huge", MFD_HUGETLB);
  if (fd < 0 || ftruncate(fd, kSize) != 0) SKIP("no huge pages are reserved on this host");
  auto* memory = whole_or_skip(mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  close(fd);
  share_across_fork(memory);
}

CASE(system_v_segment) {
  // Not a multiple of the pages.
  int id = shmget(0x57a51, kSize - 100, IPC_CREAT | IPC_EXCL | SHM_HUGETLB | 0600);
  if (id < 0) SKIP("no huge pages are reserved on this host, or this user may not have them");
  auto* memory = whole_or_skip(shmat(id, nullptr, 0));
  share_across_fork(memory);
  CHECK_EQ(shmget(0x57a51, 0, 0), id);
  shmid_ds state;
  CHECK_EQ(shmctl(id, IPC_STAT, &state), 0);
  CHECK_EQ(state.shm_segsz, kSize - 100);
  CHECK_EQ(shmctl(id, IPC_RMID, nullptr), 0);
}

CASE(system_v_segment_that_was_removed) {
  int id = shmget(IPC_PRIVATE, kSize, IPC_CREAT | SHM_HUGETLB | 0600);
  if (id < 0) SKIP("no huge pages are reserved on this host, or this user may not have them");
  auto* memory = whole_or_skip(shmat(id, nullptr, 0));
  MUST(shmctl(id, IPC_RMID, nullptr) == 0);
  share_across_fork(memory);
}

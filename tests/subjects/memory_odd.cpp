// Memory of unusual sorts: shared zeros, deleted files under several mappings, strange protections, stacks.
#include <linux/mman.h>
#include <sys/uio.h>

#include "subject.h"

namespace {

constexpr size_t kPage = 4096;

}  // namespace

CASE(shared_zeros) {
  int zero = open("/dev/zero", O_RDWR);
  MUST(zero >= 0);
  auto* memory = subject::map(8 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, zero);
  close(zero);
  subject::fill(memory, 4 * kPage, 1);
  pid_t pid = subject::child([=] {
    subject::mark("born");
    subject::await("changed");
    CHECK_EQ(memory[5 * kPage], 99);
    memory[6 * kPage] = 98;
  });
  subject::await("born");
  subject::hold();
  CHECK_EQ(subject::differs(memory, 4 * kPage, 1), -1);
  CHECK_EQ(subject::nonzero(memory + 4 * kPage, 4 * kPage), -1);
  memory[5 * kPage] = 99;
  subject::mark("changed");
  JOIN(pid);
  CHECK_EQ(memory[6 * kPage], 98);
}

CASE(private_zeros) {
  int zero = open("/dev/zero", O_RDWR);
  MUST(zero >= 0);
  auto* memory = subject::map(8 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero);
  subject::fill(memory, 4 * kPage, 1);
  subject::hold();
  CHECK_EQ(subject::differs(memory, 4 * kPage, 1), -1);
  CHECK_EQ(subject::nonzero(memory + 4 * kPage, 4 * kPage), -1);
}

CASE(deleted_file_in_several_places) {
  int fd = open(subject::path("file"), O_RDWR | O_CREAT, 0600);
  MUST(fd >= 0 && ftruncate(fd, 8 * kPage) == 0);
  auto* one = subject::map(8 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  auto* two = subject::map(4 * kPage, PROT_READ, MAP_SHARED, fd, 2 * kPage);
  auto* copy = subject::map(8 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
  subject::fill(one, 8 * kPage, 3);
  copy[0] = 1;
  copy[1] = 2;
  MUST(unlink(subject::path("file")) == 0);
  close(fd);
  pid_t pid = subject::child([=] {
    subject::mark("born");
    subject::await("changed");
    CHECK_EQ(two[0], 77);
  });
  subject::await("born");
  subject::hold();
  CHECK_EQ(subject::differs(one, 8 * kPage, 3), -1);
  CHECK_EQ(memcmp(two, one + 2 * kPage, 4 * kPage), 0);
  CHECK_EQ(copy[0], 1);
  CHECK_EQ(copy[1], 2);
  CHECK_EQ(memcmp(copy + 2, one + 2, 8 * kPage - 2), 0);
  one[2 * kPage] = 77;
  CHECK_EQ(two[0], 77);
  subject::mark("changed");
  JOIN(pid);
}

CASE(deleted_file_open_and_mapped) {
  int fd = open(subject::path("file"), O_RDWR | O_CREAT, 0600);
  MUST(fd >= 0 && ftruncate(fd, 4 * kPage) == 0);
  auto* memory = subject::map(4 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  subject::fill(memory, 4 * kPage, 3);
  int reader = open(subject::path("file"), O_RDONLY);
  MUST(reader >= 0 && unlink(subject::path("file")) == 0);
  close(fd);
  subject::hold();
  CHECK_EQ(subject::differs(memory, 4 * kPage, 3), -1);
  memory[100] = 55;
  uint8_t byte = 0;
  CHECK_EQ(pread(reader, &byte, 1, 100), 1);
  CHECK_EQ(byte, 55);
}

CASE(every_protection) {
  uint8_t* maps[8];
  for (int i = 0; i < 8; ++i) {
    int flags = i % 2 == 0 ? MAP_PRIVATE : MAP_SHARED;
    maps[i] = subject::map(2 * kPage, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS);
    subject::fill(maps[i], 2 * kPage, i);
    MUST(mprotect(maps[i], 2 * kPage, i) == 0);
  }
  static char before[1 << 16], after[1 << 16];
  auto protections = [&](char* out) {
    out[0] = 0;
    static char all[1 << 18];
    subject::slurp("/proc/self/maps", all, sizeof all);
    for (uint8_t* map : maps) {
      char start[32];
      snprintf(start, sizeof start, "%lx-", reinterpret_cast<unsigned long>(map));
      const char* line = strstr(all, start);
      if (line == nullptr) continue;
      strncat(out, line, 40);
      strcat(out, "\n");
    }
  };
  protections(before);
  subject::hold();
  protections(after);
  if (strcmp(before, after) != 0) subject::say("were\n%sare\n%s", before, after);
  CHECK_EQ(strcmp(before, after), 0);
  for (int i = 0; i < 8; ++i) {
    CHECK_EQ(mprotect(maps[i], 2 * kPage, PROT_READ), 0);
    CHECK_EQ(subject::differs(maps[i], 2 * kPage, i), -1);
  }
}

CASE(file_read_only_then_writable) {
  // The mapping may be made writable later, since the file is open for writing.
  int fd = open(subject::path("file"), O_RDWR | O_CREAT, 0600);
  MUST(fd >= 0 && ftruncate(fd, 2 * kPage) == 0);
  auto* memory = subject::map(2 * kPage, PROT_READ, MAP_SHARED, fd);
  close(fd);
  subject::hold();
  CHECK_EQ(mprotect(memory, 2 * kPage, PROT_READ | PROT_WRITE), 0);
  memory[5] = 5;
  char byte = 0;
  fd = open(subject::path("file"), O_RDONLY);
  CHECK_EQ(pread(fd, &byte, 1, 5), 1);
  CHECK_EQ(byte, 5);
}

CASE(file_opened_for_reading_stays_so) {
  int fd = open(subject::path("file"), O_RDWR | O_CREAT, 0600);
  MUST(fd >= 0 && ftruncate(fd, 2 * kPage) == 0);
  close(fd);
  fd = open(subject::path("file"), O_RDONLY);
  auto* memory = subject::map(2 * kPage, PROT_READ, MAP_SHARED, fd);
  subject::hold();
  CHECK(mprotect(memory, 2 * kPage, PROT_READ | PROT_WRITE) < 0);
  CHECK_EQ(memory[0], 0);
}

// Nothing may be called here that asks for the time: the C library would look for it in the vDSO.
CASE(without_the_kernels_code) {
  static char maps[1 << 16];
  pid_t pid = subject::child([] {
    MUST(subject::slurp("/proc/self/maps", maps, sizeof maps) > 0);
    for (char* line = strtok(maps, "\n"); line != nullptr; line = strtok(nullptr, "\n")) {
      unsigned long start = 0, end = 0;
      if (strstr(line, "[vdso]") == nullptr && strstr(line, "[vvar") == nullptr) continue;
      MUST(sscanf(line, "%lx-%lx", &start, &end) == 2);
      MUST(munmap(reinterpret_cast<void*>(start), end - start) == 0);
    }
    subject::mark("without");
    while (!subject::told_to_go()) {
      timespec moment = {0, 5'000'000};
      syscall(SYS_nanosleep, &moment, nullptr);
    }
    CHECK(subject::slurp("/proc/self/maps", maps, sizeof maps) > 0);
    CHECK(strstr(maps, "[vdso]") == nullptr);
    CHECK(strstr(maps, "[vvar") == nullptr);
  });
  subject::await("without");
  subject::hold();
  JOIN(pid);
}

CASE(stacks_that_grow_down) {
  auto* reserve = subject::map(64 * kPage, PROT_NONE);
  MUST(munmap(reserve, 64 * kPage) == 0);
  auto* stack = static_cast<uint8_t*>(mmap(reserve + 60 * kPage, 2 * kPage, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0));
  MUST(stack == reserve + 60 * kPage);
  stack[0] = 1;
  stack[-1] = 2;
  stack[-static_cast<long>(kPage) - 1] = 3;
  subject::hold();
  CHECK_EQ(stack[0], 1);
  CHECK_EQ(stack[-1], 2);
  CHECK_EQ(stack[-static_cast<long>(kPage) - 1], 3);
  stack[-static_cast<long>(2 * kPage) - 1] = 4;
  CHECK_EQ(stack[-static_cast<long>(2 * kPage) - 1], 4);
}

CASE_WITH(very_many_mappings, subject::kSlow) {
  constexpr size_t kCount = 5000;
  auto* memory = subject::map(kCount * 2 * kPage);
  for (size_t i = 0; i < kCount; ++i) {
    memory[i * 2 * kPage] = static_cast<uint8_t>(i);
    MUST(mprotect(memory + i * 2 * kPage, kPage, PROT_READ) == 0);
  }
  subject::hold();
  for (size_t i = 0; i < kCount; ++i) {
    if (memory[i * 2 * kPage] != static_cast<uint8_t>(i)) {
      CHECK_EQ(i, kCount);
      break;
    }
  }
}

CASE(mapping_beyond_the_file) {
  int fd = open(subject::path("file"), O_RDWR | O_CREAT, 0600);
  MUST(fd >= 0 && write(fd, "short", 5) == 5);
  auto* memory = subject::map(4 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  auto* copy = subject::map(4 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
  copy[1] = 'H';
  subject::hold();
  CHECK_EQ(memcmp(memory, "short", 6), 0);
  CHECK_EQ(memcmp(copy, "sHort", 6), 0);
  CHECK_EQ(ftruncate(fd, 2 * kPage), 0);
  memory[kPage] = 9;
  CHECK_EQ(copy[kPage], 9);
}

CASE(anonymous_shared_memory_by_its_link) {
  auto* memory = subject::map(4 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  subject::fill(memory, 4 * kPage, 8);
  char name[128];
  snprintf(name, sizeof name, "/proc/self/map_files/%lx-%lx", reinterpret_cast<unsigned long>(memory),
           reinterpret_cast<unsigned long>(memory) + 4 * kPage);
  int fd = open(name, O_RDWR);
  if (fd < 0) SKIP("only root can open it");
  subject::hold();
  CHECK_EQ(subject::differs(memory, 4 * kPage, 8), -1);
  memory[9] = 123;
  uint8_t byte = 0;
  CHECK_EQ(pread(fd, &byte, 1, 9), 1);
  CHECK_EQ(byte, 123);
}

CASE(moved_pieces_of_shared_memory) {
  auto* memory = subject::map(8 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  subject::fill(memory, 8 * kPage, 8);
  auto* place = subject::map(8 * kPage, PROT_NONE);
  MUST(mremap(memory + 2 * kPage, 2 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, place) == place);
  auto* twin = mremap(memory, 0, 2 * kPage, MREMAP_MAYMOVE);
  MUST(twin != MAP_FAILED);
  subject::hold();
  CHECK_EQ(memcmp(twin, memory, 2 * kPage), 0);
  memory[0] = 200;
  CHECK_EQ(*static_cast<uint8_t*>(twin), 200);
  static uint8_t expected[8 * kPage];
  subject::fill(expected, 8 * kPage, 8);
  CHECK_EQ(memcmp(place, expected + 2 * kPage, 2 * kPage), 0);
  CHECK_EQ(memcmp(memory + 4 * kPage, expected + 4 * kPage, 4 * kPage), 0);
}

CASE(old_system_call_page) {
  // Calls through [vsyscall], where the kernel still emulates them.
  static char maps[1 << 18];
  subject::slurp("/proc/self/maps", maps, sizeof maps);
  if (strstr(maps, "[vsyscall]") == nullptr) SKIP("this kernel has none");
  auto* time_of = reinterpret_cast<time_t (*)(time_t*)>(0xffffffffff600400);
  MUST(time_of(nullptr) > 0);
  subject::hold();
  CHECK_BETWEEN(time_of(nullptr), time(nullptr) - 2, time(nullptr) + 2);
}

CASE(sealed_and_guarded) {
  constexpr int kGuard = 102;  // MADV_GUARD_INSTALL, Linux 6.13
  auto* memory = subject::map(8 * kPage);
  subject::fill(memory, 8 * kPage, 4);
  if (madvise(memory + 2 * kPage, kPage, kGuard) != 0) SKIP("this kernel has no guard regions");
  subject::hold();
  iovec here = {new char[kPage], kPage}, there = {memory + 2 * kPage, kPage};
  CHECK(process_vm_readv(getpid(), &here, 1, &there, 1, 0) < 0);
  static uint8_t expected[8 * kPage];
  subject::fill(expected, 8 * kPage, 4);
  CHECK_EQ(memcmp(memory, expected, 2 * kPage), 0);
  CHECK_EQ(memcmp(memory + 3 * kPage, expected + 3 * kPage, 5 * kPage), 0);
}

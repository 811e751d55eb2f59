// What processes have in common since a fork: the pages that nobody has written to since are there once.
#include "subject.h"

using subject::fill;
using subject::map;

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kMiB = 1 << 20;

// Pages of this process that no other process has as well. Of those that are not in memory nothing is known:
// they are read first, and by all who have them before anybody asks.
long exclusive(const uint8_t* memory, size_t size) {
  constexpr uint64_t kPresent = uint64_t{1} << 63;
  constexpr uint64_t kExclusive = uint64_t{1} << 56;
  const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  MUST(fd >= 0);
  long count = 0;
  for (size_t at = 0; at < size; at += kPage) {
    uint64_t entry = 0;
    const auto offset = static_cast<off_t>((reinterpret_cast<uintptr_t>(memory) + at) / kPage * 8);
    MUST(pread(fd, &entry, 8, offset) == 8);
    if ((entry & kPresent) == 0 || (entry & kExclusive) != 0) ++count;
  }
  close(fd);
  return count;
}

void touch(const uint8_t* memory, size_t size) {
  for (size_t at = 0; at < size; at += kPage)
    [[maybe_unused]] uint8_t value = *static_cast<const volatile uint8_t*>(memory + at);
}

// Says that this process has read its pages, and waits for the others.
void meet(const char* own, std::initializer_list<const char*> others) {
  subject::mark(own);
  for (const char* other : others) subject::await(other);
}

// Four parts of a memory that was filled before the fork: nobody writes to the first, the child to the
// second, the parent to the third, and the child gives the fourth back.
void check_parts(uint8_t* memory, size_t part, const char* prefix) {
  fill(memory, part, 1);
  fill(memory + part, part, 2);
  fill(memory + 2 * part, part, 3);
  fill(memory + 3 * part, part, 4);
  char written[64], child[64], parent[64], done[64];
  snprintf(written, sizeof written, "%s-written", prefix);
  snprintf(child, sizeof child, "%s-child", prefix);
  snprintf(parent, sizeof parent, "%s-parent", prefix);
  snprintf(done, sizeof done, "%s-done", prefix);
  pid_t pid = subject::child([&] {
    fill(memory + part, part, 5);
    MUST(madvise(memory + 3 * part, part, MADV_DONTNEED) == 0);
    subject::mark(written);
    subject::await("go");
    CHECK_EQ(subject::differs(memory, part, 1), -1);
    CHECK_EQ(subject::differs(memory + part, part, 5), -1);
    CHECK_EQ(subject::differs(memory + 2 * part, part, 3), -1);
    CHECK_EQ(subject::nonzero(memory + 3 * part, part), -1);
    meet(child, {parent});
    CHECK_EQ(exclusive(memory, part), 0);
    // What is written by one is not seen by the other.
    fill(memory, part, 6);
    subject::mark(done);
  });
  subject::await(written);
  fill(memory + 2 * part, part, 7);
  subject::hold();
  CHECK_EQ(subject::differs(memory, part, 1), -1);
  CHECK_EQ(subject::differs(memory + part, part, 2), -1);
  CHECK_EQ(subject::differs(memory + 2 * part, part, 7), -1);
  CHECK_EQ(subject::differs(memory + 3 * part, part, 4), -1);
  meet(parent, {child});
  JOIN(pid);
  CHECK_EQ(subject::differs(memory, part, 1), -1);
}

}  // namespace

CASE(small) { check_parts(map(64 * kPage), 16 * kPage, "small"); }

// Enough to be mapped from the image by a restart that maps.
CASE(large) { check_parts(map(16 * kMiB), 4 * kMiB, "large"); }

// Every second page, so that parent and child have pieces of one page each.
CASE(alternating) {
  constexpr size_t kPages = 512;
  uint8_t* memory = map(kPages * kPage);
  for (size_t i = 0; i < kPages; ++i) fill(memory + i * kPage, kPage, i);
  pid_t pid = subject::child([&] {
    for (size_t i = 0; i < kPages; i += 2) fill(memory + i * kPage, kPage, 1000 + i);
    subject::mark("written");
    subject::await("go");
    touch(memory, kPages * kPage);
    meet("child", {"parent"});
    for (size_t i = 0; i < kPages; ++i) {
      CHECK_EQ(subject::differs(memory + i * kPage, kPage, i % 2 == 0 ? 1000 + i : i), -1);
      CHECK_EQ(exclusive(memory + i * kPage, kPage), i % 2 == 0 ? 1 : 0);
    }
    meet("looked", {"parent-looked"});
  });
  subject::await("written");
  subject::hold();
  touch(memory, kPages * kPage);
  meet("parent", {"child"});
  for (size_t i = 0; i < kPages; ++i) {
    CHECK_EQ(subject::differs(memory + i * kPage, kPage, i), -1);
    CHECK_EQ(exclusive(memory + i * kPage, kPage), i % 2 == 0 ? 1 : 0);
  }
  meet("parent-looked", {"looked"});
  JOIN(pid);
}

// The grandchild has of its grandparent what its parent has changed since, and of its parent what that had
// changed before.
CASE(three_generations) {
  constexpr size_t kPart = 32 * kPage;
  uint8_t* memory = map(3 * kPart);
  fill(memory, kPart, 1);
  fill(memory + kPart, kPart, 2);
  fill(memory + 2 * kPart, kPart, 3);
  pid_t pid = subject::child([&] {
    fill(memory + kPart, kPart, 4);
    pid_t below = subject::child([&] {
      subject::mark("below");
      subject::await("go");
      CHECK_EQ(subject::differs(memory, kPart, 1), -1);
      CHECK_EQ(subject::differs(memory + kPart, kPart, 4), -1);
      CHECK_EQ(subject::differs(memory + 2 * kPart, kPart, 3), -1);
      meet("third", {"first", "second"});
      CHECK_EQ(exclusive(memory, 3 * kPart), 0);
      meet("looked", {"first-looked", "second-looked"});
    });
    subject::await("below");
    fill(memory + 2 * kPart, kPart, 5);
    subject::mark("written");
    subject::await("go");
    CHECK_EQ(subject::differs(memory, kPart, 1), -1);
    CHECK_EQ(subject::differs(memory + kPart, kPart, 4), -1);
    CHECK_EQ(subject::differs(memory + 2 * kPart, kPart, 5), -1);
    meet("second", {"first", "third"});
    CHECK_EQ(exclusive(memory, 2 * kPart), 0);
    CHECK_EQ(exclusive(memory + 2 * kPart, kPart), static_cast<long>(kPart / kPage));
    meet("second-looked", {"looked", "first-looked"});
    JOIN(below);
  });
  subject::await("written");
  subject::hold();
  CHECK_EQ(subject::differs(memory, kPart, 1), -1);
  CHECK_EQ(subject::differs(memory + kPart, kPart, 2), -1);
  CHECK_EQ(subject::differs(memory + 2 * kPart, kPart, 3), -1);
  meet("first", {"second", "third"});
  CHECK_EQ(exclusive(memory, kPart), 0);
  CHECK_EQ(exclusive(memory + kPart, kPart), static_cast<long>(kPart / kPage));
  CHECK_EQ(exclusive(memory + 2 * kPart, kPart), 0);
  meet("first-looked", {"looked", "second-looked"});
  JOIN(pid);
}

// After the fork both change what is mapped: mappings are divided, shrink, disappear, and others come where
// they were.
CASE(other_mappings) {
  constexpr size_t kPart = 32 * kPage;
  uint8_t* memory = map(6 * kPart);
  for (size_t i = 0; i < 6; ++i) fill(memory + i * kPart, kPart, i);
  pid_t pid = subject::child([&] {
    MUST(mprotect(memory + kPart, kPart, PROT_READ) == 0);
    MUST(munmap(memory + 2 * kPart, kPart) == 0);
    MUST(munmap(memory + 3 * kPart, kPart) == 0);
    MUST(mmap(memory + 3 * kPart, kPart, PROT_READ | PROT_WRITE,
              MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == memory + 3 * kPart);
    fill(memory + 3 * kPart, kPart, 13);
    subject::mark("written");
    subject::await("go");
    for (size_t i : {0, 1, 4, 5}) CHECK_EQ(subject::differs(memory + i * kPart, kPart, i), -1);
    CHECK_EQ(subject::differs(memory + 3 * kPart, kPart, 13), -1);
    CHECK_EQ(msync(memory + 2 * kPart, kPart, MS_ASYNC), -1);
    meet("child", {"parent"});
    CHECK_EQ(exclusive(memory, 2 * kPart), 0);
    CHECK_EQ(exclusive(memory + 5 * kPart, kPart), 0);
    meet("looked", {"parent-looked"});
  });
  subject::await("written");
  MUST(munmap(memory + 4 * kPart, kPart) == 0);
  subject::hold();
  for (size_t i : {0, 1, 2, 3, 5}) CHECK_EQ(subject::differs(memory + i * kPart, kPart, i), -1);
  CHECK_EQ(msync(memory + 4 * kPart, kPart, MS_ASYNC), -1);
  meet("parent", {"child"});
  CHECK_EQ(exclusive(memory, 2 * kPart), 0);
  CHECK_EQ(exclusive(memory + 5 * kPart, kPart), 0);
  meet("parent-looked", {"looked"});
  JOIN(pid);
}

// Of a private mapping of a file, pages that were written to.
CASE(of_a_file) {
  constexpr size_t kPart = 32 * kPage;
  const int fd = open(subject::path("file"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  MUST(fd >= 0 && ftruncate(fd, 3 * kPart) == 0);
  uint8_t* whole = map(3 * kPart, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  fill(whole, kPart, 1);
  fill(whole + kPart, kPart, 2);
  fill(whole + 2 * kPart, kPart, 3);
  uint8_t* memory = map(3 * kPart, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
  munmap(whole, 3 * kPart);
  fill(memory, kPart, 4);
  fill(memory + kPart, kPart, 5);
  pid_t pid = subject::child([&] {
    // It shows the file again.
    MUST(madvise(memory + kPart, kPart, MADV_DONTNEED) == 0);
    subject::mark("written");
    subject::await("go");
    CHECK_EQ(subject::differs(memory, kPart, 4), -1);
    CHECK_EQ(subject::differs(memory + kPart, kPart, 2), -1);
    CHECK_EQ(subject::differs(memory + 2 * kPart, kPart, 3), -1);
    meet("child", {"parent"});
    CHECK_EQ(exclusive(memory, kPart), 0);
    meet("looked", {"parent-looked"});
  });
  subject::await("written");
  subject::hold();
  CHECK_EQ(subject::differs(memory, kPart, 4), -1);
  CHECK_EQ(subject::differs(memory + kPart, kPart, 5), -1);
  CHECK_EQ(subject::differs(memory + 2 * kPart, kPart, 3), -1);
  meet("parent", {"child"});
  CHECK_EQ(exclusive(memory, kPart), 0);
  meet("parent-looked", {"looked"});
  JOIN(pid);
}

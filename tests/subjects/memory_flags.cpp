// Flags of areas (madvise, mlock) as /proc/self/smaps shows them, and what they do.
#include "subject.h"

namespace {

constexpr size_t kPage = 4096;
char g_smaps[4 << 20];

// Whether the area that contains the address has the two-letter flag.
bool has_flag(const void* address, const char* flag) {
  MUST(subject::slurp("/proc/self/smaps", g_smaps, sizeof g_smaps) > 0);
  auto wanted = reinterpret_cast<uintptr_t>(address);
  bool inside = false;
  for (char* line = strtok(g_smaps, "\n"); line != nullptr; line = strtok(nullptr, "\n")) {
    unsigned long start, end;
    char permissions[8];
    if (sscanf(line, "%lx-%lx %4s", &start, &end, permissions) == 3) inside = wanted >= start && wanted < end;
    if (!inside || strncmp(line, "VmFlags:", 8) != 0) continue;
    char padded[8];
    snprintf(padded, sizeof padded, " %s", flag);
    return strstr(line, padded) != nullptr;
  }
  return false;
}

}  // namespace

CASE(dont_fork) {
  uint8_t* memory = subject::map(4 * kPage);
  subject::fill(memory, 4 * kPage, 1);
  MUST(madvise(memory, 4 * kPage, MADV_DONTFORK) == 0);
  subject::hold();
  CHECK_EQ(subject::differs(memory, 4 * kPage, 1), -1);
  CHECK(has_flag(memory, "dc"));
  JOIN(subject::child([&] { CHECK_EQ(msync(memory, kPage, MS_ASYNC), -1); }));
}

CASE(wipe_on_fork) {
  uint8_t* memory = subject::map(4 * kPage);
  subject::fill(memory, 4 * kPage, 2);
  MUST(madvise(memory, 4 * kPage, MADV_WIPEONFORK) == 0);
  subject::hold();
  CHECK_EQ(subject::differs(memory, 4 * kPage, 2), -1);
  CHECK(has_flag(memory, "wf"));
  JOIN(subject::child([&] { CHECK_EQ(subject::nonzero(memory, 4 * kPage), -1); }));
  CHECK_EQ(subject::differs(memory, 4 * kPage, 2), -1);
}

CASE(dont_dump) {
  uint8_t* memory = subject::map(4 * kPage);
  subject::fill(memory, 4 * kPage, 3);
  MUST(madvise(memory, 4 * kPage, MADV_DONTDUMP) == 0);
  subject::hold();
  CHECK_EQ(subject::differs(memory, 4 * kPage, 3), -1);
  CHECK(has_flag(memory, "dd"));
}

CASE(access_advice) {
  uint8_t* random = subject::map(4 * kPage);
  uint8_t* gap = subject::map(4 * kPage, PROT_READ, MAP_SHARED | MAP_ANONYMOUS);
  MUST(madvise(random, 4 * kPage, MADV_RANDOM) == 0);
  MUST(madvise(gap, 4 * kPage, MADV_SEQUENTIAL) == 0);
  random[0] = 1;
  subject::hold();
  CHECK_EQ(random[0], 1);
  CHECK(has_flag(random, "rr"));
  CHECK(has_flag(gap, "sr"));
}

CASE(huge_page_advice) {
  uint8_t* wanted = subject::map(4 << 20);
  uint8_t* hole = subject::map(kPage, PROT_NONE);
  uint8_t* unwanted = subject::map(4 << 20);
  MUST(madvise(wanted, 4 << 20, MADV_HUGEPAGE) == 0);
  MUST(madvise(unwanted, 4 << 20, MADV_NOHUGEPAGE) == 0);
  wanted[0] = unwanted[0] = 1;
  subject::hold();
  CHECK(has_flag(wanted, "hg"));
  CHECK(has_flag(unwanted, "nh"));
  CHECK_EQ(mprotect(hole, kPage, PROT_READ), 0);
}

CASE(mergeable) {
  uint8_t* memory = subject::map(4 * kPage);
  if (madvise(memory, 4 * kPage, MADV_MERGEABLE) != 0) SKIP("this kernel has no KSM");
  memory[0] = 1;
  subject::hold();
  CHECK(has_flag(memory, "mg"));
}

CASE(locked) {
  uint8_t* memory = subject::map(4 * kPage);
  subject::fill(memory, 4 * kPage, 4);
  if (mlock(memory, 4 * kPage) != 0) SKIP("mlock is not allowed here");
  uint8_t* on_fault = subject::map(4 * kPage, PROT_READ);
  MUST(syscall(SYS_mlock2, on_fault, 4 * kPage, MLOCK_ONFAULT) == 0);
  subject::hold();
  CHECK_EQ(subject::differs(memory, 4 * kPage, 4), -1);
  CHECK(has_flag(memory, "lo"));
  CHECK(has_flag(on_fault, "lo"));
}

CASE(lock_all_future) {
  if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0) SKIP("mlockall is not allowed here");
  uint8_t* before = subject::map(4 * kPage);
  before[0] = 1;
  subject::hold();
  CHECK(has_flag(before, "lo"));
  uint8_t* after = subject::map(4 * kPage);
  CHECK(has_flag(after, "lo"));
}

// Only what comes later, and at once; what was there before is not locked.
CASE(lock_future_only) {
  uint8_t* before = subject::map(4 * kPage);
  before[0] = 1;
  if (mlockall(MCL_FUTURE) != 0) SKIP("mlockall is not allowed here");
  uint8_t* between = subject::map(4 * kPage);
  subject::hold();
  CHECK(!has_flag(before, "lo"));
  CHECK(has_flag(between, "lo"));
  uint8_t* after = subject::map(4 * kPage);
  CHECK(has_flag(after, "lo"));
  CHECK(!has_flag(after, "lf"));
  MUST(munlockall() == 0);
}

CASE(no_reserve) {
  uint8_t* memory =
      subject::map(4 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
  memory[0] = 1;
  subject::hold();
  CHECK_EQ(memory[0], 1);
  CHECK(has_flag(memory, "nr"));
}

CASE(named_area) {
  uint8_t* memory = subject::map(4 * kPage);
  memory[0] = 1;
  if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, memory, 4 * kPage, "subject area") != 0) {
    SKIP("this kernel does not name anonymous areas");
  }
  subject::hold();
  CHECK_EQ(memory[0], 1);
}

CASE_WITH(protection_keys, subject::kMayRefuse) {
  int key = pkey_alloc(0, PKEY_DISABLE_WRITE);
  if (key < 0) SKIP("this processor has no protection keys");
  uint8_t* memory = subject::map(4 * kPage);
  memory[0] = 7;
  MUST(pkey_mprotect(memory, 4 * kPage, PROT_READ | PROT_WRITE, key) == 0);
  subject::hold();
  CHECK_EQ(memory[0], 7);
  CHECK_EQ(pkey_get(key), PKEY_DISABLE_WRITE);
  CHECK_EQ(pkey_set(key, 0), 0);
  memory[0] = 8;
  CHECK_EQ(memory[0], 8);
  CHECK_EQ(pkey_free(key), 0);
}

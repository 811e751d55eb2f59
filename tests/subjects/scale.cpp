// Very much of one thing: nothing of it may be lost, and nothing take time by its square (bench/scale
// measures).
#include <sys/resource.h>
#include <sys/socket.h>

#include "subject.h"

namespace {

constexpr size_t kPage = 4096;

// As many descriptors as this process may have, or skips.
void need_descriptors(rlim_t count) {
  rlimit limit;
  MUST(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  if (limit.rlim_max < 2 * count + 100) SKIP("the hard limit of descriptors is too low");
  limit.rlim_cur = limit.rlim_max;
  MUST(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

}  // namespace

CASE_WITH(mappings, subject::kSlow) {
  constexpr size_t kCount = 16000;
  auto* memory =
      static_cast<uint8_t*>(mmap(nullptr, kCount * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  MUST(memory != MAP_FAILED);
  for (size_t i = 0; i < kCount; i += 2) {
    MUST(mprotect(memory + i * kPage, kPage, PROT_READ | PROT_WRITE) == 0);
    memcpy(memory + i * kPage, &i, sizeof i);
  }
  subject::hold();
  for (size_t i = 0; i < kCount; i += 2) {
    size_t found = 0;
    memcpy(&found, memory + i * kPage, sizeof found);
    CHECK_EQ(found, i);
  }
}

CASE(sockets_with_content) {
  constexpr int kPairs = 1000;
  need_descriptors(2 * kPairs);
  static int ends[kPairs][2];
  for (int i = 0; i < kPairs; ++i) {
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, ends[i]) == 0);
    MUST(write(ends[i][0], &i, sizeof i) == sizeof i);
  }
  subject::hold();
  for (int i = 0; i < kPairs; ++i) {
    int found = -1;
    CHECK_EQ(read(ends[i][1], &found, sizeof found), static_cast<ssize_t>(sizeof found));
    CHECK_EQ(found, i);
    CHECK_EQ(write(ends[i][1], &i, sizeof i), static_cast<ssize_t>(sizeof i));
    CHECK_EQ(read(ends[i][0], &found, sizeof found), static_cast<ssize_t>(sizeof found));
  }
}

CASE(pipes_with_content) {
  constexpr int kPipes = 1000;
  need_descriptors(2 * kPipes);
  static int ends[kPipes][2];
  for (int i = 0; i < kPipes; ++i) {
    if (pipe(ends[i]) != 0) SKIP("this user may not have so many pipes");
    MUST(write(ends[i][1], &i, sizeof i) == sizeof i);
  }
  subject::hold();
  for (int i = 0; i < kPipes; ++i) {
    int found = -1;
    CHECK_EQ(read(ends[i][0], &found, sizeof found), static_cast<ssize_t>(sizeof found));
    CHECK_EQ(found, i);
  }
}

CASE_WITH(descriptors_of_several_processes, subject::kSlow) {
  constexpr int kCount = 2000;
  constexpr int kChildren = 4;
  need_descriptors(kCount);
  static int numbers[kCount];
  for (int i = 0; i < kCount; ++i) {
    numbers[i] = open(subject::path("file"), O_CREAT | O_RDWR, 0600);
    MUST(numbers[i] >= 0);
  }
  pid_t children[kChildren];
  for (int child = 0; child < kChildren; ++child) {
    children[child] = subject::child([&] {
      subject::await("held");
      // Each description is shared by all: each process moves some of them.
      for (int i = child; i < kCount; i += kChildren) CHECK_EQ(lseek(numbers[i], i + 1, SEEK_SET), i + 1);
    });
  }
  subject::hold();
  subject::mark("held");
  for (pid_t child : children) JOIN(child);
  for (int i = 0; i < kCount; ++i) CHECK_EQ(lseek(numbers[i], 0, SEEK_CUR), i + 1);
}

CASE_WITH(children, subject::kSlow) {
  constexpr int kChildren = 100;
  static pid_t children[kChildren];
  for (int i = 0; i < kChildren; ++i) {
    children[i] = subject::child([&] {
      subject::await("held");
      _exit(i & 127);
    });
  }
  subject::hold();
  subject::mark("held");
  for (int i = 0; i < kChildren; ++i) {
    int status = 0;
    CHECK_EQ(waitpid(children[i], &status, 0), children[i]);
    CHECK_EQ(status, (i & 127) << 8);
  }
}

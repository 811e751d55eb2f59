// A program that is linked statically: there is no dynamic linker and no library whose places anybody could
// count on.
#include "subject.h"

CASE(memory_and_threads) {
  auto* memory = subject::map(1 << 20);
  subject::fill(memory, 1 << 20, 1);
  static int value;
  pthread_t t = subject::thread([] {
    subject::await("go");
    value = 5;
  });
  subject::hold();
  pthread_join(t, nullptr);
  CHECK_EQ(value, 5);
  CHECK_EQ(subject::differs(memory, 1 << 20, 1), -1);
  CHECK(malloc(100000) != nullptr);
}

CASE(child_and_pipe) {
  int fds[2];
  MUST(pipe(fds) == 0);
  pid_t pid = subject::child([=] {
    char byte = 0;
    subject::mark("born");
    CHECK_EQ(read(fds[0], &byte, 1), 1);
    CHECK_EQ(byte, 'q');
  });
  subject::await("born");
  subject::await_asleep(pid);
  subject::hold();
  CHECK_EQ(write(fds[1], "q", 1), 1);
  JOIN(pid);
}

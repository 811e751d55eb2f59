// Subjects that lie, each in its own way. The runner must report every one of them as failed: tests that
// cannot fail prove nothing.
#include <stdlib.h>

#include "subject.h"

CASE_WITH(wrong_value, subject::kLiar) {
  subject::hold();
  CHECK_EQ(1, 2);
}
CASE_WITH(wrong_in_a_child, subject::kLiar) {
  pid_t pid = subject::child([] {
    subject::await("go");
    CHECK(!"the child is content");
  });
  subject::hold();
  JOIN(pid);
}
CASE_WITH(crashes, subject::kLiar) {
  subject::hold();
  abort();
}
CASE_WITH(never_ready, subject::kLiar) {
  for (;;) subject::pass(1000);
}
CASE_WITH(never_verifies, subject::kLiar) {
  subject::hold();
  for (;;) subject::pass(1000);
}
CASE_WITH(leaves_before_it_is_told, subject::kLiar) { subject::ready(); }
// Content with itself: what it opens meanwhile is seen from outside only. (Without a checkpoint nobody
// looks.)
CASE_WITH(changes_from_outside, subject::kLiar) {
  subject::ready();
  int pings = 0;
  while (!subject::told_to_go()) {
    if (subject::marked("ping")) {
      if (++pings == 2) MUST(open("/dev/null", O_RDONLY) >= 0);
      subject::answer();
    }
    subject::pass(5);
  }
  CHECK(pings > 1);
}

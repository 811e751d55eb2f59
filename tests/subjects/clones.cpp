// Processes and threads that clone() makes in unusual ways.
#include <linux/sched.h>
#include <sched.h>

#include "subject.h"

namespace {

pid_t cloned(unsigned long flags) {
  return static_cast<pid_t>(syscall(SYS_clone, flags, 0, nullptr, nullptr, 0));
}

}  // namespace

CASE(with_the_parent_of_the_parent) {
  int ends[2];
  MUST(pipe(ends) == 0);
  pid_t middle = subject::child([=] {
    pid_t pid = cloned(CLONE_PARENT | SIGCHLD);
    MUST(pid >= 0);
    if (pid == 0) {
      subject::mark("born");
      subject::await("go");
      _exit(getppid() == 1 ? 1 : 33);
    }
    MUST(write(ends[1], &pid, sizeof pid) == sizeof pid);
    subject::await("go");
  });
  pid_t brother = 0;
  MUST(read(ends[0], &brother, sizeof brother) == sizeof brother);
  subject::await("born");
  subject::hold();
  JOIN(middle);
  int status = 0;
  CHECK_EQ(waitpid(brother, &status, 0), brother);
  CHECK_EQ(WEXITSTATUS(status), 33);
}

CASE(one_table_with_a_brother) {
  // Two children that share the table of each other, and not that of their parent.
  int told[2];
  MUST(pipe(told) == 0);
  pid_t first = subject::child([=] {
    pid_t pid = cloned(CLONE_PARENT | CLONE_FILES | SIGCHLD);
    MUST(pid >= 0);
    if (pid == 0) {
      subject::mark("born");
      subject::await("opened");
      char text[8] = {};
      CHECK_EQ(pread(99, text, 5, 0), 5);
      CHECK_EQ(strcmp(text, "hello"), 0);
      subject::leave();
    }
    MUST(write(told[1], &pid, sizeof pid) == sizeof pid);
    subject::await("go");
    int fd = open(subject::path("file"), O_RDWR | O_CREAT, 0600);
    CHECK(write(fd, "hello", 5) == 5 && dup2(fd, 99) == 99);
    subject::mark("opened");
  });
  pid_t second = 0;
  MUST(read(told[0], &second, sizeof second) == sizeof second);
  subject::await("born");
  subject::hold();
  JOIN(first);
  JOIN(second);
  CHECK(fcntl(99, F_GETFD) < 0);
}

CASE(one_table_with_a_grandchild) {
  pid_t middle = cloned(CLONE_FILES | SIGCHLD);
  MUST(middle >= 0);
  if (middle == 0) {
    pid_t leaf = cloned(CLONE_FILES | CLONE_FS | SIGCHLD);
    if (leaf == 0) {
      subject::mark("born");
      subject::await("opened");
      CHECK(fcntl(99, F_GETFD) >= 0);
      subject::leave();
    }
    JOIN(leaf);
    subject::leave();
  }
  subject::await("born");
  subject::hold();
  CHECK_EQ(dup2(1, 99), 99);
  subject::mark("opened");
  JOIN(middle);
}

CASE(table_of_a_parent_that_has_ended) {
  // An orphan and its brother share a table; init has adopted both.
  int ends[2];
  MUST(pipe(ends) == 0);
  MUST(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
  pid_t middle = subject::child([=] {
    for (int i = 0; i < 2; ++i) {
      pid_t pid = cloned(CLONE_FILES | SIGCHLD);
      if (pid == 0) {
        MUST(write(ends[1], "b", 1) == 1);
        if (i == 0) {
          subject::await("go");
          CHECK_EQ(dup2(1, 98), 98);
          subject::mark("opened");
        } else {
          subject::await("opened");
          CHECK(fcntl(98, F_GETFD) >= 0);
        }
        subject::leave();
      }
    }
  });
  JOIN(middle);
  char two[2];
  MUST(read(ends[0], two, 1) == 1 && read(ends[0], two, 1) == 1);
  subject::hold();
  for (int i = 0; i < 2; ++i) {
    int status = -1;
    CHECK(wait(&status) > 0);
    CHECK_EQ(status, 0);
  }
  CHECK(fcntl(98, F_GETFD) < 0);
}

CASE(directory_shared_by_processes) {
  pid_t pid = cloned(CLONE_FS | SIGCHLD);
  MUST(pid >= 0);
  if (pid == 0) {
    subject::mark("born");
    subject::await("moved");
    char here[64] = {};
    CHECK(getcwd(here, sizeof here) != nullptr && strcmp(here, "/tmp") == 0);
    CHECK_EQ(umask(0), 0123u);
    subject::leave();
  }
  subject::await("born");
  subject::hold();
  CHECK_EQ(chdir("/tmp"), 0);
  umask(0123);
  subject::mark("moved");
  JOIN(pid);
}

// Memory that two processes have in common, as posix_spawn() and some run times make them.
CASE_WITH(one_memory_with_a_child, subject::kMayRefuse) {
  static int shared;
  auto* stack = subject::map(65536);
  pid_t pid = clone(
      [](void*) -> int {
        while (__atomic_load_n(&shared, __ATOMIC_SEQ_CST) == 0) subject::pass(1);
        __atomic_store_n(&shared, 2, __ATOMIC_SEQ_CST);
        return 0;
      },
      stack + 65536, CLONE_VM | SIGCHLD, nullptr);
  MUST(pid >= 0);
  subject::hold();
  __atomic_store_n(&shared, 1, __ATOMIC_SEQ_CST);
  JOIN(pid);
  CHECK_EQ(shared, 2);
}

CASE_WITH(one_memory_and_handlers_with_a_child, subject::kMayRefuse) {
  static int shared;
  auto* stack = subject::map(65536);
  pid_t pid = clone(
      [](void*) -> int {
        while (__atomic_load_n(&shared, __ATOMIC_SEQ_CST) == 0) subject::pass(1);
        struct sigaction now = {};
        sigaction(SIGUSR1, nullptr, &now);
        return now.sa_handler == SIG_IGN ? 0 : 1;
      },
      stack + 65536, CLONE_VM | CLONE_SIGHAND | CLONE_FILES | CLONE_FS | SIGCHLD, nullptr);
  MUST(pid >= 0);
  subject::hold();
  signal(SIGUSR1, SIG_IGN);
  __atomic_store_n(&shared, 1, __ATOMIC_SEQ_CST);
  JOIN(pid);
}

CASE(exit_signals) {
  static int seen;
  signal(SIGUSR2, [](int) { ++seen; });
  pid_t with = cloned(SIGUSR2), without = cloned(0);
  if (with == 0 || without == 0) {
    subject::await("go");
    _exit(3);
  }
  MUST(with > 0 && without > 0);
  subject::hold();
  int status = 0;
  CHECK_EQ(waitpid(without, &status, __WCLONE), without);
  CHECK_EQ(WEXITSTATUS(status), 3);
  CHECK_EQ(waitpid(with, &status, __WALL), with);
  CHECK_EQ(seen, 1);
}

CASE(thread_that_leads_is_gone) {
  subject::thread([] {
    subject::thread([] {
      subject::mark("second");
      subject::await("go");
      subject::mark("second ends");
    });
    subject::await("second");
    subject::pass(50);
    MUST(subject::state_of(getpid(), getpid()) == 'Z');
    subject::hold();
    CHECK_EQ(subject::state_of(getpid(), getpid()), 'Z');
    subject::await("second ends");
    int fd = open(subject::path("file"), O_CREAT | O_RDWR, 0600);
    CHECK(fd >= 0);
    subject::leave();
  });
  prctl(PR_SET_NAME, "leader");
  pthread_exit(nullptr);
}

CASE(child_whose_first_thread_is_gone) {
  pid_t pid = subject::child([] {
    int ends[2];
    MUST(pipe(ends) == 0);
    subject::thread([=] {
      subject::pass(20);
      subject::mark("born");
      subject::await("go");
      CHECK_EQ(write(ends[1], "x", 1), 1);
      char byte;
      CHECK_EQ(read(ends[0], &byte, 1), 1);
      _exit(subject::g_failures == 0 ? 7 : 1);
    });
    syscall(SYS_exit, 55);
  });
  subject::await("born");
  subject::hold();
  int status = 0;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK_EQ(WEXITSTATUS(status), 7);
}

CASE_WITH(descriptors_of_single_threads, subject::kMayRefuse) {
  // A thread may have a table of its own.
  pthread_t t = subject::thread([] {
    MUST(unshare(CLONE_FILES | CLONE_FS) == 0);
    MUST(dup2(1, 97) == 97 && chdir("/tmp") == 0);
    umask(0147);
    subject::mark("born");
    subject::await("go");
    CHECK(fcntl(97, F_GETFD) >= 0);
    char here[64] = {};
    CHECK(getcwd(here, sizeof here) != nullptr && strcmp(here, "/tmp") == 0);
    CHECK_EQ(umask(0), 0147u);
  });
  subject::await("born");
  MUST(dup2(1, 96) == 96);
  subject::hold();
  CHECK(fcntl(96, F_GETFD) >= 0);
  CHECK(fcntl(97, F_GETFD) < 0);
  char here[1024] = {};
  CHECK(getcwd(here, sizeof here) != nullptr && strcmp(here, "/tmp") != 0);
  pthread_join(t, nullptr);
}

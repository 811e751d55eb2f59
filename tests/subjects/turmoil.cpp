// Programs that do not hold still: tasks that are born, exec and die while they are being frozen; and large
// ones.
#include <sys/resource.h>

#include "subject.h"

namespace {
int g_alive;
void came_alive() { __atomic_add_fetch(&g_alive, 1, __ATOMIC_SEQ_CST); }
void await_alive(int count) {
  while (__atomic_load_n(&g_alive, __ATOMIC_SEQ_CST) < count) subject::pass(1);
}
}  // namespace

CASE_WITH(fork_storm, subject::kBusy) {
  // Four lines of children, each of which lives for a moment and is waited for with a check of its status.
  pid_t lines[4];
  for (int line = 0; line < 4; ++line) {
    lines[line] = subject::child([=] {
      for (int i = 0; !subject::told_to_go(); ++i) {
        int code = i % 100;
        pid_t pid = fork();
        if (pid == 0) _exit(code);
        CHECK(pid > 0);
        int status = 0;
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK_EQ(status, code << 8);
      }
    });
  }
  subject::hold();
  for (pid_t pid : lines) JOIN(pid);
  CHECK_EQ(waitpid(-1, nullptr, WNOHANG | __WALL), -1);
}

CASE_WITH(orphan_storm, subject::kBusy) {
  pid_t pid = subject::child([] {
    while (!subject::told_to_go()) {
      pid_t middle = fork();
      if (middle == 0) {
        if (fork() == 0) _exit(0);
        _exit(0);
      }
      JOIN(middle);
    }
  });
  subject::hold();
  JOIN(pid);
}

CASE_WITH(thread_storm, subject::kBusy) {
  pthread_t makers[3];
  for (auto& maker : makers) {
    maker = subject::thread([] {
      while (!subject::told_to_go()) {
        static thread_local int own = 3;
        pthread_t t = subject::thread([] { own = own + 1; });
        CHECK_EQ(pthread_join(t, nullptr), 0);
        CHECK_EQ(own, 3);
      }
    });
  }
  subject::hold();
  for (auto t : makers) pthread_join(t, nullptr);
}

CASE_WITH(exec_storm, subject::kBusy) {
  pid_t pids[2];
  for (pid_t& pid : pids) {
    pid = subject::child([] {
      while (!subject::told_to_go()) {
        pid_t below = fork();
        if (below == 0) {
          execl("/bin/true", "true", nullptr);
          _exit(99);
        }
        JOIN(below);
      }
    });
  }
  subject::hold();
  for (pid_t pid : pids) JOIN(pid);
}

// One process that execs itself again and again: its memory and threads vanish under the one who freezes it.
CASE_WITH(execs_itself, subject::kBusy) {
  pid_t pid = subject::child([] { execl("/proc/self/exe", "turmoil", "execs_itself_loop", nullptr); });
  subject::await("looping");
  subject::hold();
  JOIN(pid);
}
CASE_WITH(execs_itself_loop, subject::kPart) {
  subject::mark("looping");
  if (subject::told_to_go()) return;
  pthread_t t = subject::thread([] { subject::pass(1000); });
  (void)t;
  execl("/proc/self/exe", "turmoil", "execs_itself_loop", nullptr);
  _exit(98);
}

// Between vfork and exec the parent cannot be stopped. The checkpoint must wait or refuse, and harm nobody.
CASE_WITH(vfork_storm, subject::kBusy | subject::kMayRefuse) {
  pid_t pid = subject::child([] {
    while (!subject::told_to_go()) {
      pid_t below = vfork();
      if (below == 0) {
        execl("/bin/true", "true", nullptr);
        _exit(99);
      }
      JOIN(below);
    }
  });
  subject::hold();
  JOIN(pid);
}

CASE_WITH(vfork_for_a_while, subject::kBusy) {
  pid_t pid = subject::child([] {
    pid_t below = vfork();
    if (below == 0) {
      subject::mark("in-vfork");
      for (int i = 0; i < 60; ++i) subject::pass(5);
      _exit(0);
    }
    JOIN(below);
    while (!subject::told_to_go()) subject::pass(5);
  });
  subject::await("in-vfork");
  subject::hold();
  JOIN(pid);
}

CASE_WITH(vfork_for_long, subject::kBusy | subject::kMayRefuse) {
  static int result = 0;
  pid_t pid = subject::child([] {
    pid_t below = vfork();
    if (below == 0) {
      // Longer than anybody's patience: until told, in the parent's own memory.
      subject::mark("in-vfork");
      while (!subject::told_to_go()) subject::pass(5);
      result = 55;
      _exit(0);
    }
    CHECK_EQ(result, 55);
    JOIN(below);
  });
  subject::await("in-vfork");
  subject::hold();
  JOIN(pid);
}

// It waits for what comes from outside of it: nobody should wait with it.
CASE_WITH(vfork_whose_child_waits, subject::kBusy | subject::kMayRefuse) {
  int ends[2];
  MUST(pipe2(ends, O_CLOEXEC) == 0);
  pid_t pid = subject::child([=] {
    pid_t below = vfork();
    if (below == 0) {
      char byte;
      subject::mark("in-vfork");
      _exit(read(ends[0], &byte, 1) == 1 ? 0 : 1);
    }
    JOIN(below);
  });
  subject::await("in-vfork");
  subject::hold();
  CHECK_EQ(write(ends[1], "x", 1), 1);
  JOIN(pid);
}

CASE_WITH(mapping_storm, subject::kBusy) {
  pthread_t t = subject::thread([] {
    for (int i = 0; !subject::told_to_go(); ++i) {
      size_t size = (1 + i % 50) * 4096ul;
      auto* memory = subject::map(size);
      memset(memory, i, size);
      CHECK_EQ(memory[size - 1], static_cast<uint8_t>(i));
      CHECK_EQ(munmap(memory, size), 0);
    }
  });
  subject::hold();
  pthread_join(t, nullptr);
}

CASE_WITH(signal_storm, subject::kBusy) {
  static volatile sig_atomic_t got;
  struct sigaction action = {};
  action.sa_handler = [](int) { got = got + 1; };
  MUST(sigaction(SIGUSR1, &action, nullptr) == 0);
  pid_t parent = getpid();
  pid_t pid = subject::child([=] {
    while (!subject::told_to_go()) {
      CHECK_EQ(kill(parent, SIGUSR1), 0);
      subject::pass(1);
    }
  });
  uint64_t word = 1;
  subject::busy([&] {
    for (int i = 0; i < 1000; ++i) word = word * 6364136223846793005ull + 1442695040888963407ull;
  });
  JOIN(pid);
  CHECK(got > 0);
  CHECK(word != 1);
}

CASE_WITH(pipe_storm, subject::kBusy) {
  int down[2], up[2];
  MUST(pipe(down) == 0 && pipe(up) == 0);
  pid_t pid = subject::child([=] {
    close(down[1]);
    close(up[0]);
    uint64_t word;
    while (read(down[0], &word, 8) == 8) {
      word = word * 3 + 1;
      MUST(write(up[1], &word, 8) == 8);
    }
  });
  close(down[0]);
  close(up[1]);
  uint64_t n = 0;
  subject::busy([&] {
    uint64_t back = 0;
    CHECK_EQ(write(down[1], &n, 8), 8);
    CHECK_EQ(read(up[0], &back, 8), 8);
    CHECK_EQ(back, n * 3 + 1);
    ++n;
  });
  close(down[1]);
  JOIN(pid);
}

CASE_WITH(thousand_threads, subject::kSlow) {
  constexpr int kCount = 1000;
  static pthread_t threads[kCount];
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 65536);
  static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  static pthread_cond_t go = PTHREAD_COND_INITIALIZER;
  static bool told;
  for (int i = 0; i < kCount; ++i) {
    threads[i] = subject::thread(
        [=] {
          volatile int own = i;
          came_alive();
          pthread_mutex_lock(&mutex);
          while (!told) pthread_cond_wait(&go, &mutex);
          pthread_mutex_unlock(&mutex);
          CHECK_EQ(own, i);
        },
        &attributes);
  }
  await_alive(kCount);
  subject::hold();
  pthread_mutex_lock(&mutex);
  told = true;
  pthread_cond_broadcast(&go);
  pthread_mutex_unlock(&mutex);
  for (auto t : threads) CHECK_EQ(pthread_join(t, nullptr), 0);
}

CASE_WITH(three_hundred_processes, subject::kSlow) {
  constexpr int kCount = 300;
  static pid_t pids[kCount];
  int born[2], go[2];
  MUST(pipe(born) == 0 && pipe(go) == 0);
  pid_t parent = getpid();
  for (int i = 0; i < kCount; ++i) {
    pids[i] = subject::child([=] {
      volatile int own = i;
      close(go[1]);
      char byte = 'b';
      MUST(write(born[1], &byte, 1) == 1);
      CHECK_EQ(read(go[0], &byte, 1), 0);  // until the parent closes
      CHECK_EQ(own, i);
      CHECK_EQ(getppid(), parent);
    });
  }
  char byte;
  for (int i = 0; i < kCount; ++i) MUST(read(born[0], &byte, 1) == 1);
  subject::hold();
  close(go[1]);
  for (pid_t pid : pids) JOIN(pid);
}

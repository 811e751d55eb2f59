// Threads: thread-local data, names, scheduling, robust lists, restartable sequences, locks they hold and
// wait for.
#include <sys/resource.h>
#include <sys/rseq.h>

#include "subject.h"

static thread_local uint64_t g_local = 5;

CASE(thread_local_data) {
  pthread_t threads[8];
  static int alive;
  g_local = 1000;
  for (int i = 0; i < 8; ++i) {
    threads[i] = subject::thread([=] {
      g_local = i;
      pid_t id = subject::tid();
      void* self = reinterpret_cast<void*>(pthread_self());
      __atomic_add_fetch(&alive, 1, __ATOMIC_SEQ_CST);
      subject::await("go");
      CHECK_EQ(g_local, i);
      CHECK_EQ(subject::tid(), id);
      CHECK_EQ(reinterpret_cast<void*>(pthread_self()), self);
    });
  }
  while (__atomic_load_n(&alive, __ATOMIC_SEQ_CST) < 8) subject::pass(1);
  pid_t own = subject::tid();
  subject::hold();
  CHECK_EQ(g_local, 1000u);
  CHECK_EQ(subject::tid(), own);
  for (auto t : threads) CHECK_EQ(pthread_join(t, nullptr), 0);
}

// Threads that know what is on their stack, and say so when they may `go`.
static void start_crowd(pthread_t* threads, int count) {
  static int alive;
  for (int i = 0; i < count; ++i) {
    threads[i] = subject::thread([=] {
      uint64_t on_stack[64];
      subject::fill(on_stack, sizeof on_stack, i);
      __atomic_add_fetch(&alive, 1, __ATOMIC_SEQ_CST);
      subject::await("go", 20);
      CHECK_EQ(subject::differs(on_stack, sizeof on_stack, i), -1);
    });
  }
  while (__atomic_load_n(&alive, __ATOMIC_SEQ_CST) < count) subject::pass(1);
}

CASE(many) {
  pthread_t threads[100];
  start_crowd(threads, 100);
  subject::hold();
  for (auto t : threads) CHECK_EQ(pthread_join(t, nullptr), 0);
}

CASE(names) {
  MUST(prctl(PR_SET_NAME, "the main one") == 0);
  pthread_t t = subject::thread([] {
    prctl(PR_SET_NAME, "a)(b c");
    subject::mark("named");
    subject::await("go");
    char name[32] = {};
    CHECK_EQ(prctl(PR_GET_NAME, name), 0);
    CHECK_EQ(strcmp(name, "a)(b c"), 0);
  });
  subject::await("named");
  subject::hold();
  char name[32] = {};
  CHECK_EQ(prctl(PR_GET_NAME, name), 0);
  CHECK_EQ(strcmp(name, "the main one"), 0);
  pthread_join(t, nullptr);
}

CASE(affinity) {
  cpu_set_t all;
  MUST(sched_getaffinity(0, sizeof all, &all) == 0);
  int last = -1;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &all)) last = i;
  }
  pthread_t t = subject::thread([=] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(last, &one);
    MUST(sched_setaffinity(0, sizeof one, &one) == 0);
    subject::mark("bound");
    subject::await("go");
    cpu_set_t now;
    CHECK_EQ(sched_getaffinity(0, sizeof now, &now), 0);
    CHECK(CPU_EQUAL(&now, &one));
    CHECK_EQ(sched_getcpu(), last);
  });
  subject::await("bound");
  subject::hold();
  cpu_set_t now;
  CHECK_EQ(sched_getaffinity(0, sizeof now, &now), 0);
  CHECK(CPU_EQUAL(&now, &all));
  pthread_join(t, nullptr);
}

// Nothing that is writable may be executable: the engine has to do without such memory of its own.
CASE(without_writable_code) {
  constexpr int kSetDenyWriteExecute = 65, kGetDenyWriteExecute = 66;
  pthread_t threads[5];
  start_crowd(threads, 5);
  if (prctl(kSetDenyWriteExecute, 1, 0, 0, 0) != 0) SKIP("this kernel cannot forbid it");
  subject::hold();
  CHECK_EQ(prctl(kGetDenyWriteExecute, 0, 0, 0, 0), 1);
  void* both = mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(both == MAP_FAILED);
  for (auto t : threads) CHECK_EQ(pthread_join(t, nullptr), 0);
}

CASE(scheduling) {
  sched_param none = {};
  MUST(setpriority(PRIO_PROCESS, 0, 3) == 0);
  pthread_t batch = subject::thread([=] {
    MUST(sched_setscheduler(0, SCHED_BATCH, &none) == 0);
    MUST(setpriority(PRIO_PROCESS, 0, 7) == 0);
    subject::mark("batch");
    subject::await("go");
    CHECK_EQ(sched_getscheduler(0), SCHED_BATCH);
    CHECK_EQ(getpriority(PRIO_PROCESS, 0), 7);
  });
  pthread_t idle = subject::thread([=] {
    MUST(sched_setscheduler(0, SCHED_IDLE, &none) == 0);
    subject::mark("idle");
    subject::await("go");
    CHECK_EQ(sched_getscheduler(0), SCHED_IDLE);
  });
  subject::await("batch");
  subject::await("idle");
  subject::hold();
  CHECK_EQ(sched_getscheduler(0), SCHED_OTHER);
  CHECK_EQ(getpriority(PRIO_PROCESS, 0), 3);
  pthread_join(batch, nullptr);
  pthread_join(idle, nullptr);
}

CASE_WITH(real_time, subject::kMayRefuse) {
  sched_param parameter = {};
  parameter.sched_priority = 4;
  if (sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &parameter) != 0)
    SKIP("real-time scheduling is not allowed here");
  subject::hold();
  CHECK_EQ(sched_getscheduler(0), SCHED_RR | SCHED_RESET_ON_FORK);
  CHECK_EQ(sched_getparam(0, &parameter), 0);
  CHECK_EQ(parameter.sched_priority, 4);
}

// The kernel walks the list of a thread that ends: only a list that is registered again is walked.
CASE(robust_mutex) {
  auto* mutex = reinterpret_cast<pthread_mutex_t*>(
      subject::map(4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS));
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutex_init(mutex, &attributes);
  pid_t pid = subject::child([=] {
    MUST(pthread_mutex_lock(mutex) == 0);
    subject::mark("locked");
    subject::await("die");
    _exit(0);
  });
  subject::await("locked");
  subject::hold();
  CHECK_EQ(pthread_mutex_trylock(mutex), EBUSY);
  subject::mark("die");
  CHECK_EQ(pthread_mutex_lock(mutex), EOWNERDEAD);
  CHECK_EQ(pthread_mutex_consistent(mutex), 0);
  CHECK_EQ(pthread_mutex_unlock(mutex), 0);
  JOIN(pid);
}

CASE(robust_mutex_of_a_thread) {
  static pthread_mutex_t mutex;
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(&mutex, &attributes);
  pthread_t t = subject::thread([] {
    MUST(pthread_mutex_lock(&mutex) == 0);
    subject::mark("locked");
    subject::await("go");
  });
  subject::await("locked");
  subject::hold();
  pthread_join(t, nullptr);
  CHECK_EQ(pthread_mutex_lock(&mutex), EOWNERDEAD);
}

// The kernel writes the number of the processor into the registered area whenever it schedules the thread.
CASE(restartable_sequences) {
  if (__rseq_size == 0) SKIP("the C library has no restartable sequences here");
  auto check = [] {
    auto* area = reinterpret_cast<volatile struct rseq*>(static_cast<char*>(__builtin_thread_pointer()) +
                                                         __rseq_offset);
    cpu_set_t all, one;
    CHECK_EQ(sched_getaffinity(0, sizeof all, &all), 0);
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (!CPU_ISSET(i, &all)) continue;
      CPU_ZERO(&one);
      CPU_SET(i, &one);
      if (sched_setaffinity(0, sizeof one, &one) != 0) continue;
      sched_yield();
      CHECK_EQ(area->cpu_id, static_cast<unsigned>(i));
    }
    // A second registration of the same area says EBUSY; of an unregistered thread it would succeed.
    int result = syscall(SYS_rseq, area, 32, 0, RSEQ_SIG);
    CHECK(result == -1 && (errno == EBUSY || errno == EINVAL));
  };
  check();
  pthread_t t = subject::thread([=] {
    subject::mark("born");
    subject::await("go");
    check();
  });
  subject::await("born");
  subject::hold();
  check();
  pthread_join(t, nullptr);
}

CASE(signal_masks) {
  auto mask_of = [](std::initializer_list<int> signals) {
    sigset_t set;
    sigemptyset(&set);
    for (int s : signals) sigaddset(&set, s);
    return set;
  };
  auto check = [](sigset_t expected) {
    sigset_t now;
    CHECK_EQ(pthread_sigmask(SIG_BLOCK, nullptr, &now), 0);
    for (int s = 1; s < 65; ++s) {
      if (s == 32 || s == 33) continue;
      if (sigismember(&now, s) != sigismember(&expected, s)) subject::say("signal %d", s);
      CHECK_EQ(sigismember(&now, s), sigismember(&expected, s));
    }
  };
  sigset_t own = mask_of({SIGUSR1, SIGRTMIN + 3}), others = mask_of({SIGHUP, SIGRTMAX});
  pthread_t t = subject::thread([=] {
    pthread_sigmask(SIG_SETMASK, &others, nullptr);
    subject::mark("masked");
    subject::await("go");
    check(others);
  });
  pthread_sigmask(SIG_SETMASK, &own, nullptr);
  subject::await("masked");
  subject::hold();
  check(own);
  pthread_join(t, nullptr);
}

CASE(join_in_progress) {
  pthread_t sleeper = subject::thread([] { subject::await("go"); });
  static pid_t joiner_id;
  pthread_t joiner = subject::thread([=] {
    joiner_id = subject::tid();
    subject::mark("joining");
    CHECK_EQ(pthread_join(sleeper, nullptr), 0);  // the kernel clears and wakes the word: clear_child_tid
  });
  subject::await("joining");
  subject::await_asleep(getpid(), joiner_id);
  subject::hold();
  CHECK_EQ(pthread_join(joiner, nullptr), 0);
}

static pthread_mutex_t g_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t g_condition = PTHREAD_COND_INITIALIZER;
static int g_turn, g_waiting;

CASE(condition_variable) {
  pthread_t threads[10];
  for (int i = 0; i < 10; ++i) {
    threads[i] = subject::thread([=] {
      pthread_mutex_lock(&g_mutex);
      ++g_waiting;
      while (g_turn <= i) pthread_cond_wait(&g_condition, &g_mutex);
      pthread_mutex_unlock(&g_mutex);
    });
  }
  for (;;) {
    pthread_mutex_lock(&g_mutex);
    int waiting = g_waiting;
    pthread_mutex_unlock(&g_mutex);
    if (waiting == 10) break;
    subject::pass(1);
  }
  subject::hold();
  for (int i = 0; i < 10; ++i) {
    pthread_mutex_lock(&g_mutex);
    ++g_turn;
    pthread_cond_broadcast(&g_condition);
    pthread_mutex_unlock(&g_mutex);
  }
  for (auto t : threads) CHECK_EQ(pthread_join(t, nullptr), 0);
}

CASE(waiting_for_a_mutex) {
  pthread_mutex_lock(&g_mutex);
  static pid_t id;
  pthread_t t = subject::thread([] {
    id = subject::tid();
    subject::mark("waiting");
    pthread_mutex_lock(&g_mutex);
    CHECK_EQ(g_turn, 77);
    pthread_mutex_unlock(&g_mutex);
  });
  subject::await("waiting");
  subject::await_asleep(getpid(), id);
  subject::hold();
  g_turn = 77;
  pthread_mutex_unlock(&g_mutex);
  CHECK_EQ(pthread_join(t, nullptr), 0);
}

CASE(priority_inheritance_mutex) {
  static pthread_mutex_t mutex;
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  MUST(pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT) == 0);
  pthread_mutex_init(&mutex, &attributes);
  pthread_mutex_lock(&mutex);
  static pid_t id;
  pthread_t t = subject::thread([] {
    id = subject::tid();
    subject::mark("waiting");
    CHECK_EQ(pthread_mutex_lock(&mutex), 0);
    CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
  });
  subject::await("waiting");
  subject::await_asleep(getpid(), id);
  subject::hold();
  CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
  CHECK_EQ(pthread_join(t, nullptr), 0);
}

CASE(cancelled_after) {
  pthread_t t = subject::thread([] {
    subject::mark("born");
    for (;;) pause();
  });
  subject::await("born");
  subject::hold();
  CHECK_EQ(pthread_cancel(t), 0);
  void* result = nullptr;
  CHECK_EQ(pthread_join(t, &result), 0);
  CHECK_EQ(result, PTHREAD_CANCELED);
}

CASE(new_threads_after) {
  subject::hold();
  static int done;
  pthread_t threads[20];
  for (auto& t : threads) t = subject::thread([] { __atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST); });
  for (auto t : threads) CHECK_EQ(pthread_join(t, nullptr), 0);
  CHECK_EQ(done, 20);
}

CASE_WITH(main_thread_is_gone, subject::kMayRefuse) {
  subject::thread([] {
    subject::pass(50);
    subject::hold();
    CHECK_EQ(subject::state_of(getpid(), getpid()), 'Z');
    subject::leave();
  });
  pthread_exit(nullptr);
}

CASE(alternate_stacks) {
  auto stack_of = [](size_t size) {
    stack_t stack = {};
    stack.ss_sp = subject::map(size);
    stack.ss_size = size;
    MUST(sigaltstack(&stack, nullptr) == 0);
    return stack;
  };
  auto check = [](stack_t expected) {
    stack_t now = {};
    CHECK_EQ(sigaltstack(nullptr, &now), 0);
    CHECK_EQ(now.ss_sp, expected.ss_sp);
    CHECK_EQ(now.ss_size, expected.ss_size);
    CHECK_EQ(now.ss_flags, expected.ss_flags);
  };
  pthread_t t = subject::thread([=] {
    stack_t mine = stack_of(65536);
    subject::mark("set");
    subject::await("go");
    check(mine);
  });
  stack_t own = stack_of(131072);
  subject::await("set");
  subject::hold();
  check(own);
  pthread_join(t, nullptr);
}

// What every subject program shares. A subject sets one thing up, says that it is ready, waits while it is
// checkpointed (and perhaps killed and restarted, several times), and then verifies that the thing is still
// so.
//
//     CASE(eventfd_count) {
//       int fd = eventfd(7, 0);
//       subject::hold();             // ready, then wait for "go"
//       CHECK_EQ(subject::read_u64(fd), 7u);
//     }
//
// One program holds several cases; `program --list` names them, `program NAME` runs one.
// Exit status: 0 all is as it was, 1 something differs (printed), 77 cannot be tested here (printed why).
//
// The runner and the subject speak through files in $SUBJECT_DIR, and nothing else: a file needs no state in
// the kernel that a checkpoint could lose, so the signalling cannot hide or cause the failure that is looked
// for.
//   ready    made by the subject
//   ping     made by the runner, removed by the subject: it runs
//   go       made by the runner: verify now
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <utility>

namespace subject {

// What the runner has to know about a case; printed by --list.
enum Trait : unsigned {
  kPlain = 0,
  kBusy = 1,  // its state changes all the time: do not compare what is seen from outside before and after
  kSlow = 2,  // large or long: not in every mode
  kMayRefuse = 4,     // a refusal is right too, if the program then runs on and verifies
  kOneRun = 8,        // speaks with somebody outside who does not come back: at most one restart
  kLiar = 16,         // must be reported as failed; tests the runner
  kPart = 32,         // started by another case; not listed
  kTimed = 64,        // measures time, so that a machine that stands still can make it fail
  kOwnNetwork = 128,  // is launched with --net=private
};

struct Case {
  const char* name;
  void (*run)();
  unsigned traits;
  Case* next;
};

inline Case* g_cases = nullptr;
inline int g_failures = 0;  // of this process; children answer by their exit status
inline char g_dir[512];

inline int enlist(Case* c) {
  Case** at = &g_cases;
  while (*at != nullptr) at = &(*at)->next;
  *at = c;
  return 0;
}

// --- saying what is wrong

__attribute__((format(printf, 1, 2))) inline void say(const char* format, ...) {
  char line[1024];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(line, sizeof line - 1, format, args);
  va_end(args);
  if (n > static_cast<int>(sizeof line) - 2) n = sizeof line - 2;
  line[n] = '\n';
  // One write per line: several processes share the file.
  [[maybe_unused]] ssize_t written = write(STDOUT_FILENO, line, n + 1);
}

inline void failed(const char* file, int line, const char* what) {
  __atomic_add_fetch(&g_failures, 1, __ATOMIC_SEQ_CST);
  say("%s:%d: [%d] %s", file, line, static_cast<int>(getpid()), what);
}

struct Shown {
  char text[160];
};
template <typename T>
Shown show(const T& value) {
  Shown s;
  if constexpr (std::is_same_v<T, bool>) {
    snprintf(s.text, sizeof s.text, "%s", value ? "true" : "false");
  } else if constexpr (std::is_pointer_v<T>) {
    snprintf(s.text, sizeof s.text, "%p", reinterpret_cast<const void*>(value));
  } else if constexpr (std::is_floating_point_v<T>) {
    snprintf(s.text, sizeof s.text, "%g", static_cast<double>(value));
  } else {
    snprintf(s.text, sizeof s.text, "%lld (0x%llx)", static_cast<long long>(value),
             static_cast<unsigned long long>(value));
  }
  return s;
}

template <typename A, typename B>
void check_equal(const char* file, int line, const char* what, const A& is, const B& expected) {
  if (is == (A)expected) return;  // the C cast takes pointers and numbers alike
  char text[480];
  snprintf(text, sizeof text, "%s is %s, expected %s", what, show(is).text, show(expected).text);
  failed(file, line, text);
}
template <typename A, typename B, typename C>
void check_between(const char* file, int line, const char* what, const A& is, const B& low, const C& high) {
  if (is >= (A)low && is <= (A)high) return;
  char text[480];
  snprintf(text, sizeof text, "%s is %s, expected %s to %s", what, show(is).text, show(low).text,
           show(high).text);
  failed(file, line, text);
}

[[noreturn]] inline void ended_skipped(const char* reason) {
  say("SKIP: %s", reason);
  _exit(77);
}

[[noreturn]] inline void broken(const char* file, int line, const char* what) {
  say("%s:%d: [%d] set-up: %s: %s", file, line, static_cast<int>(getpid()), what, strerror(errno));
  _exit(1);
}

}  // namespace subject

#define CASE_WITH(name, traits)                                                      \
  static void run_##name();                                                          \
  static subject::Case case_##name = {#name, run_##name, traits, nullptr};           \
  [[maybe_unused]] static const int enlisted_##name = subject::enlist(&case_##name); \
  static void run_##name()
#define CASE(name) CASE_WITH(name, subject::kPlain)

// Verification goes on after a CHECK that fails, so that one run shows all that differs.
#define CHECK(condition)                                                                 \
  do {                                                                                   \
    if (!(condition)) subject::failed(__FILE_NAME__, __LINE__, "is false: " #condition); \
  } while (0)
#define CHECK_EQ(is, expected) subject::check_equal(__FILE_NAME__, __LINE__, #is, (is), (expected))
#define CHECK_BETWEEN(is, low, high) subject::check_between(__FILE_NAME__, __LINE__, #is, (is), (low), (high))
// For steps of the set-up, without which the rest makes no sense.
#define MUST(condition)                                                     \
  do {                                                                      \
    if (!(condition)) subject::broken(__FILE_NAME__, __LINE__, #condition); \
  } while (0)
#define SKIP(reason) subject::ended_skipped(reason)

#ifndef __FILE_NAME__
#define __FILE_NAME__ (strrchr(__FILE__, '/') != nullptr ? strrchr(__FILE__, '/') + 1 : __FILE__)
#endif

namespace subject {

// --- time

inline int64_t nanoseconds(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}
inline int64_t milliseconds(clockid_t clock = CLOCK_MONOTONIC) { return nanoseconds(clock) / 1000000; }

// Sleeps to an absolute time: were a sleep interrupted by the checkpoint, it would not end early unnoticed.
inline void pass(int ms) {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  t.tv_nsec += (ms % 1000) * 1000000L;
  t.tv_sec += ms / 1000 + t.tv_nsec / 1000000000L;
  t.tv_nsec %= 1000000000L;
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, nullptr) == EINTR) {
  }
}

// --- signalling by files

struct Path {
  char text[768];
  operator const char*() const { return text; }
};
inline Path path(const char* name) {
  Path p;
  snprintf(p.text, sizeof p.text, "%s/%s", g_dir, name);
  return p;
}
inline bool marked(const char* name) {
  struct stat st;
  return stat(path(name), &st) == 0;
}
// Not open() and close(): a thread that hardly runs would be seen with the descriptor.
inline void mark(const char* name) { MUST(mknod(path(name), S_IFREG | 0666, 0) == 0 || errno == EEXIST); }
inline void await(const char* name, int every_ms = 2) {
  while (!marked(name)) pass(every_ms);
}

inline void ready() { mark("ready"); }
inline bool told_to_go() { return marked("go"); }
inline void answer() {
  if (marked("ping")) unlink(path("ping"));
}
inline int64_t g_stalled =
    0;  // milliseconds in which wait() did not get to run: pauses, and a loaded machine
inline void wait() {
  int64_t last = milliseconds();
  while (!told_to_go()) {
    answer();
    pass(5);
    int64_t now = milliseconds();
    if (now - last > 20) g_stalled += now - last - 5;
    last = now;
  }
}
inline void hold() {
  ready();
  wait();
}

// Repeats a self-check without a pause until told to verify.
template <typename F>
void busy(F check) {
  ready();
  int64_t last = 0;
  for (;;) {
    check();
    int64_t now = milliseconds();
    if (now - last < 5) continue;
    last = now;
    answer();
    if (told_to_go()) return;
  }
}

// --- processes and threads

[[noreturn]] inline void leave() { _exit(g_failures == 0 ? 0 : 1); }

template <typename F>
pid_t child(F run) {
  pid_t pid = fork();
  MUST(pid >= 0);
  if (pid == 0) {
    run();
    leave();
  }
  return pid;
}

inline void join_at(const char* file, int line, pid_t pid) {
  int status = -1;
  pid_t got;
  while ((got = waitpid(pid, &status, 0)) < 0 && errno == EINTR) {
  }
  char text[200];
  if (got != pid) {
    snprintf(text, sizeof text, "waitpid(%d) returned %d: %s", pid, got, strerror(errno));
    failed(file, line, text);
  } else if (status != 0) {
    snprintf(text, sizeof text, "child %d ended with status 0x%x", pid, status);
    failed(file, line, text);
  }
}
#define JOIN(pid) subject::join_at(__FILE_NAME__, __LINE__, pid)

template <typename F>
pthread_t thread(F run, pthread_attr_t* attributes = nullptr) {
  auto* heap = new F(std::move(run));
  pthread_t id;
  int error = pthread_create(
      &id, attributes,
      [](void* argument) -> void* {
        auto* f = static_cast<F*>(argument);
        (*f)();
        delete f;
        return nullptr;
      },
      heap);
  if (error != 0) {
    errno = error;
    MUST(!"pthread_create");
  }
  return id;
}

inline pid_t tid() { return static_cast<pid_t>(syscall(SYS_gettid)); }

// The state letter of a task ('S' sleeps, 'T' stopped, 'Z' zombie, 0 gone), from /proc/PID/stat.
inline char state_of(pid_t pid, pid_t thread_id = 0) {
  char name[64], text[512];
  if (thread_id != 0) {
    snprintf(name, sizeof name, "/proc/%d/task/%d/stat", pid, thread_id);
  } else {
    snprintf(name, sizeof name, "/proc/%d/stat", pid);
  }
  int fd = open(name, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n <= 0) return 0;
  text[n] = 0;
  const char* end = strrchr(text, ')');
  return end != nullptr ? end[2] : 0;
}

// Waits until a task sleeps: it is then, as far as one can tell from outside, inside its system call.
inline void await_asleep(pid_t pid, pid_t thread_id = 0) {
  for (int i = 0; i < 5000 && state_of(pid, thread_id) != 'S'; ++i) pass(1);
  pass(5);
}

// --- small reads and patterns

inline uint64_t read_u64(int fd) {
  uint64_t value = ~0ull;
  if (read(fd, &value, sizeof value) != sizeof value) return ~0ull;
  return value;
}

// A page-dependent pattern without repetition, so that a page at the wrong place is found.
inline void fill(void* memory, size_t size, uint64_t seed) {
  auto* words = static_cast<uint64_t*>(memory);
  uint64_t x = seed * 0x9E3779B97F4A7C15ull + 1;
  for (size_t i = 0; i < size / 8; ++i) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    words[i] = x;
  }
}
// Offset of the first wrong byte, or -1.
inline long differs(const void* memory, size_t size, uint64_t seed) {
  const auto* words = static_cast<const uint64_t*>(memory);
  uint64_t x = seed * 0x9E3779B97F4A7C15ull + 1;
  for (size_t i = 0; i < size / 8; ++i) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    if (words[i] != x) return static_cast<long>(i * 8);
  }
  return -1;
}
inline long nonzero(const void* memory, size_t size) {
  const auto* bytes = static_cast<const uint8_t*>(memory);
  for (size_t i = 0; i < size; ++i) {
    if (bytes[i] != 0) return static_cast<long>(i);
  }
  return -1;
}

inline uint8_t* map(size_t size, int protection = PROT_READ | PROT_WRITE,
                    int flags = MAP_PRIVATE | MAP_ANONYMOUS, int fd = -1, off_t offset = 0) {
  void* p = mmap(nullptr, size, protection, flags, fd, offset);
  MUST(p != MAP_FAILED);
  return static_cast<uint8_t*>(p);
}

// A whole file into a buffer that ends with 0; -1 when it cannot be read.
inline ssize_t slurp(const char* name, char* buffer, size_t size) {
  int fd = open(name, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  size_t have = 0;
  for (;;) {
    ssize_t n = read(fd, buffer + have, size - 1 - have);
    if (n <= 0) break;
    have += n;
  }
  close(fd);
  buffer[have] = 0;
  return static_cast<ssize_t>(have);
}

inline int main_of_cases(int argc, char** argv) {
  if (argc == 2 && strcmp(argv[1], "--list") == 0) {
    for (Case* c = g_cases; c != nullptr; c = c->next) {
      if ((c->traits & kPart) == 0) printf("%s %u\n", c->name, c->traits);
    }
    return 0;
  }
  const char* dir = getenv("SUBJECT_DIR");
  if (argc < 2 || dir == nullptr) {
    fprintf(stderr, "usage: SUBJECT_DIR=/some/dir %s --list | CASE\n", argv[0]);
    return 2;
  }
  snprintf(g_dir, sizeof g_dir, "%s", dir);
  for (Case* c = g_cases; c != nullptr; c = c->next) {
    if (strcmp(c->name, argv[1]) != 0) continue;
    c->run();
    leave();
  }
  fprintf(stderr, "%s: no case %s\n", argv[0], argv[1]);
  return 2;
}

}  // namespace subject

#ifndef SUBJECT_OWN_MAIN
int main(int argc, char** argv) { return subject::main_of_cases(argc, argv); }
#endif

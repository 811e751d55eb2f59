// The program that is measured, and the small tools that measure it; bench/run starts them all.
//
//   workload run --state FILE [--mib N] [--huge] [--threads T] [--children P] [--child-mib M] [--tick-us U]
//       A process with N MiB of incompressible private memory and T threads, and P children with M MiB each.
//       Every thread is a *ticker*: it sleeps U us, reads the clock, and writes into its slot of FILE, a
//       mapped file that the measuring side reads. So a pause is seen from inside the program.
//   workload pages --dir DIR --mib N [--huge]
//       A coprocess of bench/run: per line on stdin it writes N MiB of its memory to a file in DIR with fsync
//       ("write"), or touches and frees memory so that the kernel's free pages are backed by real ones
//       ("warm").
//   workload timed [--user UID:GID] -- COMMAND...
//       Runs a command; one line of JSON on descriptor 3: when it was started, how long it took, its peak
//       RSS.
//
// Times in FILE are CLOCK_REALTIME: it is the one clock that a time namespace cannot shift.
#include <fcntl.h>
#include <grp.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr size_t kMiB = 1 << 20;
constexpr size_t kHugePage = 2 * kMiB;

[[noreturn]] void die(const char* step) {
  fprintf(stderr, "workload: %s: %s\n", step, strerror(errno));
  _exit(1);
}

template <typename T>
T check(T result, const char* step) {
  if (result < 0) die(step);
  return result;
}

int64_t clock_ns(clockid_t clock = CLOCK_REALTIME) {
  timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec * 1'000'000'000L + t.tv_nsec;
}

void sleep_us(int64_t us) {
  timespec t{us / 1'000'000, us % 1'000'000 * 1000};
  while (nanosleep(&t, &t) != 0 && errno == EINTR) {
  }
}

// --- The state file. bench/run knows these layouts: struct formats HEADER and SLOT there. ---

// What the measuring side asks for and is told. A request is a number that it raises; the answer repeats the
// number.
struct alignas(64) Header {
  std::atomic<uint64_t> tickers;  // how many slots follow
  std::atomic<uint64_t> ready;    // how many tickers have started
  std::atomic<uint64_t> epoch;    // raised: tickers forget their gaps and note their first tick
  std::atomic<uint64_t> fork_request, fork_answer, fork_ns;
  std::atomic<uint64_t> verify_request;  // answered by the first ticker of each process, in its slot
  std::atomic<uint64_t> work_request, work_answer;
  std::atomic<uint64_t> work_compute_ns, work_syscall_ns, work_memory_ns;
  std::atomic<uint64_t> dense_us;  // when not 0: what tickers sleep instead of their own time
};

struct alignas(64) Slot {
  std::atomic<uint64_t> epoch;       // the epoch that this ticker has seen
  std::atomic<uint64_t> first_tick;  // its first tick in that epoch
  std::atomic<uint64_t> last_tick;
  std::atomic<uint64_t> largest_gap_ns;  // since then: time between ticks beyond the sleep that was asked for
  std::atomic<uint64_t> ticks;
  std::atomic<uint64_t> verified;  // number of the last verify request, when this process owns memory
  std::atomic<uint64_t> damaged;   // words that were not as written
  std::atomic<uint64_t> is_first_of_process;
};

struct State {
  Header* header;
  Slot* slots;
};

// --- Memory ---

uint64_t word_at(uint64_t seed,
                 size_t index) {  // splitmix64: incompressible, and each word can be checked by itself
  uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

class Memory {
 public:
  Memory(size_t bytes, bool huge, uint64_t seed) : words_(bytes / sizeof(uint64_t)), seed_(seed) {
    if (bytes == 0) return;
    void* area = mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED) die("mmap");
    auto aligned = (reinterpret_cast<uintptr_t>(area) + kHugePage - 1) & ~(kHugePage - 1);
    data_ = reinterpret_cast<uint64_t*>(aligned);
    madvise(data_, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    for (size_t i = 0; i < words_; ++i) data_[i] = word_at(seed_, i);
  }
  size_t damaged() const {
    size_t count = 0;
    for (size_t i = 0; i < words_; ++i) count += data_[i] != word_at(seed_, i);
    return count;
  }
  void touch() const {  // writes to each page what is there
    for (size_t i = 0; i < words_; i += 4096 / sizeof(uint64_t)) {
      auto* word = static_cast<uint64_t volatile*>(data_ + i);
      *word = *word;
    }
  }
  char* bytes() const { return reinterpret_cast<char*>(data_); }
  size_t size() const { return words_ * sizeof(uint64_t); }

 private:
  uint64_t* data_ = nullptr;
  size_t words_;
  uint64_t seed_;
};

// --- Fixed portions of work, to see what running under a supervisor costs ---

uint64_t volatile sink;

void work_compute(const Memory& memory) {  // arithmetic and reads all over the memory
  uint64_t x = 1;
  size_t words = memory.size() / sizeof(uint64_t);
  auto* data = reinterpret_cast<const uint64_t*>(memory.bytes());
  for (int i = 0; i < 5'000'000; ++i) {
    x = x * 6364136223846793005 + 1442695040888963407;
    if (words != 0 && i % 16 == 0) x ^= data[(x >> 20) % words];
  }
  sink = x;
}

void work_syscalls() {
  int ends[2];
  check(pipe(ends), "pipe");
  int zero = check(open("/dev/zero", O_RDONLY), "open /dev/zero");
  char buffer[64] = {};
  struct stat info;
  for (int i = 0; i < 25'000; ++i) {
    sink = static_cast<uint64_t>(syscall(SYS_getppid));
    sink = static_cast<uint64_t>(read(zero, buffer, sizeof buffer));
    sink = static_cast<uint64_t>(write(ends[1], buffer, 1) + read(ends[0], buffer, 1));
    if (i % 8 == 0) sink = static_cast<uint64_t>(stat("/", &info));
  }
  close(zero);
  close(ends[0]);
  close(ends[1]);
}

void work_memory_calls() {  // what allocators do: map, touch, give back, unmap
  constexpr size_t kSize = 64 * 4096;
  for (int i = 0; i < 500; ++i) {
    void* area = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) die("mmap");
    for (int round = 0; round < 2; ++round) {
      for (size_t at = 0; at < kSize; at += 4096) static_cast<char volatile*>(area)[at] = 1;
      madvise(area, kSize, MADV_DONTNEED);
    }
    munmap(area, kSize);
  }
}

// --- A ticker ---

struct Ticker {
  State state;
  size_t slot;
  int64_t tick_us;
  const Memory* memory;  // of its process, when it is the first ticker there
  bool leader;           // the first ticker of the first process answers requests
};

void answer_requests(const Ticker& self) {
  Header& header = *self.state.header;
  if (uint64_t request = header.fork_request; request != header.fork_answer) {
    // The least that any snapshot by fork can cost: the kernel copies the page tables of this process.
    int64_t start = clock_ns(CLOCK_MONOTONIC);
    pid_t child = static_cast<pid_t>(syscall(SYS_fork));
    if (child == 0) syscall(SYS_exit_group, 0);
    header.fork_ns = static_cast<uint64_t>(clock_ns(CLOCK_MONOTONIC) - start);
    waitpid(check(child, "fork"), nullptr, 0);
    // A fork leaves all pages write-protected, and a second fork would find that work done.
    self.memory->touch();
    header.fork_answer = request;
  }
  if (uint64_t request = header.work_request; request != header.work_answer) {
    int64_t t0 = clock_ns(CLOCK_MONOTONIC);
    work_compute(*self.memory);
    int64_t t1 = clock_ns(CLOCK_MONOTONIC);
    work_syscalls();
    int64_t t2 = clock_ns(CLOCK_MONOTONIC);
    work_memory_calls();
    int64_t t3 = clock_ns(CLOCK_MONOTONIC);
    header.work_compute_ns = static_cast<uint64_t>(t1 - t0);
    header.work_syscall_ns = static_cast<uint64_t>(t2 - t1);
    header.work_memory_ns = static_cast<uint64_t>(t3 - t2);
    header.work_answer = request;
  }
}

[[noreturn]] void tick(const Ticker& self) {
  prctl(PR_SET_TIMERSLACK, 1);
  Header& header = *self.state.header;
  Slot& slot = self.state.slots[self.slot];
  slot.is_first_of_process = self.memory != nullptr;
  int64_t last = clock_ns();
  slot.last_tick = static_cast<uint64_t>(last);
  ++header.ready;
  for (;;) {
    int64_t dense_us = static_cast<int64_t>(header.dense_us);
    int64_t tick_us = dense_us != 0 ? dense_us : self.tick_us;
    sleep_us(tick_us);
    int64_t now = clock_ns();
    if (uint64_t epoch = header.epoch; slot.epoch != epoch) {
      slot.largest_gap_ns = 0;
      slot.first_tick = static_cast<uint64_t>(now);
      slot.epoch = epoch;
    } else {
      int64_t gap = std::max<int64_t>(0, now - last - tick_us * 1000);
      if (static_cast<uint64_t>(gap) > slot.largest_gap_ns) slot.largest_gap_ns = static_cast<uint64_t>(gap);
    }
    slot.last_tick = static_cast<uint64_t>(now);
    ++slot.ticks;
    if (self.memory != nullptr) {
      if (uint64_t request = header.verify_request; slot.verified != request) {
        slot.damaged = self.memory->damaged();
        slot.verified = request;
      }
    }
    if (self.leader) answer_requests(self);
    last = now;
    if (self.leader || self.memory != nullptr) last = clock_ns();  // what was asked for is no gap
  }
}

void* tick_thread(void* argument) { tick(*static_cast<Ticker*>(argument)); }

// --- Verbs ---

struct Options {
  std::string state, dir, user;
  size_t mib = 0, threads = 1, children = 0, child_mib = 0;
  int64_t tick_us = 200;
  bool huge = false;
  char** command = nullptr;
};

State map_state(const Options& options, size_t tickers) {
  size_t size = sizeof(Header) + tickers * sizeof(Slot);
  int fd = check(open(options.state.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644), "open the state file");
  check(ftruncate(fd, static_cast<off_t>(size)), "ftruncate");
  void* area = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (area == MAP_FAILED) die("mmap the state file");
  close(fd);
  return {static_cast<Header*>(area), reinterpret_cast<Slot*>(static_cast<char*>(area) + sizeof(Header))};
}

int run(const Options& options) {
  size_t tickers = options.threads + options.children;
  State state = map_state(options, tickers);
  for (size_t child = 0; child < options.children; ++child) {
    if (check(fork(), "fork") == 0) {
      Memory memory(options.child_mib * kMiB, options.huge, 1000 + child);
      tick({state, options.threads + child, options.tick_us, &memory, false});
    }
  }
  Memory memory(options.mib * kMiB, options.huge, 1);
  std::vector<Ticker> others(options.threads);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 64 << 10);
  for (size_t i = 1; i < options.threads; ++i) {
    others[i] = {state, i, options.tick_us, nullptr, false};
    pthread_t thread;
    errno = pthread_create(&thread, &attributes, tick_thread, &others[i]);
    if (errno != 0) die("pthread_create");
  }
  state.header->tickers = tickers;
  // A large program with a slow clock would be measured by few ticks; the first ticker is always fast.
  tick({state, 0, std::min<int64_t>(options.tick_us, 200), &memory, true});
}

int pages(const Options& options) {
  Memory memory(std::min<size_t>(options.mib, 1024) * kMiB, options.huge, 7);
  std::string path = options.dir + "/plain-write";
  char line[64];
  while (fgets(line, sizeof line, stdin) != nullptr) {
    int64_t start = clock_ns(CLOCK_MONOTONIC);
    if (std::string_view(line) == "warm\n") {
      size_t size = std::min<size_t>(options.mib + options.mib / 4 + 64, 12288) * kMiB;
      void* area =
          mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (area == MAP_FAILED) die("mmap");
      madvise(area, size, MADV_HUGEPAGE);
      for (size_t at = 0; at < size; at += 4096) static_cast<char volatile*>(area)[at] = 1;
      munmap(area, size);
    } else {
      int fd = check(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), "create");
      for (size_t done = 0; done < options.mib * kMiB; done += kMiB) {
        if (write(fd, memory.bytes() + done % memory.size(), kMiB) != static_cast<ssize_t>(kMiB))
          die("write");
      }
      check(fsync(fd), "fsync");
      close(fd);
    }
    int64_t took = clock_ns(CLOCK_MONOTONIC) - start;
    unlink(path.c_str());
    printf("%" PRId64 "\n", took);
    fflush(stdout);
  }
  return 0;
}

int timed(const Options& options) {
  int64_t start = clock_ns();
  pid_t child = check(fork(), "fork");
  if (child == 0) {
    if (!options.user.empty()) {
      char* rest = nullptr;
      auto uid = static_cast<uid_t>(strtoul(options.user.c_str(), &rest, 10));
      auto gid = static_cast<gid_t>(strtoul(rest + 1, nullptr, 10));
      check(setgroups(1, &gid), "setgroups");
      check(setresgid(gid, gid, gid), "setresgid");
      check(setresuid(uid, uid, uid), "setresuid");
    }
    close(3);
    execvp(options.command[0], options.command);
    die(options.command[0]);
  }
  int status = 0;
  rusage usage{};
  check(wait4(child, &status, 0, &usage), "wait4");
  int64_t end = clock_ns();
  dprintf(3, "{\"start\": %" PRId64 ", \"wall_ns\": %" PRId64 ", \"status\": %d, \"rss_kib\": %ld}\n", start,
          end - start, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), usage.ru_maxrss);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  std::string_view verb = argc > 1 ? argv[1] : "";
  for (int i = 2; i < argc; ++i) {
    std::string_view name = argv[i];
    if (name == "--") {
      options.command = argv + i + 1;
      break;
    }
    if (name == "--huge") {
      options.huge = true;
      continue;
    }
    if (i + 1 == argc) break;
    const char* value = argv[++i];
    if (name == "--state") options.state = value;
    if (name == "--dir") options.dir = value;
    if (name == "--user") options.user = value;
    if (name == "--mib") options.mib = strtoul(value, nullptr, 10);
    if (name == "--threads") options.threads = strtoul(value, nullptr, 10);
    if (name == "--children") options.children = strtoul(value, nullptr, 10);
    if (name == "--child-mib") options.child_mib = strtoul(value, nullptr, 10);
    if (name == "--tick-us") options.tick_us = strtol(value, nullptr, 10);
  }
  if (verb == "run" && !options.state.empty()) return run(options);
  if (verb == "pages" && !options.dir.empty() && options.mib != 0) return pages(options);
  if (verb == "timed" && options.command != nullptr && *options.command != nullptr) return timed(options);
  fprintf(stderr, "usage: workload run|pages|timed ... (see the head of bench/workload.cpp)\n");
  return 2;
}

// A program that checks itself all the time, in all the ways at once in which an engine could hurt it: it is
// what the fault tests run while they kill stasis at random instants.
#include <immintrin.h>
#include <linux/futex.h>
#include <poll.h>

#include "subject.h"

namespace {

volatile int g_end;
long g_rounds[8];

// Arithmetic in vector registers without a system call, its result known.
__attribute__((target("avx2"))) void vectors(long* rounds) {
  while (g_end == 0) {
    __m256i a = _mm256_set_epi64x(1, 2, 3, 4), b = _mm256_set_epi64x(5, 6, 7, 8), c = a, d = b;
    for (int i = 0; i < 20000; ++i) {
      a = _mm256_add_epi64(a, b);
      c = _mm256_add_epi64(c, d);
      b = _mm256_xor_si256(b, _mm256_slli_epi64(a, 3));
      d = _mm256_xor_si256(d, _mm256_slli_epi64(c, 3));
      asm volatile("" : "+x"(a), "+x"(b), "+x"(c), "+x"(d));
    }
    alignas(32) uint64_t x[4], y[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(x), a);
    _mm256_store_si256(reinterpret_cast<__m256i*>(y), c);
    for (int i = 0; i < 4; ++i) CHECK_EQ(x[i], y[i]);
    ++*rounds;
  }
}

void scalars(long* rounds) {
  while (g_end == 0) {
    uint64_t word = 88172645463325252ull;
    double sum = 0;
    for (int i = 0; i < 20000; ++i) {
      word ^= word << 13;
      word ^= word >> 7;
      word ^= word << 17;
      sum += static_cast<double>(word & 0xff);
    }
    static const uint64_t expected_word = word;
    static const double expected_sum = sum;
    CHECK_EQ(word, expected_word);
    CHECK_EQ(sum, expected_sum);
    ++*rounds;
  }
}

// Bare system calls: the C library would hide an EINTR that Linux never gives without a signal handler.
void sleeps(long* rounds) {
  while (g_end == 0) {
    timespec t = {0, 20000000}, left = {};
    int64_t before = subject::nanoseconds(CLOCK_MONOTONIC);
    CHECK_EQ(syscall(SYS_nanosleep, &t, &left), 0);
    CHECK(subject::nanoseconds(CLOCK_MONOTONIC) - before >= 19990000);
    before = subject::nanoseconds(CLOCK_MONOTONIC);
    CHECK_EQ(syscall(SYS_poll, nullptr, 0, 15), 0);
    CHECK(subject::nanoseconds(CLOCK_MONOTONIC) - before >= 14990000);
    static int word = 0;
    t = {0, 10000000};
    CHECK_EQ(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &t, nullptr, 0), -1);
    CHECK_EQ(errno, ETIMEDOUT);
    ++*rounds;
  }
}

// One word goes to a child and back, in blocking reads on both sides.
void pipes(long* rounds) {
  int down[2], up[2];
  MUST(pipe2(down, O_CLOEXEC) == 0 && pipe2(up, O_CLOEXEC) == 0);
  pid_t pid = subject::child([=] {
    close(down[1]);
    close(up[0]);
    uint64_t word;
    ssize_t n;
    while ((n = read(down[0], &word, 8)) == 8) {
      word = ~word;
      CHECK_EQ(write(up[1], &word, 8), 8);
    }
    CHECK_EQ(n, 0);
  });
  close(down[0]);
  close(up[1]);
  for (uint64_t n = 1; g_end == 0; ++n) {
    uint64_t back = 0;
    CHECK_EQ(write(down[1], &n, 8), 8);
    subject::pass(1);
    CHECK_EQ(read(up[0], &back, 8), 8);
    CHECK_EQ(back, ~n);
    ++*rounds;
  }
  close(down[1]);
  JOIN(pid);
}

// Only children of ours may ever be announced or waited for.
void children(long* rounds) {
  while (g_end == 0) {
    int code = static_cast<int>(*rounds % 200);
    pid_t pid = fork();
    if (pid == 0) _exit(code);
    int status = -1;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, code << 8);
    subject::pass(2);
    ++*rounds;
  }
}

void files(long* rounds) {
  int fd = open(subject::path("log"), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  MUST(fd >= 0);
  off_t position = 0;
  while (g_end == 0) {
    CHECK_EQ(write(fd, "0123456789abcdef", 16), 16);
    position += 16;
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), position);
    if (position > 1 << 20) {
      position = lseek(fd, 0, SEEK_SET);
      CHECK_EQ(ftruncate(fd, 0), 0);
    }
    subject::pass(3);
    ++*rounds;
  }
}

}  // namespace

CASE_WITH(everything, subject::kBusy) {
  constexpr size_t kMemory = 32 << 20;
  uint8_t* memory = subject::map(kMemory);
  subject::fill(memory, kMemory, 9);
  // Any handler call without a cause is seen: no signal is ever sent to this program.
  for (int s : {SIGTRAP, SIGSTOP, SIGCONT, SIGUSR1, SIGUSR2, SIGALRM, SIGIO, SIGHUP}) {
    signal(s, [](int) { subject::failed("busy.cpp", __LINE__, "a signal came from nowhere"); });
  }
  pthread_t threads[8];
  int count = 0;
  auto begin = [&](void (*run)(long*)) {
    long* rounds = &g_rounds[count];
    threads[count++] = subject::thread([=] { run(rounds); });
  };
  if (__builtin_cpu_supports("avx2")) begin(vectors);
  begin(scalars);
  begin(sleeps);
  begin(pipes);
  begin(children);
  begin(files);
  size_t page = 0;
  subject::ready();
  while (!subject::told_to_go()) {
    subject::answer();
    // A window of the memory is written and put back, so that pages are always becoming dirty.
    uint8_t kept[64];
    uint8_t* at = memory + page % (kMemory - 4096);
    memcpy(kept, at, sizeof kept);
    memset(at, 0xee, sizeof kept);
    subject::pass(2);
    for (size_t i = 0; i < sizeof kept; ++i) CHECK_EQ(at[i], 0xee);
    memcpy(at, kept, sizeof kept);
    page += 4096 * 37;
  }
  for (int i = 0; i < count; ++i) {
    for (int patience = 0; patience < 2000 && __atomic_load_n(&g_rounds[i], __ATOMIC_RELAXED) == 0;
         ++patience) {
      subject::pass(5);
    }
  }
  g_end = 1;
  for (int i = 0; i < count; ++i) {
    pthread_join(threads[i], nullptr);
    CHECK(g_rounds[i] > 0);
  }
  CHECK_EQ(subject::differs(memory, kMemory, 9), -1);
  CHECK_EQ(waitpid(-1, nullptr, WNOHANG | __WALL), -1);
  CHECK_EQ(errno, ECHILD);
}

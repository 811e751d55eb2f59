// System calls that wait with an end of their own: what is left of their time is neither lost nor begun anew.
// Time is CLOCK_MONOTONIC as the program sees it; it stands still between a checkpoint that stops and the
// restart.
#include <linux/futex.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>

#include "subject.h"

namespace {

constexpr int kWait = 1500;  // milliseconds

timespec of(int64_t ms) { return {ms / 1000, (ms % 1000) * 1000000}; }

// Runs a wait of kWait in a child that measures it. Never early; late by no more than the program was held
// up. A call that began anew after the checkpoint would be late by the time before it: 600 ms and more.
template <typename Wait>
void lasts(Wait wait, int expected = kWait) {
  auto* took =
      reinterpret_cast<int64_t*>(subject::map(4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS));
  pid_t pid = subject::child([&] {
    subject::mark("waiting");
    int64_t before = subject::milliseconds();
    wait();
    *took = subject::milliseconds() - before;
  });
  subject::await("waiting");
  subject::pass(600);
  subject::hold();
  JOIN(pid);
  CHECK_BETWEEN(*took, expected - 2, expected + 450 + subject::g_stalled);
}

int quiet_pipe() {
  int fds[2];
  MUST(pipe(fds) == 0);
  return fds[0];
}

}  // namespace

CASE_WITH(nanosleep_relative, subject::kBusy | subject::kTimed) {
  lasts([] {
    timespec t = of(kWait), left = {};
    CHECK_EQ(nanosleep(&t, &left), 0);
  });
}
CASE_WITH(clock_nanosleep_relative, subject::kBusy | subject::kTimed) {
  lasts([] {
    timespec t = of(kWait);
    CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, 0, &t, nullptr), 0);
  });
}
CASE_WITH(clock_nanosleep_absolute, subject::kBusy | subject::kTimed) {
  lasts([] {
    timespec t = of(subject::milliseconds() + kWait);
    CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, nullptr), 0);
  });
}
CASE_WITH(clock_nanosleep_boottime, subject::kBusy | subject::kTimed) {
  lasts([] {
    timespec t = of(subject::milliseconds(CLOCK_BOOTTIME) + kWait);
    CHECK_EQ(clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, &t, nullptr), 0);
  });
}
CASE_WITH(poll_timeout, subject::kBusy | subject::kTimed) {
  lasts([] {
    pollfd entry = {quiet_pipe(), POLLIN, 0};
    int result = poll(&entry, 1, kWait);
    // The other end is closed in no process, so nothing can happen but the end of the time.
    CHECK_EQ(result, 0);
  });
}
CASE_WITH(poll_of_nothing, subject::kBusy | subject::kTimed) {
  lasts([] { CHECK_EQ(poll(nullptr, 0, kWait), 0); });
}
CASE_WITH(ppoll_timeout, subject::kBusy | subject::kTimed) {
  lasts([] {
    timespec t = of(kWait);
    CHECK_EQ(ppoll(nullptr, 0, &t, nullptr), 0);
  });
}
CASE_WITH(select_timeout, subject::kBusy | subject::kTimed) {
  lasts([] {
    timeval t = {1, (kWait - 1000) * 1000};
    CHECK_EQ(select(0, nullptr, nullptr, nullptr, &t), 0);
  });
}
CASE_WITH(pselect_timeout, subject::kBusy | subject::kTimed) {
  lasts([] {
    timespec t = of(kWait);
    sigset_t mask;
    sigemptyset(&mask);
    CHECK_EQ(pselect(0, nullptr, nullptr, nullptr, &t, &mask), 0);
  });
}
CASE_WITH(epoll_wait_timeout, subject::kBusy | subject::kTimed) {
  lasts([] {
    int epoll = epoll_create1(0);
    epoll_event event = {EPOLLIN, {.u64 = 1}}, got;
    epoll_ctl(epoll, EPOLL_CTL_ADD, quiet_pipe(), &event);
    CHECK_EQ(epoll_wait(epoll, &got, 1, kWait), 0);
  });
}
CASE_WITH(futex_timeout, subject::kBusy | subject::kTimed) {
  lasts([] {
    static int word = 0;
    timespec t = of(kWait);
    CHECK_EQ(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &t), -1);
    CHECK_EQ(errno, ETIMEDOUT);
  });
}
CASE_WITH(futex_absolute, subject::kBusy | subject::kTimed) {
  lasts([] {
    static int word = 0;
    timespec t = of(subject::milliseconds() + kWait);
    CHECK_EQ(syscall(SYS_futex, &word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, 0, &t, nullptr, ~0u), -1);
    CHECK_EQ(errno, ETIMEDOUT);
  });
}
CASE_WITH(condition_timeout, subject::kBusy | subject::kTimed) {
  lasts([] {
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_t condition;
    pthread_cond_init(&condition, &attributes);
    timespec t = of(subject::milliseconds() + kWait);
    pthread_mutex_lock(&mutex);
    CHECK_EQ(pthread_cond_timedwait(&condition, &mutex, &t), ETIMEDOUT);
  });
}
CASE_WITH(sigtimedwait_timeout, subject::kBusy | subject::kTimed) {
  lasts([] {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    timespec t = of(kWait);
    int64_t end = subject::milliseconds() + kWait;
    // Linux itself answers EINTR to a sigtimedwait whose thread was stopped or traced; signal(7) says so.
    // Programs must live with it, and so must this one.
    while (sigtimedwait(&set, nullptr, &t) == -1 && errno == EINTR) t = of(end - subject::milliseconds());
    CHECK_EQ(errno, EAGAIN);
  });
}
CASE_WITH(receive_timeout, subject::kBusy | subject::kTimed) {
  lasts([] {
    int fds[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    timeval t = {1, (kWait - 1000) * 1000};
    MUST(setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t) == 0);
    char byte;
    int64_t end = subject::milliseconds() + kWait;
    // With SO_RCVTIMEO a socket read is never restarted by the kernel: EINTR after any stop (signal(7)).
    while (recv(fds[0], &byte, 1, 0) == -1 && errno == EINTR) {
      int64_t left = end - subject::milliseconds();
      if (left <= 0) break;
      t = {left / 1000, (left % 1000) * 1000};
      setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    }
    CHECK(errno == EAGAIN || errno == EINTR);
  });
}
CASE_WITH(sleeps_of_many_threads, subject::kBusy | subject::kTimed) {
  static pthread_t threads[20];
  int64_t begun = subject::milliseconds();
  for (int i = 0; i < 20; ++i) {
    threads[i] = subject::thread([=] {
      int ms = 700 + i * 40;
      timespec t = of(ms);
      int64_t before = subject::milliseconds();
      CHECK_EQ(nanosleep(&t, nullptr), 0);
      CHECK_BETWEEN(subject::milliseconds() - before, ms - 2, ms + 450 + subject::g_stalled);
    });
  }
  subject::pass(300);
  subject::hold();
  for (auto t : threads) pthread_join(t, nullptr);
  CHECK(subject::milliseconds() - begun >= 1450);
}

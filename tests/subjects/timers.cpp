// Timers and clocks.
#include <poll.h>
#include <sys/time.h>
#include <sys/timerfd.h>

#include "subject.h"

namespace {
volatile sig_atomic_t g_rang;
volatile int64_t g_when;
volatile int g_value;
void catching(int signal) {
  struct sigaction action = {};
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  action.sa_sigaction = [](int, siginfo_t* info, void*) {
    g_rang = g_rang + 1;
    g_when = subject::milliseconds();
    g_value = info->si_value.sival_int;
  };
  MUST(sigaction(signal, &action, nullptr) == 0);
}
void await_ring(int ms) {
  for (int i = 0; i < ms / 2 && g_rang == 0; ++i) subject::pass(2);
}
void burn(int ms) {
  int64_t end = subject::milliseconds(CLOCK_PROCESS_CPUTIME_ID) + ms;
  volatile unsigned x = 1;
  while (subject::milliseconds(CLOCK_PROCESS_CPUTIME_ID) < end) {
    for (int i = 0; i < 200000; ++i) x = x * 3;  // time in the program, not in the kernel
  }
}
timespec of(int64_t ms) { return {ms / 1000, (ms % 1000) * 1000000}; }
}  // namespace

CASE_WITH(itimer_real, subject::kTimed) {
  catching(SIGALRM);
  itimerval timer = {{0, 200000}, {1, 200000}};
  int64_t begun = subject::milliseconds();
  MUST(setitimer(ITIMER_REAL, &timer, nullptr) == 0);
  subject::pass(500);
  subject::hold();
  itimerval left;
  CHECK_EQ(getitimer(ITIMER_REAL, &left), 0);
  CHECK_EQ(left.it_interval.tv_usec, 200000);
  await_ring(2000);
  CHECK_EQ(g_rang > 0, true);
  CHECK(subject::milliseconds() - begun >= 1198);
  int seen = g_rang;
  subject::pass(700);
  CHECK(g_rang > seen);
}

// While its signal waits the timer stands still, and goes on when that has been taken.
CASE_WITH(itimer_real_whose_signal_waits, subject::kTimed) {
  catching(SIGALRM);
  sigset_t alarms, waiting;
  sigemptyset(&alarms);
  sigaddset(&alarms, SIGALRM);
  MUST(sigprocmask(SIG_BLOCK, &alarms, nullptr) == 0);
  itimerval timer = {{0, 20000}, {0, 20000}};
  MUST(setitimer(ITIMER_REAL, &timer, nullptr) == 0);
  do {
    subject::pass(10);
    MUST(sigpending(&waiting) == 0);
  } while (sigismember(&waiting, SIGALRM) == 0);
  subject::hold();
  MUST(sigprocmask(SIG_UNBLOCK, &alarms, nullptr) == 0);
  await_ring(2000);
  int seen = g_rang;
  CHECK(seen > 0);
  subject::pass(500);
  CHECK(g_rang > seen);
}

CASE_WITH(alarm_left, subject::kTimed) {
  catching(SIGALRM);
  alarm(60);
  subject::pass(1100);
  subject::hold();
  CHECK_BETWEEN(alarm(0), 50u, 59u);
  CHECK_EQ(g_rang, 0);
}

CASE_WITH(itimer_virtual_and_prof, subject::kTimed) {
  catching(SIGVTALRM);
  itimerval timer = {{0, 0}, {0, 400000}}, profile = {{10, 0}, {100, 0}}, left;
  MUST(setitimer(ITIMER_VIRTUAL, &timer, nullptr) == 0 && setitimer(ITIMER_PROF, &profile, nullptr) == 0);
  burn(100);
  subject::hold();
  CHECK_EQ(getitimer(ITIMER_PROF, &left), 0);
  CHECK_BETWEEN(left.it_value.tv_sec, 90, 100);
  CHECK_EQ(left.it_interval.tv_sec, 10);
  CHECK_EQ(g_rang, 0);
  burn(600);
  CHECK_EQ(g_rang, 1);
}

CASE_WITH(posix_timer_with_signal, subject::kTimed) {
  catching(SIGRTMIN + 1);
  sigevent event = {};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGRTMIN + 1;
  event.sigev_value.sival_int = 321;
  timer_t timer, other;
  MUST(timer_create(CLOCK_MONOTONIC, &event, &other) == 0);
  MUST(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
  MUST(timer_delete(other) == 0);  // so that the number of the one that is left is not the first
  itimerspec spec = {of(100), of(1200)};
  int64_t begun = subject::milliseconds();
  MUST(timer_settime(timer, 0, &spec, nullptr) == 0);
  subject::pass(500);
  subject::hold();
  itimerspec left;
  CHECK_EQ(timer_gettime(timer, &left), 0);
  CHECK_EQ(left.it_interval.tv_nsec, 100000000);
  await_ring(2000);
  CHECK(g_rang > 0);
  CHECK_EQ(g_value, 321);
  CHECK(subject::milliseconds() - begun >= 1198);
  CHECK_EQ(timer_delete(timer), 0);
  CHECK_EQ(timer_create(CLOCK_MONOTONIC, &event, &other), 0);
}

CASE_WITH(posix_timer_disarmed_and_silent, subject::kTimed) {
  sigevent none = {};
  none.sigev_notify = SIGEV_NONE;
  timer_t silent, disarmed;
  MUST(timer_create(CLOCK_BOOTTIME, &none, &silent) == 0);
  MUST(timer_create(CLOCK_REALTIME, &none, &disarmed) == 0);
  itimerspec spec = {{0, 0}, of(60000)};
  MUST(timer_settime(silent, 0, &spec, nullptr) == 0);
  subject::hold();
  itimerspec left;
  CHECK_EQ(timer_gettime(silent, &left), 0);
  CHECK_BETWEEN(left.it_value.tv_sec, 40, 60);
  CHECK_EQ(timer_gettime(disarmed, &left), 0);
  CHECK_EQ(left.it_value.tv_sec + left.it_value.tv_nsec, 0);
}

CASE_WITH(posix_timer_of_a_thread, subject::kTimed) {
  static volatile pid_t got;
  struct sigaction action = {};
  action.sa_handler = [](int) { got = subject::tid(); };
  MUST(sigaction(SIGRTMIN + 2, &action, nullptr) == 0);
  static pid_t wanted;
  pthread_t t = subject::thread([] {
    wanted = subject::tid();
    sigevent event = {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGRTMIN + 2;
    event._sigev_un._tid = wanted;
    timer_t timer;
    MUST(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    itimerspec spec = {{0, 0}, of(700)};
    MUST(timer_settime(timer, 0, &spec, nullptr) == 0);
    subject::mark("armed");
    for (int i = 0; i < 1500 && got == 0; ++i) subject::pass(2);
  });
  subject::await("armed");
  subject::hold();
  pthread_join(t, nullptr);
  CHECK_EQ(static_cast<pid_t>(got), wanted);
}

CASE(posix_timer_of_a_thread_that_has_ended) {
  static timer_t timer;
  pthread_t t = subject::thread([] {
    sigevent event = {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGRTMIN + 2;
    event._sigev_un._tid = subject::tid();
    itimerspec spec = {of(5000), of(100000)};
    MUST(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 && timer_settime(timer, 0, &spec, nullptr) == 0);
  });
  pthread_join(t, nullptr);
  subject::hold();
  itimerspec left = {};
  CHECK_EQ(timer_gettime(timer, &left), 0);
  CHECK_BETWEEN(left.it_value.tv_sec, 20, 100);
  CHECK_EQ(left.it_interval.tv_sec, 5);
  CHECK_EQ(timer_delete(timer), 0);
}

CASE_WITH(posix_timer_pending_with_overrun, subject::kTimed) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 3);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  sigevent event = {};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGRTMIN + 3;
  event.sigev_value.sival_int = 5;
  timer_t timer;
  MUST(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
  itimerspec spec = {of(10), of(10)};
  MUST(timer_settime(timer, 0, &spec, nullptr) == 0);
  subject::pass(200);
  subject::hold();
  timespec second = {1, 0};
  siginfo_t info = {};
  CHECK_EQ(sigtimedwait(&set, &info, &second), SIGRTMIN + 3);
  CHECK_EQ(info.si_value.sival_int, 5);
  CHECK_EQ(sigtimedwait(&set, &info, &second), SIGRTMIN + 3);  // and it goes on ringing
}

CASE_WITH(timerfd_one_shot, subject::kTimed) {
  int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  itimerspec spec = {{0, 0}, of(1200)};
  int64_t begun = subject::milliseconds();
  MUST(fd >= 0 && timerfd_settime(fd, 0, &spec, nullptr) == 0);
  subject::pass(400);
  subject::hold();
  pollfd entry = {fd, POLLIN, 0};
  while (poll(&entry, 1, 3000) == -1 && errno == EINTR) {
  }
  CHECK_BETWEEN(subject::milliseconds() - begun, 1198, 60000);
  CHECK_EQ(subject::read_u64(fd), 1u);
  CHECK_EQ(poll(&entry, 1, 100), 0);
}

CASE_WITH(timerfd_periodic, subject::kTimed) {
  int fd = timerfd_create(CLOCK_MONOTONIC, 0);
  itimerspec spec = {of(50), of(50)}, now;
  MUST(fd >= 0 && timerfd_settime(fd, 0, &spec, nullptr) == 0);
  subject::pass(240);
  int64_t begun = subject::milliseconds() - 240;
  subject::hold();
  CHECK_EQ(timerfd_gettime(fd, &now), 0);
  CHECK_EQ(now.it_interval.tv_nsec, 50000000);
  // Ticks that had not been read at the checkpoint are not lost.
  uint64_t ticks = subject::read_u64(fd);
  int64_t passed = subject::milliseconds() - begun;
  CHECK_BETWEEN(ticks, 4u, static_cast<uint64_t>(passed / 50 + 2));
  CHECK_BETWEEN(subject::read_u64(fd), 1u, 40u);
}

CASE_WITH(timerfd_absolute, subject::kTimed) {
  int fd = timerfd_create(CLOCK_BOOTTIME, 0);
  itimerspec spec = {{0, 0}, of(subject::milliseconds(CLOCK_BOOTTIME) + 1000)};
  int64_t target = subject::milliseconds(CLOCK_BOOTTIME) + 1000;
  MUST(fd >= 0 && timerfd_settime(fd, TFD_TIMER_ABSTIME, &spec, nullptr) == 0);
  subject::hold();
  CHECK_EQ(subject::read_u64(fd), 1u);
  CHECK(subject::milliseconds(CLOCK_BOOTTIME) >= target - 2);
}

CASE_WITH(timerfd_disarmed_and_real_time, subject::kTimed) {
  int idle = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK),
      wall = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
  itimerspec spec = {of(3600000), of(subject::milliseconds(CLOCK_REALTIME) + 100000000)}, now;
  MUST(timerfd_settime(wall, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &spec, nullptr) == 0);
  subject::hold();
  uint64_t value;
  CHECK_EQ(read(idle, &value, 8), -1);
  CHECK_EQ(errno, EAGAIN);
  CHECK_EQ(timerfd_gettime(wall, &now), 0);
  CHECK_BETWEEN(now.it_value.tv_sec, 99000, 100001);
  CHECK_EQ(now.it_interval.tv_sec, 3600);
}

// Each clock as the program sees it: it may stand while the program is not there, it may never go back, and
// it must not show the time that passed elsewhere.
CASE_WITH(clocks_do_not_jump, subject::kTimed) {
  const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW, CLOCK_MONOTONIC_COARSE};
  int64_t last[4];
  for (int i = 0; i < 4; ++i) last[i] = subject::nanoseconds(clocks[i]);
  int64_t wall = subject::nanoseconds(CLOCK_REALTIME);
  subject::ready();
  while (!subject::told_to_go()) {
    subject::answer();
    for (int i = 0; i < 4; ++i) {
      int64_t now = subject::nanoseconds(clocks[i]);
      CHECK(now >= last[i]);
      // A checkpoint, a restart, a loaded machine; but no more.
      CHECK_BETWEEN((now - last[i]) / 1000000, 0, 15000);
      last[i] = now;
    }
    int64_t now = subject::nanoseconds(CLOCK_REALTIME);
    CHECK(now >= wall - 1000000000);
    wall = now;
    subject::pass(2);
  }
}

// The vDSO and the system call must tell the same time, in every time namespace.
CASE_WITH(clocks_agree, subject::kTimed) {
  subject::hold();
  for (clockid_t clock : {CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_REALTIME}) {
    timespec before, inside, after;
    clock_gettime(clock, &before);
    CHECK_EQ(syscall(SYS_clock_gettime, clock, &inside), 0);
    clock_gettime(clock, &after);
    auto ns = [](timespec t) { return t.tv_sec * 1000000000LL + t.tv_nsec; };
    CHECK_BETWEEN(ns(inside), ns(before), ns(after));
  }
}

CASE_WITH(processor_time_goes_on, subject::kTimed) {
  burn(100);
  subject::hold();
  burn(30);
  CHECK(subject::milliseconds(CLOCK_PROCESS_CPUTIME_ID) >= 0);
  CHECK(subject::milliseconds(CLOCK_THREAD_CPUTIME_ID) >= 0);
}

// Small settings that the kernel keeps for processes and threads, one case each.
#include <linux/membarrier.h>
#include <sys/mount.h>
#include <sys/timerfd.h>

#include "subject.h"

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif
#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#define PR_GET_IO_FLUSHER 58
#endif

namespace {

long barrier(int command) { return syscall(SYS_membarrier, command, 0, 0); }

struct Attributes {
  uint32_t size, policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime, deadline, period;
  uint32_t util_min, util_max;
};

Attributes scheduling() {
  Attributes now = {};
  CHECK_EQ(syscall(SYS_sched_getattr, 0, &now, sizeof now, 0), 0);
  return now;
}

}  // namespace

CASE(memory_barriers) {
  if (barrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) != 0) SKIP("no membarrier here");
  MUST(barrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED) == 0);
  subject::hold();
  CHECK_EQ(barrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED), 0);
  constexpr int kGetRegistrations = 1 << 9;
  long bits = barrier(kGetRegistrations);
  if (bits >= 0)
    CHECK_EQ(bits, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED | MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED);
}

CASE(merging_of_memory) {
  if (prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0) != 0)
    SKIP("this kernel does not merge memory, or not for this user");
  subject::hold();
  CHECK_EQ(prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0), 1);
}

CASE(flusher_of_io) {
  if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0) SKIP("not for this user");
  subject::hold();
  CHECK_EQ(prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0), 1);
}

CASE(time_stamp_counter) {
  pthread_t t = subject::thread([] {
    MUST(prctl(PR_SET_TSC, PR_TSC_SIGSEGV) == 0);
    subject::mark("born");
    while (!subject::told_to_go()) syscall(SYS_sched_yield);
    int mode = 0;
    CHECK_EQ(prctl(PR_GET_TSC, &mode), 0);
    CHECK_EQ(mode, PR_TSC_SIGSEGV);
    prctl(PR_SET_TSC, PR_TSC_ENABLE);
  });
  subject::await("born");
  subject::hold();
  int mode = 0;
  CHECK_EQ(prctl(PR_GET_TSC, &mode), 0);
  CHECK_EQ(mode, PR_TSC_ENABLE);
  pthread_join(t, nullptr);
}

CASE_WITH(deadline_scheduling, subject::kMayRefuse) {
  Attributes wanted = {sizeof wanted, 6, 0, 0, 0, 2'000'000, 50'000'000, 100'000'000, 0, 0};
  wanted.size = 48;
  if (syscall(SYS_sched_setattr, 0, &wanted, 0) != 0) SKIP("no deadlines for this user");
  subject::hold();
  Attributes now = scheduling();
  CHECK_EQ(now.policy, 6u);
  CHECK_EQ(now.runtime, wanted.runtime);
  CHECK_EQ(now.deadline, wanted.deadline);
  CHECK_EQ(now.period, wanted.period);
}

CASE(idle_and_reset_on_fork) {
  sched_param none = {};
  MUST(sched_setscheduler(0, SCHED_IDLE | SCHED_RESET_ON_FORK, &none) == 0);
  subject::hold();
  CHECK_EQ(sched_getscheduler(0), SCHED_IDLE | SCHED_RESET_ON_FORK);
}

CASE(control_group) {
  if (geteuid() != 0) SKIP("only root makes control groups");
  const char* const places[] = {"/sys/fs/cgroup/freezer", "/sys/fs/cgroup"};
  char group[128] = {}, name[160];
  for (const char* place : places) {
    snprintf(group, sizeof group, "%s/stasis-test-%d", place, static_cast<int>(subject::milliseconds()));
    if (mkdir(group, 0755) == 0) break;
    group[0] = 0;
  }
  if (group[0] == 0) SKIP("no control groups can be made here");
  static char before[4096], after[4096];
  snprintf(name, sizeof name, "%s/cgroup.procs", group);
  int fd = open(name, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, "0", 1) != 1) SKIP("it cannot be joined");
  close(fd);
  MUST(subject::slurp("/proc/self/cgroup", before, sizeof before) > 0);
  subject::hold();
  CHECK(subject::slurp("/proc/self/cgroup", after, sizeof after) > 0);
  if (strcmp(before, after) != 0) subject::say("were\n%sare\n%s", before, after);
  CHECK(strstr(after, strrchr(group, '/')) != nullptr);
  // Out again, so that it can be removed.
  snprintf(name, sizeof name, "%.*s/cgroup.procs", static_cast<int>(strrchr(group, '/') - group), group);
  fd = open(name, O_WRONLY | O_CLOEXEC);
  CHECK_EQ(write(fd, "0", 1), 1);
  close(fd);
  CHECK_EQ(rmdir(group), 0);
}

namespace {
char hierarchy[512], hierarchy_name[64];
pthread_barrier_t joined, verified;

bool mount_hierarchy() {
  char options[128];
  snprintf(options, sizeof options, "none,name=%s", hierarchy_name);
  return mount("none", hierarchy, "cgroup", 0, options) == 0;
}

// It is mounted where nobody else sees it.
void make_hierarchy() {
  if (geteuid() != 0) SKIP("only root makes hierarchies of control groups");
  MUST(unshare(CLONE_NEWNS) == 0);
  MUST(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
  snprintf(hierarchy, sizeof hierarchy, "%s/hierarchy", getenv("SUBJECT_DIR"));
  MUST(mkdir(hierarchy, 0755) == 0);
  // The name is the machine's.
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  snprintf(hierarchy_name, sizeof hierarchy_name, "stasis-test-%lx-%lx", now.tv_sec, now.tv_nsec);
  if (!mount_hierarchy()) SKIP("this kernel has no hierarchies of version 1");
}

void leave_groups() {
  char tasks[640];
  snprintf(tasks, sizeof tasks, "%s/tasks", hierarchy);
  int fd = open(tasks, O_WRONLY | O_CLOEXEC);
  CHECK(fd >= 0 && write(fd, "0", 1) == 1);
  close(fd);
}

bool join_group(const char* group) {
  char name[640];
  snprintf(name, sizeof name, "%s/%s", hierarchy, group);
  if (mkdir(name, 0755) != 0) return false;
  snprintf(name, sizeof name, "%s/%s/tasks", hierarchy, group);
  int fd = open(name, O_WRONLY | O_CLOEXEC);
  const bool is_in = fd >= 0 && write(fd, "0", 1) == 1;
  close(fd);
  return is_in;
}

void check_group(const char* group) {
  char now[4096], line[160];
  snprintf(line, sizeof line, ":name=%s:/%s\n", hierarchy_name, group);
  CHECK(subject::slurp("/proc/thread-self/cgroup", now, sizeof now) > 0);
  const bool found = strstr(now, line) != nullptr;
  if (!found) fprintf(stderr, "wanted %sfound %s", line, now);
  CHECK(found);
}

void* live_in_group(void*) {
  CHECK(join_group("thread"));
  pthread_barrier_wait(&joined);
  pthread_barrier_wait(&verified);
  check_group("thread");
  return nullptr;
}

void remove_group(const char* group) {
  char name[640];
  snprintf(name, sizeof name, "%s/%s", hierarchy, group);
  // It takes the kernel a moment to see that a thread is gone.
  for (int i = 0; i < 200 && rmdir(name) != 0 && errno == EBUSY; ++i) subject::pass(5);
}

// The last umount ends it, if the kernel is done with its groups by then.
void remove_hierarchy() {
  char now[4096];
  for (int i = 0; i < 20; ++i) {
    CHECK_EQ(umount(hierarchy), 0);
    CHECK(subject::slurp("/proc/self/cgroup", now, sizeof now) > 0);
    if (strstr(now, hierarchy_name) == nullptr) return;
    subject::pass(100);
    CHECK(mount_hierarchy());
  }
}
}  // namespace

// A hierarchy is there for as long as it has groups, also when it is mounted nowhere any more.
CASE(control_group_of_a_hierarchy_that_was_unmounted) {
  make_hierarchy();
  MUST(join_group("process"));
  MUST(umount(hierarchy) == 0);
  subject::hold();
  check_group("process");
  CHECK(mount_hierarchy());
  leave_groups();
  remove_group("process");
  remove_hierarchy();
}

// In the hierarchies of version 1 each thread is in a group by itself.
CASE(control_groups_of_threads) {
  make_hierarchy();
  MUST(join_group("process"));
  pthread_barrier_init(&joined, nullptr, 2);
  pthread_barrier_init(&verified, nullptr, 2);
  pthread_t thread;
  MUST(pthread_create(&thread, nullptr, live_in_group, nullptr) == 0);
  pthread_barrier_wait(&joined);
  subject::hold();
  check_group("process");
  pthread_barrier_wait(&verified);
  CHECK_EQ(pthread_join(thread, nullptr), 0);
  leave_groups();
  remove_group("process");
  remove_group("thread");
  remove_hierarchy();
}

// What is above the root of a namespace is not to be seen in it.
CASE(control_group_namespace) {
  make_hierarchy();
  int begun[2], go_on[2];
  MUST(pipe(begun) == 0 && pipe(go_on) == 0);
  const pid_t child = fork();
  if (child == 0) {
    char byte;
    MUST(join_group("outer"));
    MUST(unshare(CLONE_NEWCGROUP) == 0);
    check_group("");
    MUST(join_group("outer/inner"));
    check_group("inner");
    MUST(write(begun[1], "", 1) == 1);
    MUST(read(go_on[0], &byte, 1) == 1);
    check_group("inner");
    subject::leave();
  }
  char byte;
  MUST(read(begun[0], &byte, 1) == 1);
  subject::hold();
  check_group("");
  MUST(write(go_on[1], "", 1) == 1);
  int status = 1;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  remove_group("outer/inner");
  remove_group("outer");
  remove_hierarchy();
}

CASE_WITH(calls_that_come_back, subject::kMayRefuse) {
  // As Wine does for programs that make system calls of another system.
  static volatile char selector = 0;  // let through
  if (prctl(59, 1, 1, 0, &selector) != 0 && prctl(59, 1, 0, 0, &selector) != 0) SKIP("not on this kernel");
  subject::hold();
  selector = 0;
}

CASE(timers_of_every_clock) {
  const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC,          CLOCK_BOOTTIME,
                              CLOCK_TAI,      CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID};
  timer_t timers[6] = {};
  for (int i = 0; i < 6; ++i) {
    sigevent event = {};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGRTMIN + i;
    event.sigev_value.sival_int = 100 + i;
    MUST(timer_create(clocks[i], &event, &timers[i]) == 0);
    itimerspec value = {{300 + i, 0}, {1000 + i, 0}};
    MUST(timer_settime(timers[i], 0, &value, nullptr) == 0);
  }
  subject::hold();
  for (int i = 0; i < 6; ++i) {
    itimerspec now = {};
    CHECK_EQ(timer_gettime(timers[i], &now), 0);
    CHECK_EQ(now.it_interval.tv_sec, 300 + i);
    CHECK_BETWEEN(now.it_value.tv_sec, 900 + i, 1000 + i);
  }
}

CASE(timerfd_cancelled_by_setting_the_clock) {
  constexpr int kCancel = 1 << 1;
  int fd = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
  itimerspec value = {{0, 0}, {time(nullptr) + 5000, 0}}, now = {};
  MUST(fd >= 0 && timerfd_settime(fd, TFD_TIMER_ABSTIME | kCancel, &value, nullptr) == 0);
  subject::hold();
  CHECK_EQ(timerfd_gettime(fd, &now), 0);
  CHECK_BETWEEN(now.it_value.tv_sec, 4900, 5000);
  char name[64], text[512];
  snprintf(name, sizeof name, "/proc/self/fdinfo/%d", fd);
  CHECK(subject::slurp(name, text, sizeof text) > 0);
  const char* flags = strstr(text, "settime flags: ");
  CHECK(flags != nullptr && strtol(flags + 15, nullptr, 8) == (TFD_TIMER_ABSTIME | kCancel));
}

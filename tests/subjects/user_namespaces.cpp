// User namespaces that the program makes for itself inside the session, and what belongs to them.
#include <linux/capability.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include "subject.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

namespace {

struct Shared {
  volatile int ready;
  volatile int looked;
  volatile pid_t pids[16];
};
Shared* share() {
  return reinterpret_cast<Shared*>(
      subject::map(sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS));
}
void arrive(Shared* shared) { __atomic_add_fetch(&shared->ready, 1, __ATOMIC_SEQ_CST); }
void await_arrivals(Shared* shared, int count) {
  while (shared->ready < count) subject::pass(1);
}
void stay() {
  while (!subject::told_to_go()) subject::pass(5);
}

void put(const char* name, const char* text) {
  const int fd = open(name, O_WRONLY | O_CLOEXEC);
  MUST(fd >= 0 && write(fd, text, strlen(text)) == static_cast<ssize_t>(strlen(text)));
  close(fd);
}
// unshare -U, with our ids as these.
void enter(int flags, unsigned user, unsigned group) {
  const unsigned own_user = geteuid(), own_group = getegid();
  char text[64];
  if (unshare(CLONE_NEWUSER | flags) != 0 && errno == EPERM) SKIP("no user namespaces here");
  put("/proc/self/setgroups", "deny");
  snprintf(text, sizeof text, "%u %u 1", user, own_user);
  put("/proc/self/uid_map", text);
  snprintf(text, sizeof text, "%u %u 1", group, own_group);
  put("/proc/self/gid_map", text);
  MUST(geteuid() == user && getegid() == group);
}

struct Seen {
  char users[256], groups[256], setgroups[64];
  unsigned user, group;
  unsigned long long effective, permitted, bounding;
};
unsigned long long mask_of(const char* status, const char* key) {
  const char* at = strstr(status, key);
  return at != nullptr ? strtoull(at + strlen(key), nullptr, 16) : 0;
}
Seen see() {
  Seen seen = {};
  MUST(subject::slurp("/proc/self/uid_map", seen.users, sizeof seen.users) >= 0);
  MUST(subject::slurp("/proc/self/gid_map", seen.groups, sizeof seen.groups) >= 0);
  MUST(subject::slurp("/proc/self/setgroups", seen.setgroups, sizeof seen.setgroups) >= 0);
  static char status[8192];
  MUST(subject::slurp("/proc/self/status", status, sizeof status) > 0);
  seen.user = geteuid();
  seen.group = getegid();
  seen.effective = mask_of(status, "CapEff:");
  seen.permitted = mask_of(status, "CapPrm:");
  seen.bounding = mask_of(status, "CapBnd:");
  return seen;
}
void expect_same(const Seen& before) {
  const Seen now = see();
  CHECK_EQ(strcmp(now.users, before.users), 0);
  CHECK_EQ(strcmp(now.groups, before.groups), 0);
  CHECK_EQ(strcmp(now.setgroups, before.setgroups), 0);
  CHECK_EQ(now.user, before.user);
  CHECK_EQ(now.group, before.group);
  CHECK_EQ(now.effective, before.effective);
  CHECK_EQ(now.permitted, before.permitted);
  CHECK_EQ(now.bounding, before.bounding);
}
uint64_t identity(int fd) {
  struct stat status = {};
  return fd >= 0 && fstat(fd, &status) == 0 ? status.st_ino : 0;
}
uint64_t namespace_of(const char* type) {
  char name[64];
  snprintf(name, sizeof name, "/proc/self/ns/%s", type);
  struct stat status = {};
  return stat(name, &status) == 0 ? status.st_ino : 0;
}
// The user namespace to which ours of that type belongs.
uint64_t owner_of(const char* type) {
  char name[64];
  snprintf(name, sizeof name, "/proc/self/ns/%s", type);
  const int fd = open(name, O_RDONLY | O_CLOEXEC);
  const int owner = ioctl(fd, NS_GET_USERNS);
  const uint64_t found = identity(owner);
  close(owner);
  close(fd);
  return found;
}

}  // namespace

// unshare -Ur
CASE(root_of_its_own) {
  enter(0, 0, 0);
  const Seen before = see();
  CHECK(before.effective != 0);
  subject::hold();
  expect_same(before);
}

CASE(as_itself) {
  enter(0, geteuid(), getegid());
  const Seen before = see();
  subject::hold();
  expect_same(before);
}

CASE(without_rights) {
  enter(0, 0, 0);
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  data[0].effective = data[0].permitted = 1u << CAP_CHOWN;
  MUST(prctl(PR_CAPBSET_DROP, CAP_SYS_TIME, 0, 0, 0) == 0);
  MUST(syscall(SYS_capset, &header, data) == 0);
  const Seen before = see();
  CHECK_EQ(before.effective, 1ull << CAP_CHOWN);
  subject::hold();
  expect_same(before);
}

CASE(nested) {
  enter(0, 0, 0);
  const uint64_t outer = namespace_of("user");
  const pid_t pid = subject::child([&] {
    enter(0, 5, 6);
    const Seen before = see();
    const pid_t inner = subject::child([&] {
      stay();
      expect_same(before);
    });
    stay();
    expect_same(before);
    const int above = ioctl(open("/proc/self/ns/user", O_RDONLY), NS_GET_PARENT);
    CHECK(identity(above) != namespace_of("user"));
    JOIN(inner);
  });
  const Seen before = see();
  subject::hold();
  expect_same(before);
  CHECK(outer != 0);
  JOIN(pid);
}

CASE(threads) {
  enter(0, 0, 0);
  const Seen before = see();
  pthread_t threads[3];
  pid_t numbers[3] = {};
  Shared* shared = share();
  for (int i = 0; i < 3; ++i) {
    threads[i] = subject::thread([&, i] {
      numbers[i] = subject::tid();
      arrive(shared);
      stay();
      CHECK_EQ(subject::tid(), numbers[i]);
    });
  }
  await_arrivals(shared, 3);
  subject::hold();
  for (pthread_t one : threads) pthread_join(one, nullptr);
  expect_same(before);
}

// unshare -Ur --uts --ipc --net --mount: all belong to it.
CASE(owner_of_others) {
  enter(CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWNS, 0, 0);
  MUST(sethostname("inner", 5) == 0);
  const Seen before = see();
  const char* kTypes[] = {"uts", "ipc", "net", "mnt"};
  for (const char* type : kTypes) CHECK_EQ(owner_of(type), namespace_of("user"));
  CHECK(owner_of("pid") != namespace_of("user"));
  subject::hold();
  expect_same(before);
  for (const char* type : kTypes) CHECK_EQ(owner_of(type), namespace_of("user"));
  CHECK(owner_of("pid") != namespace_of("user"));
  utsname names = {};
  uname(&names);
  CHECK_EQ(strcmp(names.nodename, "inner"), 0);
  // And it still may.
  CHECK_EQ(sethostname("other", 5), 0);
}

// unshare -Ur --pid --fork
CASE(pid_namespace) {
  Shared* shared = share();
  const uint64_t session = namespace_of("user");
  enter(CLONE_NEWPID, 0, 0);
  const Seen before = see();
  const pid_t first = subject::child([&] {
    CHECK_EQ(getpid(), 1);
    JOIN(subject::child([] {}));
    const pid_t child = subject::child([&] {
      CHECK_EQ(getpid(), 3);
      pthread_t other = subject::thread([&] {
        CHECK_EQ(subject::tid(), 4);
        arrive(shared);
        stay();
        CHECK_EQ(subject::tid(), 4);
      });
      stay();
      CHECK_EQ(getpid(), 3);
      CHECK_EQ(getppid(), 1);
      pthread_join(other, nullptr);
    });
    stay();
    CHECK_EQ(getpid(), 1);
    expect_same(before);
    CHECK_EQ(owner_of("pid"), namespace_of("user"));
    JOIN(child);
    const pid_t next = subject::child([] { CHECK_EQ(getppid(), 1); });
    JOIN(next);
    while (!shared->looked) subject::pass(1);
  });
  await_arrivals(shared, 1);
  subject::hold();
  expect_same(before);
  CHECK(session != namespace_of("user"));
  const pid_t second = subject::child([&] { CHECK(getpid() > 1); });
  JOIN(second);
  shared->looked = 1;
  JOIN(first);
}

// ... --mount-proc
CASE(pid_namespace_with_proc) {
  Shared* shared = share();
  enter(CLONE_NEWPID | CLONE_NEWNS, 0, 0);
  const pid_t first = subject::child([&] {
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0) {
      shared->pids[0] = 1;
      arrive(shared);
      subject::leave();
    }
    const pid_t child = subject::child([&] {
      arrive(shared);
      stay();
    });
    stay();
    char name[64] = {};
    CHECK(readlink("/proc/self", name, sizeof name - 1) == 1 && name[0] == '1');
    snprintf(name, sizeof name, "/proc/%d/status", child);
    CHECK_EQ(access(name, F_OK), 0);
    JOIN(child);
  });
  await_arrivals(shared, 1);
  if (shared->pids[0] != 0) {
    JOIN(first);
    SKIP("/proc cannot be mounted here");
  }
  subject::hold();
  JOIN(first);
}

// By how many milliseconds the monotonic clock of a process differs from the host's.
int64_t clock_offset(const char* file) {
  char text[128];
  long long seconds = 0, nanoseconds = 0;
  MUST(subject::slurp(file, text, sizeof text) > 0);
  MUST(sscanf(text, "monotonic %lld %lld", &seconds, &nanoseconds) == 2);
  return seconds * 1000 + nanoseconds / 1000000;
}

// unshare --time: the clocks of the session go on where they were, and these by as much.
CASE(time_namespace) {
  constexpr int64_t kAhead = 100000;
  Shared* shared = share();
  const uint64_t session = namespace_of("time");
  const pid_t pid = subject::child([&] {
    if (geteuid() != 0) enter(0, 0, 0);
    const int64_t before = subject::milliseconds(CLOCK_MONOTONIC);
    MUST(unshare(CLONE_NEWTIME) == 0);
    char text[128];
    // The offsets that it has from the session count.
    long long seconds[2] = {}, nanoseconds[2] = {};
    MUST(subject::slurp("/proc/self/timens_offsets", text, sizeof text) > 0);
    MUST(sscanf(text, "monotonic %lld %lld boottime %lld %lld", &seconds[0], &nanoseconds[0], &seconds[1],
                &nanoseconds[1]) == 4);
    snprintf(text, sizeof text, "monotonic %lld %lld\nboottime %lld %lld\n", seconds[0] + kAhead,
             nanoseconds[0], seconds[1] + 2 * kAhead, nanoseconds[1]);
    put("/proc/self/timens_offsets", text);
    const int place = open("/proc/self/ns/time_for_children", O_RDONLY | O_CLOEXEC);
    MUST(place >= 0 && setns(place, CLONE_NEWTIME) == 0);
    close(place);
    const uint64_t own = namespace_of("time");
    CHECK(own != session);
    const int64_t ahead = subject::milliseconds(CLOCK_MONOTONIC) - before;
    CHECK_BETWEEN(ahead, kAhead * 1000, kAhead * 1000 + 20000);
    const int64_t start[2] = {subject::milliseconds(CLOCK_MONOTONIC), subject::milliseconds(CLOCK_BOOTTIME)};
    pthread_t other = subject::thread([&] {
      arrive(shared);
      stay();
      CHECK_BETWEEN(subject::milliseconds(CLOCK_MONOTONIC), start[0], start[0] + 60000);
    });
    stay();
    const int64_t difference =
        clock_offset("/proc/self/timens_offsets") - clock_offset("/proc/1/timens_offsets");
    CHECK_BETWEEN(difference, kAhead * 1000 - 1, kAhead * 1000 + 1);
    CHECK_BETWEEN(subject::milliseconds(CLOCK_MONOTONIC), start[0], start[0] + 60000);
    CHECK_BETWEEN(subject::milliseconds(CLOCK_BOOTTIME), start[1], start[1] + 60000);
    CHECK(namespace_of("time") == namespace_of("time_for_children"));
    JOIN(subject::child(
        [&] { CHECK_BETWEEN(subject::milliseconds(CLOCK_MONOTONIC), start[0], start[0] + 60000); }));
    pthread_join(other, nullptr);
  });
  await_arrivals(shared, 1);
  const int64_t start = subject::milliseconds(CLOCK_MONOTONIC);
  subject::hold();
  CHECK_BETWEEN(subject::milliseconds(CLOCK_MONOTONIC), start, start + 60000);
  JOIN(pid);
}

// What belongs to a process as a whole: directory, limits, names, credentials, and the kernel's switches.
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/personality.h>
#include <sys/resource.h>

#include "subject.h"

namespace {

struct Text {
  char bytes[65536];
  ssize_t size;
};
Text text_of(const char* name) {
  Text t;
  t.size = subject::slurp(name, t.bytes, sizeof t.bytes);
  return t;
}
// Asserts that a file of /proc reads the same after.
#define SAME_AFTER(name)                                                                       \
  do {                                                                                         \
    static Text before, after;                                                                 \
    before = text_of(name);                                                                    \
    MUST(before.size >= 0);                                                                    \
    subject::hold();                                                                           \
    after = text_of(name);                                                                     \
    CHECK_EQ(after.size, before.size);                                                         \
    if (after.size == before.size) CHECK_EQ(memcmp(after.bytes, before.bytes, after.size), 0); \
  } while (0)

// The lines of /proc/self/status that begin with the word.
void status_lines(const char* word, char* out, size_t size) {
  static Text text;
  text = text_of("/proc/self/status");
  out[0] = 0;
  for (char* line = strtok(text.bytes, "\n"); line != nullptr; line = strtok(nullptr, "\n")) {
    if (strncmp(line, word, strlen(word)) != 0) continue;
    strncat(out, line, size - strlen(out) - 2);
    strcat(out, "\n");
  }
}

}  // namespace

CASE(command_line) { SAME_AFTER("/proc/self/cmdline"); }
CASE(environment) { SAME_AFTER("/proc/self/environ"); }
CASE(auxiliary_vector) { SAME_AFTER("/proc/self/auxv"); }
CASE(limits) {
  rlimit files = {512, 800}, core = {0, 4096}, stack = {4 << 20, 64 << 20};
  MUST(setrlimit(RLIMIT_NOFILE, &files) == 0 && setrlimit(RLIMIT_CORE, &core) == 0 &&
       setrlimit(RLIMIT_STACK, &stack) == 0);
  SAME_AFTER("/proc/self/limits");
}
CASE(personality_flags) {
  MUST(personality(ADDR_NO_RANDOMIZE | READ_IMPLIES_EXEC) >= 0);
  SAME_AFTER("/proc/self/personality");
  CHECK_EQ(personality(0xffffffff), ADDR_NO_RANDOMIZE | READ_IMPLIES_EXEC);
}
CASE(dump_filter) {
  int fd = open("/proc/self/coredump_filter", O_WRONLY);
  MUST(fd >= 0 && write(fd, "0x7b", 4) == 4);
  close(fd);
  SAME_AFTER("/proc/self/coredump_filter");
}
CASE(out_of_memory_score) {
  int fd = open("/proc/self/oom_score_adj", O_WRONLY);
  MUST(fd >= 0 && write(fd, "321", 3) == 3);
  close(fd);
  SAME_AFTER("/proc/self/oom_score_adj");
}

CASE(program_link) {
  char before[512] = {}, after[512] = {};
  MUST(readlink("/proc/self/exe", before, sizeof before - 1) > 0);
  subject::hold();
  CHECK(readlink("/proc/self/exe", after, sizeof after - 1) > 0);
  CHECK_EQ(strcmp(before, after), 0);
  // And the program can start itself by it.
  pid_t pid = subject::child([] {
    execl("/proc/self/exe", "again", "--list", nullptr);
    _exit(1);
  });
  JOIN(pid);
}

CASE(title_rewritten) {
  // As servers do: the area of the arguments is overwritten by PR_SET_MM or in place; here the kernel's own
  // bounds.
  SAME_AFTER("/proc/self/comm");
  prctl(PR_SET_NAME, "other");
  static Text now;
  now = text_of("/proc/self/comm");
  CHECK_EQ(strcmp(now.bytes, "other\n"), 0);
}

CASE(working_directory) {
  MUST(mkdir(subject::path("below"), 0700) == 0 && chdir(subject::path("below")) == 0);
  char before[1024], after[1024];
  MUST(getcwd(before, sizeof before) != nullptr);
  subject::hold();
  CHECK(getcwd(after, sizeof after) != nullptr);
  CHECK_EQ(strcmp(before, after), 0);
  int fd = open("relative", O_CREAT | O_WRONLY, 0600);
  CHECK(fd >= 0);
  CHECK(subject::marked("below/relative"));
}

CASE(file_creation_mask) {
  umask(0137);
  subject::hold();
  int fd = open(subject::path("file"), O_CREAT | O_WRONLY, 0777);
  struct stat st;
  CHECK_EQ(fstat(fd, &st), 0);
  CHECK_EQ(st.st_mode & 0777, 0640u);
  CHECK_EQ(umask(0), 0137u);
}

CASE(shared_directory_of_threads) {
  pthread_t t = subject::thread([] {
    subject::mark("born");
    subject::await("changed");
    char now[1024];
    CHECK(getcwd(now, sizeof now) != nullptr);
    CHECK_EQ(strcmp(now, "/"), 0);
  });
  subject::await("born");
  subject::hold();
  CHECK_EQ(chdir("/"), 0);
  subject::mark("changed");
  pthread_join(t, nullptr);
}

CASE(niceness) {
  MUST(setpriority(PRIO_PROCESS, 0, 5) == 0);
  subject::hold();
  CHECK_EQ(getpriority(PRIO_PROCESS, 0), 5);
}

CASE(io_priority) {
  MUST(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 6) == 0);
  subject::hold();
  CHECK_EQ(syscall(SYS_ioprio_get, 1, 0), 2 << 13 | 6);
}

CASE(switches) {
  MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  MUST(prctl(PR_SET_KEEPCAPS, 1) == 0);
  MUST(prctl(PR_SET_TIMERSLACK, 77777) == 0);
  MUST(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
  MUST(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
  MUST(prctl(PR_SET_PDEATHSIG, SIGUSR2) == 0);
  MUST(prctl(PR_SET_TSC, PR_TSC_ENABLE) == 0);
  subject::hold();
  int value = 0;
  CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
  CHECK_EQ(prctl(PR_GET_KEEPCAPS), 1);
  CHECK_EQ(prctl(PR_GET_TIMERSLACK), 77777);
  CHECK_EQ(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 1);
  CHECK_EQ(prctl(PR_GET_CHILD_SUBREAPER, &value), 0);
  CHECK_EQ(value, 1);
  CHECK_EQ(prctl(PR_GET_PDEATHSIG, &value), 0);
  CHECK_EQ(value, SIGUSR2);
}

CASE(machine_check_policy) {
  MUST(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0) == 0);
  subject::hold();
  CHECK_EQ(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0), PR_MCE_KILL_EARLY);
}

// Without privilege the kernel lets nobody look into such a process.
CASE_WITH(stays_not_dumpable, subject::kMayRefuse) {
  MUST(prctl(PR_SET_DUMPABLE, 0) == 0);
  subject::hold();
  CHECK_EQ(prctl(PR_GET_DUMPABLE), 0);
}

CASE(stays_dumpable) {
  MUST(prctl(PR_GET_DUMPABLE) == 1);
  subject::hold();
  CHECK_EQ(prctl(PR_GET_DUMPABLE), 1);
}

CASE(users_and_groups) {
  char before[2048], after[2048];
  status_lines("Uid", before, sizeof before);
  status_lines("Gid", before + strlen(before), sizeof before - strlen(before));
  gid_t groups[64], groups_now[64];
  int count = getgroups(64, groups);
  subject::hold();
  status_lines("Uid", after, sizeof after);
  status_lines("Gid", after + strlen(after), sizeof after - strlen(after));
  CHECK_EQ(strcmp(before, after), 0);
  CHECK_EQ(getgroups(64, groups_now), count);
  CHECK_EQ(memcmp(groups, groups_now, count * sizeof(gid_t)), 0);
}

CASE(capabilities) {
  char before[2048], after[2048];
  status_lines("Cap", before, sizeof before);
  subject::hold();
  status_lines("Cap", after, sizeof after);
  if (strcmp(before, after) != 0) subject::say("were\n%sare\n%s", before, after);
  CHECK_EQ(strcmp(before, after), 0);
}

CASE(became_another_user) {
  if (geteuid() != 0) SKIP("only root can become somebody else");
  MUST(chmod(subject::g_dir, 0777) == 0);
  gid_t groups[3] = {100, 4242, 65000};
  MUST(setgroups(3, groups) == 0);
  MUST(setresgid(1234, 1235, 1236) == 0 && setresuid(2345, 2346, 2347) == 0);
  char before[2048], after[2048];
  status_lines("Cap", before, sizeof before);
  subject::hold();
  uid_t r, e, s;
  CHECK_EQ(getresuid(&r, &e, &s), 0);
  CHECK_EQ(r, 2345u);
  CHECK_EQ(e, 2346u);
  CHECK_EQ(s, 2347u);
  CHECK_EQ(getresgid(&r, &e, &s), 0);
  CHECK_EQ(r, 1234u);
  CHECK_EQ(e, 1235u);
  CHECK_EQ(s, 1236u);
  gid_t now[8];
  CHECK_EQ(getgroups(8, now), 3);
  CHECK_EQ(memcmp(now, groups, sizeof groups), 0);
  status_lines("Cap", after, sizeof after);
  CHECK_EQ(strcmp(before, after), 0);
}

CASE(dropped_capabilities) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {}, now[2] = {};
  MUST(syscall(SYS_capget, &header, data) == 0);
  if (data[0].permitted == 0) SKIP("there are no capabilities to drop");
  data[0].effective &= 0xff;
  data[0].inheritable = data[0].permitted & 0xf;
  MUST(syscall(SYS_capset, &header, data) == 0);
  if ((data[0].permitted & 1 << CAP_SETPCAP) != 0 && prctl(PR_CAPBSET_DROP, CAP_SYSLOG) != 0) {
    subject::say("the bounding set stays whole: %s", strerror(errno));
  }
  char before[2048], after[2048];
  status_lines("Cap", before, sizeof before);
  subject::hold();
  CHECK_EQ(syscall(SYS_capget, &header, now), 0);
  CHECK_EQ(now[0].effective, data[0].effective);
  CHECK_EQ(now[0].inheritable, data[0].inheritable);
  CHECK_EQ(now[0].permitted, data[0].permitted);
  status_lines("Cap", after, sizeof after);
  if (strcmp(before, after) != 0) subject::say("were\n%sare\n%s", before, after);
  CHECK_EQ(strcmp(before, after), 0);
}

CASE(different_in_a_child) {
  pid_t pid = subject::child([] {
    umask(0111);
    MUST(chdir("/tmp") == 0);
    setpriority(PRIO_PROCESS, 0, 9);
    prctl(PR_SET_NAME, "different");
    subject::mark("born");
    subject::await("go");
    char now[64];
    CHECK(getcwd(now, sizeof now) != nullptr && strcmp(now, "/tmp") == 0);
    CHECK_EQ(umask(0), 0111u);
    CHECK_EQ(getpriority(PRIO_PROCESS, 0), 9);
  });
  subject::await("born");
  umask(0222);
  subject::hold();
  CHECK_EQ(umask(0), 0222u);
  JOIN(pid);
}

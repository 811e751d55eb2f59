// Who a thread is: ids, groups and capabilities of single threads, securebits, ambient and bounding sets.
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/fsuid.h>

#include "subject.h"

namespace {

struct Lines {
  char text[2048];
  bool operator==(const Lines& other) const { return strcmp(text, other.text) == 0; }
};

Lines mine() {
  char all[8192];
  Lines lines = {};
  subject::slurp("/proc/thread-self/status", all, sizeof all);
  char* rest = nullptr;
  for (char* line = strtok_r(all, "\n", &rest); line != nullptr; line = strtok_r(nullptr, "\n", &rest)) {
    for (const char* word : {"Uid", "Gid", "Groups", "Cap", "NoNew"}) {
      if (strncmp(line, word, strlen(word)) != 0) continue;
      strcat(lines.text, line);
      strcat(lines.text, "\n");
    }
  }
  return lines;
}

void same(const Lines& before) {
  Lines now = mine();
  if (!(now == before)) subject::say("were\n%sare\n%s", before.text, now.text);
  CHECK(now == before);
}

bool set_capabilities(uint64_t effective, uint64_t permitted, uint64_t inheritable) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  for (int half = 0; half < 2; ++half) {
    data[half].effective = static_cast<uint32_t>(effective >> (32 * half));
    data[half].permitted = static_cast<uint32_t>(permitted >> (32 * half));
    data[half].inheritable = static_cast<uint32_t>(inheritable >> (32 * half));
  }
  return syscall(SYS_capset, &header, data) == 0;
}

bool is_root() {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  return syscall(SYS_capget, &header, data) == 0 && (data[0].effective >> CAP_SETPCAP & 1) != 0;
}

constexpr uint64_t bit(int capability) { return uint64_t{1} << capability; }

}  // namespace

CASE(threads_of_different_users) {
  if (geteuid() != 0) SKIP("only root can become somebody else");
  MUST(chmod(subject::g_dir, 0777) == 0);
  pthread_t t = subject::thread([] {
    gid_t groups[2] = {11, 12};
    MUST(syscall(SYS_setgroups, 2, groups) == 0);
    MUST(syscall(SYS_setresgid, 21, 22, 23) == 0 && syscall(SYS_setresuid, 31, 32, 33) == 0);
    Lines before = mine();
    subject::mark("born");
    subject::await("go");
    same(before);
  });
  pthread_t keeps = subject::thread([] {
    MUST(prctl(PR_SET_KEEPCAPS, 1) == 0 && syscall(SYS_setresuid, 41, 41, 41) == 0);
    MUST(set_capabilities(bit(CAP_CHOWN), bit(CAP_CHOWN) | bit(CAP_KILL), 0));
    Lines before = mine();
    subject::mark("keeps");
    subject::await("go");
    same(before);
    CHECK_EQ(prctl(PR_GET_KEEPCAPS), 1);
  });
  subject::await("born");
  subject::await("keeps");
  Lines before = mine();
  subject::hold();
  same(before);
  pthread_join(t, nullptr);
  pthread_join(keeps, nullptr);
}

CASE(ambient_and_bounding) {
  if (!is_root()) SKIP("there are no capabilities to give");
  MUST(prctl(PR_CAPBSET_DROP, CAP_SYSLOG) == 0 && prctl(PR_CAPBSET_DROP, CAP_SYS_RAWIO) == 0);
  uint64_t all = bit(CAP_CHOWN) | bit(CAP_KILL) | bit(CAP_NET_ADMIN) | bit(CAP_SETPCAP);
  MUST(set_capabilities(bit(CAP_CHOWN), all, bit(CAP_KILL) | bit(CAP_CHOWN)));
  MUST(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0) == 0);
  Lines before = mine();
  subject::hold();
  same(before);
  CHECK_EQ(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0), 1);
}

CASE(securebits_are_locked) {
  if (!is_root()) SKIP("needs CAP_SETPCAP");
  int bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED |
             SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE;
  MUST(prctl(PR_SET_SECUREBITS, bits) == 0);
  subject::hold();
  CHECK_EQ(prctl(PR_GET_SECUREBITS), bits);
  CHECK(prctl(PR_SET_SECUREBITS, 0) < 0);
}

CASE(ambient_under_securebits) {
  if (!is_root()) SKIP("needs CAP_SETPCAP");
  uint64_t all = bit(CAP_KILL) | bit(CAP_SETPCAP);
  MUST(set_capabilities(all, all, all));
  MUST(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0) == 0);
  MUST(prctl(PR_SET_SECUREBITS, SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED) == 0);
  Lines before = mine();
  subject::hold();
  same(before);
  CHECK_EQ(prctl(PR_GET_SECUREBITS), SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED);
}

CASE(nothing_is_left) {
  if (!is_root()) SKIP("there are no capabilities to drop");
  MUST(chmod(subject::g_dir, 0777) == 0);
  for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; ++capability)
    MUST(prctl(PR_CAPBSET_DROP, capability) == 0);
  MUST(setgroups(0, nullptr) == 0);
  MUST(syscall(SYS_setresgid, 99, 99, 99) == 0 && syscall(SYS_setresuid, 99, 99, 99) == 0);
  Lines before = mine();
  subject::hold();
  same(before);
}

CASE(ids_of_the_file_system) {
  if (geteuid() != 0) SKIP("only root can become somebody else");
  MUST(chmod(subject::g_dir, 0777) == 0);
  setfsgid(555);
  setfsuid(444);
  Lines before = mine();
  subject::hold();
  same(before);
  int fd = open(subject::path("mine"), O_CREAT | O_WRONLY, 0600);
  struct stat st = {};
  CHECK_EQ(fstat(fd, &st), 0);
  CHECK_EQ(st.st_uid, 444u);
  CHECK_EQ(st.st_gid, 555u);
}

CASE(many_groups) {
  if (geteuid() != 0) SKIP("only root can change its groups");
  static gid_t groups[3000], now[3000];
  for (unsigned i = 0; i < 3000; ++i) groups[i] = 1000 + 3 * i;
  MUST(setgroups(3000, groups) == 0);
  subject::hold();
  CHECK_EQ(getgroups(3000, now), 3000);
  CHECK_EQ(memcmp(groups, now, sizeof groups), 0);
}

CASE(settings_of_single_threads) {
  pthread_t t = subject::thread([] {
    MUST(prctl(PR_SET_TIMERSLACK, 123456) == 0 && prctl(PR_SET_PDEATHSIG, SIGUSR1) == 0);
    subject::mark("born");
    subject::await("go");
    int signal = 0;
    CHECK_EQ(prctl(PR_GET_TIMERSLACK), 123456);
    CHECK_EQ(prctl(PR_GET_PDEATHSIG, &signal), 0);
    CHECK_EQ(signal, SIGUSR1);
  });
  subject::await("born");
  MUST(prctl(PR_SET_TIMERSLACK, 999) == 0);
  subject::hold();
  CHECK_EQ(prctl(PR_GET_TIMERSLACK), 999);
  pthread_join(t, nullptr);
}

CASE(out_of_memory_scores) {
  char before[32], after[32];
  pid_t pid = subject::child([] {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY);
    MUST(fd >= 0 && write(fd, "777", 3) == 3);
    close(fd);
    subject::mark("born");
    subject::await("go");
    char now[32];
    CHECK(subject::slurp("/proc/self/oom_score_adj", now, sizeof now) > 0);
    CHECK_EQ(atoi(now), 777);
  });
  subject::await("born");
  if (geteuid() == 0) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY);
    MUST(fd >= 0);
    if (write(fd, "-300", 4) != 4) subject::say("it cannot be lowered here");
    close(fd);
  }
  MUST(subject::slurp("/proc/self/oom_score_adj", before, sizeof before) > 0);
  subject::hold();
  MUST(subject::slurp("/proc/self/oom_score_adj", after, sizeof after) > 0);
  CHECK_EQ(atoi(after), atoi(before));
  JOIN(pid);
}

CASE(login_uid) {
  char before[32] = {}, after[32] = {};
  if (subject::slurp("/proc/self/loginuid", before, sizeof before) < 0) SKIP("no audit in this kernel");
  if (geteuid() == 0) {
    int fd = open("/proc/self/loginuid", O_WRONLY);
    if (fd < 0 || write(fd, "4242", 4) != 4) SKIP("it cannot be set here");
    close(fd);
    MUST(subject::slurp("/proc/self/loginuid", before, sizeof before) > 0);
  }
  subject::hold();
  subject::slurp("/proc/self/loginuid", after, sizeof after);
  CHECK_EQ(strcmp(before, after), 0);
}

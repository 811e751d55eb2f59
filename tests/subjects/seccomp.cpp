// Processes that have forbidden themselves system calls.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>

#include "subject.h"

namespace {

constexpr auto kRule = subject::kMayRefuse;  // without privilege nobody can read a filter

// Answers one call with an error, and lets all others through.
int forbid(long number, int error, unsigned flags = 0) {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(number), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<uint32_t>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog program = {4, code};
  return static_cast<int>(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program));
}

// Kills for everything that the case does not need: what a checkpoint does in a process is not among it.
int allow_little() {
  const long allowed[] = {
      SYS_read,         SYS_write,   SYS_clock_nanosleep, SYS_newfstatat,      SYS_exit_group, SYS_unlink,
      SYS_mknod,        SYS_mknodat, SYS_getppid,         SYS_restart_syscall, SYS_stat,       SYS_futex,
      SYS_rt_sigreturn, SYS_getpid,  SYS_clock_gettime,   SYS_unlinkat,        SYS_prctl,      SYS_exit,
      SYS_madvise};
  sock_filter code[64];
  unsigned short size = 0;
  code[size++] = BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr));
  for (long number : allowed) {
    code[size++] = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(number), 0, 1);
    code[size++] = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  }
  code[size++] = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  sock_fprog program = {size, code};
  return static_cast<int>(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
}

bool forbidden(long number, int error) { return syscall(number, 0, 0, 0) == -1 && errno == error; }

void renounce() { MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0); }

int mode() { return prctl(PR_GET_SECCOMP); }

int filters() {
  char text[4096];
  subject::slurp("/proc/thread-self/status", text, sizeof text);
  const char* line = strstr(text, "Seccomp_filters:");
  return line != nullptr ? atoi(line + 16) : -1;
}

}  // namespace

CASE_WITH(one_filter, kRule) {
  renounce();
  MUST(forbid(SYS_getppid, 77) == 0);
  MUST(forbidden(SYS_getppid, 77));
  subject::hold();
  CHECK_EQ(mode(), 2);
  CHECK(forbidden(SYS_getppid, 77));
  CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
}

CASE_WITH(filters_on_filters, kRule) {
  renounce();
  int before = filters();
  MUST(forbid(SYS_getppid, 71) == 0 && forbid(SYS_getpgid, 72) == 0 && forbid(SYS_getppid, 73) == 0);
  subject::hold();
  CHECK_EQ(filters(), before + 3);
  CHECK(forbidden(SYS_getppid, 73));
  CHECK(forbidden(SYS_getpgid, 72));
  CHECK_EQ(forbid(SYS_getuid, 74), 0);
  CHECK(forbidden(SYS_getuid, 74));
}

CASE_WITH(filter_that_allows_little, kRule) {
  renounce();
  MUST(allow_little() == 0);
  subject::hold();
  CHECK(syscall(SYS_getppid) > 0);
}

CASE_WITH(filter_that_kills, kRule) {
  pid_t pid = subject::child([] {
    renounce();
    MUST(allow_little() == 0);
    subject::mark("born");
    subject::await("go");
    syscall(SYS_getuid);
  });
  subject::await("born");
  subject::hold();
  int status = 0;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}

CASE_WITH(filters_are_inherited, kRule) {
  renounce();
  MUST(forbid(SYS_getppid, 71) == 0);
  pid_t pid = subject::child([] {
    MUST(forbid(SYS_getpgid, 72) == 0);
    subject::mark("born");
    subject::await("go");
    CHECK(forbidden(SYS_getppid, 71));
    CHECK(forbidden(SYS_getpgid, 72));
  });
  subject::await("born");
  subject::hold();
  CHECK(forbidden(SYS_getppid, 71));
  CHECK(syscall(SYS_getpgid, 0) > 0);
  JOIN(pid);
}

CASE_WITH(filters_of_single_threads, kRule) {
  renounce();
  pthread_t t = subject::thread([] {
    MUST(forbid(SYS_getppid, 71) == 0);
    subject::mark("born");
    subject::await("go");
    CHECK_EQ(mode(), 2);
    CHECK(forbidden(SYS_getppid, 71));
  });
  subject::await("born");
  subject::hold();
  CHECK_EQ(mode(), 0);
  CHECK(syscall(SYS_getppid) > 0);
  pthread_join(t, nullptr);
}

CASE_WITH(filters_of_all_threads, kRule) {
  renounce();
  pthread_t t = subject::thread([] {
    subject::mark("born");
    subject::await("go");
    CHECK(forbidden(SYS_getppid, 71));
  });
  subject::await("born");
  MUST(forbid(SYS_getppid, 71, SECCOMP_FILTER_FLAG_TSYNC) == 0);
  subject::hold();
  CHECK(forbidden(SYS_getppid, 71));
  // Threads that are in step can be kept in step.
  CHECK_EQ(forbid(SYS_getpgid, 72, SECCOMP_FILTER_FLAG_TSYNC), 0);
  pthread_join(t, nullptr);
}

CASE_WITH(without_renouncing_privileges, kRule) {
  if (geteuid() != 0) SKIP("needs CAP_SYS_ADMIN");
  MUST(forbid(SYS_getppid, 71) == 0);
  subject::hold();
  CHECK(forbidden(SYS_getppid, 71));
  CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
}

// Strict mode leaves read, write, exit and sigreturn: the process waits in a read and does nothing else.
CASE_WITH(strict, kRule) {
  int ends[2];
  MUST(pipe(ends) == 0);
  pid_t pid = subject::child([=] {
    MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0);
    char byte = 0;
    syscall(SYS_exit, read(ends[0], &byte, 1) == 1 && byte == 'x' ? 5 : 1);
  });
  pid_t breaks = subject::child([=] {
    MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0);
    char byte = 0;
    [[maybe_unused]] ssize_t got = read(ends[0], &byte, 1);
    syscall(SYS_getppid);
    syscall(SYS_exit, 1);
  });
  subject::await_asleep(pid);
  subject::await_asleep(breaks);
  subject::hold();
  int status = 0;
  CHECK_EQ(write(ends[1], "xx", 2), 2);
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 5);
  CHECK_EQ(waitpid(breaks, &status, 0), breaks);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

// A call that the filter would not let through is what the process waits in.
CASE_WITH(asleep_under_a_filter, kRule) {
  int ends[2];
  MUST(pipe(ends) == 0);
  pid_t pid = subject::child([=] {
    renounce();
    MUST(allow_little() == 0);
    char byte = 0;
    CHECK_EQ(read(ends[0], &byte, 1), 1);
  });
  subject::await_asleep(pid);
  subject::hold();
  CHECK_EQ(write(ends[1], "x", 1), 1);
  JOIN(pid);
}

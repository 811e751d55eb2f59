#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/prctl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "kernel/probe_internal.h"
#include "kernel/proc.h"
#include "stasis/fd.h"

// glibc 2.36 has them only in linux/ptrace.h, which cannot be included beside sys/ptrace.h.
#ifndef PTRACE_GET_RSEQ_CONFIGURATION
#define PTRACE_GET_RSEQ_CONFIGURATION static_cast<__ptrace_request>(0x420f)
#endif

namespace stasis::kernel::probing {
namespace {

// Owns a child that waits; the destructor kills it. `prepare` runs in the child before it says that it is
// there.
class Waiting {
 public:
  explicit Waiting(const std::function<std::string()>& prepare = {}) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return;
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      const std::string problem = prepare ? prepare() : std::string();
      (void)write_all(ends[1], problem.empty() ? "ready" : "!" + problem).ok();
      close(ends[1]);
      for (;;) pause();
    }
    close(ends[1]);
    Fd reader(ends[0]);
    if (auto said = read_all(reader.get()); said.ok() && *said != "ready") problem_ = *said;
  }
  ~Waiting() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

  pid_t pid() const { return pid_; }
  const std::string& problem() const { return problem_; }

 private:
  pid_t pid_ = -1;
  std::string problem_;
};

// Attaches as `checkpoint` does: from a process that is neither the parent nor a descendant of the traced
// one.
Outcome seize_as_sibling(pid_t pid) {
  return in_child([pid] {
    if (ptrace(PTRACE_SEIZE, pid, nullptr, nullptr) != 0) return lacking(failed("ptrace(PTRACE_SEIZE)"), "");
    if (ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr) != 0)
      return lacking(failed("ptrace(PTRACE_INTERRUPT)"), "");
    int status = 0;
    if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status))
      return lacking("the traced process did not stop", "");
    ptrace(PTRACE_DETACH, pid, nullptr, nullptr);
    return works("");
  });
}

std::string ptrace_remedy() {
  auto scope = read_file("/proc/sys/kernel/yama/ptrace_scope", 64);
  if (scope.ok() && *scope >= "2") return "as root: sysctl -w kernel.yama.ptrace_scope=1";
  if (scope.ok() && *scope >= "1")
    return "as root: sysctl -w kernel.yama.ptrace_scope=0, or start programs with stasis launch";
  return "in a container: allow ptrace (--cap-add SYS_PTRACE)";
}

}  // namespace

Outcome try_trace_session() {
  // A launched program lives in a user namespace that its user owns, and so has capabilities over: Yama lets
  // it pass.
  Waiting session(enter_user_namespace);
  if (!session.problem().empty()) return lacking(session.problem(), "see the user namespace");
  Outcome outcome = seize_as_sibling(session.pid());
  if (outcome.ability == Ability::kOk) return works("the programs of a session can be stopped and looked at");
  outcome.remedy = ptrace_remedy();
  return outcome;
}

Outcome try_trace_stranger() {
  Waiting stranger;
  Outcome outcome = seize_as_sibling(stranger.pid());
  if (outcome.ability == Ability::kOk) return works("also programs that were not started by stasis launch");
  outcome.remedy = ptrace_remedy();
  return outcome;
}

Outcome try_kcmp() {
  Waiting other;
  const char* remedy = "a kernel with CONFIG_KCMP (all distributions' have it); in a container: allow kcmp";
  const long same = syscall(SYS_kcmp, getpid(), other.pid(), KCMP_FILE, 0, 0);
  if (same < 0 && errno == EBADF) return works("shared open files are told from separate ones");
  if (same < 0) return lacking(failed("kcmp"), remedy);
  if (same != 0) return lacking("kcmp does not see that a child's descriptor is its parent's", remedy);
  return works("shared open files are told from separate ones");
}

Outcome try_pidfd_getfd() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return lacking(failed("pipe"), "");
  Waiting other(enter_user_namespace);
  const char* remedy = "Linux 5.6 or later; in a container: allow pidfd_open and pidfd_getfd";
  Fd process(static_cast<int>(syscall(SYS_pidfd_open, other.pid(), 0)));
  if (!process) return lacking(failed("pidfd_open"), remedy);
  Fd copy(static_cast<int>(syscall(SYS_pidfd_getfd, process.get(), ends[0], 0)));
  if (!copy) return lacking(failed("pidfd_getfd"), remedy);
  return works("a program's open files can be looked at");
}

Outcome try_rseq_configuration() {
  Waiting other;
  return in_child([pid = other.pid()] {
    if (ptrace(PTRACE_SEIZE, pid, nullptr, nullptr) != 0 ||
        ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr) != 0) {
      return lacking(failed("ptrace"), "see tracing");
    }
    waitpid(pid, nullptr, __WALL);
    struct {
      uint64_t address;
      uint32_t size, signature, flags, padding;
    } configuration = {};
    const long size = ptrace(PTRACE_GET_RSEQ_CONFIGURATION, pid, sizeof configuration, &configuration);
    ptrace(PTRACE_DETACH, pid, nullptr, nullptr);
    if (size < 0) {
      return lacking(failed("ptrace(PTRACE_GET_RSEQ_CONFIGURATION)"),
                     "Linux 5.13 or later; before, what programs have registered is looked for where C "
                     "libraries have it, and a checkpoint is refused when it is elsewhere");
    }
    return works("restartable sequences of glibc are registered again");
  });
}

Outcome try_posix_timers() {
  const char* remedy =
      "a kernel with CONFIG_CHECKPOINT_RESTORE; programs with POSIX timers are refused without it";
  sigevent event = {};
  event.sigev_notify = SIGEV_NONE;
  timer_t timer;
  if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) return lacking(failed("timer_create"), remedy);
  auto text = read_file("/proc/self/timers");
  if (!text.ok()) return lacking(text.error().message(), remedy);
  if (text->find("ID: 0") == std::string::npos)
    return lacking("/proc/self/timers does not show a timer", remedy);
  return works("timers of timer_create are seen in /proc");
}

Outcome try_mm_map() {
  const char* remedy = "a kernel with CONFIG_CHECKPOINT_RESTORE";
  auto self = read_stat(HostTid{getpid()});
  if (!self.ok()) return lacking(self.error().message(), "");
  if (auto problem = enter_user_namespace(); !problem.empty())
    return lacking(problem, "see the user namespace");
  unsigned int size = 0;
  if (prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, &size, 0, 0) != 0)
    return lacking(failed("prctl(PR_SET_MM_MAP_SIZE)"), remedy);
  prctl_mm_map map = {};
  map.start_code = self->start_code;
  map.end_code = self->end_code;
  map.start_data = self->start_data;
  map.end_data = self->end_data;
  map.start_brk = self->start_brk;
  map.brk = reinterpret_cast<uint64_t>(sbrk(0));
  map.start_stack = self->start_stack;
  map.arg_start = self->arg_start;
  map.arg_end = self->arg_end;
  map.env_start = self->env_start;
  map.env_end = self->env_end;
  map.exe_fd = ~0U;
  if (prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0) != 0)
    return lacking(failed("prctl(PR_SET_MM_MAP)"), remedy);
  // /proc/PID/exe can be set only when nothing of the old executable is mapped any more, which is so in a
  // restart. Here it is mapped, and the kernel says so (EBUSY) after it has found that we have the right.
  auto executable = open_file("/proc/self/exe", O_RDONLY);
  if (!executable.ok()) return works("the heap, arguments and environment are put back");
  map.exe_fd = static_cast<uint32_t>(executable->get());
  if (prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0) != 0 && errno != EBUSY) {
    return partly(failed("setting /proc/PID/exe"),
                  "Linux 5.9 or later lets an ordinary user do it in a user namespace");
  }
  return works("heap, arguments, environment and executable are put back");
}

}  // namespace stasis::kernel::probing

#include "session/signals.h"

#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <initializer_list>

namespace stasis::session {

bool is_forwarded(int signal) {
  switch (signal) {
    case SIGKILL:  // cannot be caught
    case SIGSTOP:
    case SIGCHLD:  // our own
    case SIGWINCH:
    case SIGTTIN:
    case SIGTTOU:
    case SIGPIPE:
    case SIGSEGV:  // our own faults
    case SIGBUS:
    case SIGFPE:
    case SIGILL:
    case SIGTRAP:
    case SIGABRT:
    case SIGSYS:
      return false;
    default:
      return signal > 0 && signal < SIGRTMIN;
  }
}

sigset_t supervised_signals() {
  sigset_t signals;
  ::sigemptyset(&signals);
  for (int signal = 1; signal < SIGRTMIN; ++signal)
    if (is_forwarded(signal)) ::sigaddset(&signals, signal);
  for (int signal : {SIGCHLD, SIGWINCH, SIGTTIN, SIGTTOU, SIGPIPE}) ::sigaddset(&signals, signal);
  return signals;
}

int code_of_status(int wait_status) {
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

void end_like(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    struct rlimit none = {0, 0};
    ::setrlimit(RLIMIT_CORE, &none);
    ::prctl(PR_SET_DUMPABLE, 0);
    int number = WTERMSIG(wait_status);
    ::signal(number, SIG_DFL);
    sigset_t only;
    ::sigemptyset(&only);
    ::sigaddset(&only, number);
    ::raise(number);
    ::sigprocmask(SIG_UNBLOCK, &only, nullptr);
  }
  std::exit(code_of_status(wait_status));
}

}  // namespace stasis::session

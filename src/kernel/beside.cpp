#include "kernel/beside.h"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>
#include <string>

namespace stasis::kernel {
namespace {

constexpr const char* kStep = "make a helper";

struct Beside {
  const std::function<Result<void>()>* act;
  Result<void> result;
};

int run(void* argument) {
  auto* beside = static_cast<Beside*>(argument);
  beside->result = (*beside->act)();
  return 0;
}

}  // namespace

Result<void> run_beside(const std::function<Result<void>()>& act) {
  constexpr size_t kStack = 256 << 10;
  std::string stack(kStack, '\0');
  Beside beside = {&act, Error{kStep, "", "it ended", {}}};
  auto* end = stack.data() + (stack.size() & ~size_t{15});
  const int dumpable = ::prctl(PR_GET_DUMPABLE);
  const int pid = ::clone(run, end, CLONE_VM | CLONE_VFORK | CLONE_FILES | SIGCHLD, &beside);
  if (pid < 0) return errno_error(kStep, {});
  while (::waitpid(pid, nullptr, __WALL) < 0 && errno == EINTR) {
  }
  // A change of its rights hides the memory that we share from our own user, too.
  ::prctl(PR_SET_DUMPABLE, dumpable);
  return std::move(beside.result);
}

}  // namespace stasis::kernel

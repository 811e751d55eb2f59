#include "freeze/pending_stops.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>

#include "kernel/proc.h"

namespace stasis::freeze {

void send_stops_again(const FrozenProcess& process) {
  constexpr uint64_t kStop = uint64_t{1} << (SIGSTOP - 1), kContinue = uint64_t{1} << (SIGCONT - 1);
  const auto continued = [](HostTid task) {
    auto now = kernel::read_status(task);
    return !now.ok() || ((now->pending | now->shared_pending) & kContinue) != 0;
  };
  if ((process.status.shared_pending & kStop) != 0 && !continued(process.pid))
    ::kill(process.leader.value, SIGSTOP);
  for (const auto& thread : process.threads) {
    if ((thread.status.pending & kStop) != 0 && !continued(thread.tid))
      ::syscall(SYS_tgkill, process.leader.value, thread.tid.value, SIGSTOP);
  }
}

}  // namespace stasis::freeze

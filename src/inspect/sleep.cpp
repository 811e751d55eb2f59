#include "inspect/sleep.h"

#include <poll.h>
#include <sys/syscall.h>

#include <algorithm>
#include <ctime>

#include "base/clock.h"
#include "kernel/proc.h"

namespace stasis::inspect {

namespace {

constexpr int64_t kRestartBlock = -516;

// The relative timeout that the program asked for, in nanoseconds; -1: none.
int64_t requested_ns(HostTid task, const remote::Registers& registers) {
  auto timespec_at = [&](uint64_t address) -> int64_t {
    if (address == 0) return -1;
    auto value = remote::read_object<timespec>(task, RemotePtr{address});
    return value.ok() ? int64_t{value->tv_sec} * 1'000'000'000 + value->tv_nsec : -1;
  };
  switch (static_cast<long>(registers.orig_rax)) {
    case SYS_nanosleep:
      return timespec_at(registers.rdi);
    case SYS_clock_nanosleep:
      return timespec_at(registers.rdx);
    case SYS_poll: {
      int64_t milliseconds = static_cast<int32_t>(registers.rdx);
      return milliseconds < 0 ? -1 : milliseconds * 1'000'000;
    }
    case SYS_futex:
      return timespec_at(registers.r10);
    default:
      return -1;
  }
}

}  // namespace

int64_t sleep_left_ns(HostTid task, const remote::Registers& registers) {
  if (static_cast<int64_t>(registers.rax) != kRestartBlock) return -1;
  return requested_ns(task, registers);
}

}  // namespace stasis::inspect

#include "inspect/sleep.h"

#include <linux/futex.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "base/clock.h"

namespace stasis::inspect {

namespace {

constexpr int64_t kRestartNoHand = -514;
constexpr int64_t kRestartBlock = -516;

// The relative timeout that the program asked for, in nanoseconds; -1: none.
int64_t requested_ns(HostTid task, const remote::Registers& registers) {
  auto timespec_at = [&](uint64_t address) -> int64_t {
    if (address == 0) return -1;
    auto value = remote::read_object<timespec>(task, RemotePtr{address});
    return value.ok() ? int64_t{value->tv_sec} * 1'000'000'000 + value->tv_nsec : -1;
  };
  auto milliseconds = [](uint64_t value) {
    int64_t signed_value = static_cast<int32_t>(value);
    return signed_value < 0 ? int64_t{-1} : signed_value * 1'000'000;
  };
  switch (static_cast<long>(registers.orig_rax)) {
    case SYS_nanosleep:
      return timespec_at(registers.rdi);
    case SYS_clock_nanosleep:
      return timespec_at(registers.rdx);
    case SYS_poll:
      return milliseconds(registers.rdx);
    case SYS_futex:
      // Only this operation has a relative timeout; with an absolute one the call is simply made again.
      return (registers.rsi & 0x7f) == FUTEX_WAIT ? timespec_at(registers.r10) : -1;
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
      return milliseconds(registers.r10);
    default:
      return -1;
  }
}

int64_t left_of(int64_t requested, const freeze::FrozenThread& thread) {
  if (thread.asleep_since_ns == 0) return requested;
  int64_t elapsed = monotonic_ns() - thread.asleep_since_ns;
  return std::clamp<int64_t>(requested - elapsed, 0, requested);
}

}  // namespace

int64_t sleep_left_ns(const freeze::FrozenThread& thread, const remote::Registers& registers) {
  if (static_cast<int64_t>(registers.rax) != kRestartBlock) return -1;
  int64_t requested = requested_ns(thread.tid, registers);
  return requested < 0 ? -1 : left_of(requested, thread);
}

void reissue_interrupted_call(const freeze::FrozenThread& thread, bool signal_comes,
                              remote::Registers& registers) {
  if (static_cast<int64_t>(registers.rax) != -EINTR || signal_comes) return;
  auto again = [&] { registers.rax = static_cast<uint64_t>(kRestartNoHand); };
  switch (static_cast<long>(registers.orig_rax)) {
    case SYS_epoll_wait:
    case SYS_epoll_pwait: {
      int64_t requested = requested_ns(thread.tid, registers);
      // The register is the program's own to lose: the kernel is free to change it in any call.
      if (requested >= 0)
        registers.r10 = static_cast<uint64_t>((left_of(requested, thread) + 999'999) / 1'000'000);
      return again();
    }
    case SYS_rt_sigtimedwait:
      if (registers.rdx == 0) again();
      return;
    case SYS_semtimedop:
      if (registers.r10 == 0) again();
      return;
    case SYS_io_getevents:
      if (registers.r8 == 0) again();
      return;
    case SYS_epoll_pwait2:
      if (registers.r10 == 0) again();
      return;
    case SYS_semop:
    case SYS_msgsnd:
    case SYS_msgrcv:
      return again();
    default:
      return;
  }
}

}  // namespace stasis::inspect

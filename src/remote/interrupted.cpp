#include "remote/interrupted.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <sstream>

#include "base/clock.h"
#include "stasis/fd.h"

namespace stasis::remote {

namespace {

constexpr int64_t kRestartNoHand = -514;
constexpr int64_t kRestartBlock = -516;
// How much later than at its deadline a sleep may be seen.
constexpr int64_t kLate_ns = 100'000'000;

// The relative timeout that the program asked for, in nanoseconds; -1: none.
int64_t requested_ns(HostTid task, const Registers& registers) {
  auto timespec_at = [&](uint64_t address) -> int64_t {
    if (address == 0) return -1;
    auto value = read_object<timespec>(task, RemotePtr{address});
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
      return (registers.rsi & FUTEX_CMD_MASK) == FUTEX_WAIT ? timespec_at(registers.r10) : -1;
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
      return milliseconds(registers.r10);
    default:
      return -1;
  }
}

int64_t left_of(int64_t requested, int64_t asleep_since_ns) {
  if (asleep_since_ns == 0) return requested;
  return std::clamp<int64_t>(requested - (monotonic_ns() - asleep_since_ns), 0, requested);
}

// What makes one call of a thread the same as another, beside its number.
std::string arguments_of(const Registers& registers) {
  return fmt::format("{:x},{:x},{:x},{:x},{:x},{:x},{:x}", registers.rip, registers.rsp, registers.rdi,
                     registers.rsi, registers.rdx, registers.r10, registers.r8);
}

// The number of the call that the instruction pointer is behind, if the instruction before it tells:
// mov $number, %eax; syscall is what every C library has there. 0: it does not.
uint64_t number_in_code(HostTid task, const Registers& registers) {
  std::array<uint8_t, 7> code = {};
  std::span<char> bytes(reinterpret_cast<char*>(code.data()), code.size());
  if (!read_memory(task, RemotePtr{registers.rip - code.size()}, bytes).ok()) return 0;
  if (code[0] != 0xb8 || code[5] != 0x0f || code[6] != 0x05) return 0;
  uint32_t number = 0;
  std::memcpy(&number, &code[1], sizeof number);
  for (uint32_t known : {SYS_nanosleep, SYS_clock_nanosleep, SYS_poll, SYS_futex}) {
    if (number == known) return number;
  }
  return 0;
}

}  // namespace

bool in_restartable_sleep(const Registers& registers) {
  return static_cast<int64_t>(registers.rax) == kRestartBlock &&
         static_cast<int64_t>(registers.orig_rax) >= 0;
}

bool was_cut_short(const Registers& registers) {
  if (static_cast<int64_t>(registers.rax) != -EINTR) return false;
  switch (static_cast<long>(registers.orig_rax)) {
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
    case SYS_epoll_pwait2:
    case SYS_rt_sigtimedwait:
    case SYS_semop:
    case SYS_semtimedop:
    case SYS_msgsnd:
    case SYS_msgrcv:
    case SYS_io_getevents:
    case SYS_io_pgetevents:
      return true;
    default:
      return false;
  }
}

bool reissue(HostTid task, int64_t asleep_since_ns, Registers& registers) {
  switch (static_cast<long>(registers.orig_rax)) {
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
      // The register is the program's own to lose: the kernel is free to change it in any call.
      if (int64_t requested = requested_ns(task, registers); requested >= 0) {
        registers.r10 = static_cast<uint64_t>((left_of(requested, asleep_since_ns) + 999'999) / 1'000'000);
      }
      break;
    // Timeouts in memory, which is not ours to change.
    case SYS_rt_sigtimedwait:
      if (registers.rdx != 0) return false;
      break;
    case SYS_semtimedop:
    case SYS_epoll_pwait2:
      if (registers.r10 != 0) return false;
      break;
    case SYS_io_getevents:
    case SYS_io_pgetevents:
      if (registers.r8 != 0) return false;
      break;
    default:
      break;
  }
  registers.rax = static_cast<uint64_t>(kRestartNoHand);
  return true;
}

void Deadlines::load() {
  known_.clear();
  if (path_.empty()) return;
  auto text = read_file(path_);
  if (!text.ok()) return;
  std::istringstream lines(*text);
  int task = 0;
  Entry entry;
  while (lines >> task >> entry.voluntary_switches >> entry.deadline_ns >> entry.call >> entry.arguments) {
    known_[task] = entry;
  }
}

void Deadlines::save() const {
  if (path_.empty()) return;
  if (noted_.empty()) {
    ::unlink(path_.c_str());
    return;
  }
  std::string text;
  for (const auto& [task, entry] : noted_) {
    text += fmt::format("{} {} {} {} {}\n", task, entry.voluntary_switches, entry.deadline_ns, entry.call,
                        entry.arguments);
  }
  auto file = open_file(path_, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (file.ok()) (void)write_all(file->get(), text).ok();
}

void Deadlines::note(NsTid task, uint64_t voluntary_switches, const Registers& registers,
                     int64_t deadline_ns) {
  noted_[task.value] = {voluntary_switches, deadline_ns, registers.orig_rax, arguments_of(registers)};
}

std::optional<int64_t> Deadlines::find(HostTid task, NsTid number, uint64_t voluntary_switches,
                                       int64_t asleep_since_ns, Registers& registers) const {
  for (const auto* entries : {&noted_, &known_}) {
    auto found = entries->find(number.value);
    if (found == entries->end() || found->second.arguments != arguments_of(registers)) continue;
    // Since then it fell asleep once, and was stopped once; another sleep would have been one more. But a
    // task that has worked for us has waited for us as well. Then it is the kernel that tells: it goes on
    // with a sleep that was interrupted, and an earlier one would have ended at its deadline.
    const bool same_count = voluntary_switches <= found->second.voluntary_switches + 2;
    const bool interrupted_before =
        registers.orig_rax == SYS_restart_syscall && found->second.deadline_ns + kLate_ns > monotonic_ns();
    if (!same_count && !interrupted_before) continue;
    registers.orig_rax = found->second.call;
    return found->second.deadline_ns;
  }
  if (registers.orig_rax == SYS_restart_syscall) {
    // Somebody else has interrupted it before: job control, a debugger.
    if (uint64_t called = number_in_code(task, registers); called != 0) registers.orig_rax = called;
  }
  int64_t requested = requested_ns(task, registers);
  if (requested < 0) return {};
  return monotonic_ns() + left_of(requested, asleep_since_ns);
}

}  // namespace stasis::remote

#include "freeze/vfork.h"

#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"

namespace stasis::freeze {

namespace {

constexpr int64_t kLong_ns = 1'000'000'000;

}  // namespace

bool shares_memory(HostTid parent, HostTid child) {
  return ::syscall(SYS_kcmp, parent.value, child.value, KCMP_VM, 0, 0) == 0;
}

void VforkWatch::note(HostTid child, const remote::Registers& registers, uint64_t voluntary_switches,
                      const std::string& name) {
  // It goes to sleep again, and is stopped again.
  constexpr uint64_t kOurs = 2;
  const bool in_call = static_cast<int64_t>(registers.orig_rax) >= 0;
  const bool same = child == child_ && place_ == registers.rip && stack_ == registers.rsp &&
                    voluntary_switches <= switches_ + kOurs;
  child_ = child;
  place_ = registers.rip;
  stack_ = registers.rsp;
  switches_ = voluntary_switches;
  name_ = name;
  if (!in_call) {
    since_ns_ = 0;
  } else if (!same || since_ns_ == 0) {
    since_ns_ = monotonic_ns();
  }
}

std::string VforkWatch::waiting() const {
  return since_ns_ != 0 && monotonic_ns() - since_ns_ > kLong_ns ? name_ : std::string();
}

}  // namespace stasis::freeze

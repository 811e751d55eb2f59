#include "kernel/affinity.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

namespace stasis::kernel {

namespace {

std::string current_mask, previous_mask;

}  // namespace

std::string affinity_of(HostTid task) {
  std::array<char, 1024> mask;
  long size = ::syscall(SYS_sched_getaffinity, task.value, mask.size(), mask.data());
  return size > 0 ? std::string(mask.data(), static_cast<size_t>(size)) : std::string();
}

void set_affinity(HostTid task, const std::string& mask) {
  if (!mask.empty()) ::syscall(SYS_sched_setaffinity, task.value, mask.size(), mask.data());
}

OneProcessor::OneProcessor() {
  int here = ::sched_getcpu();
  std::string before = affinity_of(HostTid{0});
  if (here < 0 || static_cast<size_t>(here) / 8 >= before.size()) return;
  std::string only(before.size(), '\0');
  only[static_cast<size_t>(here) / 8] = static_cast<char>(1 << (here % 8));
  set_affinity(HostTid{0}, only);
  previous_mask = before;
  current_mask = only;
}

void OneProcessor::release() {
  set_affinity(HostTid{0}, previous_mask);
  previous_mask.clear();
  current_mask.clear();
}

const std::string& OneProcessor::mask() { return current_mask; }

void OneProcessor::leave_in_new_thread() { set_affinity(HostTid{0}, previous_mask); }

}  // namespace stasis::kernel

#include "kernel/pid_namespace.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>
#include <vector>

#include "kernel/proc.h"

namespace stasis::kernel {

Result<PidNamespace> PidNamespace::open(HostTid init) {
  STASIS_TRY(Fd fd, open_proc(init, "ns/pid", O_RDONLY));
  STASIS_TRY(auto status, read_status(init));
  return PidNamespace(std::move(fd), std::max<size_t>(status.namespace_depth, 1) - 1);
}

Result<NsTid> PidNamespace::number_of(HostTid task) const {
  STASIS_TRY(auto status, read_status(task));
  status.choose_level(level_);
  return status.ns_tid;
}

HostTid PidNamespace::host_number(NsTid task) const {
  constexpr unsigned long kGetPidFromNamespace = _IOR(0xb7, 6, int);  // NS_GET_PID_FROM_PIDNS
  int number = ::ioctl(fd_.get(), kGetPidFromNamespace, task.value);
  return HostTid{std::max(number, 0)};
}

std::optional<bool> PidNamespaceTree::contains(HostTid task) {
  auto identity = pid_namespace(task);
  if (!identity) return std::nullopt;
  if (auto known = is_below_.find(*identity); known != is_below_.end()) return known->second;
  auto opened = open_proc(task, "ns/pid", O_RDONLY);
  if (!opened.ok()) return std::nullopt;
  std::vector<uint64_t> passed = {*identity};
  bool below = false;
  for (Fd at = std::move(opened).value(); !below;) {
    // Of ours the kernel does not tell any parent.
    at.reset(::ioctl(at.get(), NS_GET_PARENT));
    struct stat status = {};
    if (!at || ::fstat(at.get(), &status) != 0) break;
    auto known = is_below_.find(status.st_ino);
    if (known == is_below_.end()) {
      passed.push_back(status.st_ino);
      continue;
    }
    below = known->second;
    if (!below) break;
  }
  for (uint64_t one : passed) is_below_[one] = below;
  return below;
}

}  // namespace stasis::kernel

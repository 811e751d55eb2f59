#include "kernel/pid_namespace.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <algorithm>

#include "kernel/proc.h"

namespace stasis::kernel {

Result<PidNamespace> PidNamespace::open(HostTid init) {
  STASIS_TRY(Fd fd, open_proc(init, "ns/pid", O_RDONLY));
  return PidNamespace(std::move(fd));
}

HostTid PidNamespace::host_number(NsTid task) const {
  constexpr unsigned long kGetPidFromNamespace = _IOR(0xb7, 6, int);  // NS_GET_PID_FROM_PIDNS
  int number = ::ioctl(fd_.get(), kGetPidFromNamespace, task.value);
  return HostTid{std::max(number, 0)};
}

}  // namespace stasis::kernel

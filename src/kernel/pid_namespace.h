// Task numbers of a session's pid namespace, as this process has them.
#pragma once

#include "stasis/fd.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::kernel {

class PidNamespace {
 public:
  // The namespace of `init`.
  static Result<PidNamespace> open(HostTid init);

  // 0: there is none, or the kernel cannot tell (before 6.11); /proc/PID/status can, at twenty times the
  // cost.
  HostTid host_number(NsTid task) const;

 private:
  explicit PidNamespace(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
};

}  // namespace stasis::kernel

// Task numbers of a session's pid namespace, as this process has them.
#pragma once

#include <map>
#include <optional>

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
  // The other way. Of a task that is in it, or in one below.
  Result<NsTid> number_of(HostTid task) const;

 private:
  PidNamespace(Fd fd, size_t level) : fd_(std::move(fd)), level_(level) {}
  Fd fd_;
  size_t level_;  // below ours
};

// Tells which pid namespaces are below a certain one.
class PidNamespaceTree {
 public:
  // `root`: the identity of that one.
  explicit PidNamespaceTree(uint64_t root) { is_below_[root] = true; }
  // Whether the task is in it, or in one below; nothing when that cannot be seen.
  std::optional<bool> contains(HostTid task);

 private:
  std::map<uint64_t, bool> is_below_;
};

}  // namespace stasis::kernel

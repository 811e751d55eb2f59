// The place in the new processes from which they are built: the stub, scratch memory, and a parking place for
// the vDSO.
#pragma once

#include <vector>

#include "kernel/proc.h"
#include "remote/executor.h"
#include "remote/stations.h"
#include "schema/manifest.pb.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::restore {

// Mapped by the builder before anything is forked, at addresses that no process of the image uses; so every
// process of the new tree has it from birth and can give up all its other memory at once.
class WorkArea {
 public:
  static Result<WorkArea> create(const schema::Manifest& manifest);

  uint64_t start() const { return start_; }
  uint64_t end() const { return start_ + size(); }
  static uint64_t size();
  remote::Executor executor() const;
  // For the threads of a process that is reached by `process`, which has no batch under way then.
  remote::Stations stations(const remote::Executor& process) const;
  uint64_t parking() const;

  // A random number that lets our own calls through the filter of the memory guard.
  uint64_t guard_pass() const { return guard_pass_; }

  // The kernel's own mappings (vvar, vDSO) of this process, as they will be in every fork.
  const std::vector<kernel::MapsEntry>& kernel_mappings() const { return kernel_mappings_; }
  // Where a `syscall` instruction is, as an offset into the vDSO.
  uint64_t syscall_offset() const { return syscall_offset_; }

 private:
  uint64_t start_ = 0;
  uint64_t syscall_offset_ = 0;
  uint64_t guard_pass_ = 0;
  std::vector<kernel::MapsEntry> kernel_mappings_;
};

}  // namespace stasis::restore

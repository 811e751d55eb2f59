// Tells a vfork() that is over in a moment from one for which nobody should wait.
#pragma once

#include <cstdint>
#include <string>

#include "remote/tracee.h"
#include "stasis/types.h"

namespace stasis::freeze {

// Whether `child` has the memory of its parent and is no thread of it.
bool shares_memory(HostTid parent, HostTid child);

// A parent in vfork() does not stop before its child has called exec. Most children do that at once; one that
// stands in the same system call again and again, and was awake for nobody but us, waits for something, and
// so would we.
class VforkWatch {
 public:
  // `child` of a parent that did not stop has been stopped with these registers.
  void note(HostTid child, const remote::Registers& registers, uint64_t voluntary_switches,
            const std::string& name);
  // The name of the child, when it has waited for long.
  std::string waiting() const;

 private:
  HostTid child_;
  uint64_t place_ = 0, stack_ = 0, switches_ = 0;
  int64_t since_ns_ = 0;  // 0: it was in no system call
  std::string name_;
};

}  // namespace stasis::freeze

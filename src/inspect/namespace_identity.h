// By which the kernel tells namespaces apart.
#pragma once

#include <cstdint>

#include "stasis/fd.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::inspect {

// Of what a process has unshared for its children, in /proc/PID/ns.
inline constexpr const char* kPidsOfChildren = "pid_for_children";

// `name`: as in /proc/PID/ns. 0: the kernel does not have this type, or it has no process yet.
uint64_t identity_of(HostTid task, const char* name);
// Of an open one.
Result<uint64_t> identity_of(const Fd& place);

}  // namespace stasis::inspect

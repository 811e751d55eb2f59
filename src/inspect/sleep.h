// What is left of a timeout that a stopped task was waiting for.
#pragma once

#include <cstdint>

#include "base/types.h"
#include "remote/tracee.h"

namespace stasis::inspect {

// Nanoseconds until the relative timeout of the interrupted system call, or -1 when it is in none that the kernel
// restarts by itself (-ERESTART_RESTARTBLOCK: nanosleep, poll, futex). The kernel keeps the deadline where nobody can
// read it, but tells when the task last left the processor, which is when it went to sleep.
int64_t sleep_left_ns(HostTid task, const remote::Registers& registers);

}  // namespace stasis::inspect

// System calls that a stop has interrupted, and what is left of their timeouts.
#pragma once

#include <cstdint>

#include "freeze/frozen_tree.h"
#include "remote/tracee.h"

namespace stasis::inspect {

// Nanoseconds until the relative timeout of an interrupted system call that the kernel would resume by itself
// (-ERESTART_RESTARTBLOCK: nanosleep, poll, futex); -1 when it is in none.
int64_t sleep_left_ns(const freeze::FrozenThread& thread, const remote::Registers& registers);

// Some calls return EINTR for a stop, though no signal has come (signal(7), "Interruption of system calls by
// stop signals"). A program need not know that it was saved: it is sent back into the call, with what is left
// of the timeout.
void reissue_interrupted_call(const freeze::FrozenThread& thread, bool signal_comes,
                              remote::Registers& registers);

}  // namespace stasis::inspect

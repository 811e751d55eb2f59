// Which signals a supervisor passes on, and how it ends as the program did.
#pragma once

#include <signal.h>

namespace stasis::session {

// All that the supervisor takes from a signalfd: those that it forwards, SIGCHLD and SIGWINCH, and SIGTTOU
// and SIGTTIN, which would stop it.
sigset_t supervised_signals();
bool is_forwarded(int signal);

// The exit code that stands for a wait status in a shell.
int code_of_status(int wait_status);
// Ends this process as the program ended: with its exit code, or by its signal (without a core dump of ours).
[[noreturn]] void end_like(int wait_status);

}  // namespace stasis::session

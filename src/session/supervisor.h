// What stays of launch and restart while the session runs: it forwards signals and the terminal, takes
// interval checkpoints, and ends as the program does. The session does not need it: it may be killed at any
// time.
#pragma once

#include "session/start.h"

namespace stasis::session {

// Returns when the root process, or the session, has ended; with the exit code to leave with. Does not return
// when the program was ended by a signal: then we end by the same.
int supervise(RunningSession session);

// Closes what the supervisor inherited and only the program should hold: a pipe ends when its last holder
// closes it.
void let_go_of_inherited_descriptors();

// Runs `start_it` and then supervises in the foreground. In the background returns 0 as soon as the session
// runs, after `announce`, which is told how long the start took (RunningSession::took_ns); when it is to be
// `supervised` all the same, by a new process that has left our terminal.
Result<int> run_session(Ground ground, bool supervised, std::function<Result<RunningSession>()> start_it,
                        const std::function<void(int64_t took_ns)>& announce);

}  // namespace stasis::session

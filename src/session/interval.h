// The checkpoints that the supervisor's timer takes.
#pragma once

#include <optional>
#include <string>

#include "session/record.h"

namespace stasis::session {

// Saves, removes the oldest interval checkpoints beyond record.keep, and writes what went wrong to the
// session's log. The exit code of the process that does it.
int interval_checkpoint(const Record& record);

// Nobody watches a timer: what keeps it from saving is shown by `ps` until it saves again.
struct IntervalFailure {
  int64_t since_ns = 0;  // the first attempt that failed, real time
  std::string message;   // of the last one
};

// Nothing: the last one succeeded, or there was none yet.
std::optional<IntervalFailure> interval_failure(const std::string& name);

// In the session's directory.
inline constexpr const char* kIntervalFailureFile = "interval-failure";

}  // namespace stasis::session

// The processes of a running session, and signals for them.
#pragma once

#include <string>
#include <vector>

#include "session/record.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::session {

struct SessionProcess {
  NsTid pid;
  HostTid host_pid;
  char state = '?';  // as in /proc/PID/stat
  std::string comm;
};

// All of the session's pid namespace but its init, by pid.
Result<std::vector<SessionProcess>> list_processes(const Record& record);

enum class SessionState { kStarting, kRunning, kStopped, kCheckpointing };
const char* state_name(SessionState state);
SessionState state_of(const Record& record, const std::vector<SessionProcess>& processes);

// "TERM", "SIGTERM", "sigterm", "15", "RTMIN+3".
Result<int> parse_signal(const std::string& text);

// Sends to one process of the session; kNotFound when there is none of that number.
Result<void> send_signal(const Record& record, NsTid pid, int signal);

}  // namespace stasis::session

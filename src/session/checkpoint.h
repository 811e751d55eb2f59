// Saving a session that runs: finds it, locks it, and lets the engine do the work.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "checkpoint/checkpoint.h"
#include "session/record.h"
#include "stasis/result.h"

namespace stasis::session {

struct CheckpointRequest {
  std::string name;
  std::string tag;
  bool stop = false;
  bool full = false;                          // share nothing with earlier checkpoints
  std::optional<checkpoint::FileMode> files;  // nothing: as the session was launched
  std::optional<uint64_t> files_limit;
  std::function<void(uint64_t done, uint64_t total)> progress;
};

Result<checkpoint::Report> checkpoint_session(const CheckpointRequest& request);

// The checkpoint that is most like the program: the newest of this run, else the one that it was restarted
// from, else the newest that there is; empty: there is none.
std::string find_base(const Record& record);

// Whether `checkpoint --stop` may be what ended the session.
bool is_stopping(const std::string& name);

}  // namespace stasis::session

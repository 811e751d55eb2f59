// Brings a checkpoint back as a running session.
#pragma once

#include <optional>
#include <string>

#include "restore/captured_files.h"
#include "restore/restart.h"
#include "session/start.h"
#include "stasis/result.h"

namespace stasis::session {

// What a restart in the background tells.
struct Restarted {
  std::string name;       // of the session
  std::string directory;  // of the checkpoint
  size_t processes = 0;
  int64_t took_ns = 0;  // from the first thing made until every task was let go
};

struct RestartRequest {
  std::string what;   // SESSION, SESSION@ID or the directory of a checkpoint
  std::string name;   // of the new session; empty: the one that was saved
  std::string store;  // where SESSION's checkpoints are, and new ones go; empty: that of the session's
                      // record, or the default
  Ground ground = Ground::kForeground;
  restore::MemoryMode memory = restore::MemoryMode::kEager;
  restore::PathMap paths;              // files that are in other places now
  std::optional<int64_t> interval_ns;  // nothing: as the session had it
  std::optional<uint32_t> keep;
  // What becomes of captured files; nothing: put back for the session that was saved, copies for another one.
  std::optional<restore::FileUse> files;
  std::string gl_driver;  // of OpenGL, see driver_settings(); empty: as it is here
  // While memory is read; done is total when the program is about to run.
  std::function<void(uint64_t done, uint64_t total)> progress;
  std::function<void(const Restarted&)> announce;  // in the background
};

// The exit code to leave with. See supervisor.h for what happens until then.
Result<int> restart(const RestartRequest& request);

}  // namespace stasis::session

// Names and stores of sessions that are about to start.
#pragma once

#include <string>

#include "session/record.h"
#include "stasis/result.h"

namespace stasis::session {

struct ClaimedName {
  std::string name;
  SessionLock lock;
};

// Locks the session `name` for a start, or another purpose; kBusy when it runs. An empty name is made from
// `program`, with a number when it is taken: by a session that runs, or by one that has ended and left
// checkpoints in `store`.
Result<ClaimedName> claim_name(const std::string& name, const std::string& program, const std::string& store,
                               const std::string& purpose = kStartPurpose);

// `store`, or the default one when it is empty, as an absolute path.
Result<std::string> absolute_store(const std::string& store);

}  // namespace stasis::session

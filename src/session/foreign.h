// Saving a program that was not launched by stasis: a process and its descendants, which a restart brings
// back as a session. They are found by descent, nothing is left behind in or beside them, and what they have
// from whoever started them is replaced as that of launch is.
#pragma once

#include <string>

#include "checkpoint/checkpoint.h"
#include "session/checkpoint.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::session {

struct ForeignRequest {
  HostTid root;
  std::string store;         // empty: where the same program was saved before, or the default
  CheckpointRequest common;  // an empty name: as before, or one made from the program's
};

struct ForeignSaved {
  std::string name;
  checkpoint::Report report;
};

// kRefused says why the process cannot be saved: it belongs to a session, to the system, or to another pid
// namespace.
Result<ForeignSaved> checkpoint_foreign(const ForeignRequest& request);

}  // namespace stasis::session

// Puts processes into the control groups in which they were.
#pragma once

#include "schema/task.pb.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::restore {

// Those in which init is are inherited. A group that is gone is made again, without its settings, and a
// hierarchy that is mounted nowhere is mounted for that moment. What an ordinary user may not do is left out.
Result<void> join_control_groups(HostTid task, const schema::Process& process);

}  // namespace stasis::restore

// Puts processes into the control groups in which they were.
#pragma once

#include "schema/task.pb.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::restore {

// Those in which init is are inherited. A group that is gone is made again, without its settings, and a
// hierarchy that is mounted nowhere is mounted for that moment. What an ordinary user may not do is left out.
Result<void> join_control_groups(HostTid task, const schema::Process& process);
// Our own process joins the groups of these lines.
Result<void> join_control_groups(const google::protobuf::RepeatedPtrField<std::string>& lines);
// The same for one thread, which may be in others than its process (version 1, threaded groups of version 2).
Result<void> join_control_groups(HostTid thread, const schema::Thread& record);

}  // namespace stasis::restore

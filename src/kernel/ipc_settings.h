// The settings (sysctls) of an IPC namespace: limits of System V objects and of POSIX message queues.
#pragma once

#include "schema/system_v.pb.h"
#include "stasis/result.h"

namespace stasis::kernel {

// Those of the caller's namespace that are not as in a new one. The caller is in a new one afterwards, so it
// should be a thread or a process that ends.
schema::IpcSettings read_changed_ipc_settings();

// Makes room: what is a limit and higher than here is set. What is made under these limits may be above those
// that the namespace got later, so the exact ones come last, with the ids that objects to come shall have.
enum class IpcStage { kRoom, kExact };
Result<void> apply_ipc_settings(const schema::IpcSettings& wanted, IpcStage stage);

}  // namespace stasis::kernel

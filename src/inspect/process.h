// What the kernel keeps for a frozen process and its threads, beyond memory and descriptors.
#pragma once

#include <memory>
#include <vector>

#include "freeze/frozen_tree.h"
#include "inspect/system_v.h"
#include "kernel/proc.h"
#include "remote/foothold.h"
#include "schema/manifest.pb.h"
#include "stasis/result.h"

namespace stasis::inspect {

// Where a thread was stopped: read first, since a foothold needs it.
Result<remote::TaskContext> observe_context(const freeze::FrozenProcess& process,
                                            const freeze::FrozenThread& thread);

// What /proc tells, into the process and its memory, and what only the process can complete. For many
// processes side by side. `init_groups`: /proc/PID/cgroup of init.
struct ProcReadings {
  std::vector<schema::PosixTimer> timers;
  // Of each thread but the first, the control groups in which its process is not.
  std::vector<std::vector<std::string>> thread_groups;
};
Result<ProcReadings> read_from_proc(const freeze::FrozenProcess& process, const std::string& init_groups,
                                    schema::Process& out, schema::Memory& memory);

// The rest of what can be read from outside, and by remote system calls through the foothold. `contexts` are
// those of the threads, in order. While the process works on its half, others can be begun.
// `system_v`: what it sees of its IPC namespace.
class Inspection {
 public:
  virtual ~Inspection() = default;
  virtual Result<void> finish(schema::Process& out, schema::Memory& memory, SystemVCounts& system_v) = 0;
};
Result<std::unique_ptr<Inspection>> begin_inspection(const freeze::FrozenProcess& process,
                                                     ProcReadings readings,
                                                     const std::vector<remote::TaskContext>& contexts,
                                                     remote::Foothold& foothold, schema::Process& out);

// Pid, parent, group, session, state: all there is of a zombie. `to_ns` maps host pids to the session's.
void observe_identity(const freeze::FrozenProcess& process, const freeze::FrozenTree& tree,
                      schema::Process& out);

// Refuses, before anything is written, what tasks may have that cannot be restored.
Result<void> refuse_unsupported(const freeze::FrozenTree& tree);

}  // namespace stasis::inspect

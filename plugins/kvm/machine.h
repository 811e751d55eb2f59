// A whole virtual machine: what is asked of it when the monitor stands still, and how it is made anew, in the
// monitor, under the same numbers and addresses.
#pragma once

#include "kvm.pb.h"
#include "stasis/descriptor.h"

namespace stasis::kvm {

// `file`: the descriptor of the machine.
Result<schema::Machine> save_machine(const resource::OpenFile& file, resource::Observation& tree,
                                     Process& monitor);

// In this order:
// 1. the machine, and what has to be settled before it has vCPUs: capabilities, addresses of its own,
// interrupt
//    controllers, memory, as the monitor asked for them; vCPUs among them;
// 2. the state of each vCPU (vcpu_state.cpp);
// 3. the state of the interrupt controllers and timers: whatever they have for vCPUs finds them as they were;
// 4. the clock, so that as little time as possible passes for the guest;
// 5. what lets interrupts and events in: routes, event descriptors, zones of coalesced accesses;
// 6. what vCPUs share with the monitor, which the steps before have written to.
Result<void> restore_machine(const schema::Machine& machine, resource::Finishing& monitor);

}  // namespace stasis::kvm

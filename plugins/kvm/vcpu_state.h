// The state of a vCPU that the kernel tells: what is asked for, and in which order it is given back.
#pragma once

#include "kvm.pb.h"
#include "stasis/process.h"

namespace stasis::kvm {

// `banks`: of machine checks, as KVM_X86_SETUP_MCE was told. The vCPU does not run.
Result<void> save_vcpu(Process& monitor, uint32_t banks, schema::Vcpu& vcpu);
// Into a fresh vCPU with the same number.
Result<void> restore_vcpu(Process& monitor, const schema::Vcpu& vcpu);

}  // namespace stasis::kvm

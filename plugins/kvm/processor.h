// What a guest was told of its processor, and what this host can give it.
#pragma once

#include <string>
#include <vector>

#include "kvm.pb.h"
#include "stasis/fd.h"
#include "stasis/plugin.h"

namespace stasis::kvm {

// kUnsupported when this host, or this user, has no KVM.
Result<Fd> open_kvm();

// kUnsupported, with names, when the guest uses features that this host's KVM does not have.
Result<void> check_features(const schema::Machine& machine);

// For `stasis check`.
std::vector<plugin::Finding> check_host();

}  // namespace stasis::kvm

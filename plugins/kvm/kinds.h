// The descriptors of KVM: /dev/kvm, machines, vCPUs, and what is made of them.
#pragma once

#include <span>

#include "stasis/descriptor.h"

namespace stasis::kvm {

std::span<const resource::DescriptorKind* const> kinds();

}  // namespace stasis::kvm

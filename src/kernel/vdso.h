// The vDSO that this kernel maps into every process.
#pragma once

#include <string_view>

namespace stasis::kernel {

// Of our own process, at its address there; empty: there is none.
std::string_view own_vdso();

}  // namespace stasis::kernel

// The processor's features that a program may rely on, and that another host may lack.
#pragma once

#include "schema/manifest.pb.h"

namespace stasis::kernel {

// Fills cpu, cpu_flags, xsave_features and xsave_size.
void describe_cpu(schema::Host& out);

}  // namespace stasis::kernel

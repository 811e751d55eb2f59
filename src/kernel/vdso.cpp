#include "kernel/vdso.h"

#include <sys/auxv.h>
#include <unistd.h>

#include "kernel/proc.h"

namespace stasis::kernel {

std::string_view own_vdso() {
  const uint64_t start = ::getauxval(AT_SYSINFO_EHDR);
  if (start == 0) return {};
  auto maps = mappings_between(HostTid{::getpid()}, start, start + 1);
  if (!maps.ok() || maps->size() != 1) return {};
  return {reinterpret_cast<const char*>(start), maps->front().end - start};
}

}  // namespace stasis::kernel

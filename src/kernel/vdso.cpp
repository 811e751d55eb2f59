#include "kernel/vdso.h"

#include <sys/auxv.h>
#include <unistd.h>

#include "kernel/proc.h"

namespace stasis::kernel {

std::string_view own_vdso() {
  static const std::string_view vdso = [] {
    const uint64_t start = ::getauxval(AT_SYSINFO_EHDR);
    auto maps = mappings_between(HostTid{::getpid()}, start, start + 1);
    if (start == 0 || !maps.ok() || maps->size() != 1) return std::string_view();
    return std::string_view(reinterpret_cast<const char*>(start), maps->front().end - start);
  }();
  return vdso;
}

}  // namespace stasis::kernel

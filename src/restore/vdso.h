// Programs have addresses of functions in the vDSO of the kernel that they were started on. On another kernel
// the vDSO is another one: it is mapped elsewhere then, and where the old one was is its content with jumps
// to the new one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "restore/work_area.h"
#include "schema/memory.pb.h"
#include "schema/task.pb.h"
#include "stasis/result.h"

namespace stasis::restore {

// The content of a vDSO, `saved`, of which each function jumps to that of the same name in `ours`, which is
// mapped at `address`; what we do not have is a system call, or fails with ENOSYS. `saved` may be anything.
std::string redirect_vdso(std::string saved, std::string_view ours, uint64_t address);

// Where the vDSO of this kernel, with what belongs to it, is mapped in a process.
struct VdsoPlace {
  uint64_t start = 0;       // of the first of area.kernel_mappings(); 0: the program has unmapped its vDSO
  uint64_t redirected = 0;  // where the one that was saved was, when it is another one; else 0
  uint64_t vdso = 0;
};
// The same for all who ask.
Result<VdsoPlace> place_vdso(const schema::Memory& memory, std::string_view saved, const WorkArea& area);

// A thread that is inside a function of the old vDSO cannot go on in it, since what that reads is not there.
Result<void> check_not_in_vdso(const schema::Process& process, const schema::Memory& memory,
                               std::string_view saved, const WorkArea& area);

}  // namespace stasis::restore

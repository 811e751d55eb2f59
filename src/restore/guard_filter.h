// The seccomp filter of the memory guard.
#pragma once

#include <linux/filter.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace stasis::restore {

struct AddressRange {
  uint64_t start = 0;
  uint64_t end = 0;
};

// Joins the nearest ranges until there are at most `limit`.
std::vector<AddressRange> coarsened(std::vector<AddressRange> ranges, size_t limit);

// Notifies of calls that would show that memory is a file and not anonymous: advice that gives memory back
// (or is refused for files) and mremap(), where they touch `ranges`. Ranges are rounded to 64 KiB; a
// notification too many only costs time. A call whose sixth argument, which none of them has, is `pass` goes
// through: our own, while the memory is being built.
std::vector<sock_filter> guard_filter(const std::vector<AddressRange>& ranges, uint64_t pass);

// Advice that the filter notifies of.
bool is_guarded_advice(uint64_t advice);

}  // namespace stasis::restore

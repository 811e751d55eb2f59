// Objects of reserved huge pages (hugetlb) that have no file of the user's: anonymous shared memory, memfds,
// System V segments. The kernel keeps them in file systems of its own, one for each size of pages.
#pragma once

#include <cstdint>

#include "stasis/types.h"

namespace stasis::kernel {

// The pages of an object on this device (as in maps) have 2^n bytes; 0: it is none of these.
uint32_t huge_page_shift_of(uint64_t device);

// `size` in whole pages of 2^shift bytes; 0: ordinary ones.
constexpr uint64_t in_whole_pages(uint64_t size, uint32_t shift) {
  const uint64_t page = shift == 0 ? kPageSize : uint64_t{1} << shift;
  return (size + page - 1) / page * page;
}

}  // namespace stasis::kernel

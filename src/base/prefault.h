// A page fault costs as much as dozens of system calls, on virtual machines above all, and a command that
// lives for a few milliseconds does little else. One call fetches the same pages at a twentieth of the price.
#pragma once

#include <cstddef>

namespace stasis {

// Enough for all that does not grow with the number of tasks.
inline constexpr size_t kHeap = 128 << 10;

// Maps what this program is going to touch: its code, its data, the next of its stack, and `heap` bytes that
// malloc will hand out. `hot` bytes of them are written to as well: a hypervisor without nested paging has
// page tables of its own, which fill only then.
void prefault(size_t heap, size_t hot = 0);
// For a child of fork(), in which no code is mapped. It shares the other pages until it writes to them, and
// it will write to few.
void prefault_code();

}  // namespace stasis

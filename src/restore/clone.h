// clone3() with a chosen number, as a call of a batch.
#pragma once

#include <sys/syscall.h>

#include <cstdint>
#include <vector>

#include "remote/batch.h"

namespace stasis::restore {

// struct clone_args; the kernel's header clashes with the C library's in places.
struct CloneRequest {
  uint64_t flags = 0;
  uint64_t pidfd = 0;
  uint64_t child_tid = 0;
  uint64_t parent_tid = 0;
  uint64_t exit_signal = 0;
  uint64_t stack = 0;
  uint64_t stack_size = 0;
  uint64_t tls = 0;
  uint64_t set_tid = 0;
  uint64_t set_tid_size = 0;
  uint64_t cgroup = 0;
};

// `levels`: those that the kernel is not to choose, of its number in the session first, that in its own pid
// namespace last. The kernel wants them the other way round.
inline size_t add_clone(remote::Batch& batch, CloneRequest request, const std::vector<int>& levels) {
  const std::vector<int32_t> numbers(levels.rbegin(), levels.rend());
  if (!numbers.empty()) {
    request.set_tid =
        batch.put({reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(int32_t)});
    request.set_tid_size = numbers.size();
  }
  uint64_t address = batch.put_object(request);
  return batch.call(SYS_clone3, {address, sizeof request});
}

}  // namespace stasis::restore

// Many small independent pieces of work on all processors at once: what /proc tells of each of hundreds of
// tasks, above all, while they stand still and leave the processors idle.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "stasis/result.h"

namespace stasis {

// Starts the threads, as many as there are further processors, but only a few; `begin` is called first in
// each of them. Without it, and in a child of fork(), everything below is done by the caller alone. Only the
// first call has an effect.
void start_parallel_threads(const std::function<void()>& begin);

// Calls `work` for each index below `count`, in any order, and returns when all have returned. Not from
// within `work`, and from one thread only, like all that follows.
void for_each_index(size_t count, const std::function<void(size_t)>& work);

// The same for work that may fail: the error of the lowest index.
Result<void> try_each_index(size_t count, const std::function<Result<void>(size_t)>& work);

// Work that goes on beside its caller, until join(), which does what is left of it; at the latest the
// destructor does. One at a time.
class ConcurrentWork {
 public:
  ConcurrentWork(size_t count, std::function<void(size_t)> work);
  ~ConcurrentWork() { join(); }
  ConcurrentWork(const ConcurrentWork&) = delete;
  ConcurrentWork& operator=(const ConcurrentWork&) = delete;
  void join();

 private:
  const size_t count_;
  const std::function<void(size_t)> work_;
  bool begun_ = false, joined_ = false;
};

}  // namespace stasis

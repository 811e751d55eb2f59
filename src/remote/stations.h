// Places where many threads of one process work for us at the same time.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "remote/executor.h"
#include "stasis/result.h"

namespace stasis::remote {

// A batch of a few calls for a thread. `ask` fills it, `take` gets it back with the results.
struct ThreadJob {
  Tracee thread;
  const TaskContext& context;
  std::function<void(Batch&)> ask;
  std::function<Result<void>(const Batch&)> take;
};

// Each station has a stub and room for a batch of its own; a thread occupies it until all have reported that
// work at the same time.
// Waiting for each of a thousand threads before the next one begins would take a thousand times as long as
// the way to a processor.
class Stations {
 public:
  void add(Executor station) { stations_.push_back(std::move(station)); }
  bool empty() const { return stations_.empty(); }
  size_t size() const { return stations_.size(); }
  const Executor& at(size_t index) const { return stations_[index]; }

  // All threads of `process`, which lends its memory. `put_back` is called for each thread that is not inside
  // a stub any more, or never got there. The first error ends it, but not before those that work have
  // reported: a thread that runs cannot be let go.
  Result<void> run(HostTid process, const std::vector<ThreadJob>& jobs,
                   const std::function<Result<void>(const ThreadJob&)>& put_back = {}) const;

 private:
  std::vector<Executor> stations_;
};

}  // namespace stasis::remote

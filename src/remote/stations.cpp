#include "remote/stations.h"

namespace stasis::remote {

Result<void> Stations::run(HostTid process, const std::vector<ThreadJob>& jobs,
                           const std::function<Result<void>(const ThreadJob&)>& put_back) const {
  const size_t window = stations_.size();
  std::vector<Batch> batches;
  for (const Executor& station : stations_) batches.emplace_back(station.scratch());
  // If we die now, each thread finishes its batch in its own place, which nobody else touches, and goes back.
  auto start = [&](size_t i) -> Result<void> {
    const Executor& station = stations_[i % window];
    Batch& batch = batches[i % window];
    batch.clear();
    jobs[i].ask(batch);
    STASIS_CHECK(station.install(process, jobs[i].context, {.unmap_scratch = false}));
    return station.start(jobs[i].thread, jobs[i].context, batch);
  };
  auto finish = [&](size_t i) -> Result<void> {
    const ThreadJob& job = jobs[i];
    STASIS_CHECK(stations_[i % window].finish(job.thread, job.context, batches[i % window]));
    auto taken = job.take(batches[i % window]);
    if (put_back) STASIS_CHECK(put_back(job));
    return taken;
  };
  Result<void> result;
  size_t started = 0;
  for (size_t finished = 0; finished < jobs.size(); ++finished) {
    while (result.ok() && started < jobs.size() && started - finished < window) {
      result = start(started);
      if (result.ok()) {
        ++started;
      } else if (put_back) {
        (void)put_back(jobs[started]).ok();  // the registers may be those of the stub already
      }
    }
    if (finished == started) break;
    auto done = finish(finished);
    if (result.ok()) result = std::move(done);
  }
  return result;
}

}  // namespace stasis::remote

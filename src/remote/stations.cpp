#include "remote/stations.h"

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

namespace stasis::remote {

namespace {

using PutBack = std::function<Result<void>(const ThreadJob&)>;

// Threads that work together. What they need is written at once, and what they leave is read at once: going
// to their memory for each of them would take as long as all that they do.
class Group {
 public:
  Group(HostTid process, std::span<const Executor> stations, std::span<const ThreadJob> jobs,
        const PutBack& put_back)
      : process_(process), stations_(stations), jobs_(jobs), put_back_(put_back) {
    for (size_t i = 0; i < jobs_.size(); ++i) {
      batches_.emplace_back(stations_[i].scratch());
      jobs_[i].ask(batches_[i]);
    }
  }

  // If we die, each thread finishes its batch in its own place, which nobody else touches, and goes back.
  void begin() {
    result_ = install();
    for (; result_.ok() && started_ < jobs_.size(); ++started_) {
      result_ =
          stations_[started_].enter(jobs_[started_].thread, jobs_[started_].context, batches_[started_]);
      if (result_.ok()) continue;
      // The registers may be those of the stub already.
      if (put_back_) (void)put_back_(jobs_[started_]).ok();
      return;
    }
  }

  // The first error ends it, but not before those that work have reported.
  Result<void> finish() {
    std::vector<bool> back(started_, false);
    for (size_t i = 0; i < started_; ++i) {
      auto stopped = stations_[i].await_signal(jobs_[i].thread, jobs_[i].context);
      back[i] = stopped.ok();
      keep_first(std::move(stopped));
    }
    auto fetched = fetch();
    const bool has_results = fetched.ok();
    keep_first(std::move(fetched));
    for (size_t i = 0; i < started_; ++i) {
      if (!back[i]) continue;
      if (has_results) keep_first(complete(i));
      if (put_back_) keep_first(put_back_(jobs_[i]));
    }
    return std::move(result_);
  }

 private:
  Result<void> install() {
    Transfer code, calls;
    for (size_t i = 0; i < jobs_.size(); ++i)
      STASIS_CHECK(stations_[i].prepare(process_, jobs_[i].context, batches_[i], code, calls));
    STASIS_CHECK(stations_.front().write_code(process_, code));
    return calls.write(process_);
  }

  Result<void> fetch() {
    Transfer all;
    for (size_t i = 0; i < started_; ++i) stations_[i].add_results(batches_[i], all);
    return all.read(process_);
  }

  // Somebody else may have sent the signal by which a thread reports before it was through.
  Result<void> complete(size_t i) {
    const ThreadJob& job = jobs_[i];
    if (!batches_[i].is_finished()) {
      STASIS_CHECK(stations_[i].go_on(job.thread, job.context));
      STASIS_TRY([[maybe_unused]] auto registers, stations_[i].await_report(job.thread, job.context));
      STASIS_CHECK(stations_[i].fetch(process_, batches_[i]));
    }
    return result_.ok() ? job.take(batches_[i]) : Result<void>();
  }

  void keep_first(Result<void> done) {
    if (result_.ok()) result_ = std::move(done);
  }

  HostTid process_;
  std::span<const Executor> stations_;
  std::span<const ThreadJob> jobs_;
  const PutBack& put_back_;
  std::vector<Batch> batches_;
  size_t started_ = 0;
  Result<void> result_;
};

}  // namespace

// Half of the stations at a time, so that some threads work while we look after the others.
Result<void> Stations::run(HostTid process, const std::vector<ThreadJob>& jobs,
                           const PutBack& put_back) const {
  const std::span<const Executor> all = stations_;
  const size_t half = all.size() / 2;
  const std::array<std::span<const Executor>, 2> halves = {all.first(half), all.subspan(half)};
  std::unique_ptr<Group> before;
  Result<void> result;
  size_t turn = 0;
  for (std::span<const ThreadJob> rest = jobs; result.ok() && !rest.empty(); ++turn) {
    const auto& stations = halves[half == 0 ? 1 : turn % 2];
    const size_t count = std::min(rest.size(), stations.size());
    auto next = std::make_unique<Group>(process, stations, rest.first(count), put_back);
    rest = rest.subspan(count);
    if (half == 0 && before) result = std::exchange(before, nullptr)->finish();
    if (!result.ok()) break;
    next->begin();
    if (before) result = before->finish();
    before = std::move(next);
  }
  if (before) {
    auto last = before->finish();
    if (result.ok()) result = std::move(last);
  }
  return result;
}

}  // namespace stasis::remote

// What kinds and plugins see of a process that makes calls for us: a Process made of batches. `Base` is
// Process or an interface above it.
#pragma once

#include <functional>
#include <utility>

#include "kernel/proc.h"
#include "remote/batch.h"
#include "remote/tracee.h"
#include "stasis/process.h"

namespace stasis::remote {

template <typename Base>
class BorrowedProcess : public Base {
 public:
  // `run`: lets the process execute a batch.
  BorrowedProcess(HostTid task, NsTid pid, Batch batch, std::function<Result<void>(Batch&)> run)
      : task_(task), pid_(pid), batch_(std::move(batch)), run_(std::move(run)) {}

  HostTid task() const override { return task_; }
  NsTid pid() const override { return pid_; }
  Result<void> run(std::span<Process::Call> calls) override {
    constexpr size_t kAtOnce = 256;
    for (size_t first = 0; first < calls.size(); first += kAtOnce) {
      auto some = calls.subspan(first, std::min(kAtOnce, calls.size() - first));
      for (const auto& call : some) {
        const auto& a = call.arguments;
        batch_.call(call.number, {a[0], a[1], a[2], a[3], a[4], a[5]});
      }
      STASIS_CHECK(run_(batch_));
      for (size_t i = 0; i < some.size(); ++i) some[i].result = batch_.result(i);
      batch_.drop_calls();
    }
    return {};
  }
  Result<RemotePtr> put(std::span<const std::byte> bytes) override {
    if (!batch_.fits(1, bytes.size())) {
      return Error{"put data into the program",
                   fmt::format("task {}", pid_),
                   fmt::format("{} bytes are too many", bytes.size()),
                   {}};
    }
    return RemotePtr{batch_.put({reinterpret_cast<const char*>(bytes.data()), bytes.size()})};
  }
  void forget() override { batch_.clear(); }
  Result<void> read(RemotePtr from, std::span<std::byte> into) const override {
    return read_memory(task_, from, {reinterpret_cast<char*>(into.data()), into.size()});
  }
  Result<void> write(RemotePtr to, std::span<const std::byte> bytes) override {
    return write_memory(task_, to, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
  Result<std::vector<MappedRange>> mappings() const override {
    STASIS_TRY(auto maps, kernel::read_maps(task_));
    std::vector<MappedRange> all;
    all.reserve(maps.size());
    for (auto& entry : maps)
      all.push_back({entry.start, entry.end, entry.offset, entry.protection, std::move(entry.name)});
    return all;
  }

 private:
  HostTid task_;
  NsTid pid_;
  Batch batch_;
  std::function<Result<void>(Batch&)> run_;
};

}  // namespace stasis::remote

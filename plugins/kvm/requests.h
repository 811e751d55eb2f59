// Requests to KVM that a stopped monitor makes for us: the kernel accepts them from its address space alone.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "stasis/process.h"

namespace stasis::kvm {

class Requests {
 public:
  // Forgets what was put before.
  explicit Requests(Process& monitor) : monitor_(monitor) { monitor_.forget(); }
  ~Requests();
  Requests(const Requests&) = delete;
  Requests& operator=(const Requests&) = delete;

  // The index is for result() and output(). `argument`: the value itself.
  size_t add(int number, uint32_t request, uint64_t argument);
  // `data` is put into the monitor, and fetched back after the run.
  Result<size_t> add(int number, uint32_t request, const std::string& data);
  Result<void> run();

  int64_t result(size_t index) const { return calls_[index].result; }
  Result<std::string> output(size_t index) const;
  size_t size() const { return calls_.size(); }

  // A single one, and an Error naming it when it fails.
  static Result<int64_t> make(Process& monitor, int number, uint32_t request, uint64_t argument);

 private:
  Process& monitor_;
  std::vector<Process::Call> calls_;
  std::vector<std::pair<RemotePtr, size_t>> data_;
  std::vector<std::pair<RemotePtr, size_t>> mapped_;  // what is too large to be put
};

// "KVM_SET_MSRS"; "KVM request 0x…" when it has no name here.
std::string request_name(uint32_t request);
Error request_failed(std::string step, const Process& monitor, int number, uint32_t request, int64_t result,
                     std::string hint = {});

}  // namespace stasis::kvm

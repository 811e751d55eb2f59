// A batch of system calls for a task to execute in one go, with the data they need.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stasis/types.h"

namespace stasis::remote {

// Where batches live in the address space of the task.
// Calls first, then their data.
struct Scratch {
  static constexpr uint64_t kCallSize = 64;
  RemotePtr address;
  uint64_t size = 0;
  size_t max_calls = 512;
  uint64_t data_offset() const { return max_calls * kCallSize; }
};

// Collects calls and their data for a given scratch area. Results and output data are there after it ran.
class Batch {
 public:
  static constexpr uint64_t kCallSize = Scratch::kCallSize;

  explicit Batch(Scratch scratch) : scratch_(scratch) {}

  // Adds a call; the index is for result(). At most as many as the area holds.
  size_t call(long number, std::initializer_list<uint64_t> arguments) {
    std::array<uint64_t, 8> call = {static_cast<uint64_t>(number)};
    size_t position = 1;
    for (uint64_t argument : arguments) call[position++] = argument;
    calls_.push_back(call);
    return calls_.size() - 1;
  }
  // Adds a call whose first argument is the result of the one before it.
  size_t call_with_last(long number, std::initializer_list<uint64_t> rest) {
    size_t index = call(number, {0});
    calls_[index][0] |= uint64_t{1} << 63;
    size_t position = 2;
    for (uint64_t argument : rest) calls_[index][position++] = argument;
    return index;
  }
  // Input data, 16-byte aligned; returns its address in the task.
  uint64_t put(std::string_view bytes) {
    uint64_t address = reserve(bytes.size());
    has_input_ = true;
    std::memcpy(data_.data() + (address - scratch_.address.value - scratch_.data_offset()), bytes.data(),
                bytes.size());
    return address;
  }
  template <typename T>
  uint64_t put_object(const T& object) {
    return put({reinterpret_cast<const char*>(&object), sizeof object});
  }
  // Room for output.
  uint64_t reserve(size_t size) {
    size_t offset = (data_.size() + 15) & ~size_t{15};
    data_.resize(offset + size);
    return scratch_.address.value + scratch_.data_offset() + offset;
  }

  bool fits(size_t more_calls, size_t more_data) const {
    return calls_.size() + more_calls <= scratch_.max_calls &&
           data_.size() + more_data + 64 <= scratch_.size - scratch_.data_offset();
  }
  bool empty() const { return calls_.empty(); }
  size_t size() const { return calls_.size(); }
  // Keeps the data, for calls to come.
  void drop_calls() { calls_.clear(); }
  void clear() {
    calls_.clear();
    data_.clear();
    has_input_ = false;
  }

  // A mark for results to come, which no call returns.
  void expect_results() {
    if (!calls_.empty()) calls_.back()[7] = kNoResult;
  }
  bool is_finished() const { return calls_.empty() || calls_.back()[7] != kNoResult; }

  // After the run.
  int64_t result(size_t index) const { return static_cast<int64_t>(calls_[index][7]); }
  long number(size_t index) const { return static_cast<long>(calls_[index][0] & ~(uint64_t{1} << 63)); }
  uint64_t argument(size_t index, size_t which) const { return calls_[index][which + 1]; }
  template <typename T>
  T output(uint64_t address) const {
    T object;
    std::memcpy(&object, data_.data() + (address - scratch_.address.value - scratch_.data_offset()),
                sizeof object);
    return object;
  }

 private:
  friend class Executor;
  static constexpr uint64_t kNoResult = uint64_t{1} << 62;
  Scratch scratch_;
  std::vector<std::array<uint64_t, 8>> calls_;
  std::vector<char> data_;
  bool has_input_ = false;  // else data_ is room for output
};

}  // namespace stasis::remote

// What a task is to do with one set of System V semaphores, in one semop() that waits for nothing.
#pragma once

#include <sys/sem.h>
#include <sys/syscall.h>

#include <cstdint>
#include <vector>

#include "remote/batch.h"

namespace stasis::remote {

// SEMVMX, and SEMAEM: the bounds of a value and of what is noted for SEM_UNDO are the same.
inline constexpr int kMostSemaphoreValue = 32767;

class SemaphoreOperations {
 public:
  static constexpr size_t kMost = 500;  // SEMOPM

  void add(size_t semaphore, int change, bool undo = false) {
    if (change == 0) return;  // it would wait for zero
    sembuf operation = {};
    operation.sem_num = static_cast<uint16_t>(semaphore);
    operation.sem_op = static_cast<int16_t>(change);
    operation.sem_flg = static_cast<int16_t>(IPC_NOWAIT | (undo ? SEM_UNDO : 0));
    list_.push_back(operation);
  }
  size_t size() const { return list_.size(); }
  bool empty() const { return list_.empty(); }
  void clear() { list_.clear(); }
  // The index of the call in the batch.
  size_t call(Batch& batch, int set) const {
    uint64_t address =
        batch.put({reinterpret_cast<const char*>(list_.data()), list_.size() * sizeof(sembuf)});
    return batch.call(SYS_semop, {static_cast<uint64_t>(set), address, list_.size()});
  }

 private:
  std::vector<sembuf> list_;
};

}  // namespace stasis::remote

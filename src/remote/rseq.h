// Where threads have their area for restartable sequences (rseq(2)), which the kernel writes to at each
// return to them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "remote/batch.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::remote {

struct RseqArea {
  uint64_t address = 0;  // 0: none is registered
  uint32_t size = 0;
  uint32_t signature = 0;
};

// Of a stopped task that we trace. Nothing: the kernel does not tell (before Linux 5.13).
std::optional<RseqArea> registered_rseq(HostTid tid);

// What follows is for such kernels.

// Where there may be one, by what is in the memory beside the thread pointer (the base of fs), where C
// libraries have it.
std::vector<uint64_t> possible_rseq_areas(HostTid tid, uint64_t thread_pointer);

// That of a thread of a process that has forked from ours and not executed anything else.
RseqArea rseq_of_our_library(uint64_t thread_pointer);

// Asks a thread which of these areas is registered, without changing anything. As many as there is room for.
class RseqQuestions {
 public:
  void add(Batch& batch, const std::vector<uint64_t>& candidates);
  // Nothing: one is registered that is not among them.
  std::optional<RseqArea> take(const Batch& batch) const;

 private:
  size_t registered_ = 0, first_ = 0;
  std::vector<uint64_t> asked_;
};

}  // namespace stasis::remote

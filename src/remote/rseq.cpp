#include "remote/rseq.h"

#include <linux/rseq.h>
#include <sys/ptrace.h>
#include <sys/rseq.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "remote/tracee.h"

namespace stasis::remote {
namespace {

// The only size before Linux 6.3, and the signature of all x86 libraries: it is part of their code, before
// each handler of an abort.
constexpr uint32_t kSize = 32;
constexpr uint32_t kSignature = RSEQ_SIG;

constexpr uint64_t kReach = 4096;  // on both sides of the thread pointer

uint64_t distance(uint64_t one, uint64_t other) { return one > other ? one - other : other - one; }

}  // namespace

std::optional<RseqArea> registered_rseq(HostTid tid) {
  __ptrace_rseq_configuration told = {};
  if (::ptrace(PTRACE_GET_RSEQ_CONFIGURATION, tid.value, sizeof told, &told) > 0)
    return RseqArea{told.rseq_abi_pointer, told.rseq_abi_size, told.signature};
  // Otherwise it is gone, which others will notice.
  return errno == EIO || errno == EINVAL ? std::nullopt : std::optional(RseqArea{});
}

std::vector<uint64_t> possible_rseq_areas(HostTid tid, uint64_t thread_pointer) {
  std::vector<uint64_t> found;
  if (thread_pointer <= kReach) return found;
  const uint64_t first = thread_pointer - kReach, last = thread_pointer + kReach;
  std::array<char, kPageSize> page;
  for (uint64_t start = first - first % kPageSize; start < last; start += kPageSize) {
    // What is before or behind it may be unmapped.
    if (!read_memory(tid, RemotePtr{start}, page).ok()) continue;
    for (size_t at = 0; at + kSize <= page.size(); at += kSize) {
      struct rseq area;
      std::memcpy(&area, page.data() + at, sizeof area);
      if (area.cpu_id == area.cpu_id_start && area.flags == 0) found.push_back(start + at);
    }
  }
  const uint64_t usual = thread_pointer + static_cast<uint64_t>(__rseq_offset);
  std::sort(found.begin(), found.end(),
            [&](uint64_t one, uint64_t other) { return distance(one, usual) < distance(other, usual); });
  return found;
}

RseqArea rseq_of_our_library(uint64_t thread_pointer) {
  if (__rseq_size == 0) return {};
  return {thread_pointer + static_cast<uint64_t>(__rseq_offset), kSize, kSignature};
}

void RseqQuestions::add(Batch& batch, const std::vector<uint64_t>& candidates) {
  // Nobody can register the kernel's memory, and for whoever has registered something it is the wrong
  // address.
  constexpr uint64_t kNobodys = ~uint64_t{kSize - 1};
  registered_ = batch.call(SYS_rseq, {kNobodys, kSize, 0, kSignature});
  first_ = batch.size();
  for (uint64_t address : candidates) {
    if (!batch.fits(1, 0)) break;
    asked_.push_back(address);
    // To unregister it with a wrong signature is refused, with another error than where nothing is
    // registered.
    batch.call(SYS_rseq, {address, kSize, RSEQ_FLAG_UNREGISTER, ~kSignature});
  }
}

std::optional<RseqArea> RseqQuestions::take(const Batch& batch) const {
  if (batch.result(registered_) != -EINVAL) return RseqArea{};
  for (size_t i = 0; i < asked_.size(); ++i) {
    if (batch.result(first_ + i) == -EPERM) return RseqArea{asked_[i], kSize, kSignature};
  }
  return std::nullopt;
}

}  // namespace stasis::remote

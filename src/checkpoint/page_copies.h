// Pages of a process that were copied while it stood still. When nearly all of a memory is known to be as the
// base has it (tracking.h), copying the rest is quicker than a fork, and the program does not pay for the
// fork afterwards, page by page.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "checkpoint/tracking.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::checkpoint {

// Memory for copies, fetched from the kernel before the program stands still.
class CopyRoom {
 public:
  explicit CopyRoom(uint64_t size);
  ~CopyRoom();
  CopyRoom(const CopyRoom&) = delete;
  CopyRoom& operator=(const CopyRoom&) = delete;
  uint64_t left() const { return size_ - used_; }
  char* take(uint64_t size);

 private:
  char* memory_ = nullptr;
  uint64_t size_ = 0;
  uint64_t used_ = 0;
};

class PageCopies {
 public:
  // False when some of it cannot be read; then there are no copies. `room` must have room, and outlive this.
  bool take(HostTid task, const PageRanges& pages, CopyRoom& room);
  const PageRanges& pages() const { return pages_; }
  // Copies what there is from `address` on, at most as much as fits; the bytes copied, 0 when there is no
  // copy.
  uint64_t read(uint64_t address, std::span<char> into) const;

 private:
  PageRanges pages_;
  std::vector<const char*> places_;  // of each range
};

}  // namespace stasis::checkpoint

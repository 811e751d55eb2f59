// Which pages a program has written since a moment: write-protection by userfaultfd in asynchronous mode
// (Linux 6.7). The kernel itself takes the protection from a page that is written to, and PageMap tells which
// pages still have it.
#pragma once

#include <cstdint>

#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::kernel {

// Owns a descriptor that belongs to the address space of the task that made it, and to no other: not to that
// of a fork, nor to what comes after an exec. When the last copy of it is closed, nothing is watched any
// more.
class WriteTracker {
 public:
  WriteTracker() = default;
  // A descriptor that is already in use.
  explicit WriteTracker(Fd fd) : fd_(std::move(fd)) {}
  // A new one, as userfaultfd(kFlags) gives it.
  static Result<WriteTracker> begin(Fd fd);
  static const int kFlags;

  explicit operator bool() const { return static_cast<bool>(fd_); }
  int fd() const { return fd_.get(); }

  // Whether its address space is there no more. `unwatched` is the address of a page that is certainly not
  // watched.
  bool is_dead(uint64_t unwatched) const;
  // From now on the range, of one mapping, is watched by this one. False: by another one, or it cannot be
  // watched. Protects nothing.
  bool watch(uint64_t start, uint64_t end) const;
  // Protects all pages that there are, whatever their state. `end` - `start` bytes must have page tables:
  // the kernel makes those that are missing.
  bool protect(uint64_t start, uint64_t end) const;

 private:
  Fd fd_;
};

}  // namespace stasis::kernel

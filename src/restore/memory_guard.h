// Keeps memory that a restart has mapped from the image looking like the anonymous memory that it was.
//
// A private mapping of a file shows the file again where the program gives memory back (MADV_DONTNEED and its
// kin) and relies on reading zeros; advice that only anonymous memory takes is refused, and mremap() would
// grow into what follows in the file. So a seccomp filter, inherited by the whole session, notifies the
// session's init of just these calls on just these addresses, and init first puts anonymous memory into the
// place of what the call is about, by calls that the very thread executes. Then the call is made again, and
// the kernel does what it always does. Everything else in the program runs as if there were no filter: the
// kernel remembers for each number of a system call whether a filter could want to see it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernel/proc.h"
#include "remote/executor.h"
#include "restore/guard_filter.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::restore {

// A part of a page file that is mapped, and what the mapping would be were it anonymous.
struct GuardedPages {
  uint64_t inode = 0;  // of the page file
  uint64_t offset = 0;
  uint64_t size = 0;
  bool no_reserve = false;
  uint32_t lock_flags = 0;       // see schema::Mapping
  std::vector<uint64_t> advice;  // MADV_*
};

struct GuardPlan {
  std::vector<AddressRange> ranges;
  std::vector<GuardedPages> pages;
  uint64_t pass = 0;  // see guard_filter()
};

// In the supervisor, which changes nothing: whether a filter with a listener can be had. It cannot below
// somebody else's listener (a container manager's), nor before Linux 5.5.
bool can_guard_memory();

class MemoryGuard {
 public:
  // In init, before its first child; the filter stays for as long as the session lives.
  static Result<std::unique_ptr<MemoryGuard>> install(GuardPlan plan);

  // Readable when somebody waits for serve().
  int descriptor() const { return listener_.get(); }
  // Answers one notification. Must not be called before the session's /proc is what kernel::host_proc()
  // shows. `ended` is told of a process whose end was noticed on the way, with its wait status.
  void serve(const std::function<void(pid_t, int)>& ended);

 private:
  class Visit;
  struct Call {
    HostTid tid;  // as init sees it
    uint64_t id = 0;
    long number = 0;
    uint64_t arguments[6] = {};
  };
  enum class Answer {
    kContinue,  // the call is executed
    kAnswered,  // it has been answered
  };

  MemoryGuard(GuardPlan plan, Fd listener) : plan_(std::move(plan)), listener_(std::move(listener)) {}
  Answer handle(const Call& call, const std::function<void(pid_t, int)>& ended);
  Answer convert(const Call& call, std::span<const AddressRange> ranges, bool keep_content,
                 const std::function<void(pid_t, int)>& ended);
  Result<std::vector<kernel::MapsEntry>> guarded_mappings(HostTid tid, const AddressRange& range) const;
  bool has_guarded(HostTid tid, const AddressRange& range) const;
  const GuardedPages* find(const kernel::MapsEntry& mapping) const;
  // Returns false when the call is not waiting any more.
  bool respond(uint64_t id, int error, uint32_t flags) const;

  GuardPlan plan_;
  Fd listener_;
  uint64_t splits_ = 0;
};

}  // namespace stasis::restore

// Our place in the address space of a frozen process: the stub in a code cave, and scratch memory for
// batches.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "kernel/proc.h"
#include "remote/executor.h"
#include "remote/stations.h"
#include "stasis/result.h"

namespace stasis::remote {

// Room for `size` bytes of code at the end of an executable mapping of the task. kRefused: there is none.
Result<RemotePtr> find_cave(HostTid task, std::span<const kernel::MapsEntry> maps, uint64_t size);

// Owns the stub and the scratch areas in one process; its destructor takes them away and puts the leader's
// context back. While it lives the leader is parked in the stub, so that when we die it cleans up by itself.
// All threads of the process must be stopped and traced by this thread.
class Foothold {
 public:
  // `leader` is stopped with `context`. kBusy: a task is still leaving the stub of somebody who died; thaw
  // and retry. In two halves, like everything that a process does for us, so that many can work at once: who
  // waits for each of a thousand tasks waits a thousand times for a processor.
  static Result<std::unique_ptr<Foothold>> begin(HostTid leader, const TaskContext& context,
                                                 std::span<const kernel::MapsEntry> maps);
  Result<void> complete(std::span<const kernel::MapsEntry> maps, bool many_threads);
  ~Foothold();
  Foothold(const Foothold&) = delete;
  Foothold& operator=(const Foothold&) = delete;

  // Batches for the leader are built for this area.
  Scratch scratch() const { return leader_executor_.scratch(); }
  Result<void> run(Batch& batch);
  Result<void> start(const Batch& batch);
  Result<void> finish(Batch& batch);
  // For who waits for many processes at once: after any stop of the leader; true when it has reported.
  Result<bool> advance(const Stop& stop);

  // For the other threads; each gets its own context back at once.
  Result<void> run_in_threads(const std::vector<ThreadJob>& jobs);

  // For a child that fork() makes of the process: the stub and the scratch area are at the same addresses
  // there.
  const Executor& executor() const { return leader_executor_; }
  const TaskContext& context() const { return context_; }
  Tracee leader() const { return leader_; }
  // The processors of the leader if it is on ours meanwhile (see kernel/affinity.h); otherwise empty.
  const std::string& affinity() const { return affinity_; }

  // Mappings that are ours and not the program's, by an address; also those that establish() has cleared away
  // after it was given the mappings.
  bool is_ours(uint64_t address) const;

  // Calls that the leader executes if we die or let go before disarm_undo() (see Executor::Unwind): number,
  // up to six arguments, and a zero. May be nested; the last armed are disarmed first.
  using UndoCalls = std::vector<std::array<uint64_t, 8>>;
  Result<void> arm_undo(const UndoCalls& calls);
  Result<void> disarm_undo();
  static constexpr size_t kMaxUndoCalls = 240;

  // In two halves as well; the destructor does what is missing.
  void begin_release();
  void release();

 private:
  Foothold(HostTid leader, TaskContext context) : leader_(leader), context_(context) {}
  static Result<void> put_back(const ThreadJob& job);
  Result<void> take_leader_area();
  Result<void> map_thread_area();
  Result<void> share_processor();
  Result<void> install_undo();

  Tracee leader_;
  TaskContext context_;
  Executor leader_executor_;
  // Threads have stubs of their own: in the thread area, which only they and we know, a page for each of
  // those that run at once; or, where the program may have no memory that is both writable and executable,
  // one behind the leader's, and then one thread runs at a time.
  Stations stations_;
  Executor thread_executor_;
  uint64_t thread_area_ = 0;
  enum class State { kOut, kEntering, kParked, kLeaving } state_ = State::kOut;
  bool in_flight_ = false;      // between start() and the report
  bool left_ = false;           // on its way out of the stub
  std::set<uint64_t> cleared_;  // areas of somebody who was killed
  std::vector<UndoCalls> undo_;
  std::string affinity_;  // of the leader, which is on our processor meanwhile; empty: where it likes
};

}  // namespace stasis::remote

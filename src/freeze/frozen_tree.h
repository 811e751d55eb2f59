// Stops every task of a session or program and proves that it stopped.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "freeze/frozen_process.h"
#include "freeze/scope.h"
#include "remote/interrupted.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::freeze {

// A tree, standing still. Its destructor lets everything run again, exactly as it was: calls that
// the stop has interrupted go on with what is left of their time. Dying has the same effect: the kernel
// detaches the tasks of a tracer that ends.
class FrozenTree {
 public:
  // `deadlines`: a file of the session for remote::Deadlines. kRefused names the task that cannot be
  // traced or stopped; kBusy: a parent in vfork() did not come back in time.
  static Result<std::unique_ptr<FrozenTree>> freeze(const Scope& scope, const std::string& deadlines);
  ~FrozenTree();
  FrozenTree(const FrozenTree&) = delete;
  FrozenTree& operator=(const FrozenTree&) = delete;

  // Of a program the root comes first.
  const std::vector<FrozenProcess>& processes() const { return processes_; }
  int64_t frozen_since_ns() const { return frozen_since_ns_; }
  const Scope& scope() const { return scope_; }
  // Of the numbers by which its tasks are known: kernel::TaskStatus::levels.
  size_t level() const { return level_; }
  // The process in whose place in the system a restart makes the tree, so that only differences from it are
  // the tree's own: the session's init; of a program this very process, since `restart` is such another.
  HostTid surroundings() const;
  // What will not be as it was.
  const std::vector<std::string>& warnings() const { return warnings_; }

  // Lets all tasks go on.
  void thaw();
  // Ends all tasks instead.
  void kill();

 private:
  FrozenTree() = default;
  class Freezer;

  Scope scope_;
  size_t level_ = 0;
  remote::Deadlines deadlines_;
  std::vector<FrozenProcess> processes_;
  std::vector<std::string> warnings_;
  int64_t frozen_since_ns_ = 0;
  bool frozen_ = false;
};

// All users that its tasks run as.
std::set<uint32_t> users_of(const FrozenTree& tree);

}  // namespace stasis::freeze

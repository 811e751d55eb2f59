// Which processes are frozen together, and how they are found.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "freeze/frozen_process.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::freeze {

struct Scope {
  // A session: all of the pid namespace of this init and of those below it, but not init itself.
  static Scope session(HostTid init) { return {init, HostTid{0}}; }
  // A program that was not launched in a session: this process and all that descend from it, in our own pid
  // namespace. Whoever lost its father and was adopted by a process above is not of it.
  static Scope program(HostTid root) { return {HostTid{0}, root}; }
  bool is_session() const { return init.value != 0; }
  // By which of a task's numbers the image knows it: kernel::TaskStatus::choose_level(). The session's own
  // pid namespace may have others below it.
  size_t level() const;

  HostTid init;  // of a session
  HostTid root;  // of a program
};

// Asked repeatedly while a tree is being stopped, so it remembers whom it has seen.
class ProcessFinder {
 public:
  virtual ~ProcessFinder() = default;
  // All that there are now, and those found earlier. kRefused: of a program, something that belongs to it
  // cannot be part of it.
  virtual Result<std::vector<HostTid>> find() = 0;
  // When all that were found stand still: an Error when there is one more that we cannot see.
  virtual Result<void> check_complete() const { return {}; }
  static std::unique_ptr<ProcessFinder> make(const Scope& scope);
};

// Those of a scope as the host sees them, without stopping anything.
Result<std::vector<HostTid>> processes_of(const Scope& scope);

// A session that only its root or its descendants are in stays as it is. One whose leader is outside of the
// program cannot be made again: the root then leads one of its own, and a group, and what was in its session
// or group with it still is. `processes`: of a program, the root first. Returns warnings. kRefused when a
// group has that number already.
Result<std::vector<std::string>> settle_sessions(std::vector<FrozenProcess>& processes);

}  // namespace stasis::freeze

// What a stop does to a task that waits in a system call, and how the call goes on as if there had been none.
//
// To the kernel a stop by ptrace is an interruption. Most calls are then made again by themselves. Two sorts
// need help: those that fail with EINTR (epoll_wait and its kin), and relative timeouts, whose deadline the
// kernel keeps where nobody can read it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "remote/tracee.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::remote {

// The call returned -ERESTART_RESTARTBLOCK: the kernel has its deadline, and goes on with restart_syscall().
bool in_restartable_sleep(const Registers& registers);

// The call returned -EINTR, and is one of those that a stop alone (without a signal) makes return that.
bool was_cut_short(const Registers& registers);

// Changes registers of a call that was cut short so that the kernel, on the task's way back to the program,
// makes it again, with what is left of its time. `asleep_since_ns`: CLOCK_MONOTONIC; 0: unknown. False when
// the call must keep its EINTR: it has a timeout that cannot be corrected.
bool reissue(HostTid task, int64_t asleep_since_ns, Registers& registers);

// The deadlines (CLOCK_MONOTONIC of the host) of a session's tasks in restartable sleeps. A sleep that has
// been interrupted before began longer ago than the kernel tells, so they are remembered from one stop to the
// next, in a file of the session.
class Deadlines {
 public:
  explicit Deadlines(std::string path = {}) : path_(std::move(path)) {}

  void load();
  // Replaces the file by what was noted. Losing it costs no more than a sleep that is too long.
  void save() const;

  // Notes the deadline of a task that stands interrupted. `voluntary_switches` as counted while it does.
  void note(NsTid task, uint64_t voluntary_switches, const Registers& registers, int64_t deadline_ns);
  // Of a task that was stopped in a restartable sleep, from what was noted at its last stop if this is still
  // the same sleep, else from when it fell asleep. Nothing: it sleeps without a timeout that could be read.
  // `registers` then show the call that the program made; from the second interruption on the kernel shows
  // restart_syscall() instead.
  std::optional<int64_t> find(HostTid task, NsTid number, uint64_t voluntary_switches,
                              int64_t asleep_since_ns, Registers& registers) const;

 private:
  struct Entry {
    uint64_t voluntary_switches = 0;
    int64_t deadline_ns = 0;
    uint64_t call = 0;  // SYS_*
    std::string arguments;
  };
  std::string path_;
  std::map<int, Entry> known_, noted_;
};

}  // namespace stasis::remote

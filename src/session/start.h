// Starting a session: what launch and restart have in common.
//
// Three processes take part; two when nobody stays outside (background, no timer): then the supervisor is the
// builder himself. The *supervisor* stays outside; the *builder*, its child, enters the session's
// namespaces, starts *init* there, makes the program and goes away. Until the supervisor says go, the death
// of any of them ends all of it; afterwards none of them but init is needed.
//
//   supervisor                builder                              init
//   fork            ------->  enter namespaces, prepare()
//                             fork                       ------->  mount /proc, spawn()
//                             build(init)                <-------  spawned
//   write the record <------  built
//   go              ------->  commit                     ------->  no longer tied to the builder
//                             release()                  <-------  run()
//   unlock          <-------  released, exit
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "restore/memory_guard.h"
#include "session/channel.h"
#include "session/namespaces.h"
#include "session/record.h"
#include "session/terminal.h"

namespace stasis::session {

enum class Ground { kForeground, kBackground };

struct StartPlan {
  Record record;  // all but init's identity
  NamespaceOptions namespaces;
  Ground ground = Ground::kForeground;
  // The calling process ends when the session runs: it may enter the session's namespaces.
  bool caller_leaves = false;
  std::optional<TerminalPair> terminal;

  // In the supervisor, first of all: what runs beside the session. It is given the session's directory.
  std::function<Result<void>(const std::string&)> beside;
  // In the builder, inside the namespaces, with the session's 0, 1 and 2 in place, before init exists.
  std::function<Result<void>()> prepare;
  std::function<Result<std::unique_ptr<restore::MemoryGuard>>()> spawn;  // in init
  // In the builder; it tells how much of the memory it has read since it told last.
  std::function<Result<void>(HostTid, const std::function<void(uint64_t bytes)>& read)> build;
  std::function<Result<void>()> release;  // in the builder, after the commit
  std::function<void()> run;              // in init, after the commit
  // In the supervisor: what build() tells.
  std::function<void(uint64_t bytes)> read;
  // In the supervisor: waits until the program really runs. Its failure undoes the start.
  std::function<Result<void>()> confirm;
};

// What the supervisor has of a session that runs.
struct RunningSession {
  Record record;
  int64_t took_ns = 0;  // from the first thing made until the program was let go
  Fd exit_pipe;         // gives the wait status of the root process
  // Of a session in the foreground that has a terminal:
  Fd terminal_master;
  Channel terminal_channel;  // says init that somebody reads the master
};

// The program's 0, 1 and 2 on this ground: which of ours are replaced by the session's terminal, and what the
// others are.
struct StandardStreams {
  bool replaced[3] = {};
  std::array<Stdio, 3> identity;
  bool need_terminal() const { return replaced[0] || replaced[1] || replaced[2]; }
  static StandardStreams plan(Ground ground);
};

// Called in the supervisor, which holds the session's lock. On failure nothing is left: no process, and the
// session's record as it was.
Result<RunningSession> start(StartPlan plan);

// For people, on our error output: how to look at a display that VNC viewers can connect to. Nothing for
// others.
void tell_how_to_view(const Record& record);

// Signals are handled by the supervisor's loop from the moment that the program may run.
void block_forwarded_signals();

}  // namespace stasis::session

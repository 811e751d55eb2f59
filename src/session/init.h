// Pid 1 of a session: a fork of this program, without exec. It reaps orphans, remembers how the root process
// ended, keeps the terminal, and ends with the last process of the session.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "restore/memory_guard.h"
#include "session/channel.h"
#include "stasis/types.h"

namespace stasis::session {

struct InitPlan {
  // In init, with the session's /proc mounted, before anything is committed: a restart creates its processes
  // here, and leaves a guard to be served when it has mapped their memory. They must wait. When this fails or
  // the builder dies, everything in the session dies.
  std::function<Result<std::unique_ptr<restore::MemoryGuard>>()> spawn;
  // In init, after the commit: launch starts the program here.
  std::function<void()> run;
  bool own_session = false;  // a session of processes, with no terminal
  NsTid root;                // the process whose wait status is passed on
  // The X server, which is ended when nothing else is left.
  std::optional<NsTid> display_server;
  Fd exit_pipe;          // gets the root's wait status (an int), for the supervisor
  Fd session_directory;  // gets it too, in the file `exit`
  Fd tracking_listener;  // see tracking_keeper.h
  struct Terminal {
    Fd master, slave, listener;
    Channel client;  // the supervisor, when it is in the foreground
  };
  std::optional<Terminal> terminal;
};

// The builder's hold on an init that it has started. Kills it, and so all of its session, when it is
// destroyed without commit().
class Init {
 public:
  // The caller has entered the new namespaces. Returns when init's spawn() has returned.
  static Result<Init> start(InitPlan plan);
  Init(Init&& other) noexcept;
  Init& operator=(Init&&) = delete;
  ~Init();

  HostTid tid() const { return tid_; }
  // Returns when init and its children no longer depend on this process.
  Result<void> commit();
  void kill();

 private:
  Init(HostTid tid, Channel channel) : tid_(tid), channel_(std::move(channel)) {}
  HostTid tid_;
  Channel channel_;
};

}  // namespace stasis::session

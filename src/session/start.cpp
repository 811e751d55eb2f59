#include "session/start.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "base/clock.h"
#include "base/prefault.h"
#include "kernel/mounts.h"
#include "session/descriptor_passing.h"
#include "session/display.h"
#include "session/init.h"
#include "session/interval.h"
#include "session/opengl.h"
#include "session/signals.h"
#include "session/terminal_server.h"
#include "session/tracking_keeper.h"

namespace stasis::session {
namespace {

// What the builder is given; the descriptors are the session's, not the supervisor's.
struct BuilderParts {
  Fd exit_pipe;
  Fd directory;
  Fd tracking_listener;
  Fd listener;
  Channel client;
};

// What the builder says on its way.
struct BuilderReports {
  std::function<Result<void>(HostTid)> init_started;
  std::function<void(uint64_t)> read;
  // All is ready. Returns when the session's record is published, so that the program may go on.
  std::function<Result<void>()> built;
};

// Gives the program's 0, 1 and 2 to this process while it makes the session, where they differ from its own.
class BorrowedStreams {
 public:
  Result<void> place(const StandardStreams& streams, int slave) {
    for (int fd = 0; fd < 3; ++fd) {
      if (!streams.replaced[fd]) continue;
      own_[fd].reset(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
      if (!own_[fd] || ::dup2(slave, fd) < 0) return errno_error("give the program its terminal", {});
    }
    return {};
  }
  BorrowedStreams() = default;
  BorrowedStreams(const BorrowedStreams&) = delete;
  BorrowedStreams& operator=(const BorrowedStreams&) = delete;
  ~BorrowedStreams() {
    for (int fd = 0; fd < 3; ++fd)
      if (own_[fd]) ::dup2(own_[fd].get(), fd);
  }

  // While `use` is called messages go where our own do.
  void with_own_messages(const std::function<void()>& use) {
    if (own_[2]) exchange_messages();
    use();
    if (own_[2]) exchange_messages();
  }

 private:
  void exchange_messages() {
    Fd other(::fcntl(2, F_DUPFD_CLOEXEC, 3));
    ::dup2(own_[2].get(), 2);
    own_[2] = std::move(other);
  }
  Fd own_[3];
};

Result<void> build(StartPlan& plan, BuilderParts& parts, const BuilderReports& reports) {
  STASIS_CHECK(enter_new_namespaces(plan.namespaces));
  if (plan.record.display || plan.record.opengl) {
    STASIS_TRY(const std::string directory, session_directory(plan.record.name));
    STASIS_CHECK(mount_display(directory, plan.record.display.has_value()));
  }
  // What the program mounts is told apart from it.
  STASIS_TRY(std::string mounts, read_file("/proc/self/mountinfo"));
  STASIS_TRY(Fd first, open_file(parts.directory.get(), kernel::kFirstMounts, O_WRONLY | O_CREAT | O_TRUNC));
  STASIS_CHECK(write_all(first.get(), mounts));
  if (plan.prepare) STASIS_CHECK(plan.prepare());
  STASIS_CHECK(make_namespaces_of_children(plan.namespaces));

  InitPlan init_plan;
  init_plan.spawn = plan.spawn;
  init_plan.run = plan.run;
  init_plan.root = plan.record.root;
  if (plan.record.display) init_plan.display_server = NsTid{plan.record.display->server()};
  // What is in the background belongs to no terminal.
  init_plan.own_session = plan.ground == Ground::kBackground;
  init_plan.exit_pipe = std::move(parts.exit_pipe);
  init_plan.session_directory = std::move(parts.directory);
  init_plan.tracking_listener = std::move(parts.tracking_listener);
  if (plan.terminal)
    init_plan.terminal = InitPlan::Terminal{std::move(plan.terminal->master), std::move(plan.terminal->slave),
                                            std::move(parts.listener), std::move(parts.client)};
  STASIS_TRY(Init init, Init::start(std::move(init_plan)));
  STASIS_CHECK(reports.init_started(init.tid()));
  if (plan.build) STASIS_CHECK(plan.build(init.tid(), reports.read));
  STASIS_CHECK(reports.built());
  STASIS_CHECK(init.commit());
  if (plan.release) {
    if (auto released = plan.release(); !released.ok()) {
      init.kill();
      return released;
    }
  }
  return {};
}

[[noreturn]] void builder_main(StartPlan& plan, BuilderParts& parts, Channel channel,
                               const StandardStreams& streams, pid_t supervisor) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != supervisor) ::_exit(1);  // it died before that
  prefault_code();
  ::signal(SIGCHLD, SIG_DFL);  // ignored, it would not tell us of stops
  if (plan.ground == Ground::kBackground) ::setsid();

  BuilderReports reports;
  reports.init_started = [&channel](HostTid init) { return channel.send('I', std::to_string(init.value)); };
  // Who only wants to know how far we are may be gone.
  reports.read = [&channel](uint64_t bytes) { (void)channel.send('P', std::to_string(bytes)).ok(); };
  reports.built = [&channel]() -> Result<void> {
    STASIS_CHECK(channel.send('B'));
    STASIS_CHECK(channel.expect('G'));
    // From here on the program belongs to its init; the supervisor may die at any time.
    ::prctl(PR_SET_PDEATHSIG, 0);
    return {};
  };
  BorrowedStreams borrowed;
  Result<void> built;
  if (plan.terminal) built = borrowed.place(streams, plan.terminal->slave.get());
  if (built.ok()) built = build(plan, parts, reports);
  if (!built.ok()) {
    channel.send_error(built.error());
    ::_exit(1);
  }
  (void)channel.send('R').ok();  // the supervisor may be gone; the program is not
  ::_exit(0);
}

void remove_session_files(const std::string& directory) {
  for (const char* name : {"session.json", "exit", "stopping", kTerminalSocket, kTrackingSocket,
                           kDeadlinesFile, kIntervalFailureFile, kOpenGlLog, kernel::kFirstMounts, "lock"})
    ::unlink((directory + "/" + name).c_str());
  remove_display_directory(directory);
  ::rmdir(directory.c_str());  // fails, rightly, when something else is in it
}

// The record on disk, which goes back to what it was unless the start succeeds.
class RecordOnTrial {
 public:
  RecordOnTrial(std::string directory, std::optional<Record> previous)
      : directory_(std::move(directory)), previous_(std::move(previous)) {}
  ~RecordOnTrial() {
    if (accepted_) return;
    if (!previous_) {
      remove_session_files(directory_);
    } else if (written_ && !save_record(*previous_).ok()) {
      return;  // it names a process that does not exist, which is what the previous one did
    }
  }
  RecordOnTrial(const RecordOnTrial&) = delete;
  RecordOnTrial& operator=(const RecordOnTrial&) = delete;

  Result<void> publish(RecordDraft& draft) {
    written_ = true;
    return draft.publish();
  }
  void accept() { accepted_ = true; }

 private:
  std::string directory_;
  std::optional<Record> previous_;
  bool written_ = false;
  bool accepted_ = false;
};

// Kills the builder unless it has done its work, and reaps it.
class BuilderProcess {
 public:
  explicit BuilderProcess(pid_t pid) : pid_(pid) {}
  ~BuilderProcess() {
    if (pid_ > 0) ::kill(pid_, SIGKILL);
    wait();
  }
  // It has done its work, and ends by itself.
  void leave() { pid_ = 0; }
  BuilderProcess(const BuilderProcess&) = delete;
  BuilderProcess& operator=(const BuilderProcess&) = delete;
  void wait() {
    if (pid_ > 0) ::waitpid(std::exchange(pid_, 0), nullptr, 0);
  }

 private:
  pid_t pid_;
};

// Ends a session that was started in vain. It is our child: the builder has gone.
void end_session(HostTid init) {
  ::kill(init.value, SIGKILL);
  ::waitpid(init.value, nullptr, 0);
}

// In a process of its own, so that ours stays where it is.
Result<void> build_beside(StartPlan& plan, BuilderParts& parts, const StandardStreams& streams,
                          RunningSession& session, RecordOnTrial& trial) {
  // When the builder goes away, init becomes our child, so that we learn of its end.
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  STASIS_TRY(auto channels, Channel::make());
  pid_t supervisor = ::getpid();
  pid_t pid = ::fork();
  if (pid < 0) return errno_error("start the session's builder", {});
  if (pid == 0) {
    channels.first.close();
    session.exit_pipe.reset();
    session.terminal_master.reset();
    session.terminal_channel.close();
    builder_main(plan, parts, std::move(channels.second), streams, supervisor);
  }
  channels.second.close();
  BuilderProcess builder(pid);
  parts = {};
  plan.terminal.reset();

  const auto told = [&plan](const std::string& bytes) {
    if (plan.read) plan.read(std::stoull(bytes));
  };
  STASIS_TRY(std::string init_number, channels.first.expect('I'));
  STASIS_CHECK(identify_init(session.record, HostTid{std::stoi(init_number)}));
  STASIS_TRY(RecordDraft draft, RecordDraft::write(session.record));
  STASIS_TRY(std::string built, channels.first.expect('B', 'P', told));
  STASIS_CHECK(trial.publish(draft));
  block_forwarded_signals();
  ::signal(SIGCHLD, SIG_DFL);  // ignored, it would not tell us of the end of the session
  if (plan.ground == Ground::kBackground)
    ::prctl(PR_SET_PDEATHSIG, 0);  // the command that wants us may go now
  STASIS_CHECK(channels.first.send('G'));
  auto released = channels.first.expect('R');
  Result<void> confirmed;
  if (released.ok() && plan.confirm) confirmed = plan.confirm();
  if (!released.ok() || !confirmed.ok()) {
    builder.wait();
    end_session(session.record.init);
    return released.ok() ? std::move(confirmed).error() : std::move(released).error();
  }
  // A supervisor wants to be the parent of init, which the end of the builder makes him.
  if (plan.ground == Ground::kBackground) {
    builder.leave();
  } else {
    builder.wait();
  }
  return {};
}

// Nothing of this process is needed afterwards, so it may enter the namespaces itself.
Result<void> build_here(StartPlan& plan, BuilderParts& parts, const StandardStreams& streams, Record& session,
                        RecordOnTrial& trial) {
  ::signal(SIGCHLD, SIG_DFL);  // ignored, it would not tell us of stops
  BorrowedStreams borrowed;
  if (plan.terminal) STASIS_CHECK(borrowed.place(streams, plan.terminal->slave.get()));
  std::optional<RecordDraft> draft;
  BuilderReports reports;
  reports.init_started = [&](HostTid init) -> Result<void> {
    STASIS_CHECK(identify_init(session, init));
    STASIS_TRY(RecordDraft written, RecordDraft::write(session));
    draft.emplace(std::move(written));
    return {};
  };
  reports.read = [&](uint64_t bytes) {
    if (plan.read) borrowed.with_own_messages([&] { plan.read(bytes); });
  };
  // Whoever wants to end the command ends the session with it, or comes too late.
  sigset_t before;
  ::sigprocmask(SIG_BLOCK, nullptr, &before);
  reports.built = [&]() -> Result<void> {
    sigset_t all;
    ::sigfillset(&all);
    ::sigprocmask(SIG_BLOCK, &all, nullptr);
    return trial.publish(*draft);
  };
  Result<void> done = build(plan, parts, reports);
  if (done.ok() && plan.confirm) {
    done = plan.confirm();
    if (!done.ok()) end_session(session.init);
  }
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
  return done;
}

}  // namespace

StandardStreams StandardStreams::plan(Ground ground) {
  StandardStreams streams;
  for (int fd = 0; fd < 3; ++fd) {
    struct stat status;
    if (::fstat(fd, &status) < 0) continue;
    bool channel = S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode);
    // A caller that waits for the end of our output must not wait for the end of a session in the background.
    streams.replaced[fd] = ::isatty(fd) == 1 || (channel && ground == Ground::kBackground);
    if (channel && !streams.replaced[fd])
      streams.identity[static_cast<size_t>(fd)] = {true, status.st_dev, status.st_ino,
                                                   S_ISFIFO(status.st_mode) ? "pipe" : "socket"};
  }
  return streams;
}

void tell_how_to_view(const Record& record) {
  auto directory = session_directory(record.name);
  if (!record.display || !record.display->vnc() || !directory.ok()) return;
  fmt::print(stderr, "stasis: to look at {}: vncviewer {}\n", record.name, display_vnc_socket(*directory));
}

void block_forwarded_signals() {
  sigset_t signals = supervised_signals();
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
}

Result<RunningSession> start(StartPlan plan) {
  const int64_t begun_ns = monotonic_ns();
  kernel::host_proc();
  STASIS_TRY(std::string directory, session_directory(plan.record.name));
  auto previous = load_record(plan.record.name);
  RecordOnTrial record(directory, previous.ok() ? std::optional(*previous) : std::nullopt);
  STASIS_CHECK(make_directories(directory));
  for (const char* stale :
       {"exit", "stopping", kTerminalSocket, kTrackingSocket, kDeadlinesFile, kIntervalFailureFile})
    ::unlink((directory + "/" + stale).c_str());
  remove_display_directory(directory);
  if (plan.record.display || plan.record.opengl)
    STASIS_CHECK(make_display_directory(directory, plan.record.display));
  if (plan.beside) STASIS_CHECK(plan.beside(directory));

  StandardStreams streams = StandardStreams::plan(plan.ground);
  plan.record.stdio = streams.identity;
  plan.record.user_namespace = plan.namespaces.user;
  RunningSession session;
  BuilderParts parts;
  int pipe_ends[2];
  if (::pipe2(pipe_ends, O_CLOEXEC) < 0) return errno_error("create a pipe", {});
  session.exit_pipe = Fd(pipe_ends[0]);
  ::fcntl(pipe_ends[0], F_SETFL, O_NONBLOCK);
  parts.exit_pipe = Fd(pipe_ends[1]);
  STASIS_TRY(parts.directory, open_file(directory, O_RDONLY | O_DIRECTORY));
  STASIS_TRY(parts.tracking_listener, listen_in(directory, kTrackingSocket));
  if (plan.terminal) {
    plan.record.terminal_device = plan.terminal->device;
    STASIS_TRY(parts.listener, listen_in(directory, kTerminalSocket));
    if (plan.ground == Ground::kForeground) {
      STASIS_TRY(session.terminal_master, duplicate(plan.terminal->master.get()));
      STASIS_TRY(auto ends, Channel::make());
      session.terminal_channel = std::move(ends.first);
      parts.client = std::move(ends.second);
    }
  }

  session.record = plan.record;
  if (plan.caller_leaves) {
    STASIS_CHECK(build_here(plan, parts, streams, session.record, record));
  } else {
    STASIS_CHECK(build_beside(plan, parts, streams, session, record));
  }
  session.took_ns = monotonic_ns() - begun_ns;
  record.accept();
  return session;
}

}  // namespace stasis::session

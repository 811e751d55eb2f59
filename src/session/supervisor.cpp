#include "session/supervisor.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

#include "kernel/proc.h"
#include "session/checkpoint.h"
#include "session/interval.h"
#include "session/processes.h"
#include "session/signals.h"

namespace stasis::session {
namespace {

constexpr int64_t kNsPerSecond = 1'000'000'000;

class Supervisor {
 public:
  explicit Supervisor(RunningSession session)
      : session_(std::move(session)), record_(session_.record), raw_(UserTerminal::find().control) {
    sigset_t signals = supervised_signals();
    signals_.reset(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
    if (session_.terminal_master) connect_terminal();
    if (record_.interval_ns > 0) {
      timer_.reset(::timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK));
      struct timespec interval = {record_.interval_ns / kNsPerSecond, record_.interval_ns % kNsPerSecond};
      struct itimerspec setting = {.it_interval = interval, .it_value = interval};
      ::timerfd_settime(timer_.get(), 0, &setting, nullptr);
    }
  }

  int run() {
    while (!result_) {
      std::array<pollfd, Relay::kEntries + 4> entries;
      std::array<pollfd, Relay::kEntries> terminal;
      terminal.fill({.fd = -1, .events = 0, .revents = 0});
      if (relay_) relay_->prepare(terminal);
      entries[0] = {.fd = signals_.get(), .events = POLLIN, .revents = 0};
      entries[1] = {.fd = session_.exit_pipe.get(), .events = POLLIN, .revents = 0};
      entries[2] = {.fd = timer_.get(), .events = POLLIN, .revents = 0};
      entries[3] = {.fd = relay_ ? session_.terminal_channel.fd() : -1, .events = POLLIN, .revents = 0};
      std::copy(terminal.begin(), terminal.end(), entries.begin() + 4);
      if (::poll(entries.data(), entries.size(), -1) < 0) continue;
      std::copy(entries.begin() + 4, entries.end(), terminal.begin());

      if (relay_ && handle_terminal(terminal)) continue;
      if (entries[3].revents != 0) hear_terminal();
      if (entries[2].revents != 0) take_interval_checkpoint();
      if (entries[1].revents != 0) hear_root();
      if (entries[0].revents != 0) handle_signals();
    }
    return finish(*result_);
  }

 private:
  struct Outcome {
    std::optional<int> status;  // of the root process
    bool stopped = false;       // by checkpoint --stop
    bool killed = false;        // the session was killed as a whole
  };

  void connect_terminal() {
    UserTerminal user = UserTerminal::find();
    // A program that had a terminal, brought back where there is none: its terminal talks to our plain input
    // and output.
    if (user.control < 0) user = {.input = 0, .output = 1, .control = -1};
    relay_ = std::make_unique<Relay>(session_.terminal_master.get(), user);
    relay_->resize();
    listen();
  }

  void listen() {
    if (relay_) relay_->listen(raw_.enter() || UserTerminal::find().control < 0);
  }

  // True when the entries are no longer worth looking at.
  bool handle_terminal(const std::array<pollfd, Relay::kEntries>& entries) {
    switch (relay_->handle(entries)) {
      case Relay::Event::kNone:
      case Relay::Event::kDetach:
        return false;
      case Relay::Event::kUserGone:
      case Relay::Event::kMasterGone:
        break;
    }
    lose_terminal();
    return true;
  }

  // What init has to say about the terminal: that somebody else has it, or, by its own end, that the session
  // is over.
  void hear_terminal() {
    bool stolen = session_.terminal_channel.expect('X').ok();
    if (!stolen) relay_->drain();
    lose_terminal();
    if (stolen)
      fmt::print(stderr, "stasis: the terminal of {} was taken by 'stasis attach --steal'\n", record_.name);
  }

  // Init reads the master from now on.
  void lose_terminal() {
    raw_.restore();
    relay_.reset();
    session_.terminal_channel.close();
    session_.terminal_master.reset();
  }

  void hear_root() {
    int status;
    if (::read(session_.exit_pipe.get(), &status, sizeof(status)) == sizeof(status)) {
      bool stopping = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && is_stopping(record_.name);
      result_ = Outcome{.status = status, .stopped = stopping};
    } else {
      session_.exit_pipe.reset();  // init has ended; SIGCHLD says how
    }
  }

  void handle_signals() {
    signalfd_siginfo info;
    while (!result_ && ::read(signals_.get(), &info, sizeof(info)) == sizeof(info)) {
      int number = static_cast<int>(info.ssi_signo);
      if (number == SIGCHLD) {
        reap();
      } else if (number == SIGWINCH) {
        if (relay_) relay_->resize();
      } else if (number == SIGTSTP) {
        stop();
      } else if (is_forwarded(number)) {
        if (number == SIGCONT) listen();
        forward(number);
      }
    }
  }

  void forward(int number) {
    // The program may have ended meanwhile, which its exit status tells.
    if (auto sent = send_signal(record_, record_.root, number); !sent.ok()) return;
  }

  // The root's process group is orphaned (its parent is init), so the kernel ignores SIGTSTP there unless the
  // program handles it. A shell's user who presses Ctrl-Z expects it to stop, and us with it.
  void stop() {
    auto processes = list_processes(record_);
    if (!processes.ok()) return;
    for (const SessionProcess& process : *processes) {
      if (process.pid != record_.root) continue;
      auto status = kernel::read_status(process.host_pid);
      if (!status.ok()) return;
      bool handled = ((status->caught | status->ignored) >> (SIGTSTP - 1)) & 1;
      forward(handled ? SIGTSTP : SIGSTOP);
      if (handled) return;
    }
    raw_.restore();
    ::raise(SIGSTOP);
  }

  void reap() {
    int status;
    pid_t pid;
    while ((pid = ::waitpid(-1, &status, WNOHANG)) > 0) {
      if (pid == checkpointer_) checkpointer_ = 0;
      if (pid != record_.init.value) continue;
      // What init said before its end counts.
      if (session_.exit_pipe) hear_root();
      if (result_) return;
      bool killed = WIFSIGNALED(status);
      result_ =
          Outcome{.status = std::nullopt, .stopped = killed && is_stopping(record_.name), .killed = killed};
    }
  }

  void take_interval_checkpoint() {
    uint64_t expirations;
    if (::read(timer_.get(), &expirations, sizeof(expirations)) < 0) return;
    if (checkpointer_ > 0) return;  // the last one still writes
    checkpointer_ = ::fork();
    if (checkpointer_ == 0) ::_exit(interval_checkpoint(record_));
  }

  int finish(const Outcome& outcome) {
    if (relay_) relay_->drain();
    raw_.restore();
    if (outcome.stopped) {
      fmt::print(stderr, "stasis: {0} was checkpointed and stopped; 'stasis restart {0}' continues it\n",
                 record_.name);
      return 0;
    }
    if (outcome.status) end_like(*outcome.status);
    if (outcome.killed) {
      fmt::print(stderr, "stasis: session {} was killed\n", record_.name);
      return 128 + SIGKILL;
    }
    return 0;
  }

  RunningSession session_;
  const Record& record_;
  RawMode raw_;
  std::unique_ptr<Relay> relay_;
  Fd signals_, timer_;
  pid_t checkpointer_ = 0;
  std::optional<Outcome> result_;
};

void leave_caller() {
  int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = 0; null >= 0 && fd < 3; ++fd) ::dup2(null, fd);
  if (null > 2) ::close(null);
  if (::chdir("/") < 0) return;
}

[[noreturn]] void background_main(Channel& caller, pid_t caller_pid,
                                  const std::function<Result<RunningSession>()>& start_it) {
  ::setsid();
  // Until the program runs, the end of the command that wants it ends all.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != caller_pid) ::_exit(1);
  auto session = start_it();
  if (!session.ok()) {
    caller.send_error(session.error());
    ::_exit(1);
  }
  leave_caller();
  let_go_of_inherited_descriptors();
  if (!caller.send('R', std::to_string(session->took_ns)).ok()) ::_exit(0);
  caller.close();
  ::_exit(supervise(std::move(session).value()));
}

}  // namespace

void let_go_of_inherited_descriptors() {
  // All that we have opened ourselves is close-on-exec.
  std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir("/proc/self/fd"), ::closedir);
  if (!directory) return;
  std::vector<int> inherited;
  while (const dirent* entry = ::readdir(directory.get())) {
    int fd = std::atoi(entry->d_name);
    if (fd > 2 && (::fcntl(fd, F_GETFD) & FD_CLOEXEC) == 0) inherited.push_back(fd);
  }
  for (int fd : inherited) ::close(fd);
}

int supervise(RunningSession session) { return Supervisor(std::move(session)).run(); }

Result<int> run_session(Ground ground, bool supervised, std::function<Result<RunningSession>()> start_it,
                        const std::function<void(int64_t took_ns)>& announce) {
  if (ground == Ground::kBackground && !supervised) {
    STASIS_TRY(RunningSession session, start_it());
    announce(session.took_ns);
    return 0;
  }
  if (ground == Ground::kForeground) {
    STASIS_TRY(RunningSession session, start_it());
    start_it = nullptr;
    let_go_of_inherited_descriptors();
    // Our terminal we still relay, and messages go to 2. Other streams are the program's alone, unless they
    // stand in for the terminal that it had before.
    StandardStreams streams = StandardStreams::plan(ground);
    Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    if (null && (streams.need_terminal() || !session.terminal_master))
      for (int fd : {0, 1})
        if (!streams.replaced[fd]) ::dup2(null.get(), fd);
    return supervise(std::move(session));
  }

  STASIS_TRY(auto ends, Channel::make());
  pid_t caller = ::getpid();
  pid_t pid = ::fork();
  if (pid < 0) return errno_error("go to the background", {});
  if (pid == 0) {
    ends.first.close();
    background_main(ends.second, caller, start_it);
  }
  ends.second.close();
  STASIS_TRY(std::string ready, ends.first.expect('R'));
  announce(std::stoll(ready));
  return 0;
}

}  // namespace stasis::session

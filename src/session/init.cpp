#include "session/init.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "kernel/proc.h"
#include "session/display.h"
#include "session/namespaces.h"
#include "session/terminal_server.h"
#include "session/tracking_keeper.h"

namespace stasis::session {
namespace {

// `pkill -f stasis` must not hit the program: what ps shows of us is the memory of our arguments.
void disguise() {
  ::prctl(PR_SET_NAME, "init");
  std::array<char, 16> number = {};
  if (::readlinkat(kernel::host_proc(), "self", number.data(), number.size() - 1) < 0) return;
  auto stat = kernel::read_stat(HostTid{std::atoi(number.data())});
  if (!stat.ok() || stat->arg_end <= stat->arg_start) return;
  auto* arguments = reinterpret_cast<char*>(stat->arg_start);
  size_t size = stat->arg_end - stat->arg_start;
  std::memset(arguments, 0, size);
  std::memcpy(arguments, "init", std::min<size_t>(size - 1, 4));
}

// Closes everything but 0, 1, 2 and `kept`: a pipe of the program that stayed open in init would never end.
void close_others(std::vector<int> kept) {
  std::sort(kept.begin(), kept.end());
  unsigned first = 3;
  for (int fd : kept) {
    if (fd < 3) continue;
    unsigned number = static_cast<unsigned>(fd);
    if (number > first) ::syscall(SYS_close_range, first, number - 1, 0);
    first = number + 1;
  }
  ::syscall(SYS_close_range, first, ~0u, 0);
}

void use_null_stdio() {
  int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) return;
  for (int fd = 0; fd < 3; ++fd)
    if (fd != null) ::dup2(null, fd);
}

class Loop {
 public:
  Loop(InitPlan& plan, std::unique_ptr<restore::MemoryGuard> guard)
      : root_(plan.root),
        display_server_(plan.display_server),
        guard_(std::move(guard)),
        exit_pipe_(std::move(plan.exit_pipe)),
        directory_(std::move(plan.session_directory)),
        tracking_(std::move(plan.tracking_listener)) {
    sigset_t child;
    ::sigemptyset(&child);
    ::sigaddset(&child, SIGCHLD);
    ::sigprocmask(SIG_BLOCK, &child, nullptr);
    signals_.reset(::signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK));
    if (plan.terminal)
      terminal_ = std::make_unique<TerminalServer>(
          std::move(plan.terminal->master), std::move(plan.terminal->slave),
          std::move(plan.terminal->listener), std::move(plan.terminal->client));
  }

  [[noreturn]] void run() {
    settle();
    std::vector<pollfd> entries;
    for (;;) {
      reap();
      end_idle_display();
      entries.assign(1, {.fd = signals_.get(), .events = POLLIN, .revents = 0});
      if (guard_) entries.push_back({.fd = guard_->descriptor(), .events = POLLIN, .revents = 0});
      const size_t tracking = entries.size();
      tracking_.prepare(entries);
      const size_t own = entries.size();
      if (terminal_) terminal_->prepare(entries);
      if (::poll(entries.data(), entries.size(), -1) < 0) continue;
      signalfd_siginfo info;
      while (::read(signals_.get(), &info, sizeof(info)) > 0) {
      }
      if (guard_ && (entries[1].revents & POLLIN) != 0)
        guard_->serve([this](pid_t pid, int status) { ended(pid, status); });
      tracking_.handle(entries, tracking);
      if (terminal_) terminal_->handle(entries, own);
    }
  }

 private:
  // Lets go of all that init has inherited and does not need.
  void settle() {
    use_null_stdio();
    kernel::adopt_proc();
    std::vector<int> kept = {signals_.get(), exit_pipe_.get(), directory_.get(), tracking_.descriptor(),
                             kernel::host_proc()};
    if (guard_) kept.push_back(guard_->descriptor());
    if (terminal_) {
      std::vector<int> more = terminal_->descriptors();
      kept.insert(kept.end(), more.begin(), more.end());
    }
    close_others(std::move(kept));
    if (::chdir("/") < 0) return;
  }

  void reap() {
    int status;
    for (;;) {
      // Also children that end without SIGCHLD.
      pid_t pid = ::waitpid(-1, &status, WNOHANG | __WALL);
      if (pid == 0 || (pid < 0 && errno != ECHILD)) return;
      if (pid < 0) end();
      ended(pid, status);
    }
  }

  // The end of the last other process always shows here: it was our child, or has become it. While the
  // program itself lives there is nothing to look for.
  void end_idle_display() {
    if (!display_server_ || ::kill(root_.value, 0) == 0 || !only_display_left(*display_server_)) return;
    // Nobody is left for whom it would have anything.
    ::kill(display_server_->value, SIGKILL);
    display_server_.reset();
  }

  void ended(pid_t pid, int status) {
    if (display_server_ && pid == display_server_->value) display_server_.reset();
    if (pid == root_.value && (WIFEXITED(status) || WIFSIGNALED(status))) report(status);
  }

  void report(int status) {
    status_ = status;
    if (int file = ::openat(directory_.get(), "exit", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        file >= 0) {
      std::string text = fmt::format("{}\n", status);
      if (::write(file, text.data(), text.size()) < 0)
        status_ = status;  // the pipe still tells the supervisor
      ::close(file);
    }
    if (::write(exit_pipe_.get(), &status, sizeof(status)) < 0)
      status_ = status;  // the supervisor was killed
    exit_pipe_.reset();
  }

  // No process is left, so nobody can be created any more either.
  [[noreturn]] void end() { ::_exit(WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_)); }

  NsTid root_;
  std::optional<NsTid> display_server_;
  std::unique_ptr<restore::MemoryGuard> guard_;
  Fd exit_pipe_, directory_, signals_;
  TrackingKeeper tracking_;
  std::unique_ptr<TerminalServer> terminal_;
  int status_ = 0;
};

[[noreturn]] void init_main(InitPlan plan, Channel channel) {
  // 1. Until the commit we die with the builder. It may be dead already; getppid() would not tell, since it
  // is 0 for the
  //    first process of a namespace. Then expect() below sees the end of file.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  // Whoever started us may have ignored it; then the kernel would reap our children without telling how they
  // ended.
  ::signal(SIGCHLD, SIG_DFL);
  if (plan.own_session) ::setsid();
  disguise();
  if (auto mounted = mount_proc(); !mounted.ok()) {
    channel.send_error(mounted.error());
    ::_exit(1);
  }
  std::unique_ptr<restore::MemoryGuard> guard;
  if (plan.spawn) {
    auto spawned = plan.spawn();
    if (!spawned.ok()) {
      channel.send_error(spawned.error());
      ::_exit(1);
    }
    guard = std::move(spawned).value();
  }
  if (!channel.send('S').ok() || !channel.expect('C').ok()) ::_exit(1);
  // 2. Committed. The builder waits for our answer before it goes away, so it cannot die in between
  // unnoticed.
  ::prctl(PR_SET_PDEATHSIG, 0);
  if (!channel.send('K').ok()) ::_exit(1);
  channel.close();
  if (plan.run) plan.run();
  ::signal(SIGPIPE, SIG_IGN);
  Loop(plan, std::move(guard)).run();
}

}  // namespace

Result<Init> Init::start(InitPlan plan) {
  STASIS_TRY(auto ends, Channel::make());
  pid_t pid = ::fork();
  if (pid < 0) {
    int error = errno;
    return errno_error("start the session's init", {}, error,
                       error == ENOSPC ? "pid namespaces are nested too deeply" : "");
  }
  if (pid == 0) {
    ends.first.close();
    init_main(std::move(plan), std::move(ends.second));
  }
  ends.second.close();
  Init init(HostTid{pid}, std::move(ends.first));
  if (auto spawned = init.channel_.expect('S'); !spawned.ok()) return std::move(spawned).error();
  return init;
}

Init::Init(Init&& other) noexcept
    : tid_(std::exchange(other.tid_, HostTid{0})), channel_(std::move(other.channel_)) {}

Init::~Init() {
  if (channel_) kill();
}

void Init::kill() {
  if (tid_.value <= 0) return;
  ::kill(tid_.value, SIGKILL);
  // init ends when its whole namespace has, and tasks that this thread traces are gone only when it has
  // waited for them.
  for (;;) {
    pid_t ended = ::waitpid(-1, nullptr, __WALL);
    if (ended == tid_.value || (ended < 0 && errno != EINTR)) break;
  }
  tid_ = HostTid{0};
}

Result<void> Init::commit() {
  STASIS_CHECK(channel_.send('C'));
  STASIS_TRY(std::string answer, channel_.expect('K'));
  channel_.close();
  return {};
}

}  // namespace stasis::session

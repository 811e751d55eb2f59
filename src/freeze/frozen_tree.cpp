#include "freeze/frozen_tree.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <map>
#include <set>

#include "base/clock.h"
#include "base/parallel.h"
#include "freeze/pending_stops.h"
#include "freeze/sleepers.h"
#include "freeze/vfork.h"
#include "kernel/affinity.h"
#include "remote/interrupted.h"

namespace stasis::freeze {

namespace {

constexpr int64_t kMillisecond = 1'000'000;
constexpr uint64_t kUserWorker =
    0x4000;  // PF_USER_WORKER: threads that the kernel makes in a process (vhost, KVM)

}  // namespace

// Attaches and stops; on its destruction everything that was not handed on is let go.
class FrozenTree::Freezer {
 public:
  Freezer(const Scope& scope, ProcessFinder& finder, const Sleepers& sleepers, remote::Deadlines& deadlines)
      : scope_(scope), finder_(finder), sleepers_(sleepers), deadlines_(deadlines), level_(scope.level()) {}
  ~Freezer() {
    constexpr int64_t kLonger = 2000 * kMillisecond;
    thaw(kLonger);
  }

  // What was there before, and the task that was created last when it was looked for.
  struct Before {
    int newest = 0;
    std::vector<HostTid> processes;
    std::vector<std::vector<int>> threads;  // of each of them
  };

  enum class Outcome { kFrozen, kRetry };

  // One attempt. kRetry: some task sleeps so deeply that it cannot stop now (vfork); everything was let go.
  Result<Outcome> attempt(int64_t limit_ns, std::optional<Before> before) {
    for (int tid : std::exchange(late_, {})) {
      // An exec by another thread takes the request with it.
      (void)remote::Tracee(HostTid{tid}).interrupt().ok();
      seized_.insert(tid);
    }
    // 1. Attach and stop all that we see; 2. look again; until a look at a tree that stands still shows
    // nothing new.
    //    A stopped task makes no children, so the loop ends, and what it ends with is complete. Looking takes
    //    long where there are many tasks, so it is left out when none was created meanwhile.
    if (before && kernel::newest_task() != before->newest) before.reset();
    for (int round = 0;; ++round, before.reset()) {
      const int newest = before ? before->newest : kernel::newest_task();
      STASIS_TRY(bool new_tasks, before ? seize_known(*before) : seize_all());
      STASIS_TRY(bool all_stopped, wait_all(limit_ns));
      if (!all_stopped) {
        thaw(limit_ns);
        return Outcome::kRetry;
      }
      if (!new_tasks || (newest != 0 && kernel::newest_task() == newest)) return Outcome::kFrozen;
      // Until they stood still the new ones may have sent signals to those that were looked at before.
      if (round > 0) forget_statuses();
    }
  }

  Result<std::unique_ptr<FrozenTree>> hand_over(int64_t since_ns) {
    std::unique_ptr<FrozenTree> tree(new FrozenTree());
    tree->scope_ = scope_;
    tree->level_ = level_;
    tree->frozen_since_ns_ = since_ns;
    std::vector<Reading> readings = read_processes();
    for (size_t i = 0; i < processes_.size(); ++i) {
      const HostTid pid = processes_[i];
      auto& [status, stat, listed] = readings[i];
      FrozenProcess process;
      process.pid = pid;
      process.leader = pid;
      if (!status.ok() || !stat.ok()) continue;  // ended, and was reaped, before it could be stopped
      process.status = std::move(status).value();
      process.stat = std::move(stat).value();
      process.zombie = process.stat.state == 'Z' || process.stat.state == 'X';
      if (!listed.ok()) continue;  // a zombie that init, which runs, has reaped meanwhile
      const std::vector<int>& tids = *listed;
      if (process.zombie && tids.size() > 1) {
        if (is_being_killed(pid, tids)) {
          return Error{"freeze", describe(process), "it is being killed", "try again", ErrorCode::kBusy};
        }
        STASIS_CHECK(look_through_thread(process, tids));
      }
      for (int tid : tids) {
        auto stopped = stopped_.find(tid);
        if (stopped == stopped_.end()) continue;
        StoppedTask& task = stopped->second;
        FrozenThread thread{.tid = HostTid{tid},
                            .registers = task.registers,
                            .mask = task.mask,
                            .deadline_ns = task.deadline,
                            .group_stop_signal = task.group_stop_signal};
        if (tid == process.pid.value) {
          thread.status = process.status;
        } else if (task.status) {
          thread.status = std::move(*task.status);
        } else {
          STASIS_TRY(thread.status, read_status(HostTid{tid}));
        }
        if (tid != process.pid.value && is_kernels_own(tid, thread.status)) {
          remote::Tracee(HostTid{tid}).detach();
          continue;
        }
        thread.ns_tid = thread.status.ns_tid;
        process.threads.insert(tid == process.pid.value ? process.threads.begin() : process.threads.end(),
                               std::move(thread));
      }
      if (!process.zombie && process.threads.empty()) continue;
      tree->processes_.push_back(std::move(process));
    }
    // Until here they are ours to let go.
    if (!scope_.is_session()) {
      if (tree->processes_.empty() || tree->processes_.front().leader != scope_.root ||
          tree->processes_.front().zombie)
        return Error{
            "freeze", fmt::format("process {}", scope_.root), "it has ended", {}, ErrorCode::kNotFound};
      STASIS_CHECK(finder_.check_complete());
      STASIS_TRY(tree->warnings_, settle_sessions(tree->processes_));
    }
    tree->frozen_ = true;
    stopped_.clear();
    seized_.clear();
    return tree;
  }

  std::string unstoppable() const { return unstoppable_; }
  std::string waiting_child_of_vfork() const { return vfork_.waiting(); }

 private:
  struct StoppedTask {
    int group_stop_signal = 0;
    remote::Registers registers = {};
    bool sleeps = false, cut_short = false;
    // If it was looked at.
    std::optional<kernel::TaskStatus> status;
    std::optional<uint64_t> mask;
    std::optional<int64_t> deadline;
  };

  // What /proc tells of a process.
  struct Reading {
    Result<kernel::TaskStatus> status = kernel::TaskStatus();
    Result<kernel::TaskStat> stat = kernel::TaskStat();
    Result<std::vector<int>> tids = std::vector<int>();
  };

  std::vector<Reading> read_processes() {
    std::vector<Reading> readings(processes_.size());
    for_each_index(processes_.size(), [&](size_t i) {
      const HostTid pid = processes_[i];
      Reading& out = readings[i];
      // What a leader was read for its call is not different now.
      auto stopped = stopped_.find(pid.value);
      const bool known = stopped != stopped_.end() && stopped->second.status;
      out.status = known ? *stopped->second.status : read_status(pid);
      out.stat = kernel::read_stat(pid);
      out.tids = kernel::list_numbers(fmt::format("{}/task", pid));
    });
    // Threads that were in no call.
    std::vector<int> unread;
    for (const auto& [tid, stopped] : stopped_) {
      if (!stopped.status && !processes_contain(tid)) unread.push_back(tid);
    }
    for_each_index(unread.size(), [&](size_t i) {
      auto status = read_status(HostTid{unread[i]});
      if (status.ok()) stopped_.find(unread[i])->second.status = std::move(status).value();
    });
    return readings;
  }

  void forget_statuses() {
    for (auto& [tid, stopped] : stopped_) stopped.status.reset();
  }

  bool processes_contain(int tid) const {
    return std::find(processes_.begin(), processes_.end(), HostTid{tid}) != processes_.end();
  }

  // Memory, descriptors and the like are gone from a leader that has ended, but not from the others.
  Result<void> look_through_thread(FrozenProcess& process, const std::vector<int>& tids) const {
    auto first = std::find_if(tids.begin(), tids.end(), [&](int tid) { return stopped_.contains(tid); });
    if (first == tids.end())
      return Error{"freeze", describe(process), "its main thread has just ended", "try again",
                   ErrorCode::kBusy};
    process.zombie = false;
    process.pid = HostTid{*first};
    process.ended_leader = {.status = std::move(process.status), .exit_code = process.stat.exit_code};
    STASIS_TRY(process.status, read_status(process.pid));
    process.status.name = process.ended_leader->status.name;
    STASIS_TRY(auto stat, kernel::read_stat(process.pid));
    stat.comm = process.stat.comm;
    stat.exit_signal = process.stat.exit_signal;
    process.stat = std::move(stat);
    return {};
  }

  // A thread that the kernel has made in the process for itself (vhost, KVM) stops, but has no registers, and
  // the kernel makes it again. Its name begins with what made it.
  static bool is_kernels_own(int tid, const kernel::TaskStatus& status) {
    if (!status.name.starts_with("kvm-") && !status.name.starts_with("vhost-")) return false;
    auto stat = kernel::read_stat(HostTid{tid});
    return stat.ok() && (stat->flags & kUserWorker) != 0;
  }

  // The leader has ended already, and the others are about to: SIGKILL takes them out of the stop that we
  // hold them in.
  bool is_being_killed(HostTid leader, const std::vector<int>& tids) const {
    return std::any_of(tids.begin(), tids.end(), [&](int tid) {
      if (tid == leader.value) return false;
      auto status = read_status(HostTid{tid});
      return !status.ok() || status->state != 't';
    });
  }

  static std::string describe(const FrozenProcess& process) {
    return fmt::format("task {} ({})", process.status.ns_tid, process.status.name);
  }

  Result<bool> seize_all() {
    STASIS_TRY(processes_, finder_.find());
    bool found = false;
    for (HostTid pid : processes_) {
      auto tids = kernel::list_numbers(fmt::format("{}/task", pid));
      if (!tids.ok()) continue;  // gone
      for (int tid : *tids) {
        if (seized_.contains(tid)) continue;
        STASIS_TRY(bool seized, seize(HostTid{tid}));
        found = found || seized;
      }
    }
    return found;
  }

  Result<bool> seize_known(const Before& before) {
    processes_ = before.processes;
    for (size_t i = 0; i < processes_.size(); ++i) {
      for (int tid : before.threads[i]) STASIS_CHECK(seize(HostTid{tid}));
    }
    return true;
  }

  Result<bool> seize(HostTid tid) {
    remote::Tracee task(tid);
    auto seized = task.seize();
    // The memory guard of a mapped restart traces a task for less than a millisecond, and it may let it go
    // between our trial and our looking who traces it.
    constexpr int kTries = 300;
    for (int i = 0; i < kTries && !seized.ok() && is_being_let_go(tid); ++i) {
      timespec moment{0, kMillisecond};
      ::nanosleep(&moment, nullptr);
      seized = task.seize();
    }
    if (seized.ok()) {
      seized_.insert(tid.value);
      // It may be about to end; then there is nothing to interrupt and wait_all() sees the end.
      (void)task.interrupt().ok();
      return true;
    }
    auto status = read_status(tid);
    if (!status.ok() || status->state == 'Z' || status->state == 'X') return false;
    if (status->tracer.value == ::getpid()) return false;  // a copy that we have made of a process
    if (status->tracer.value != 0) {
      if (scope_.is_session() && status->tracer == scope_.init) {
        // The memory guard of a mapped restart is at work; it takes less than a millisecond.
        return Error{"freeze", fmt::format("task {} ({})", status->ns_tid, status->name),
                     "the session's init is giving it memory", "try again", ErrorCode::kBusy};
      }
      auto tracer = read_status(status->tracer);
      return Error{
          "freeze", fmt::format("task {} ({})", status->ns_tid, status->name),
          fmt::format("it is traced by {} (pid {})", tracer.ok() ? tracer->name : "somebody", status->tracer),
          "detach the debugger and try again", ErrorCode::kRefused};
    }
    auto stat = kernel::read_stat(tid);
    if (stat.ok() && (stat->flags & kUserWorker) != 0) return false;
    return Error{"freeze", fmt::format("task {} ({})", status->ns_tid, status->name), seized.error().cause,
                 hint_for_denied(), ErrorCode::kDenied};
  }

  // In a session the user has the rights of its user namespace; elsewhere a security module may keep one
  // process from tracing another one of the same user.
  std::string hint_for_denied() const {
    auto yama = read_file(kernel::host_proc(), "sys/kernel/yama/ptrace_scope", 16);
    if (!scope_.is_session() && ::geteuid() != 0 && yama.ok() && std::atoi(yama->c_str()) > 0)
      return "this host lets only root trace what is no child (kernel.yama.ptrace_scope): take the "
             "checkpoint as "
             "root, or start the program by `stasis launch`";
    return "only the owner of a program may checkpoint it; `stasis check` tells what this host allows";
  }

  // Whether it can be seized in a moment, though not now.
  bool is_being_let_go(HostTid tid) const {
    auto status = read_status(tid);
    if (!status.ok() || status->state == 'Z' || status->state == 'X') return false;
    const bool by_init = scope_.is_session() && status->tracer == scope_.init;
    if (status->tracer.value != 0 && !by_init) return false;
    auto stat = kernel::read_stat(tid);
    if (!stat.ok() || (stat->flags & kUserWorker) != 0) return false;
    return ::geteuid() == 0 || status->uids[0] == ::geteuid();
  }

  Result<bool> wait_all(int64_t limit_ns) {
    STASIS_TRY(bool all_stopped, wait_each(limit_ns));
    settle_calls();
    return all_stopped;
  }

  Result<bool> wait_each(int64_t limit_ns) {
    for (int tid : seized_) {
      if (stopped_.contains(tid) || ended_.contains(tid)) continue;
      remote::Tracee task(HostTid{tid});
      for (;;) {
        auto stop = task.wait(monotonic_ns() + limit_ns);
        if (!stop.ok()) {  // reaped: by exec of another thread, or by its parent
          ended_.insert(tid);
          break;
        }
        if (!*stop) {
          if (leader_is_dead(tid)) {
            ended_.insert(tid);
            break;
          }
          auto status = read_status(HostTid{tid});
          unstoppable_ = status.ok() ? fmt::format("task {} ({})", status->ns_tid, status->name)
                                     : fmt::format("task {}", tid);
          look_for_child_of_vfork(HostTid{tid});
          return false;
        }
        using Kind = remote::Stop::Kind;
        if ((*stop)->kind == Kind::kExited) {
          ended_.insert(tid);
          break;
        }
        if ((*stop)->kind == Kind::kInterrupt || (*stop)->kind == Kind::kGroup) {
          note_stop(task, (*stop)->kind == Kind::kGroup ? (*stop)->signal : 0);
          break;
        }
        // A signal on its way is delivered: the handler's frame is part of what we save. The stop that we
        // asked for comes before the first instruction of the handler.
        (void)task.resume((*stop)->kind == Kind::kSignal ? (*stop)->signal : 0).ok();
      }
    }
    return true;
  }

  void look_for_child_of_vfork(HostTid parent) {
    for (HostTid pid : processes_) {
      auto stat = kernel::read_stat(pid);
      if (!stat.ok() || stat->parent != parent || !seized_.contains(pid.value) || !shares_memory(parent, pid))
        continue;
      remote::Tracee child(pid);
      for (int tries = 0; !stopped_.contains(pid.value) && tries < 3; ++tries) {
        auto stop = child.wait(monotonic_ns() + kMillisecond);
        if (stop.ok() && *stop && (*stop)->kind == remote::Stop::Kind::kInterrupt) note_stop(child, 0);
      }
      auto stopped = stopped_.find(pid.value);
      auto status = read_status(pid);
      if (stopped == stopped_.end() || !status.ok()) continue;
      vfork_.note(pid, stopped->second.registers, status->voluntary_switches,
                  fmt::format("task {} ({})", status->ns_tid, status->name));
    }
  }

  void note_stop(const remote::Tracee& task, int group_stop_signal) {
    auto registers = task.registers();
    if (!registers.ok()) {  // killed
      ended_.insert(task.tid().value);
      return;
    }
    StoppedTask& stopped = stopped_[task.tid().value];
    stopped.group_stop_signal = group_stop_signal;
    stopped.registers = *registers;
    stopped.sleeps = remote::in_restartable_sleep(*registers);
    // Job control interrupts calls, too, and then the program has to see it.
    stopped.cut_short = group_stop_signal == 0 && remote::was_cut_short(*registers);
    if (stopped.sleeps || stopped.cut_short) unsettled_.push_back(task.tid());
  }

  // At once, so that little time is left in which our death would show the program an EINTR.
  void settle_calls() {
    const std::vector<HostTid> tasks = std::exchange(unsettled_, {});
    for_each_index(tasks.size(), [&](size_t i) {
      auto status = read_status(tasks[i]);
      if (status.ok()) stopped_.find(tasks[i].value)->second.status = std::move(status).value();
    });
    for (HostTid tid : tasks) settle_call(remote::Tracee(tid), stopped_[tid.value]);
  }

  void settle_call(const remote::Tracee& task, StoppedTask& stopped) {
    auto mask = task.signal_mask();
    if (!stopped.status || !mask.ok()) return;
    stopped.mask = *mask;
    const auto& status = *stopped.status;
    int64_t since = sleepers_.asleep_since(task.tid(), status);
    if (stopped.sleeps) {
      stopped.deadline =
          deadlines_.find(task.tid(), status.ns_tid, status.voluntary_switches, since, stopped.registers);
      if (stopped.deadline) {
        deadlines_.note(status.ns_tid, status.voluntary_switches, stopped.registers, *stopped.deadline);
      }
    }
    bool signal_comes = ((status.pending | status.shared_pending) & ~*mask) != 0;
    if (stopped.cut_short && !signal_comes && remote::reissue(task.tid(), since, stopped.registers)) {
      (void)task.set_registers(stopped.registers).ok();
    }
  }

  // A leader that has called exit() while other threads run is a zombie that reports nothing.
  static bool leader_is_dead(int tid) {
    auto stat = kernel::read_stat(HostTid{tid});
    return !stat.ok() || stat->state == 'Z' || stat->state == 'X';
  }

  // True when it has stopped, and was detached, or has ended.
  static bool let_go(const remote::Tracee& task) {
    auto stop = task.wait(monotonic_ns() + kMillisecond);
    if (!stop.ok()) return true;
    if (!*stop) return false;
    using Kind = remote::Stop::Kind;
    if ((*stop)->kind != Kind::kExited) task.detach((*stop)->kind == Kind::kSignal ? (*stop)->signal : 0);
    return true;
  }

  // Those that do not stop within the limit stay attached, for the next attempt.
  void thaw(int64_t limit_ns) {
    for (int tid : seized_) {
      if (ended_.contains(tid)) continue;
      remote::Tracee task(HostTid{tid});
      if (!stopped_.contains(tid)) {
        // Only a stopped task can be detached. This one will stop when its sleep ends; ptrace keeps no hold
        // on it once we end, and until then it must not stay stopped.
        late_.insert(tid);
        continue;
      }
      task.detach();
    }
    seized_.clear();
    stopped_.clear();
    ended_.clear();
    // A parent in vfork() comes back as soon as its child, which may be one of these, too, has called exec.
    int64_t deadline = monotonic_ns() + limit_ns;
    while (!late_.empty() && monotonic_ns() < deadline) {
      std::erase_if(late_, [](int tid) { return let_go(remote::Tracee(HostTid{tid})); });
    }
  }

  // With the numbers of the session.
  Result<kernel::TaskStatus> read_status(HostTid task) const {
    auto status = kernel::read_status(task);
    if (status.ok()) status->choose_level(level_);
    return status;
  }

  Scope scope_;
  ProcessFinder& finder_;
  const Sleepers& sleepers_;
  remote::Deadlines& deadlines_;
  size_t level_;
  std::vector<HostTid> processes_;
  std::set<int> seized_;
  std::map<int, StoppedTask> stopped_;
  std::vector<HostTid> unsettled_;
  std::set<int> ended_;
  std::set<int> late_;
  std::string unstoppable_;
  VforkWatch vfork_;
};

namespace {

// The kernel makes each file of /proc when it is first looked for, which takes as long as to read it. So they
// are looked for while the program still runs.
void look_for_files(HostTid task, bool is_thread) {
  constexpr const char* kOfThreads[] = {"status", "ns/uts",    "ns/ipc",
                                        "ns/net", "ns/cgroup", "ns/pid_for_children"};
  constexpr const char* kOfProcesses[] = {"status",
                                          "task",
                                          "ns/uts",
                                          "ns/ipc",
                                          "ns/net",
                                          "ns/mnt",
                                          "ns/cgroup",
                                          "ns/user",
                                          "ns/time",
                                          "ns/time_for_children",
                                          "ns/pid_for_children",
                                          "fd",
                                          "cwd",
                                          "root",
                                          "exe",
                                          "auxv",
                                          "cgroup",
                                          "oom_score_adj",
                                          "loginuid",
                                          "coredump_filter",
                                          "timers",
                                          "maps",
                                          "mem",
                                          "pagemap",
                                          "statm"};
  const auto names = is_thread ? std::span<const char* const>(kOfThreads) : kOfProcesses;
  struct stat status;
  for (const char* name : names)
    (void)::fstatat(kernel::host_proc(), fmt::format("{}/{}", task, name).c_str(), &status,
                    AT_SYMLINK_NOFOLLOW);
}

}  // namespace

Result<std::unique_ptr<FrozenTree>> FrozenTree::freeze(const Scope& scope,
                                                       const std::string& deadlines_file) {
  constexpr int64_t kPatience = 10'000 * kMillisecond;
  ::signal(SIGCHLD, SIG_DFL);  // whoever started us may have ignored it; see Tracee::wait()
  std::string unstoppable;
  auto finder = ProcessFinder::make(scope);
  Sleepers sleepers;
  remote::Deadlines deadlines(deadlines_file);
  deadlines.load();
  Freezer::Before before{.newest = kernel::newest_task()};
  STASIS_TRY(before.processes, finder->find());
  size_t tasks = 0;
  for (HostTid pid : before.processes) {
    auto tids = kernel::list_numbers(fmt::format("{}/task", pid));
    before.threads.push_back(tids.ok() ? std::move(tids).value() : std::vector<int>());
    tasks += before.threads.back().size();
    for (int tid : before.threads.back()) sleepers.look(HostTid{tid});
  }
  constexpr size_t kMany = 8;
  if (tasks > kMany) {
    start_parallel_threads(kernel::OneProcessor::leave_in_new_thread);
    for_each_index(before.processes.size(), [&](size_t i) {
      const HostTid process = before.processes[i];
      for (int tid : before.threads[i]) look_for_files(HostTid{tid}, tid != process.value);
    });
  }
  Freezer freezer(scope, *finder, sleepers, deadlines);
  const int64_t begun = monotonic_ns();
  for (int attempt = 0; monotonic_ns() < begun + kPatience; ++attempt) {
    int64_t since = monotonic_ns();
    // Short at first, so that a child of vfork() is not held for long; long in the end for a machine under
    // load.
    const int64_t limit = std::min(20 + attempt * 5, 500) * kMillisecond;
    auto outcome =
        freezer.attempt(limit, attempt == 0 && before.newest != 0 ? std::optional(before) : std::nullopt);
    if (outcome.ok() && *outcome == Freezer::Outcome::kFrozen) {
      STASIS_TRY(auto tree, freezer.hand_over(since));
      tree->deadlines_ = std::move(deadlines);
      return tree;
    }
    deadlines.save();
    if (!outcome.ok()) return std::move(outcome).error();
    unstoppable = freezer.unstoppable();
    if (const std::string child = freezer.waiting_child_of_vfork(); !child.empty()) {
      return Error{
          "freeze", unstoppable,
          fmt::format("it waits in vfork() until its child, {}, has called exec(), and that waits, too",
                      child),
          "try again when it has gone on", ErrorCode::kRefused};
    }
    timespec pause{0, std::min(attempt + 1, 20) * kMillisecond};
    ::nanosleep(&pause, nullptr);
  }
  return Error{"freeze", unstoppable, "it sleeps uninterruptibly (in vfork, or waiting for a device)",
               "try again when it has gone on", ErrorCode::kRefused};
}

FrozenTree::~FrozenTree() { thaw(); }

HostTid FrozenTree::surroundings() const { return scope_.is_session() ? scope_.init : HostTid{::getpid()}; }

std::set<uint32_t> users_of(const FrozenTree& tree) {
  std::set<uint32_t> users;
  for (const auto& process : tree.processes()) {
    users.insert(process.status.uids.begin(), process.status.uids.end());
    for (const auto& thread : process.threads)
      users.insert(thread.status.uids.begin(), thread.status.uids.end());
  }
  return users;
}

void FrozenTree::thaw() {
  if (!frozen_) return;
  frozen_ = false;
  for (const auto& process : processes_) {
    if (process.stopped()) send_stops_again(process);
    for (const auto& thread : process.threads) remote::Tracee(thread.tid).detach();
  }
  deadlines_.save();
}

void FrozenTree::kill() {
  if (!frozen_) return;
  frozen_ = false;
  const auto kill_all = [this] {
    for (const auto& process : processes_) ::kill(process.leader.value, SIGKILL);
  };
  // A session ends with its init. Of a program one ends after the other, and whoever ends us in between must
  // not leave half of it: so a child does it, that nobody knows.
  sigset_t all, before;
  ::sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, &before);
  const pid_t child = scope_.is_session() ? -1 : ::fork();
  if (child == 0) {
    ::setsid();
    kill_all();
    ::_exit(0);
  }
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
  if (child < 0) return kill_all();
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace stasis::freeze

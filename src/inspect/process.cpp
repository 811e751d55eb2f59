#include "inspect/process.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstring>
#include <sstream>

#include "inspect/control_groups.h"
#include "inspect/thread.h"

namespace stasis::inspect {

using remote::Batch;

namespace {

// What headers of 2022 do not have.
constexpr uint64_t kGetDenyWriteExecute = 66;   // PR_GET_MDWE
constexpr uint64_t kGetMemoryMerge = 68;        // PR_GET_MEMORY_MERGE
constexpr uint64_t kGetIoFlusher = 58;          // PR_GET_IO_FLUSHER
constexpr uint64_t kGetRegistrations = 1 << 9;  // MEMBARRIER_CMD_GET_REGISTRATIONS

// PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, Linux 6.4.
constexpr auto kGetCallDispatch = static_cast<__ptrace_request>(0x4211);
struct CallDispatch {  // struct ptrace_sud_config
  uint64_t mode, selector, offset, length;
};

struct KernelSigaction {
  uint64_t handler, flags, restorer, mask;
};

std::string describe(const freeze::FrozenProcess& process) {
  return fmt::format("task {} ({})", process.status.ns_tgid, process.status.name);
}

// Whether both are one, as clone() can make it.
bool is_shared(HostTid one, HostTid other, int what) {
  return one == other || ::syscall(SYS_kcmp, one.value, other.value, what, 0, 0) == 0;
}
bool is_shared(const freeze::FrozenProcess& one, const freeze::FrozenProcess& other, int what) {
  return is_shared(one.pid, other.pid, what);
}

int64_t nanoseconds(const timeval& value) {
  return int64_t{value.tv_sec} * 1'000'000'000 + value.tv_usec * 1000;
}
int64_t nanoseconds(const timespec& value) { return int64_t{value.tv_sec} * 1'000'000'000 + value.tv_nsec; }

// The questions that only the process itself can ask the kernel, in one batch: add() before the run, take()
// after it.
class ProcessQuestions {
 public:
  ProcessQuestions(const freeze::FrozenProcess& process, std::vector<schema::PosixTimer> timers)
      : process_(process), timers_(std::move(timers)) {}

  void add(Batch& batch) {
    const auto& status = process_.status;
    for (int signal = 1; signal <= 64; ++signal) {
      uint64_t bit = uint64_t{1} << (signal - 1);
      // SIGCHLD is asked for in any case: SA_NOCLDWAIT has an effect without a handler.
      if (((status.caught | status.ignored) & bit) == 0 && signal != SIGCHLD) continue;
      uint64_t out = batch.reserve(sizeof(KernelSigaction));
      batch.call(SYS_rt_sigaction, {static_cast<uint64_t>(signal), 0, out, 8});
      actions_.emplace_back(signal, out);
    }
    for (uint64_t which = 0; which < 3; ++which) {
      interval_timers_[which] = batch.reserve(sizeof(itimerval));
      batch.call(SYS_getitimer, {which, interval_timers_[which]});
    }
    for (const auto& timer : timers_) {
      timer_outputs_.push_back(batch.reserve(sizeof(itimerspec)));
      batch.call(SYS_timer_gettime, {static_cast<uint64_t>(timer.id()), timer_outputs_.back()});
    }
    for (uint64_t resource = 0; resource < RLIM_NLIMITS; ++resource) {
      limits_[resource] = batch.reserve(sizeof(rlimit64));
      batch.call(SYS_prlimit64, {0, resource, 0, limits_[resource]});
    }
    subreaper_ = batch.reserve(sizeof(int));
    batch.call(SYS_prctl, {PR_GET_CHILD_SUBREAPER, subreaper_});
    dumpable_ = batch.call(SYS_prctl, {PR_GET_DUMPABLE});
    memory_barriers_ = batch.call(SYS_membarrier, {kGetRegistrations, 0, 0});
    merges_memory_ = batch.call(SYS_prctl, {kGetMemoryMerge, 0, 0, 0, 0});
    io_flusher_ = batch.call(SYS_prctl, {kGetIoFlusher, 0, 0, 0, 0});
    thp_ = batch.call(SYS_prctl, {PR_GET_THP_DISABLE, 0, 0, 0, 0});
    deny_write_execute_ = batch.call(SYS_prctl, {kGetDenyWriteExecute, 0, 0, 0, 0});
    personality_ = batch.call(SYS_personality, {0xffffffff});
    brk_ = batch.call(SYS_brk, {0});
    // How many System V objects there are in its namespace.
    semaphores_ = batch.put_object(seminfo{});  // zeros, where the kernel has no System V IPC
    batch.call(SYS_semctl, {0, 0, SEM_INFO, semaphores_});
    queues_ = batch.put_object(msginfo{});
    batch.call(SYS_msgctl, {0, MSG_INFO, queues_});
    segments_ = batch.put_object(shm_info{});
    batch.call(SYS_shmctl, {0, SHM_INFO, segments_});
  }

  SystemVCounts system_v(const Batch& batch) const {
    return {batch.output<seminfo>(semaphores_).semusz, batch.output<msginfo>(queues_).msgpool,
            batch.output<shm_info>(segments_).used_ids};
  }

  Result<void> take(const Batch& batch, schema::Process& out, schema::Memory& memory) const {
    for (const auto& [signal, address] : actions_) {
      auto action = batch.output<KernelSigaction>(address);
      if (action.handler == 0 && action.flags == 0 && action.mask == 0) continue;
      auto* entry = out.add_actions();
      entry->set_signal(static_cast<uint32_t>(signal));
      entry->set_handler(action.handler);
      entry->set_flags(action.flags);
      entry->set_restorer(action.restorer);
      entry->set_mask(action.mask);
    }
    for (uint32_t which = 0; which < 3; ++which) {
      auto value = batch.output<itimerval>(interval_timers_[which]);
      // When its signal waits the kernel winds a periodic timer up again only as that is taken.
      if (nanoseconds(value.it_value) == 0) value.it_value = value.it_interval;
      if (nanoseconds(value.it_value) == 0) continue;
      auto* timer = out.add_interval_timers();
      timer->set_which(which);
      timer->set_value_ns(nanoseconds(value.it_value));
      timer->set_interval_ns(nanoseconds(value.it_interval));
    }
    for (size_t i = 0; i < timers_.size(); ++i) {
      auto value = batch.output<itimerspec>(timer_outputs_[i]);
      auto* timer = out.add_posix_timers();
      *timer = timers_[i];
      timer->set_left_ns(nanoseconds(value.it_value));
      timer->set_interval_ns(nanoseconds(value.it_interval));
    }
    for (uint32_t resource = 0; resource < RLIM_NLIMITS; ++resource) {
      auto value = batch.output<rlimit64>(limits_[resource]);
      auto* limit = out.add_limits();
      limit->set_resource(resource);
      limit->set_soft(value.rlim_cur);
      limit->set_hard(value.rlim_max);
    }
    out.set_child_subreaper(batch.output<int>(subreaper_) != 0);
    out.set_dumpable(static_cast<uint32_t>(batch.result(dumpable_)));
    // An error where the kernel does not have it (before 6.3).
    if (int64_t bits = batch.result(deny_write_execute_); bits > 0)
      memory.set_deny_write_execute(static_cast<uint32_t>(bits));
    // Errors where the kernel does not tell (before 6.3 and 6.4), or only privilege may ask.
    if (int64_t bits = batch.result(memory_barriers_); bits > 0)
      out.set_memory_barriers(static_cast<uint32_t>(bits));
    out.set_merges_memory(batch.result(merges_memory_) == 1);
    out.set_io_flusher(batch.result(io_flusher_) == 1);
    out.set_thp_disabled(batch.result(thp_) == 1);
    out.set_personality(static_cast<uint32_t>(batch.result(personality_)));
    memory.set_brk(static_cast<uint64_t>(batch.result(brk_)));
    return {};
  }

 private:
  const freeze::FrozenProcess& process_;
  std::vector<schema::PosixTimer> timers_;
  std::vector<std::pair<int, uint64_t>> actions_;
  uint64_t interval_timers_[3] = {};
  std::vector<uint64_t> timer_outputs_;
  uint64_t limits_[RLIM_NLIMITS] = {};
  uint64_t subreaper_ = 0;
  uint64_t semaphores_ = 0, queues_ = 0, segments_ = 0;
  size_t memory_barriers_ = 0, merges_memory_ = 0, io_flusher_ = 0;
  size_t dumpable_ = 0, thp_ = 0, deny_write_execute_ = 0, personality_ = 0, brk_ = 0;
};

// /proc/PID/timers, which the kernel has for the sake of programs like this one.
Result<std::vector<schema::PosixTimer>> read_posix_timers(const freeze::FrozenProcess& process) {
  std::vector<schema::PosixTimer> timers;
  auto text = kernel::read_proc(process.pid, "timers");
  if (!text.ok()) return timers;  // a kernel without CONFIG_CHECKPOINT_RESTORE: `stasis check` says so
  std::istringstream lines(*text);
  std::string line;
  while (std::getline(lines, line)) {
    if (line.starts_with("ID:")) {
      timers.emplace_back();
      timers.back().set_id(std::stoi(line.substr(3)));
    } else if (timers.empty()) {
      continue;
    } else if (line.starts_with("signal:")) {
      size_t slash = line.find('/');
      timers.back().set_signal(std::stoi(line.substr(7)));
      timers.back().set_value(std::stoull(line.substr(slash + 1), nullptr, 16));
    } else if (line.starts_with("notify:")) {
      int notify = line.find("none") != std::string::npos     ? SIGEV_NONE
                   : line.find("thread") != std::string::npos ? SIGEV_THREAD
                                                              : SIGEV_SIGNAL;
      size_t target = line.find("tid.");
      if (target != std::string::npos) {
        notify |= SIGEV_THREAD_ID;
        HostTid tid{std::stoi(line.substr(target + 4))};
        for (const auto& thread : process.threads) {
          // The number is that of the pid namespace of the /proc that we read: the host's.
          if (thread.tid == tid) timers.back().set_notify_tid(thread.status.own_tid().value);
        }
      }
      timers.back().set_notify(notify);
    } else if (line.starts_with("ClockID:")) {
      timers.back().set_clock(std::stoi(line.substr(8)));
    }
  }
  return timers;
}

}  // namespace

Result<ProcReadings> read_from_proc(const freeze::FrozenProcess& process, const std::string& init_groups,
                                    schema::Process& out, schema::Memory& memory) {
  ProcReadings readings;
  STASIS_TRY(auto directory, kernel::read_proc_link(process.pid, "cwd"));
  out.set_working_directory(directory);
  STASIS_TRY(auto root, kernel::read_proc_link(process.pid, "root"));
  out.set_root(root);
  STASIS_TRY(auto executable, kernel::read_proc_link(process.pid, "exe"));
  memory.set_executable(executable);
  STASIS_TRY(auto auxv, kernel::read_proc(process.pid, "auxv"));
  memory.set_auxv(auxv);
  STASIS_TRY(auto score, kernel::read_proc_record(process.pid, "oom_score_adj"));
  out.set_oom_score_adj(std::atoi(score.c_str()));
  auto groups = kernel::read_proc(process.pid, "cgroup");
  for (const std::string& line : own_groups(groups.ok() ? *groups : "", init_groups))
    out.add_control_groups(line);
  readings.thread_groups = groups_of_threads(process, groups.ok() ? *groups : "");
  auto login = kernel::read_proc_record(process.pid, "loginuid");
  if (login.ok()) out.set_login_uid(static_cast<uint32_t>(std::strtoul(login->c_str(), nullptr, 10)) + 1);
  auto filter = kernel::read_proc_record(process.pid, "coredump_filter");
  if (filter.ok()) out.set_coredump_filter(static_cast<uint32_t>(std::strtoul(filter->c_str(), nullptr, 16)));
  const auto& stat = process.stat;
  memory.set_start_code(stat.start_code);
  memory.set_end_code(stat.end_code);
  memory.set_start_data(stat.start_data);
  memory.set_end_data(stat.end_data);
  memory.set_start_brk(stat.start_brk);
  memory.set_start_stack(stat.start_stack);
  memory.set_arg_start(stat.arg_start);
  memory.set_arg_end(stat.arg_end);
  memory.set_env_start(stat.env_start);
  memory.set_env_end(stat.env_end);
  STASIS_TRY(readings.timers, read_posix_timers(process));
  return readings;
}

Result<remote::TaskContext> observe_context(const freeze::FrozenProcess& process,
                                            const freeze::FrozenThread& thread) {
  remote::Tracee task(thread.tid);
  remote::TaskContext context;
  context.registers = thread.registers;
  if (thread.mask) {
    context.mask = *thread.mask;
  } else {
    STASIS_TRY(context.mask, task.signal_mask());
  }
  if (context.registers.cs != 0x33) {
    return Error{"save", fmt::format("task {} ({})", thread.ns_tid, process.status.name),
                 "it is a 32-bit program", "only 64-bit programs are supported", ErrorCode::kRefused};
  }
  context.tgid = process.status.own_tgid();
  context.tid = thread.status.own_tid();
  const auto& status = process.status;
  context.report_signal = remote::choose_report_signal(status.ignored, status.caught,
                                                       status.shared_pending | thread.status.pending);
  STASIS_CHECK(leave_restartable_sequence(thread.tid, context.registers));
  if (!process.stopped())
    STASIS_CHECK(leave_vdso(thread.tid, thread.status, status, context.mask, context.registers));
  return context;
}

namespace {

class ProcessInspection final : public Inspection {
 public:
  ProcessInspection(const freeze::FrozenProcess& process, const std::vector<remote::TaskContext>& contexts,
                    remote::Foothold& foothold, ProcReadings readings)
      : process_(process),
        contexts_(contexts),
        foothold_(foothold),
        thread_groups_(std::move(readings.thread_groups)),
        questions_(process, std::move(readings.timers)),
        batch_(foothold.scratch()) {}

  Result<void> begin() {
    questions_.add(batch_);
    leader_questions_.add(batch_, process_.threads.front().tid, contexts_.front());
    return foothold_.start(batch_);
  }

  Result<void> finish(schema::Process& out, schema::Memory& memory, SystemVCounts& system_v) override {
    STASIS_CHECK(foothold_.finish(batch_));
    STASIS_CHECK(questions_.take(batch_, out, memory));
    system_v = questions_.system_v(batch_);
    for (size_t i = 0; i < process_.threads.size(); ++i) {
      auto* thread = out.add_threads();
      STASIS_CHECK(observe_thread(process_.threads[i], contexts_[i], *thread));
      const auto& levels = process_.threads[i].status.levels;
      for (auto inner = static_cast<size_t>(out.inner_numbers_size()); inner > 0; --inner)
        thread->add_inner_numbers(levels[levels.size() - inner].tid.value);
      if (i == 0) continue;
      for (auto& line : thread_groups_[i - 1]) thread->add_control_groups(std::move(line));
    }
    auto* leader = out.mutable_threads(0);
    STASIS_CHECK(leader_questions_.take(batch_, *leader));
    STASIS_CHECK(check_scheduling(process_.threads.front(), true, *leader));
    if (!foothold_.affinity().empty()) leader->set_affinity(foothold_.affinity());

    std::vector<ThreadQuestions> questions(process_.threads.size());
    std::vector<remote::ThreadJob> jobs;
    for (size_t i = 1; i < process_.threads.size(); ++i) {
      auto* thread = out.mutable_threads(static_cast<int>(i));
      jobs.push_back(
          {.thread = remote::Tracee(process_.threads[i].tid),
           .context = contexts_[i],
           .ask = [this, &questions,
                   i](Batch& batch) { questions[i].add(batch, process_.threads[i].tid, contexts_[i]); },
           .take = [this, &questions, i, thread](const Batch& batch) -> Result<void> {
             STASIS_CHECK(questions[i].take(batch, *thread));
             return check_scheduling(process_.threads[i], false, *thread);
           }});
    }
    STASIS_CHECK(foothold_.run_in_threads(jobs));
    if (process_.ended_leader) put_first(*process_.ended_leader, out);
    return {};
  }

 private:
  void put_first(const freeze::FrozenProcess::EndedLeader& leader, schema::Process& out) const {
    auto* thread = out.add_threads();
    thread->set_tid(process_.status.ns_tgid.value);
    for (int number : out.inner_numbers()) thread->add_inner_numbers(number);
    thread->set_name(leader.status.name);
    thread->set_ended(true);
    thread->set_exit_status(leader.exit_code);
    thread->set_sleep_left_ns(-1);
    observe_credentials(leader.status, *thread->mutable_credentials());
    for (int i = out.threads_size() - 1; i > 0; --i) out.mutable_threads()->SwapElements(i, i - 1);
  }

  const freeze::FrozenProcess& process_;
  const std::vector<remote::TaskContext>& contexts_;
  remote::Foothold& foothold_;
  std::vector<std::vector<std::string>> thread_groups_;
  ProcessQuestions questions_;
  ThreadQuestions leader_questions_;
  Batch batch_;
};

}  // namespace

Result<std::unique_ptr<Inspection>> begin_inspection(const freeze::FrozenProcess& process,
                                                     ProcReadings readings,
                                                     const std::vector<remote::TaskContext>& contexts,
                                                     remote::Foothold& foothold, schema::Process& out) {
  out.set_umask(process.status.umask);
  STASIS_TRY(auto shared_pending, remote::Tracee(process.pid).pending_signals(true));
  add_taken_stop(process.status.shared_pending, shared_pending);
  for (auto& info : shared_pending) out.add_shared_pending()->set_info(std::move(info));
  auto inspection = std::make_unique<ProcessInspection>(process, contexts, foothold, std::move(readings));
  STASIS_CHECK(inspection->begin());
  return std::unique_ptr<Inspection>(std::move(inspection));
}

void observe_identity(const freeze::FrozenProcess& process, const freeze::FrozenTree& tree,
                      schema::Process& out) {
  const auto& status = process.status;
  out.set_pid(status.ns_tgid.value);
  out.set_group(status.ns_group.value);
  out.set_session(status.ns_session.value);
  for (size_t level = tree.level() + 1; level < status.levels.size(); ++level) {
    out.add_inner_numbers(status.levels[level].tgid.value);
    out.add_inner_groups(status.levels[level].group.value);
    out.add_inner_sessions(status.levels[level].session.value);
  }
  out.set_comm(process.stat.comm);
  out.set_exit_signal(process.stat.exit_signal);
  out.set_parent(1);
  for (const auto& other : tree.processes()) {
    if (other.leader != process.stat.parent) continue;
    const int parent = other.status.ns_tgid.value;
    out.set_parent(parent);
  }
  if (process.zombie) {
    out.set_state(schema::Process::ZOMBIE);
    out.set_exit_status(process.stat.exit_code);
  } else if (process.stopped()) {
    out.set_state(schema::Process::STOPPED);
    out.set_stop_signal(process.threads.front().group_stop_signal);
  }
}

Result<void> refuse_unsupported(const freeze::FrozenTree& tree) {
  for (const auto& process : tree.processes()) {
    if (process.zombie) continue;
    auto refuse = [&](std::string cause, std::string hint) {
      return Error{"save", describe(process), std::move(cause), std::move(hint), ErrorCode::kRefused};
    };
    for (const auto& thread : process.threads) {
      CallDispatch dispatch = {};
      if (::ptrace(kGetCallDispatch, thread.tid.value, sizeof dispatch, &dispatch) == 0 &&
          dispatch.mode != 0) {
        return refuse(fmt::format("its thread {} has its system calls sent back to itself "
                                  "(PR_SET_SYSCALL_USER_DISPATCH), also those of a checkpoint",
                                  thread.ns_tid),
                      "let the program run natively");
      }
      if (!is_shared(process.pid, thread.tid, KCMP_FILES) || !is_shared(process.pid, thread.tid, KCMP_FS)) {
        return refuse(
            fmt::format("its thread {} has a descriptor table or a working directory of its own (unshare)",
                        thread.ns_tid),
            "this is not supported; let a process of its own do that");
      }
    }
    for (const auto& parent : tree.processes()) {
      if (parent.leader != process.stat.parent || parent.zombie) continue;
      struct {
        int type;
        const char* what;
      } const shares[] = {{KCMP_VM, "memory"}, {KCMP_SIGHAND, "signal handlers"}};
      for (const auto& share : shares) {
        if (is_shared(process, parent, share.type)) {
          return refuse(fmt::format("it shares its {} with its parent, task {}, without being a thread of it",
                                    share.what, parent.status.ns_tgid),
                        "this is not supported yet; try again when it has called exec()");
        }
      }
    }
  }
  return {};
}

}  // namespace stasis::inspect

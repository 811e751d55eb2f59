#include "restore/tasks.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/ioprio.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include "base/clock.h"
#include "kernel/affinity.h"
#include "kernel/proc.h"
#include "restore/clone.h"

namespace stasis::restore {

using remote::Batch;
using remote::in_restartable_sleep;
using remote::Registers;
using remote::Stop;

namespace {

constexpr int kTimerRestoreIds = 77;  // PR_TIMER_CREATE_RESTORE_IDS, Linux 6.15

struct KernelSigaction {
  uint64_t handler, flags, restorer, mask;
};

timespec to_timespec(int64_t ns) { return {ns / 1'000'000'000, ns % 1'000'000'000}; }
timeval to_timeval(int64_t ns) { return {ns / 1'000'000'000, ns % 1'000'000'000 / 1000}; }

uint64_t pending_mask(const schema::Process& process) {
  uint64_t mask = 0;
  auto add = [&](const schema::PendingSignal& signal) {
    int number = 0;
    if (signal.info().size() >= sizeof number) std::memcpy(&number, signal.info().data(), sizeof number);
    if (number >= 1 && number <= 64) mask |= uint64_t{1} << (number - 1);
  };
  for (const auto& signal : process.shared_pending()) add(signal);
  for (const auto& thread : process.threads()) {
    for (const auto& signal : thread.pending()) add(signal);
  }
  return mask;
}

Registers recorded_registers(const schema::Thread& thread) {
  Registers registers;
  std::memcpy(&registers, thread.registers().data(), sizeof registers);
  return registers;
}

void write_proc(HostTid pid, const char* file, const std::string& text) {
  auto fd = kernel::open_proc(pid, file, O_WRONLY);
  // What the host does not allow (a lower OOM score) is not worth failing for.
  if (fd.ok()) (void)write_all(fd->get(), text).ok();
}

void set_scheduling(HostTid task, const schema::Thread& record) {
  pid_t host = task.value;
  struct {
    uint32_t size = 48;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime = 0, deadline = 0, period = 0;
  } scheduling = {};
  scheduling.size = sizeof scheduling;
  scheduling.policy = static_cast<uint32_t>(record.policy());
  scheduling.flags = record.sched_flags();
  scheduling.nice = record.nice();
  scheduling.priority = record.priority();
  // Rights over scheduling are the host's: without them the program runs with what it may have.
  ::syscall(SYS_sched_setattr, host, &scheduling, 0);
  // Policies without a nice value keep one all the same, for when they are left.
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(host), record.nice());
  if (record.io_priority() != 0) ::syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, host, record.io_priority());
}

// Ends and stops of children while the tree was made are not news to the program.
void add_forgetting(Batch& batch) {
  uint64_t set = batch.put_object<uint64_t>(uint64_t{1} << (SIGCHLD - 1));
  uint64_t no_time = batch.put_object(timespec{});
  for (int i = 0; i < 2; ++i) batch.call(SYS_rt_sigtimedwait, {set, 0, no_time, 8});
}

// Whether there is room in a thread's station for all that is to be done.
bool fits_station(const schema::Thread& thread) {
  constexpr int kMostGroups = 1000;
  return thread.pending().empty() && thread.credentials().groups_size() <= kMostGroups;
}

}  // namespace

std::string TaskBuilder::name() const { return fmt::format("task {}", process_.pid()); }

Result<void> TaskBuilder::set_process() {
  // The stub reports by a signal that must not be one of those that will be pending.
  skeleton_.set_report_signal(remote::choose_report_signal(0, 0, pending_mask(process_)));
  STASIS_CHECK(skeleton_.prepare());

  Batch batch = skeleton_.batch();
  std::vector<size_t> optional;
  if (table_.has(process_.controlling_terminal())) {
    auto fd = static_cast<uint64_t>(table_.number_of(process_.controlling_terminal()));
    if (process_.without_terminal()) {
      batch.call(SYS_ioctl, {fd, TIOCNOTTY});
    } else if (process_.foreground_group() != 0) {
      uint64_t group = batch.put_object<int>(process_.foreground_group());
      optional.push_back(batch.call(SYS_ioctl, {fd, TIOCSPGRP, group}));
    }
  }
  std::string directory = process_.working_directory();
  size_t changed = batch.call(SYS_chdir, {batch.put({directory.c_str(), directory.size() + 1})});
  batch.call(SYS_umask, {process_.umask()});
  batch.call(SYS_personality, {process_.personality()});
  if (process_.thp_disabled()) batch.call(SYS_prctl, {PR_SET_THP_DISABLE, 1, 0, 0, 0});
  if (process_.child_subreaper()) batch.call(SYS_prctl, {PR_SET_CHILD_SUBREAPER, 1});

  KernelSigaction by_default = {};
  uint64_t default_address = batch.put_object(by_default);
  for (int signal = 1; signal <= 64; ++signal) {
    if (signal == SIGKILL || signal == SIGSTOP) continue;
    uint64_t address = default_address;
    for (const auto& action : process_.actions()) {
      if (static_cast<int>(action.signal()) != signal) continue;
      KernelSigaction value = {action.handler(), action.flags(), action.restorer(), action.mask()};
      address = batch.put_object(value);
    }
    batch.call(SYS_rt_sigaction, {static_cast<uint64_t>(signal), address, 0, 8});
  }
  STASIS_CHECK(skeleton_.run(batch));
  if (batch.result(changed) < 0) {
    return errno_error(fmt::format("restart: enter the working directory of {}", name()), directory,
                       static_cast<int>(-batch.result(changed)), "the program needs it; make it again");
  }
  STASIS_CHECK(check_batch(batch, skeleton_.ns_pid(), "set up the process", [&](size_t index, int) {
    return std::find(optional.begin(), optional.end(), index) != optional.end();
  }));
  write_proc(skeleton_.pid(), "oom_score_adj", std::to_string(process_.oom_score_adj()));
  write_proc(skeleton_.pid(), "coredump_filter", fmt::format("{:#x}", process_.coredump_filter()));
  return {};
}

Result<void> TaskBuilder::make_threads() {
  threads_.push_back({skeleton_, &process_.threads(0)});
  constexpr int kAtOnce = 256;
  for (int first = 1; first < process_.threads_size(); first += kAtOnce) {
    int last = std::min(first + kAtOnce, process_.threads_size());
    Batch batch = skeleton_.batch();
    for (int i = first; i < last; ++i) {
      const auto& thread = process_.threads(i);
      CloneRequest request;
      request.flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
                      CLONE_PTRACE | CLONE_CHILD_CLEARTID;
      request.child_tid = thread.clear_tid_address();
      add_clone(batch, request, NsTid{thread.tid()});
    }
    STASIS_CHECK(skeleton_.run_checked(batch, "make threads"));
    std::vector<NsTid> expected;
    for (int i = first; i < last; ++i) expected.push_back(NsTid{process_.threads(i).tid()});
    STASIS_TRY(auto born, await_births(session_, expected));
    for (int i = first; i < last; ++i) {
      NsTid number{process_.threads(i).tid()};
      threads_.push_back({skeleton_.thread(born.at(number.value), number), &process_.threads(i)});
    }
  }
  return set_threads();
}

Result<void> TaskBuilder::check(const Batch& batch, const ThreadState& thread,
                                const Optional& optional) const {
  return check_batch(batch, thread.skeleton.ns_pid(), "set up a thread", [&](size_t index, int) {
    return std::find(optional.begin(), optional.end(), index) != optional.end();
  });
}

// The leader's rights and signals come at the very end.
Result<void> TaskBuilder::set_threads() {
  STASIS_CHECK(skeleton_.prepare());
  Batch batch = skeleton_.batch();
  Optional optional;
  add_settings(batch, threads_.front(), optional);
  STASIS_CHECK(skeleton_.run(batch));
  STASIS_CHECK(check(batch, threads_.front(), optional));
  set_scheduling(skeleton_.pid(), *threads_.front().record);

  std::vector<remote::ThreadJob> jobs;
  std::vector<Optional> tolerated(threads_.size());
  for (size_t i = 1; i < threads_.size(); ++i) {
    ThreadState& thread = threads_[i];
    jobs.push_back({.thread = thread.skeleton.task(),
                    .context = thread.skeleton.context(),
                    .ask =
                        [this, i, &thread, &tolerated](Batch& calls) {
                          add_settings(calls, thread, tolerated[i]);
                          if (fits_station(*thread.record)) add_credentials(calls, thread, tolerated[i]);
                        },
                    .take = [this, i, &thread, &tolerated](const Batch& calls) -> Result<void> {
                      set_scheduling(thread.skeleton.pid(), *thread.record);
                      return check(calls, thread, tolerated[i]);
                    }});
  }
  STASIS_CHECK(area_.stations(skeleton_.executor()).run(skeleton_.pid(), jobs));
  for (size_t i = 1; i < threads_.size(); ++i) {
    ThreadState& thread = threads_[i];
    if (fits_station(*thread.record)) continue;
    STASIS_CHECK(thread.skeleton.prepare());
    STASIS_CHECK(queue_signals(thread, false));
    Batch rights = thread.skeleton.batch();
    optional.clear();
    add_credentials(rights, thread, optional);
    STASIS_CHECK(thread.skeleton.run(rights));
    STASIS_CHECK(check(rights, thread, optional));
  }
  return {};
}

void TaskBuilder::add_settings(Batch& batch, const ThreadState& thread, Optional& optional) const {
  const auto& record = *thread.record;
  batch.call(SYS_set_tid_address, {record.clear_tid_address()});
  if (record.robust_list_size() != 0)
    batch.call(SYS_set_robust_list, {record.robust_list(), record.robust_list_size()});
  if (record.rseq_address() != 0) {
    batch.call(SYS_rseq, {record.rseq_address(), record.rseq_size(), 0, record.rseq_signature()});
  }
  stack_t stack = {};
  stack.ss_sp = reinterpret_cast<void*>(record.altstack_base());
  stack.ss_flags = static_cast<int>(record.altstack_flags());
  stack.ss_size = record.altstack_size();
  // The task has the scratch area nowhere near a stack, so that the kernel does not think it is running on
  // this one.
  if (stack.ss_size != 0) batch.call(SYS_sigaltstack, {batch.put_object(stack), 0});
  batch.call(SYS_prctl, {PR_SET_NAME, batch.put({record.name().c_str(), record.name().size() + 1})});
  if (record.timer_slack_ns() != 0) batch.call(SYS_prctl, {PR_SET_TIMERSLACK, record.timer_slack_ns()});
  if (record.machine_check_policy() != 0) {
    optional.push_back(batch.call(
        SYS_prctl, {PR_MCE_KILL, PR_MCE_KILL_SET, record.machine_check_policy() - uint64_t{1}, 0, 0}));
  }
}

Result<void> TaskBuilder::start_timers() {
  STASIS_CHECK(skeleton_.prepare());
  Batch batch = skeleton_.batch();
  for (const auto& timer : process_.interval_timers()) {
    itimerval value = {to_timeval(timer.interval_ns()), to_timeval(timer.value_ns())};
    batch.call(SYS_setitimer, {timer.which(), batch.put_object(value), 0});
  }
  if (process_.posix_timers_size() > 0) {
    batch.call(SYS_prctl, {kTimerRestoreIds, 1, 0, 0, 0});
    STASIS_CHECK(skeleton_.run(batch));
    if (batch.result(batch.size() - 1) < 0) {
      return Error{"restart: make timers", name(), "this kernel cannot make POSIX timers with given numbers",
                   "Linux 6.15 or later is needed for this program", ErrorCode::kUnsupported};
    }
    batch.clear();
    for (const auto& timer : process_.posix_timers()) {
      if (!batch.fits(4, 512)) {
        STASIS_CHECK(skeleton_.run_checked(batch, "make timers"));
        batch.clear();
      }
      sigevent event = {};
      event.sigev_signo = timer.signal();
      event.sigev_notify = timer.notify();
      event.sigev_value.sival_ptr = reinterpret_cast<void*>(timer.value());
      event._sigev_un._tid = timer.notify_tid();
      // Its thread has ended, so it tells nobody.
      if ((timer.notify() & SIGEV_THREAD_ID) != 0 && timer.notify_tid() == 0) event.sigev_notify = SIGEV_NONE;
      uint64_t id = batch.put_object<int>(timer.id());
      batch.call(SYS_timer_create, {static_cast<uint64_t>(timer.clock()), batch.put_object(event), id});
      if (timer.left_ns() == 0) continue;
      itimerspec value = {to_timespec(timer.interval_ns()), to_timespec(timer.left_ns())};
      batch.call(SYS_timer_settime, {static_cast<uint64_t>(timer.id()), 0, batch.put_object(value), 0});
    }
    batch.call(SYS_prctl, {kTimerRestoreIds, 0, 0, 0, 0});
  }
  return skeleton_.run_checked(batch, "start timers");
}

Result<void> TaskBuilder::queue_signals(ThreadState& thread, bool shared) {
  const auto& pending = shared ? process_.shared_pending() : thread.record->pending();
  Batch batch = thread.skeleton.batch();
  if (shared) {
    add_forgetting(batch);
    STASIS_CHECK(thread.skeleton.run(batch));
    batch.clear();
  }
  for (const auto& signal : pending) {
    if (!batch.fits(1, 256)) {
      STASIS_CHECK(thread.skeleton.run_checked(batch, "queue signals"));
      batch.clear();
    }
    int number = 0;
    std::memcpy(&number, signal.info().data(), sizeof number);
    uint64_t info = batch.put(signal.info());
    // A task may send itself any siginfo; from outside the kernel would not let us fake the sender.
    if (shared) {
      batch.call(SYS_rt_sigqueueinfo,
                 {static_cast<uint64_t>(process_.pid()), static_cast<uint64_t>(number), info});
    } else {
      batch.call(SYS_rt_tgsigqueueinfo,
                 {static_cast<uint64_t>(process_.pid()), static_cast<uint64_t>(thread.record->tid()),
                  static_cast<uint64_t>(number), info});
    }
  }
  if (batch.empty()) return {};
  return thread.skeleton.run_checked(batch, "queue signals");
}

void TaskBuilder::add_credentials(Batch& batch, const ThreadState& thread, Optional& optional) const {
  const auto& wanted = thread.record->credentials();
  if (wanted.uids_size() != 4 || wanted.gids_size() != 4) return;
  if (!user_namespace_) {
    std::string groups;
    for (uint32_t group : wanted.groups()) groups.append(reinterpret_cast<const char*>(&group), sizeof group);
    uint64_t address = batch.put(groups);
    batch.call(SYS_setgroups, {static_cast<uint64_t>(wanted.groups_size()), address});
    // Capabilities must outlive the change of user until they are set below.
    batch.call(SYS_prctl, {PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP});
    batch.call(SYS_setresgid, {wanted.gids(0), wanted.gids(1), wanted.gids(2)});
    batch.call(SYS_setresuid, {wanted.uids(0), wanted.uids(1), wanted.uids(2)});
    batch.call(SYS_setfsgid, {wanted.gids(3)});
    batch.call(SYS_setfsuid, {wanted.uids(3)});
  }
  for (unsigned capability = 0; capability <= CAP_LAST_CAP; ++capability) {
    if ((wanted.bounding() >> capability & 1) == 0) {
      optional.push_back(batch.call(SYS_prctl, {PR_CAPBSET_DROP, capability}));
    }
  }
  batch.call(SYS_prctl, {PR_SET_SECUREBITS, wanted.securebits()});
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  for (int half = 0; half < 2; ++half) {
    data[half].inheritable = static_cast<uint32_t>(wanted.inheritable() >> (32 * half));
    data[half].permitted = static_cast<uint32_t>(wanted.permitted() >> (32 * half));
    data[half].effective = static_cast<uint32_t>(wanted.effective() >> (32 * half));
  }
  batch.call(SYS_capset, {batch.put_object(header), batch.put_object(data)});
  for (unsigned capability = 0; capability <= CAP_LAST_CAP; ++capability) {
    if ((wanted.ambient() >> capability & 1) != 0) {
      optional.push_back(batch.call(SYS_prctl, {PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0}));
    }
  }
  if (wanted.no_new_privs()) batch.call(SYS_prctl, {PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0});
  // A change of credentials makes the kernel forget these two.
  if (thread.record->parent_death_signal() != 0) {
    batch.call(SYS_prctl, {PR_SET_PDEATHSIG, thread.record->parent_death_signal()});
  }
  if (&thread == threads_.data()) {
    optional.push_back(
        batch.call(SYS_prctl, {PR_SET_DUMPABLE, process_.dumpable() == 1 ? uint64_t{1} : uint64_t{0}}));
  }
}

// The kernel keeps the deadline of an interrupted sleep where only it can write. So the thread begins the
// sleep anew, with the time that was left, and is interrupted: then the kernel has the deadline, and goes on
// by itself.
Result<void> TaskBuilder::prime_sleeps() {
  std::vector<ThreadState*> sleepers;
  for (auto& thread : threads_) {
    if (thread.record->sleep_left_ns() >= 0 && in_restartable_sleep(recorded_registers(*thread.record)))
      sleepers.push_back(&thread);
  }
  if (sleepers.empty()) return {};
  const remote::Stations stations = area_.stations(skeleton_.executor());
  for (size_t first = 0; first < sleepers.size(); first += stations.size()) {
    const size_t last = std::min(first + stations.size(), sleepers.size());
    for (size_t i = first; i < last; ++i) STASIS_CHECK(begin_sleep(*sleepers[i], stations.at(i - first)));
    for (size_t i = first; i < last; ++i) STASIS_CHECK(interrupt_sleep(*sleepers[i], stations.at(i - first)));
  }
  return {};
}

Result<void> TaskBuilder::begin_sleep(ThreadState& thread, const remote::Executor& executor) {
  Registers registers = recorded_registers(*thread.record);
  Batch batch(executor.scratch());
  int64_t left = std::max<int64_t>(thread.record->sleep_left_ns(), 1000);
  uint64_t time = batch.put_object(to_timespec(left));
  switch (static_cast<long>(registers.orig_rax)) {
    case SYS_nanosleep:
      batch.call(SYS_nanosleep, {time, registers.rsi});
      break;
    case SYS_clock_nanosleep:
      batch.call(SYS_clock_nanosleep, {registers.rdi, registers.rsi, time, registers.r10});
      break;
    case SYS_poll:
      batch.call(SYS_poll,
                 {registers.rdi, registers.rsi, static_cast<uint64_t>((left + 999'999) / 1'000'000)});
      break;
    case SYS_futex:
      batch.call(SYS_futex, {registers.rdi, registers.rsi, registers.rdx, time, registers.r8, registers.r9});
      break;
    default:
      return {};
  }
  STASIS_CHECK(executor.install(skeleton_.pid(), thread.skeleton.context(), {.unmap_scratch = false}));
  thread.deadline_ns = monotonic_ns() + left;
  return executor.start(thread.skeleton.task(), thread.skeleton.context(), batch);
}

Result<void> TaskBuilder::interrupt_sleep(ThreadState& thread, const remote::Executor& executor) {
  if (thread.deadline_ns == 0) return {};
  const uint64_t number = recorded_registers(*thread.record).orig_rax;
  remote::Tracee task = thread.skeleton.task();
  for (int attempt = 0; attempt < 1000; ++attempt) {
    STASIS_CHECK(task.interrupt());
    STASIS_TRY(auto stop, task.wait());
    if (stop->kind == Stop::Kind::kInterrupt) {
      STASIS_TRY(Registers now, task.registers());
      if (in_restartable_sleep(now) && now.orig_rax == number) {
        thread.primed = true;
        return {};
      }
    }
    // Its time was up, or what it waited for is there: then it reissues the whole call and sees that, too.
    STASIS_TRY(bool ended, executor.advance(task, thread.skeleton.context(), *stop));
    if (ended) return {};
    timespec moment{0, 20'000};
    ::nanosleep(&moment, nullptr);
  }
  return {};
}

Result<void> TaskBuilder::finish() {
  ThreadState& leader = threads_.front();
  STASIS_CHECK(leader.skeleton.prepare());
  Batch batch = leader.skeleton.batch();
  if (process_.shared_pending().empty() && leader.record->pending().empty()) {
    add_forgetting(batch);
  } else {
    STASIS_CHECK(queue_signals(leader, true));
    STASIS_CHECK(queue_signals(leader, false));
  }
  // The memory is complete. Under our limit or under its own: one of them may forbid it, and then the program
  // runs without, as it does when single pages cannot be locked.
  auto lock_future = [&] {
    if (memory_.lock_future() != 0) batch.call(SYS_mlockall, {memory_.lock_future()});
  };
  lock_future();
  std::vector<std::pair<size_t, const schema::ResourceLimit*>> limits;
  for (const auto& limit : process_.limits()) {
    rlimit64 value = {limit.soft(), limit.hard()};
    limits.emplace_back(batch.call(SYS_prlimit64, {0, limit.resource(), batch.put_object(value), 0}), &limit);
  }
  lock_future();
  // All that is executable is there, too.
  constexpr uint64_t kSetDenyWriteExecute = 65;  // PR_SET_MDWE, which headers of 2022 do not have
  size_t denied = 0;
  if (memory_.deny_write_execute() != 0)
    denied = batch.call(SYS_prctl, {kSetDenyWriteExecute, memory_.deny_write_execute(), 0, 0, 0});
  // Only now: a low limit on descriptors would have been in the way.
  batch.call(SYS_close_range, {static_cast<uint64_t>(table_.base()), ~uint64_t{0} >> 32, 0});
  // Closing any descriptor of a file gives up all record locks on it, so they come after the last close.
  const bool locks = process_.record_locks_size() > 0;
  Optional optional;
  const size_t rights = batch.size();
  if (!locks) add_credentials(batch, leader, optional);
  STASIS_CHECK(leader.skeleton.run(batch));
  if (memory_.deny_write_execute() != 0 && batch.result(denied) < 0) {
    // A protection that the program asked for is not left out in silence.
    return errno_error("forbid memory that is writable and executable",
                       fmt::format("task {}", process_.pid()), static_cast<int>(-batch.result(denied)),
                       "it needs Linux 6.3");
  }
  Batch again = leader.skeleton.batch();
  for (const auto& [index, limit] : limits) {
    if (batch.result(index) >= 0) continue;
    // A hard limit cannot be raised without privilege: the highest allowed is what there is.
    rlimit here;
    if (::getrlimit(static_cast<int>(limit->resource()), &here) != 0) continue;
    rlimit64 value = {std::min<uint64_t>(limit->soft(), here.rlim_max),
                      std::min<uint64_t>(limit->hard(), here.rlim_max)};
    again.call(SYS_prlimit64, {0, limit->resource(), again.put_object(value), 0});
  }
  if (!again.empty()) STASIS_CHECK(leader.skeleton.run(again));
  if (locks) {
    STASIS_CHECK(table_.take_record_locks(leader.skeleton, process_));
    batch.clear();
    add_credentials(batch, leader, optional);
    STASIS_CHECK(leader.skeleton.run(batch));
  }
  for (size_t i = locks ? 0 : rights; i < batch.size(); ++i) {
    const bool may_fail = std::find(optional.begin(), optional.end(), i) != optional.end();
    if (batch.result(i) < 0 && !may_fail) {
      return errno_error(fmt::format("restart: set the credentials of {}", name()),
                         fmt::format("system call {}", batch.number(i)), static_cast<int>(-batch.result(i)));
    }
  }
  // The kernel notes with whose rights a signal is to be sent.
  STASIS_CHECK(table_.set_signal_owners(leader.skeleton, process_));
  STASIS_CHECK(prime_sleeps());
  return drop_work_area();
}

// The last pages of ours can only be given up by code that is not in them: the vDSO has a `syscall`
// instruction.
Result<void> TaskBuilder::drop_work_area() {
  // The leader of a program without a vDSO keeps the area; nothing refers to it.
  uint64_t vdso = 0;
  for (const auto& mapping : memory_.mappings()) {
    if (mapping.kind() == schema::Mapping::VDSO) vdso = mapping.start();
  }
  if (vdso == 0) return {};
  // Any thread may do it, and one that is inside a primed sleep must not be disturbed.
  auto free_thread =
      std::find_if(threads_.begin(), threads_.end(), [](const auto& thread) { return !thread.primed; });
  if (free_thread == threads_.end()) free_thread = threads_.begin();
  remote::Tracee task = free_thread->skeleton.task();
  Registers registers = free_thread->skeleton.context().registers;
  registers.rip = vdso + area_.syscall_offset();
  registers.orig_rax = ~uint64_t{0};
  registers.rax = SYS_munmap;
  registers.rdi = area_.start();
  registers.rsi = WorkArea::size();
  STASIS_CHECK(task.set_registers(registers));
  // The kernel would take the program's handler for SIGTRAP away if the signal were blocked when it comes.
  STASIS_CHECK(task.set_signal_mask(~(uint64_t{1} << (SIGTRAP - 1))));
  STASIS_CHECK(task.step());
  for (;;) {
    STASIS_TRY(auto stop, task.wait());
    if (stop->kind == Stop::Kind::kExited) return Error{"restart: leave", name(), "the task ended", {}};
    if (stop->kind == Stop::Kind::kSignal && stop->signal == SIGTRAP) break;
    STASIS_CHECK(task.step());
  }
  STASIS_TRY(Registers after, task.registers());
  if (after.rax != 0)
    return errno_error("restart: leave", name(), static_cast<int>(-static_cast<int64_t>(after.rax)));
  return {};
}

Result<void> TaskBuilder::arm(remote::Deadlines& deadlines) {
  for (auto& thread : threads_) {
    remote::Tracee task = thread.skeleton.task();
    Registers registers = recorded_registers(*thread.record);
    if (!thread.primed) {
      // A sleep that could not be primed is asked for again as a whole; everything else as the kernel would
      // do it.
      if (in_restartable_sleep(registers)) registers.rax = static_cast<uint64_t>(-512);
      registers = remote::restarted(registers);
    }
    // Until here all were on the builder's processor.
    kernel::set_affinity(task.tid(), thread.record->affinity());
    STASIS_CHECK(task.set_extended_state(thread.record->extended_state()));
    STASIS_CHECK(task.set_signal_mask(thread.record->signal_mask()));
    STASIS_CHECK(task.set_registers(registers));
    // From now on it is init with whom it dies if we do (see session/start.h).
    STASIS_CHECK(task.set_options(0));
    if (thread.primed) {
      STASIS_TRY(auto status, kernel::read_status(task.tid()));
      deadlines.note(status.ns_tid, status.voluntary_switches, registers, thread.deadline_ns);
    }
  }
  if (process_.state() == schema::Process::STOPPED) return stop_again();
  return {};
}

Result<void> TaskBuilder::stop_again() {
  // Every thread enters the group stop while we still hold it, so that none executes an instruction.
  if (::kill(skeleton_.pid().value, SIGSTOP) != 0) return errno_error("restart: stop", name());
  return {};
}

void TaskBuilder::detach() {
  for (auto& thread : threads_) thread.skeleton.task().detach();
}

Result<void> become_zombie(Skeleton& skeleton, const schema::Process& process) {
  remote::Tracee task = skeleton.task();
  int status = process.exit_status();
  STASIS_CHECK(skeleton.prepare());
  Batch batch = skeleton.batch();
  batch.call(SYS_prctl, {PR_SET_NAME, batch.put({process.comm().c_str(), process.comm().size() + 1})});
  rlimit64 no_core = {};
  batch.call(SYS_prlimit64, {0, RLIMIT_CORE, batch.put_object(no_core), 0});
  STASIS_CHECK(skeleton.run(batch));
  int signal = status & 0x7f;
  Batch last = skeleton.batch();
  if (signal == 0) {
    last.call(SYS_exit_group, {static_cast<uint64_t>((status >> 8) & 0xff)});
  } else {
    // A signal that is sent to a task under ptrace stops it first; then it is let through.
    last.call(SYS_rt_sigprocmask, {SIG_SETMASK, last.put_object<uint64_t>(0), 0, 8});
    last.call(SYS_kill, {static_cast<uint64_t>(process.pid()), static_cast<uint64_t>(signal)});
  }
  STASIS_CHECK(skeleton.executor().start(task, skeleton.context(), last));
  for (;;) {
    STASIS_TRY(auto stop, task.wait());
    if (stop->kind == Stop::Kind::kExited) return {};
    STASIS_CHECK(task.resume(stop->kind == Stop::Kind::kSignal ? stop->signal : 0));
  }
}

}  // namespace stasis::restore

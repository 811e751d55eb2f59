#include "restore/tasks.h"

#include <fcntl.h>
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
#include <cctype>
#include <csignal>
#include <cstring>
#include <map>
#include <optional>
#include <string_view>

#include "base/clock.h"
#include "kernel/affinity.h"
#include "kernel/proc.h"
#include "restore/control_groups.h"
#include "restore/vdso.h"

namespace stasis::restore {

using remote::Batch;
using remote::in_restartable_sleep;
using remote::Registers;
using remote::Stop;

namespace {

// What headers of 2022 do not have.
constexpr uint64_t kSetMemoryMerge = 67;  // PR_SET_MEMORY_MERGE
constexpr uint64_t kSetIoFlusher = 57;    // PR_SET_IO_FLUSHER
constexpr int kTimerRestoreIds = 77;      // PR_TIMER_CREATE_RESTORE_IDS, Linux 6.15

struct KernelSigaction {
  uint64_t handler, flags, restorer, mask;
};

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

// A file of /proc/PID with one number, which is shown in this radix. All are born with the same one, which
// most keep.
void set_number(HostTid pid, const char* file, int radix, int64_t wanted) {
  static std::map<std::string, int64_t> born_with;
  const auto read = [&]() -> std::optional<int64_t> {
    auto text = kernel::read_proc_record(pid, file);
    if (!text.ok()) return {};
    return std::strtoll(text->c_str(), nullptr, radix);
  };
  if (auto known = born_with.find(file); known != born_with.end()) {
    if (known->second == wanted) return;
  } else if (auto now = read()) {
    born_with[file] = *now;
    if (*now == wanted) return;
  }
  auto fd = kernel::open_proc(pid, file, O_WRONLY);
  // What the host does not allow (a lower OOM score) is not worth failing for.
  if (fd.ok()) (void)write_all(fd->get(), std::to_string(wanted)).ok();
}

}  // namespace

bool works_where_process_has_ended(const schema::Process& process) {
  const std::string& shown = process.working_directory();
  constexpr std::string_view kStart = "/proc/";
  return process.working_directory_description() != 0 && shown.ends_with(" (deleted)") &&
         shown.starts_with(kStart) && std::isdigit(static_cast<unsigned char>(shown[kStart.size()])) != 0;
}

std::string TaskBuilder::name() const { return fmt::format("task {}", process_.pid()); }

Result<void> TaskBuilder::set_process(uint32_t born_in) {
  // The stub reports by a signal that must not be one of those that will be pending.
  skeleton_.set_report_signal(remote::choose_report_signal(0, 0, pending_mask(process_)));
  STASIS_CHECK(skeleton_.prepare());

  Batch batch = skeleton_.batch();
  std::vector<size_t> optional;
  for (uint32_t id : process_.namespaces()) {
    // Where it was born it is; the user namespace comes last.
    if (table_.namespaces().descriptor(id) < 0 || table_.namespaces().type(id) == CLONE_NEWUSER ||
        !table_.may_enter(born_in, id))
      continue;
    batch.call(SYS_setns,
               {static_cast<uint64_t>(table_.namespaces().descriptor(id)), table_.namespaces().type(id)});
  }
  if (table_.has(process_.controlling_terminal())) {
    auto fd = static_cast<uint64_t>(table_.number_of(process_.controlling_terminal()));
    if (process_.without_terminal()) {
      batch.call(SYS_ioctl, {fd, TIOCNOTTY});
    } else if (process_.foreground_group() != 0) {
      const int own = table_.number_as_seen_by(process_.pid(), process_.foreground_group());
      uint64_t group = batch.put_object<int>(own);
      if (own != 0) optional.push_back(batch.call(SYS_ioctl, {fd, TIOCSPGRP, group}));
    }
  }
  std::string directory = process_.working_directory();
  const uint32_t removed = process_.working_directory_description();
  // Where a process has ended nobody comes in any more: whoever is there was born there.
  size_t changed = works_where_process_has_ended(process_) ? batch.call(SYS_getpid, {})
                   : removed != 0
                       ? batch.call(SYS_fchdir, {static_cast<uint64_t>(table_.number_of(removed))})
                       : batch.call(SYS_chdir, {batch.put({directory.c_str(), directory.size() + 1})});
  batch.call(SYS_umask, {process_.umask()});
  batch.call(SYS_personality, {process_.personality()});
  add_login_uid(batch, optional);
  // One command for each bit.
  for (uint32_t bit = 1; bit != 0; bit <<= 1) {
    if ((process_.memory_barriers() & bit) != 0) batch.call(SYS_membarrier, {bit, 0, 0});
  }
  if (process_.merges_memory()) optional.push_back(batch.call(SYS_prctl, {kSetMemoryMerge, 1, 0, 0, 0}));
  if (process_.io_flusher()) optional.push_back(batch.call(SYS_prctl, {kSetIoFlusher, 1, 0, 0, 0}));
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
  set_number(skeleton_.pid(), "oom_score_adj", 10, process_.oom_score_adj());
  STASIS_CHECK(join_control_groups(skeleton_.pid(), process_));
  set_number(skeleton_.pid(), "coredump_filter", 16, process_.coredump_filter());
  return {};
}

// A task can only write its own. What the audit system does not allow is not worth failing for.
void TaskBuilder::add_login_uid(Batch& batch, Optional& optional) const {
  static constexpr char kFile[] = "/proc/self/loginuid";
  static const uint32_t ours = [] {
    auto text = read_file(kernel::host_proc(), "self/loginuid", 16);
    return text.ok() ? static_cast<uint32_t>(std::strtoul(text->c_str(), nullptr, 10)) + 1 : 0;
  }();
  if (process_.login_uid() == 0 || process_.login_uid() == ours) return;
  const std::string text = std::to_string(process_.login_uid() - 1);
  const auto file = static_cast<uint64_t>(table_.base() - 1);
  const uint64_t path = batch.put({kFile, sizeof kFile}), value = batch.put(text);
  optional.push_back(batch.call(SYS_openat, {static_cast<uint64_t>(AT_FDCWD), path, O_WRONLY}));
  optional.push_back(batch.call_with_last(SYS_dup3, {file, O_CLOEXEC}));
  optional.push_back(batch.call(SYS_write, {file, value, text.size()}));
  // place() closes both.
}

Result<void> TaskBuilder::start_timers() {
  STASIS_CHECK(skeleton_.prepare());
  Batch batch = skeleton_.batch();
  for (const auto& timer : process_.interval_timers()) {
    itimerval value = {to_timeval(timer.interval_ns()), to_timeval(timer.value_ns())};
    batch.call(SYS_setitimer, {timer.which(), batch.put_object(value), 0});
  }
  STASIS_CHECK(skeleton_.run_checked(batch, "start timers"));
  return process_.posix_timers_size() > 0 ? make_posix_timers() : Result<void>();
}

Result<void> TaskBuilder::make_posix_timers() {
  Batch batch = skeleton_.batch();
  batch.call(SYS_prctl, {kTimerRestoreIds, 1, 0, 0, 0});
  STASIS_CHECK(skeleton_.run(batch));
  const bool numbers_can_be_given = batch.result(0) == 0;
  batch.clear();
  std::vector<const schema::PosixTimer*> timers;
  for (const auto& timer : process_.posix_timers()) timers.push_back(&timer);
  std::sort(timers.begin(), timers.end(), [](const auto* a, const auto* b) { return a->id() < b->id(); });
  int next = 0;
  for (const auto* timer : timers) {
    const bool has_gap = !numbers_can_be_given && next < timer->id();
    if (has_gap || !batch.fits(4, 512)) {
      STASIS_CHECK(skeleton_.run_checked(batch, "make timers"));
      batch.clear();
    }
    if (has_gap) STASIS_CHECK(skip_timers(next, timer->id()));
    next = timer->id() + 1;
    sigevent event = {};
    event.sigev_signo = timer->signal();
    event.sigev_notify = timer->notify();
    event.sigev_value.sival_ptr = reinterpret_cast<void*>(timer->value());
    event._sigev_un._tid = timer->notify_tid();
    // Its thread has ended, so it tells nobody.
    if ((timer->notify() & SIGEV_THREAD_ID) != 0 && timer->notify_tid() == 0) event.sigev_notify = SIGEV_NONE;
    const uint64_t id = batch.put_object<int>(timer->id());
    batch.call(SYS_timer_create, {static_cast<uint64_t>(timer->clock()), batch.put_object(event), id});
    if (timer->left_ns() == 0) continue;
    itimerspec value = {to_timespec(timer->interval_ns()), to_timespec(timer->left_ns())};
    batch.call(SYS_timer_settime, {static_cast<uint64_t>(timer->id()), 0, batch.put_object(value), 0});
  }
  if (numbers_can_be_given) batch.call(SYS_prctl, {kTimerRestoreIds, 0, 0, 0, 0});
  return skeleton_.run_checked(batch, "make timers");
}

// Before Linux 6.15 a process counts the timers that it makes, from 0, and that is their number. So those
// that it has made and deleted are made and deleted again.
Result<void> TaskBuilder::skip_timers(int next, int wanted) {
  constexpr int kMost = 10'000'000;
  if (wanted > kMost) {
    return Error{"restart: make timers", name(), fmt::format("it has made {} POSIX timers", wanted + 1),
                 "Linux 6.15 or later is needed for so many", ErrorCode::kUnsupported};
  }
  Batch batch = skeleton_.batch();
  sigevent event = {};
  event.sigev_notify = SIGEV_NONE;
  while (next < wanted) {
    batch.clear();
    const uint64_t silent = batch.put_object(event), id = batch.put_object<int>(0);
    for (; next < wanted && batch.fits(2, 0); ++next) {
      batch.call(SYS_timer_create, {CLOCK_MONOTONIC, silent, id});
      batch.call(SYS_timer_delete, {static_cast<uint64_t>(next)});
    }
    STASIS_CHECK(skeleton_.run_checked(batch, "count timers"));
  }
  return {};
}

Result<void> TaskBuilder::finish() {
  ThreadState& leader = threads_.front();
  STASIS_CHECK(leader.skeleton.prepare());
  Batch batch = leader.skeleton.batch();
  uint64_t back = 0;  // a descriptor of the working directory, if no path will lead there
  if (process_.root_description() != 0 && process_.directories_of() == 0) {
    const size_t opened = batch.call(SYS_openat, {static_cast<uint64_t>(AT_FDCWD), batch.put({".\0", 2}),
                                                  O_PATH | O_DIRECTORY | O_CLOEXEC});
    STASIS_CHECK(leader.skeleton.run_checked(batch, "open the working directory"));
    back = static_cast<uint64_t>(batch.result(opened));
    batch.clear();
  }
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
  // Nothing is looked for by its path any more.
  const uint32_t hidden_root = process_.root_description();
  const bool has_root = process_.directories_of() == 0 &&
                        (hidden_root != 0 || (!process_.root().empty() && process_.root() != "/"));
  size_t rooted = 0;
  if (has_root && hidden_root == 0) {
    rooted = batch.call(SYS_chroot, {batch.put({process_.root().c_str(), process_.root().size() + 1})});
  } else if (has_root) {
    // By way of its descriptor, and back to where it is.
    batch.call(SYS_fchdir, {static_cast<uint64_t>(table_.number_of(hidden_root))});
    rooted = batch.call(SYS_chroot, {batch.put({".\0", 2})});
    batch.call(SYS_fchdir, {back});
    batch.call(SYS_close, {back});
  }
  // All that is executable is there, too.
  constexpr uint64_t kSetDenyWriteExecute = 65;  // PR_SET_MDWE, which headers of 2022 do not have
  size_t denied = 0;
  if (memory_.deny_write_execute() != 0)
    denied = batch.call(SYS_prctl, {kSetDenyWriteExecute, memory_.deny_write_execute(), 0, 0, 0});
  // Only now: a low limit on descriptors would have been in the way.
  batch.call(SYS_close_range, {static_cast<uint64_t>(table_.base()), ~uint64_t{0} >> 32, 0});
  // Closing any descriptor of a file gives up all record locks on it, so they come after the last close.
  const bool locks = process_.record_locks_size() > 0 || table_.has_leases();
  Optional optional;
  size_t rights = batch.size();
  if (!locks) add_credentials(batch, leader, optional);
  STASIS_CHECK(leader.skeleton.run(batch));
  if (memory_.deny_write_execute() != 0 && batch.result(denied) < 0) {
    // A protection that the program asked for is not left out in silence.
    return errno_error("forbid memory that is writable and executable",
                       fmt::format("task {}", process_.pid()), static_cast<int>(-batch.result(denied)),
                       "it needs Linux 6.3");
  }
  if (has_root && batch.result(rooted) < 0) {
    return errno_error(fmt::format("restart: enter the root directory of {}", name()), process_.root(),
                       static_cast<int>(-batch.result(rooted)), "the program needs it; make it again");
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
  STASIS_CHECK(table_.finish_last(leader.skeleton, process_));
  if (locks) {
    STASIS_CHECK(table_.take_record_locks(leader.skeleton, process_));
    STASIS_CHECK(table_.take_leases(leader.skeleton, process_));
    batch.clear();
    rights = 0;
    add_credentials(batch, leader, optional);
    STASIS_CHECK(leader.skeleton.run(batch));
  }
  STASIS_CHECK(check_batch(batch, leader.skeleton.ns_pid(), "set the credentials", [&](size_t index, int) {
    return index < rights || std::find(optional.begin(), optional.end(), index) != optional.end();
  }));
  // The kernel notes with whose rights a signal is to be sent.
  STASIS_CHECK(table_.set_signal_owners(leader.skeleton, process_));
  STASIS_CHECK(prime_sleeps());
  STASIS_CHECK(end_leader());
  return drop_work_area();
}

// A main thread that had ended ends again: nothing can be done through it any more. It must not have to die
// with us: that would kill the others, too.
Result<void> TaskBuilder::end_leader() {
  const ThreadState& leader = threads_.front();
  if (!leader.record->ended()) return {};
  remote::Tracee task = leader.skeleton.task();
  STASIS_CHECK(task.set_options(0));
  const auto code = static_cast<uint64_t>((leader.record->exit_status() >> 8) & 0xff);
  STASIS_CHECK(leader.skeleton.executor().start_single(task, leader.skeleton.context(),
                                                       {.unmap_scratch = false}, SYS_exit, {code}));
  // For as long as there are other threads nobody is told.
  constexpr int kTries = 20'000;
  for (int i = 0; i < kTries; ++i) {
    STASIS_TRY(auto stat, kernel::read_stat(task.tid()));
    if (stat.state == 'Z') return {};
    const bool stopped = stat.state == 't';
    if (stopped) STASIS_CHECK(task.resume());
    timespec moment{0, 50'000};
    ::nanosleep(&moment, nullptr);
  }
  return Error{"restart: end the main thread", name(), "it did not end", {}};
}

// The last pages of ours can only be given up by code that is not in them: the vDSO has a `syscall`
// instruction, and where the program has unmapped that, some code of its own.
Result<void> TaskBuilder::drop_work_area() {
  STASIS_TRY(const VdsoPlace place, place_vdso(memory_, manifest_.vdso(), area_));
  uint64_t instruction = place.vdso != 0 ? place.vdso + area_.syscall_offset() : 0;
  if (instruction == 0) instruction = find_system_call();
  // A program without any keeps the area; nothing refers to it.
  if (instruction == 0) return {};
  // Any thread that lives may do it, and one that is inside a primed sleep must not be disturbed.
  auto free_thread = std::find_if(threads_.begin(), threads_.end(), [](const auto& thread) {
    return !thread.primed && !thread.record->ended();
  });
  if (free_thread == threads_.end())
    free_thread = threads_.begin() + (threads_.front().record->ended() ? 1 : 0);
  remote::Tracee task = free_thread->skeleton.task();
  Registers registers = free_thread->skeleton.context().registers;
  registers.rip = instruction;
  registers.orig_rax = ~uint64_t{0};
  registers.rax = SYS_munmap;
  registers.rdi = area_.start();
  registers.rsi = WorkArea::size();
  STASIS_CHECK(task.set_registers(registers));
  // Not by single step: its trap is a signal, for which the kernel would take the program's handler away if
  // it were blocked, and a pending SIGTRAP of the program would be delivered if it were not.
  STASIS_CHECK(task.set_signal_mask(~uint64_t{0}));
  STASIS_CHECK(task.resume_to_system_call());
  for (;;) {
    STASIS_TRY(auto stop, task.wait());
    if (stop->kind == Stop::Kind::kExited) return Error{"restart: leave", name(), "the task ended", {}};
    if (stop->kind == Stop::Kind::kSignal && stop->signal == SIGTRAP) {
      STASIS_TRY(registers, task.registers());
      // It stops before the call, too; until that has been made, its result is ENOSYS.
      if (static_cast<int64_t>(registers.rax) != -ENOSYS) break;
    }
    STASIS_CHECK(task.resume_to_system_call());
  }
  const auto result = static_cast<int64_t>(registers.rax);
  if (result < 0) return errno_error("restart: leave", name(), static_cast<int>(-result));
  return {};
}

// Where the program itself could make a system call; 0: nowhere.
uint64_t TaskBuilder::find_system_call() const {
  constexpr uint64_t kAtOnce = 1 << 20;
  constexpr int kReadable = PROT_READ | PROT_EXEC;
  std::string code;
  for (const auto& mapping : memory_.mappings()) {
    if ((static_cast<int>(mapping.protection()) & kReadable) != kReadable) continue;
    for (uint64_t at = mapping.start(); at < mapping.end(); at += kAtOnce) {
      code.resize(std::min(kAtOnce, mapping.end() - at));
      if (!remote::read_memory(skeleton_.pid(), RemotePtr{at}, code).ok()) break;
      if (auto found = code.find("\x0f\x05"); found != std::string::npos) return at + found;
    }
  }
  return 0;
}

Result<void> TaskBuilder::arm(remote::Deadlines& deadlines) {
  for (auto& thread : threads_) {
    if (thread.record->ended()) continue;
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
      deadlines.note(thread.skeleton.ns_pid(), status.voluntary_switches, registers, thread.deadline_ns);
    }
  }
  send_stops_again();
  return {};
}

void TaskBuilder::detach() {
  for (auto& thread : threads_) thread.skeleton.task().detach();
}

namespace {

Result<void> kill_init(Skeleton& skeleton, int signal) {
  if (signal != SIGKILL) {
    return Error{
        "restart: make a zombie",
        fmt::format("task {}", skeleton.ns_pid()),
        fmt::format("the first process of a pid namespace has ended by signal {}, which cannot be sent "
                    "to one",
                    signal),
        {},
        ErrorCode::kUnsupported};
  }
  if (::kill(skeleton.pid().value, SIGKILL) != 0) return errno_error("restart: make a zombie", {});
  for (;;) {
    STASIS_TRY(auto stop, skeleton.task().wait());
    if (stop->kind == Stop::Kind::kExited) return {};
  }
}

}  // namespace

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
  // The first process of a pid namespace ends by none but this, which only others can send.
  if (signal != 0 && skeleton.own_pid().value == 1) return kill_init(skeleton, signal);
  Batch last = skeleton.batch();
  if (signal == 0) {
    last.call(SYS_exit_group, {static_cast<uint64_t>((status >> 8) & 0xff)});
  } else {
    // A signal that is sent to a task under ptrace stops it first; then it is let through.
    last.call(SYS_rt_sigprocmask, {SIG_SETMASK, last.put_object<uint64_t>(0), 0, 8});
    last.call(SYS_kill, {static_cast<uint64_t>(skeleton.own_pid().value), static_cast<uint64_t>(signal)});
  }
  STASIS_CHECK(skeleton.executor().start(task, skeleton.context(), last));
  for (;;) {
    STASIS_TRY(auto stop, task.wait());
    if (stop->kind == Stop::Kind::kExited) return {};
    STASIS_CHECK(task.resume(stop->kind == Stop::Kind::kSignal ? stop->signal : 0));
  }
}

}  // namespace stasis::restore

// What TaskBuilder does for single threads.
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/ioprio.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "base/clock.h"
#include "kernel/scheduling.h"
#include "restore/clone.h"
#include "restore/control_groups.h"
#include "restore/tasks.h"
#include "restore/user_namespaces.h"

namespace stasis::restore {

using kernel::SchedulingAttributes;
using remote::in_restartable_sleep;
using remote::Registers;
using remote::Stop;

namespace {

// With what new tasks are born, which is what most keep.
bool is_as_born(const schema::Thread& record) {
  static const SchedulingAttributes ours = [] {
    SchedulingAttributes attributes = {};
    if (::syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) != 0) attributes.policy = ~0U;
    return attributes;
  }();
  return ours.policy == SCHED_OTHER && record.policy() == SCHED_OTHER && ours.flags == 0 &&
         record.sched_flags() == 0 && record.nice() == ours.nice && record.utilization_max() == 0 &&
         record.runtime_ns() == ours.runtime_ns;
}

void set_scheduling(HostTid task, const schema::Thread& record) {
  pid_t host = task.value;
  if (record.io_priority() != 0) ::syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, host, record.io_priority());
  if (is_as_born(record)) return;
  SchedulingAttributes scheduling = {};
  scheduling.size = sizeof scheduling;
  scheduling.policy = static_cast<uint32_t>(record.policy());
  scheduling.flags = record.sched_flags();
  scheduling.nice = record.nice();
  scheduling.priority = record.priority();
  scheduling.runtime_ns = record.runtime_ns();
  scheduling.deadline_ns = record.deadline_ns();
  scheduling.period_ns = record.period_ns();
  if (record.utilization_max() != 0) {
    constexpr uint64_t kClamps = 0x60;  // SCHED_FLAG_UTIL_CLAMP
    scheduling.flags |= kClamps;
    scheduling.utilization_min = record.utilization_min() - 1;
    scheduling.utilization_max = record.utilization_max() - 1;
  }
  // Rights over scheduling are the host's: without them the program runs with what it may have.
  ::syscall(SYS_sched_setattr, host, &scheduling, 0);
  // Policies without a nice value keep one all the same, for when they are left.
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(host), record.nice());
}

struct Capabilities {
  uint64_t effective = 0, permitted = 0, inheritable = 0;
};

// Those with which the new processes were born.
Capabilities read_own_capabilities() {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (::syscall(SYS_capget, &header, data) != 0) return {};
  auto whole = [](uint32_t low, uint32_t high) { return uint64_t{high} << 32 | low; };
  return {whole(data[0].effective, data[1].effective), whole(data[0].permitted, data[1].permitted),
          whole(data[0].inheritable, data[1].inheritable)};
}

const Capabilities& own_capabilities() {
  static const Capabilities ours = read_own_capabilities();
  return ours;
}

// Those of whoever has just entered a user namespace.
Capabilities all_capabilities() {
  auto last = read_file("/proc/sys/kernel/cap_last_cap");
  const unsigned bits = last.ok() ? static_cast<unsigned>(std::atoi(last->c_str())) + 1 : CAP_LAST_CAP + 1;
  const uint64_t all = (uint64_t{1} << bits) - 1;
  return {all, all, 0};
}

size_t add_capset(remote::Batch& batch, const Capabilities& wanted) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  for (int half = 0; half < 2; ++half) {
    data[half].inheritable = static_cast<uint32_t>(wanted.inheritable >> (32 * half));
    data[half].permitted = static_cast<uint32_t>(wanted.permitted >> (32 * half));
    data[half].effective = static_cast<uint32_t>(wanted.effective >> (32 * half));
  }
  return batch.call(SYS_capset, {batch.put_object(header), batch.put_object(data)});
}

// Whether there is room in a thread's station for all that is to be done.
bool fits_station(const schema::Thread& thread) {
  constexpr int kMostGroups = 1000;
  return thread.pending().empty() && thread.credentials().groups_size() <= kMostGroups;
}

// Those that every task of the restart is born with.
const std::vector<gid_t>& own_groups() {
  static const std::vector<gid_t> groups = [] {
    std::vector<gid_t> result(static_cast<size_t>(std::max(getgroups(0, nullptr), 0)));
    const int count = getgroups(static_cast<int>(result.size()), result.data());
    result.resize(static_cast<size_t>(std::max(count, 0)));
    return result;
  }();
  return groups;
}

}  // namespace

Registers TaskBuilder::recorded_registers(const schema::Thread& thread) {
  Registers registers;
  std::memcpy(&registers, thread.registers().data(), sizeof registers);
  return registers;
}

void TaskBuilder::add_forgetting(Batch& batch) {
  uint64_t set = batch.put_object<uint64_t>(uint64_t{1} << (SIGCHLD - 1));
  uint64_t no_time = batch.put_object(timespec{});
  for (int i = 0; i < 2; ++i) batch.call(SYS_rt_sigtimedwait, {set, 0, no_time, 8});
}

Result<void> TaskBuilder::make_threads() {
  threads_.push_back({skeleton_, &process_.threads(0)});
  const int at_once = numbering_ ? 1 : 256;
  for (int first = 1; first < process_.threads_size(); first += at_once) {
    int last = std::min(first + at_once, process_.threads_size());
    Batch batch = skeleton_.batch();
    for (int i = first; i < last; ++i) {
      const auto& thread = process_.threads(i);
      CloneRequest request;
      request.flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
                      CLONE_PTRACE | CLONE_CHILD_CLEARTID;
      request.child_tid = thread.clear_tid_address();
      std::vector<int> levels = {thread.tid()};
      levels.insert(levels.end(), thread.inner_numbers().begin(), thread.inner_numbers().end());
      if (numbering_) {
        STASIS_TRY(levels, numbering_(levels));
        STASIS_CHECK(skeleton_.prepare());
      }
      add_clone(batch, request, levels);
    }
    STASIS_CHECK(skeleton_.run_checked(batch, "make threads"));
    std::vector<NsTid> expected;
    for (int i = first; i < last; ++i) expected.push_back(NsTid{process_.threads(i).tid()});
    STASIS_TRY(auto born, await_births(session_, expected));
    for (int i = first; i < last; ++i) {
      NsTid number{process_.threads(i).tid()};
      threads_.push_back({skeleton_.thread(born.at(number.value), number, own_number(process_.threads(i))),
                          &process_.threads(i)});
    }
  }
  STASIS_CHECK(install_filters());
  return set_threads();
}

Result<void> TaskBuilder::install_filters(ThreadState& thread, uint64_t flags) {
  STASIS_CHECK(thread.skeleton.prepare());
  for (uint32_t index : thread.record->filters()) {
    const auto& filter = manifest_.seccomp_filters(static_cast<int>(index));
    Batch batch = thread.skeleton.batch();
    sock_fprog program = {static_cast<unsigned short>(filter.code().size() / sizeof(sock_filter)),
                          reinterpret_cast<sock_filter*>(batch.put(filter.code()))};
    batch.call(SYS_seccomp, {SECCOMP_SET_MODE_FILTER, filter.flags() | flags, batch.put_object(program)});
    STASIS_CHECK(thread.skeleton.run_checked(batch, "install a seccomp filter"));
  }
  if (!thread.record->strict()) return {};
  Batch batch = thread.skeleton.batch();
  batch.call(SYS_prctl, {PR_SET_SECCOMP, SECCOMP_MODE_STRICT});
  return thread.skeleton.run_checked(batch, "enter seccomp's strict mode");
}

// Before rights are given up: who has not renounced new ones needs them. Threads that all have the same
// filters may have got them together, and then they can get more together.
Result<void> TaskBuilder::install_filters() {
  bool any = false, same = true;
  const auto& leader = threads_[threads_.front().record->ended() ? 1 : 0];
  for (const auto& thread : threads_) {
    const auto& filters = thread.record->filters();
    if (thread.record->ended()) continue;
    any = any || thread.record->strict() || !filters.empty();
    same = same && !thread.record->strict() &&
           std::equal(filters.begin(), filters.end(), leader.record->filters().begin(),
                      leader.record->filters().end());
  }
  if (!any) return {};
  for (const auto& thread : threads_) {
    if (thread.record->ended()) continue;
    auto suspended = thread.skeleton.task().set_options(PTRACE_O_EXITKILL | remote::kSuspendSeccomp);
    if (suspended.ok()) continue;
    Error error = std::move(suspended).error().within(
        fmt::format("restart: suspend the seccomp filters of {}", name()));
    error.hint = "only root, and not in a container with a filter of its own, can do that";
    return error;
  }
  constexpr uint64_t kTogether = SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
  if (same && !threads_.front().record->ended())
    return install_filters(threads_.front(), threads_.size() > 1 ? kTogether : 0);
  for (auto& thread : threads_) STASIS_CHECK(install_filters(thread, 0));
  return {};
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
                      STASIS_CHECK(join_control_groups(thread.skeleton.pid(), *thread.record));
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
  if (record.time_stamp_mode() != 0) batch.call(SYS_prctl, {PR_SET_TSC, record.time_stamp_mode()});
  if (record.machine_check_policy() != 0) {
    optional.push_back(batch.call(
        SYS_prctl, {PR_MCE_KILL, PR_MCE_KILL_SET, record.machine_check_policy() - uint64_t{1}, 0, 0}));
  }
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
    // Only a stopped task has it pending, which cannot block it: it comes last.
    if (number == SIGSTOP) continue;
    uint64_t info = batch.put(signal.info());
    // A task may send itself any siginfo; from outside the kernel would not let us fake the sender.
    if (shared) {
      batch.call(SYS_rt_sigqueueinfo,
                 {static_cast<uint64_t>(own_number(process_).value), static_cast<uint64_t>(number), info});
    } else {
      batch.call(SYS_rt_tgsigqueueinfo, {static_cast<uint64_t>(own_number(process_).value),
                                         static_cast<uint64_t>(own_number(*thread.record).value),
                                         static_cast<uint64_t>(number), info});
    }
  }
  if (batch.empty()) return {};
  return thread.skeleton.run_checked(batch, "queue signals");
}

void TaskBuilder::add_ids(Batch& batch, const schema::Credentials& wanted) {
  std::string groups;
  for (uint32_t group : wanted.groups()) groups.append(reinterpret_cast<const char*>(&group), sizeof group);
  // Who is root only of a user namespace may not set groups, not even those that it has.
  if (!std::equal(wanted.groups().begin(), wanted.groups().end(), own_groups().begin(), own_groups().end()))
    batch.call(SYS_setgroups, {static_cast<uint64_t>(wanted.groups_size()), batch.put(groups)});
  // Capabilities must outlive the change of user until they are set.
  batch.call(SYS_prctl, {PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP});
  batch.call(SYS_setresgid, {wanted.gids(0), wanted.gids(1), wanted.gids(2)});
  batch.call(SYS_setresuid, {wanted.uids(0), wanted.uids(1), wanted.uids(2)});
  batch.call(SYS_setfsgid, {wanted.gids(3)});
  batch.call(SYS_setfsuid, {wanted.uids(3)});
}

// An id that has no number in the namespace can only be one that it has from birth.
Result<void> TaskBuilder::add_ids_inside(Batch& batch, uint32_t users) const {
  const schema::Namespace* space = table_.namespaces().users(users);
  schema::Credentials inside = process_.threads(0).credentials();
  if (space == nullptr || inside.uids_size() != 4 || inside.gids_size() != 4) return {};
  bool ids_are_born = true;
  for (auto* ids : {inside.mutable_uids(), inside.mutable_gids()}) {
    const bool of_users = ids == inside.mutable_uids();
    const uint32_t born = of_users ? ::geteuid() : ::getegid();
    for (uint32_t& id : *ids) {
      const uint32_t number = id_inside(of_users ? space->users() : space->groups(), id);
      ids_are_born = ids_are_born && id == born;
      if (number == kNoId && id != born) {
        return Error{"restart: set the ids",
                     name(),
                     fmt::format("its user namespace does not map id {}", id),
                     {},
                     ErrorCode::kUnsupported};
      }
      id = number;
    }
  }
  if (ids_are_born) return {};
  // Groups that cannot be set are those of birth.
  if (space->setgroups_denied()) inside.clear_groups();
  for (uint32_t& group : *inside.mutable_groups()) group = id_inside(space->groups(), group);
  add_ids(batch, inside);
  return {};
}

Result<uint32_t> TaskBuilder::enter_users(uint32_t born_in) {
  uint32_t wanted = 0;
  for (uint32_t id : process_.namespaces()) {
    if (table_.namespaces().users(id) != nullptr) wanted = id;
  }
  if (wanted == 0) return 0;
  inner_users_ = true;
  STASIS_CHECK(skeleton_.prepare());
  Batch batch = skeleton_.batch();
  if (born_in != 0) {
    STASIS_CHECK(add_ids_inside(batch, born_in));
  } else if (!user_namespace_ && process_.threads(0).credentials().uids_size() == 4 &&
             process_.threads(0).credentials().gids_size() == 4) {
    add_ids(batch, process_.threads(0).credentials());
  }
  if (wanted != born_in)
    batch.call(SYS_setns, {static_cast<uint64_t>(table_.namespaces().descriptor(wanted)), CLONE_NEWUSER});
  // A change of rights hides it from those of its own user, which we may be.
  batch.call(SYS_prctl, {PR_SET_DUMPABLE, 1});
  STASIS_CHECK(skeleton_.run(batch));
  STASIS_CHECK(check_batch(batch, skeleton_.ns_pid(), "enter a user namespace", [&](size_t index, int) {
    return batch.number(index) == SYS_setgroups && born_in != 0;
  }));
  return wanted;
}

void TaskBuilder::add_credentials(Batch& batch, const ThreadState& thread, Optional& optional) const {
  const auto& wanted = thread.record->credentials();
  if (wanted.uids_size() != 4 || wanted.gids_size() != 4) return;
  if (!user_namespace_ && !inner_users_) add_ids(batch, wanted);
  // 1. What is not in the bounding set cannot become inheritable. 2. Ambient capabilities must be permitted
  // and inheritable, and securebits may forbid to raise them. 3. Securebits need a capability.
  // capabilities(7)
  const Capabilities ours = inner_users_ ? all_capabilities() : own_capabilities();
  if (wanted.inheritable() != 0 || wanted.ambient() != 0)
    optional.push_back(add_capset(batch, {ours.permitted, ours.permitted, wanted.inheritable()}));
  for (unsigned capability = 0; capability <= CAP_LAST_CAP; ++capability) {
    if ((wanted.bounding() >> capability & 1) == 0) {
      optional.push_back(batch.call(SYS_prctl, {PR_CAPBSET_DROP, capability}));
    }
    if ((wanted.ambient() >> capability & 1) != 0) {
      optional.push_back(batch.call(SYS_prctl, {PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0}));
    }
  }
  batch.call(SYS_prctl, {PR_SET_SECUREBITS, wanted.securebits()});
  add_capset(batch, {wanted.effective(), wanted.permitted(), wanted.inheritable()});
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
    if (thread.record->sleep_left_ns() >= 0 && !thread.record->ended() &&
        in_restartable_sleep(recorded_registers(*thread.record)))
      sleepers.push_back(&thread);
  }
  if (sleepers.empty()) return {};
  const remote::Stations stations = area_.stations(skeleton_.executor());
  for (std::span<ThreadState*> rest = sleepers; !rest.empty();) {
    const auto group = rest.first(std::min(rest.size(), stations.size()));
    STASIS_CHECK(begin_sleeps(group, stations));
    for (size_t i = 0; i < group.size(); ++i) STASIS_CHECK(interrupt_sleep(*group[i], stations.at(i)));
    rest = rest.subspan(group.size());
  }
  return {};
}

Result<void> TaskBuilder::begin_sleeps(std::span<ThreadState* const> threads,
                                       const remote::Stations& stations) {
  remote::Transfer code, calls;
  std::vector<Batch> batches;
  for (size_t i = 0; i < threads.size(); ++i) {
    auto& batch = batches.emplace_back(stations.at(i).scratch());
    add_sleep(batch, *threads[i]->record);
    const auto& context = threads[i]->skeleton.context();
    STASIS_CHECK(stations.at(i).prepare(skeleton_.pid(), context, batch, code, calls));
  }
  STASIS_CHECK(stations.at(0).write_code(skeleton_.pid(), code));
  STASIS_CHECK(calls.write(skeleton_.pid()));
  for (size_t i = 0; i < threads.size(); ++i) {
    if (batches[i].empty()) continue;
    ThreadState& thread = *threads[i];
    thread.deadline_ns = monotonic_ns() + time_to_sleep(*thread.record);
    STASIS_CHECK(stations.at(i).enter(thread.skeleton.task(), thread.skeleton.context(), batches[i]));
  }
  return {};
}

int64_t TaskBuilder::time_to_sleep(const schema::Thread& thread) {
  return std::max<int64_t>(thread.sleep_left_ns(), 1000);
}

// Nothing for calls that cannot be begun anew.
void TaskBuilder::add_sleep(Batch& batch, const schema::Thread& thread) {
  Registers registers = recorded_registers(thread);
  int64_t left = time_to_sleep(thread);
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
      break;
  }
}

Result<void> TaskBuilder::interrupt_sleep(ThreadState& thread, const remote::Executor& executor) {
  if (thread.deadline_ns == 0) return {};
  const uint64_t number = recorded_registers(*thread.record).orig_rax;
  remote::Tracee task = thread.skeleton.task();
  for (int attempt = 0; attempt < 1000; ++attempt) {
    STASIS_CHECK(task.interrupt());
    STASIS_TRY(auto stop, task.wait());
    // The second when job control has stopped it.
    if (stop->kind == Stop::Kind::kInterrupt || stop->kind == Stop::Kind::kGroup) {
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

}  // namespace stasis::restore

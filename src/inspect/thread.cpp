#include "inspect/thread.h"

#include <linux/ioprio.h>
#include <linux/rseq.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "kernel/affinity.h"
#include "kernel/proc.h"
#include "kernel/scheduling.h"
#include "kernel/vdso.h"

namespace stasis::inspect {

using remote::Batch;

using kernel::SchedulingAttributes;

namespace {

constexpr size_t kAffinityRoom = 1024;

void take_scheduling(const SchedulingAttributes& attributes, schema::Thread& out) {
  out.set_policy(static_cast<int32_t>(attributes.policy));
  out.set_nice(attributes.nice);
  out.set_priority(attributes.priority);
  out.set_sched_flags(attributes.flags);
  out.set_runtime_ns(attributes.runtime_ns);
  out.set_deadline_ns(attributes.deadline_ns);
  out.set_period_ns(attributes.period_ns);
  // What was not clamped is shown as the whole range.
  constexpr uint32_t kWhole = 1024;
  if (attributes.utilization_min != 0 ||
      (attributes.utilization_max != kWhole && attributes.utilization_max != 0)) {
    out.set_utilization_min(attributes.utilization_min + 1);
    out.set_utilization_max(attributes.utilization_max + 1);
  }
}

}  // namespace

void ThreadQuestions::add(Batch& batch, HostTid tid, const remote::TaskContext& context) {
  attributes_ = batch.reserve(sizeof(SchedulingAttributes));
  scheduling_ = batch.call(SYS_sched_getattr, {0, attributes_, sizeof(SchedulingAttributes), 0});
  affinity_ = batch.reserve(kAffinityRoom);
  processors_ = batch.call(SYS_sched_getaffinity, {0, kAffinityRoom, affinity_});
  io_priority_ = batch.call(SYS_ioprio_get, {IOPRIO_WHO_PROCESS, 0});
  robust_list_ = batch.reserve(2 * sizeof(uint64_t));
  robust_ = batch.call(SYS_get_robust_list, {0, robust_list_, robust_list_ + sizeof(uint64_t)});
  altstack_ = batch.reserve(sizeof(stack_t));
  batch.call(SYS_sigaltstack, {0, altstack_});
  tid_address_ = batch.reserve(sizeof(uint64_t));
  batch.call(SYS_prctl, {PR_GET_TID_ADDRESS, tid_address_});
  death_signal_ = batch.reserve(sizeof(int));
  batch.call(SYS_prctl, {PR_GET_PDEATHSIG, death_signal_});
  slack_ = batch.call(SYS_prctl, {PR_GET_TIMERSLACK});
  securebits_ = batch.call(SYS_prctl, {PR_GET_SECUREBITS});
  time_stamp_ = batch.reserve(sizeof(int));
  batch.call(SYS_prctl, {PR_GET_TSC, time_stamp_});
  machine_check_ = batch.call(SYS_prctl, {PR_MCE_KILL_GET, 0, 0, 0, 0});
  // Last, since it takes what room there is.
  rseq_ = remote::registered_rseq(tid);
  if (!rseq_) rseq_questions_.add(batch, remote::possible_rseq_areas(tid, context.registers.fs_base));
}

Result<void> ThreadQuestions::take(const Batch& batch, schema::Thread& out) const {
  const auto rseq = rseq_ ? rseq_ : rseq_questions_.take(batch);
  if (!rseq) {
    return Error{"save", fmt::format("task {} ({})", out.tid(), out.name()),
                 "it has registered an area for restartable sequences (rseq) at an unusual place",
                 "before Linux 5.13 only those of C libraries are found", ErrorCode::kRefused};
  }
  out.set_rseq_address(rseq->address);
  out.set_rseq_size(rseq->size);
  out.set_rseq_signature(rseq->signature);
  if (batch.result(scheduling_) == 0) take_scheduling(batch.output<SchedulingAttributes>(attributes_), out);
  if (const int64_t size = batch.result(processors_); size > 0) {
    const auto mask = batch.output<std::array<char, kAffinityRoom>>(affinity_);
    out.set_affinity(mask.data(), static_cast<size_t>(size));
  }
  if (const int64_t io = batch.result(io_priority_); io > 0) out.set_io_priority(static_cast<uint32_t>(io));
  if (batch.result(robust_) == 0) {
    out.set_robust_list(batch.output<uint64_t>(robust_list_));
    out.set_robust_list_size(batch.output<uint64_t>(robust_list_ + sizeof(uint64_t)));
  }
  auto stack = batch.output<stack_t>(altstack_);
  out.set_altstack_base(reinterpret_cast<uint64_t>(stack.ss_sp));
  // SS_ONSTACK is the kernel's remark about the stack pointer at this moment, not a setting.
  out.set_altstack_flags(static_cast<uint32_t>(stack.ss_flags & ~SS_ONSTACK));
  out.set_altstack_size(stack.ss_size);
  out.set_clear_tid_address(batch.output<uint64_t>(tid_address_));
  out.set_parent_death_signal(static_cast<uint32_t>(batch.output<int>(death_signal_)));
  out.set_timer_slack_ns(static_cast<uint64_t>(batch.result(slack_)));
  out.mutable_credentials()->set_securebits(static_cast<uint32_t>(batch.result(securebits_)));
  if (const int mode = batch.output<int>(time_stamp_); mode != PR_TSC_ENABLE)
    out.set_time_stamp_mode(static_cast<uint32_t>(mode));
  int64_t machine_check = batch.result(machine_check_);
  if (machine_check == PR_MCE_KILL_LATE || machine_check == PR_MCE_KILL_EARLY)
    out.set_machine_check_policy(static_cast<uint32_t>(machine_check + 1));
  return {};
}

void observe_credentials(const kernel::TaskStatus& status, schema::Credentials& out) {
  for (uint32_t id : status.uids) out.add_uids(id);
  for (uint32_t id : status.gids) out.add_gids(id);
  for (uint32_t id : status.groups) out.add_groups(id);
  out.set_inheritable(status.cap_inheritable);
  out.set_permitted(status.cap_permitted);
  out.set_effective(status.cap_effective);
  out.set_bounding(status.cap_bounding);
  out.set_ambient(status.cap_ambient);
  out.set_no_new_privs(status.no_new_privs);
}

void add_taken_stop(uint64_t pending, std::vector<std::string>& signals) {
  siginfo_t stop = {};
  stop.si_signo = SIGSTOP;
  const auto is_stop = [](const std::string& info) {
    int number = 0;
    std::memcpy(&number, info.data(), std::min(info.size(), sizeof number));
    return number == SIGSTOP;
  };
  if ((pending >> (SIGSTOP - 1) & 1) == 0 || std::any_of(signals.begin(), signals.end(), is_stop)) return;
  signals.emplace_back(reinterpret_cast<const char*>(&stop), sizeof stop);
}

Result<void> observe_thread(const freeze::FrozenThread& thread, const remote::TaskContext& context,
                            schema::Thread& out) {
  remote::Tracee task(thread.tid);
  out.set_tid(thread.ns_tid.value);
  out.set_registers(std::string(reinterpret_cast<const char*>(&context.registers), sizeof context.registers));
  STASIS_TRY(std::string extended, task.extended_state());
  out.set_extended_state(std::move(extended));
  out.set_signal_mask(context.mask);
  if (thread.status.pending != 0) {
    STASIS_TRY(auto pending, task.pending_signals(false));
    add_taken_stop(thread.status.pending, pending);
    for (auto& info : pending) out.add_pending()->set_info(std::move(info));
  }
  std::string name = thread.status.name;
  if (name.find('\\') != std::string::npos) {  // escaped there
    STASIS_TRY(name, kernel::read_proc_record(thread.tid, "comm"));
    if (!name.empty() && name.back() == '\n') name.pop_back();
  }
  out.set_name(name);
  observe_credentials(thread.status, *out.mutable_credentials());
  out.set_sleep_left_ns(thread.deadline_ns ? std::max<int64_t>(*thread.deadline_ns - monotonic_ns(), 0) : -1);
  return {};
}

Result<void> check_scheduling(const freeze::FrozenThread& thread, bool forks, schema::Thread& out) {
  constexpr int kDeadline = 6;  // SCHED_DEADLINE
  constexpr uint64_t kResetOnFork = 1;
  if (out.policy() == kDeadline && forks && (out.sched_flags() & kResetOnFork) == 0) {
    return Error{
        "save", fmt::format("task {} ({})", thread.ns_tid, thread.status.name),
        "it is scheduled by deadlines (SCHED_DEADLINE), and then it cannot fork, as a checkpoint does",
        "let it set SCHED_FLAG_RESET_ON_FORK", ErrorCode::kRefused};
  }
  // A real-time task has a nice value, too, which the kernel tells elsewhere.
  const bool fair = out.policy() == SCHED_OTHER || out.policy() == SCHED_BATCH;
  if (!fair) out.set_nice(::getpriority(PRIO_PROCESS, static_cast<id_t>(thread.tid.value)));
  return {};
}

namespace {

// Where the vDSO begins in a task that is inside of it. By its beginning, which is the same in all processes:
// it would take long to read their mappings where there are many.
std::optional<uint64_t> find_vdso(HostTid tid, uint64_t inside, std::string_view vdso) {
  std::array<char, 1024> head;
  for (uint64_t start = inside - inside % kPageSize, i = 0; i < vdso.size() / kPageSize;
       ++i, start -= kPageSize) {
    if (remote::read_memory(tid, RemotePtr{start}, head).ok() &&
        vdso.starts_with(std::string_view(head.data(), head.size())))
      return start;
  }
  return std::nullopt;
}

}  // namespace

Result<void> leave_vdso(HostTid tid, const kernel::TaskStatus& thread, const kernel::TaskStatus& process,
                        uint64_t mask, remote::Registers& registers) {
  constexpr int kMostSteps = 2000;
  constexpr uint64_t kTrap = uint64_t{1} << (SIGTRAP - 1);
  if (static_cast<int64_t>(registers.orig_rax) >= 0) return {};
  const uint64_t pending = thread.pending | process.shared_pending;
  if (((mask | process.ignored) & kTrap) != 0 || (pending & ~mask) != 0) return {};
  const std::string_view vdso = kernel::own_vdso();
  const auto start = find_vdso(tid, registers.rip, vdso);
  if (!start) return {};
  const remote::Tracee task(tid);
  int signal = 0;  // one that has come meanwhile is delivered, as it would be without us
  for (int step = 0; signal != 0 || (step < kMostSteps && registers.rip - *start < vdso.size()); ++step) {
    STASIS_CHECK(task.step_block(std::exchange(signal, 0)));
    STASIS_TRY(const auto stop, task.wait());
    if (stop->kind == remote::Stop::Kind::kExited)
      return Error{"save", fmt::format("task {}", tid), "it has ended", {}};
    STASIS_TRY(registers, task.registers());
    if (stop->kind == remote::Stop::Kind::kGroup) break;
    if (stop->kind == remote::Stop::Kind::kSignal && stop->signal != SIGTRAP) signal = stop->signal;
  }
  return {};
}

Result<void> leave_restartable_sequence(HostTid tid, remote::Registers& registers) {
  // Inside a system call it is in no sequence: the kernel kills programs that call it from one.
  if (static_cast<int64_t>(registers.orig_rax) >= 0) return {};
  std::vector<uint64_t> areas;
  if (auto told = remote::registered_rseq(tid); !told) {
    areas = remote::possible_rseq_areas(tid, registers.fs_base);
  } else if (told->address != 0) {
    areas = {told->address};
  }
  for (uint64_t area : areas) {
    STASIS_TRY(uint64_t descriptor,
               remote::read_object<uint64_t>(tid, RemotePtr{area + offsetof(struct rseq, rseq_cs)}));
    if (descriptor == 0) continue;
    auto sequence = remote::read_object<rseq_cs>(tid, RemotePtr{descriptor});
    if (!sequence.ok()) continue;  // the kernel would kill it for that; not our business
    if (registers.rip - sequence->start_ip < sequence->post_commit_offset) {
      registers.rip = sequence->abort_ip;
      break;
    }
  }
  return {};
}

}  // namespace stasis::inspect

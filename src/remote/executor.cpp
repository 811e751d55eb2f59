#include "remote/executor.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <bit>
#include <csignal>
#include <cstddef>
#include <cstring>

#include "kernel/proc.h"
#include "remote/stub.h"

namespace stasis::remote {

namespace {

// The data at the end of stub.S.
struct StubContext {
  uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip;
  uint64_t mask;
  uint64_t scratch, scratch_size;
  uint64_t undo_calls, undo_count;
  uint32_t tgid, tid, signal;
  uint8_t overflow, low_flags, direction, padding;
  uint64_t host_task;
  uint64_t first_call[8];
};
static_assert(sizeof(StubContext) == 8 * 21 + 16 + 8 + 64);

constexpr uint64_t signal_bit(int signal) { return uint64_t{1} << (signal - 1); }

// Lets a task run on in the stub.
Result<void> proceed(const Tracee& task, const TaskContext& context) {
  return context.report_signal != 0 ? task.resume() : task.resume_to_system_call();
}

}  // namespace

uint64_t stub_size() {
  return (static_cast<uint64_t>(stasis_stub_end - stasis_stub_begin) + 15) & ~uint64_t{15};
}

int choose_report_signal(uint64_t ignored, uint64_t caught, uint64_t pending) {
  for (int signal : {SIGURG, SIGWINCH, SIGCHLD}) {
    // With SIGCHLD ignored explicitly children are reaped by themselves; the signal itself is as good as any.
    if ((caught & signal_bit(signal)) == 0 && (pending & signal_bit(signal)) == 0) return signal;
  }
  for (int signal = 1; signal <= 64; ++signal) {
    bool usable = signal != SIGKILL && signal != SIGSTOP && signal != SIGCONT && signal != SIGTRAP;
    if (usable && (ignored & signal_bit(signal)) != 0 && (pending & signal_bit(signal)) == 0) return signal;
  }
  return 0;
}

Registers restarted(Registers registers) {
  constexpr int64_t kRestartSys = -512;
  constexpr int64_t kRestartNoIntr = -513;
  constexpr int64_t kRestartNoHand = -514;
  constexpr int64_t kRestartBlock = -516;
  if (static_cast<int64_t>(registers.orig_rax) < 0) return registers;
  switch (static_cast<int64_t>(registers.rax)) {
    case kRestartSys:
    case kRestartNoIntr:
    case kRestartNoHand:
      registers.rax = registers.orig_rax;
      registers.rip -= 2;
      break;
    case kRestartBlock:
      registers.rax = SYS_restart_syscall;
      registers.rip -= 2;
      break;
    default:
      break;
  }
  registers.orig_rax = ~uint64_t{0};
  return registers;
}

Result<int> Executor::open_memory(HostTid task) const {
  if (!memory_ || memory_->task != task) {
    STASIS_TRY(Fd opened, kernel::open_proc(task, "mem", O_RDWR));
    memory_ = std::make_shared<OpenMemory>(OpenMemory{task, std::move(opened)});
  }
  return memory_->fd.get();
}

Result<void> Executor::write_code(HostTid process, const Transfer& code) const {
  if (code_is_writable_) return code.write(process);
  STASIS_TRY(int memory, open_memory(process));
  return code.write(process, memory);
}

Result<void> Executor::write_stub(HostTid task, RemotePtr address, std::string_view bytes) const {
  if (code_is_writable_) return write_memory(task, address, bytes);
  STASIS_TRY(int memory, open_memory(task));
  auto written = pwrite_all(memory, bytes, static_cast<off_t>(address.value));
  if (!written.ok()) {
    Error error = std::move(written).error().within(
        fmt::format("write code into task {} at {:#x}", task, address.value));
    if (auto status = kernel::read_status(task); !status.ok() || status->state == 'Z' || status->state == 'X')
      error.code = ErrorCode::kTaskGone;
    return error;
  }
  return {};
}

namespace {

std::string make_stub(HostTid task, const TaskContext& context, const Scratch& scratch,
                      const Executor::Unwind& unwind, const std::array<uint64_t, 8>& first_call) {
  Registers back = restarted(context.registers);
  StubContext data = {};
  data.rax = back.rax;
  data.rbx = back.rbx;
  data.rcx = back.rcx;
  data.rdx = back.rdx;
  data.rsi = back.rsi;
  data.rdi = back.rdi;
  data.rbp = back.rbp;
  data.r8 = back.r8;
  data.r9 = back.r9;
  data.r10 = back.r10;
  data.r11 = back.r11;
  data.r12 = back.r12;
  data.r13 = back.r13;
  data.r14 = back.r14;
  data.r15 = back.r15;
  data.rip = back.rip;
  data.mask = context.mask;
  data.scratch = unwind.unmap_scratch ? scratch.address.value : 0;
  data.scratch_size = unwind.unmap_scratch ? scratch.size : 0;
  data.undo_calls = unwind.undo_calls.value;
  data.undo_count = unwind.undo_count;
  data.host_task = static_cast<uint64_t>(task.value);
  data.tgid = static_cast<uint32_t>(context.tgid.value);
  data.tid = static_cast<uint32_t>(context.tid.value);
  data.signal = static_cast<uint32_t>(context.report_signal);
  data.overflow = (back.eflags >> 11) & 1;
  data.low_flags = back.eflags & 0xff;
  data.direction = (back.eflags >> 10) & 1;
  std::copy(first_call.begin(), first_call.end(), data.first_call);

  std::string stub(stasis_stub_begin, stasis_stub_end);
  std::memcpy(stub.data() + (stasis_stub_context - stasis_stub_begin), &data, sizeof data);
  return stub;
}

}  // namespace

Result<void> Executor::install(HostTid task, const TaskContext& context, const Unwind& unwind) const {
  return write_stub(task, code_, make_stub(task, context, scratch_, unwind, {}));
}

Result<void> Executor::erase(HostTid task, uint64_t size) const {
  return write_stub(task, code_, std::string(size, '\0'));
}

bool Executor::is_installed_for(HostTid task, HostTid owner) const {
  std::string stub(stub_size(), '\0');
  size_t code = static_cast<size_t>(stasis_stub_context - stasis_stub_begin);
  if (!read_memory(task, code_, stub).ok() || !stub.starts_with(std::string_view(stasis_stub_begin, code)))
    return false;
  StubContext data;
  std::memcpy(&data, stub.data() + code, sizeof data);
  return data.host_task == static_cast<uint64_t>(owner.value);
}

Result<void> Executor::enter(const Tracee& task, const TaskContext& context, uint64_t calls, uint64_t count,
                             Results results) const {
  Registers registers = context.registers;
  registers.rip = code_.value;
  registers.orig_rax = ~uint64_t{0};  // no system call to restart
  registers.rax = 0;
  registers.r12 = calls;
  registers.r13 = count;
  registers.r14 = ~uint64_t{0};
  registers.rbx = results == Results::kStored ? 1 : 0;
  registers.eflags &= ~uint64_t{0x100};  // a program that single-steps itself must not trap in the stub
  // Registers first: from here on the task unwinds by itself, and only then may its signal mask differ.
  STASIS_CHECK(task.set_registers(registers));
  uint64_t heard = context.report_signal != 0 ? signal_bit(context.report_signal) : 0;
  STASIS_CHECK(task.set_signal_mask(~heard));
  return proceed(task, context);
}

Result<void> Executor::check_size(HostTid task, const Batch& batch) const {
  if (batch.calls_.size() > scratch_.max_calls || scratch_.data_offset() + batch.data_.size() > scratch_.size)
    return Error{"run system calls remotely", fmt::format("task {}", task), "the batch is too large", {}};
  return {};
}

Result<void> Executor::prepare(HostTid process, const TaskContext& context, Batch& batch, Transfer& code,
                               Transfer& calls) const {
  STASIS_CHECK(check_size(process, batch));
  std::string stub = make_stub(process, context, scratch_, {.unmap_scratch = false}, {});
  stub.resize(stub_size());
  code.put(code_, std::move(stub));
  batch.expect_results();
  calls.put(scratch_.address, std::string_view(reinterpret_cast<const char*>(batch.calls_.data()),
                                               batch.calls_.size() * Batch::kCallSize));
  if (batch.has_input_)
    calls.put(scratch_.address + scratch_.data_offset(),
              std::string_view(batch.data_.data(), batch.data_.size()));
  return {};
}

Result<void> Executor::enter(const Tracee& task, const TaskContext& context, const Batch& batch) const {
  return enter(task, context, scratch_.address.value, batch.calls_.size(), Results::kStored);
}

Result<void> Executor::await_signal(const Tracee& task, const TaskContext& context) const {
  for (;;) {
    STASIS_TRY(auto stop, task.wait());
    const bool signalled = context.report_signal != 0 && stop->kind == Stop::Kind::kSignal &&
                           stop->signal == context.report_signal;
    if (signalled) return {};
    STASIS_TRY(auto report, handle(task, context, *stop));
    if (report) return {};
  }
}

void Executor::add_results(Batch& batch, Transfer& in) const {
  in.get(scratch_.address,
         {reinterpret_cast<char*>(batch.calls_.data()), batch.calls_.size() * Batch::kCallSize});
  in.get(scratch_.address + scratch_.data_offset(), {batch.data_.data(), batch.data_.size()});
}

Result<void> Executor::go_on(const Tracee& task, const TaskContext& context) const {
  return proceed(task, context);
}

Result<void> Executor::start(const Tracee& task, const TaskContext& context, const Batch& batch) const {
  STASIS_CHECK(check_size(task.tid(), batch));
  STASIS_CHECK(write_memory(
      task.tid(), scratch_.address,
      {reinterpret_cast<const char*>(batch.calls_.data()), batch.calls_.size() * Batch::kCallSize}));
  if (batch.has_input_) {
    STASIS_CHECK(write_memory(task.tid(), scratch_.address + scratch_.data_offset(),
                              {batch.data_.data(), batch.data_.size()}));
  }
  return enter(task, context, scratch_.address.value, batch.calls_.size(), Results::kStored);
}

Result<std::optional<Registers>> Executor::read_report(const Tracee& task, const TaskContext& context,
                                                       const Stop& stop) const {
  std::optional<Registers> none;
  const bool by_call = context.report_signal == 0;
  if (stop.kind != Stop::Kind::kSignal || stop.signal != (by_call ? SIGTRAP : context.report_signal))
    return none;
  // The same signal sent by somebody else is one that the program ignores: dropping it is what would happen
  // to it. It could come anywhere; ours comes behind the call that sends it.
  STASIS_TRY(Registers now, task.registers());
  if (now.rip != code_.value + static_cast<uint64_t>(stasis_stub_reported - stasis_stub_begin)) return none;
  // A system call stops twice, before and after it; until it has been made, its result is ENOSYS.
  if (by_call && now.rax != 0) return none;
  return std::optional(now);
}

Result<bool> Executor::advance(const Tracee& task, const TaskContext& context, const Stop& stop) const {
  STASIS_TRY(auto report, handle(task, context, stop));
  return report.has_value();
}

Result<std::optional<Registers>> Executor::handle(const Tracee& task, const TaskContext& context,
                                                  const Stop& stop) const {
  if (stop.kind == Stop::Kind::kExited) {
    return Error{"run system calls remotely", fmt::format("task {}", task.tid()), "the task ended",
                 "try again", ErrorCode::kTaskGone};
  }
  STASIS_TRY(auto report, read_report(task, context, stop));
  if (report) return report;
  int expected = context.report_signal != 0 ? context.report_signal : SIGTRAP;
  if (stop.kind == Stop::Kind::kSignal && stop.signal == SIGSTOP) {
    // It cannot be blocked. Job control stops the task, or has stopped it already, as soon as it is let go;
    // until then that is one more stop of many.
    STASIS_CHECK(task.resume(SIGSTOP));
    return report;
  }
  if (stop.kind == Stop::Kind::kSignal && stop.signal != expected) {
    // Only faults get here: everything else is blocked.
    STASIS_TRY(Registers now, task.registers());
    return Error{"run system calls remotely",
                 fmt::format("task {}", task.tid()),
                 fmt::format("signal {} at {:#x} (stub at {:#x})", stop.signal, now.rip, code_.value),
                 {}};
  }
  STASIS_CHECK(proceed(task, context));
  return report;
}

Result<Registers> Executor::await_report(const Tracee& task, const TaskContext& context) const {
  for (;;) {
    // No time limit: a page being written to a slow disk may take its time, and everything else returns at
    // once.
    STASIS_TRY(auto stop, task.wait());
    STASIS_TRY(auto report, handle(task, context, *stop));
    if (report) return *report;
  }
}

Result<void> Executor::fetch(HostTid task, Batch& batch) const {
  size_t calls_size = batch.calls_.size() * Batch::kCallSize;
  std::array<iovec, 2> local = {
      {{batch.calls_.data(), calls_size}, {batch.data_.data(), batch.data_.size()}}};
  std::array<iovec, 2> remote = {
      {{reinterpret_cast<void*>(scratch_.address.value), calls_size},
       {reinterpret_cast<void*>(scratch_.address.value + scratch_.data_offset()), batch.data_.size()}}};
  ssize_t count = ::process_vm_readv(task.value, local.data(), local.size(), remote.data(), remote.size(), 0);
  if (count != static_cast<ssize_t>(calls_size + batch.data_.size()))
    return errno_error("read results", fmt::format("task {}", task), count < 0 ? errno : EFAULT);
  return {};
}

Result<void> Executor::finish(const Tracee& task, const TaskContext& context, Batch& batch) const {
  STASIS_CHECK(await_report(task, context));
  return fetch(task.tid(), batch);
}

Result<void> Executor::run(const Tracee& task, const TaskContext& context, Batch& batch) const {
  if (batch.empty()) return {};
  STASIS_CHECK(start(task, context, batch));
  return finish(task, context, batch);
}

Result<void> Executor::start_single(const Tracee& task, const TaskContext& context, const Unwind& unwind,
                                    long number, std::initializer_list<uint64_t> arguments) const {
  std::array<uint64_t, 8> call = {static_cast<uint64_t>(number)};
  size_t position = 1;
  for (uint64_t argument : arguments) call[position++] = argument;
  RemotePtr slot = code_ + static_cast<uint64_t>(stasis_stub_context - stasis_stub_begin) +
                   offsetof(StubContext, first_call);
  STASIS_CHECK(write_stub(task.tid(), code_, make_stub(task.tid(), context, scratch_, unwind, call)));
  return enter(task, context, slot.value, 1, Results::kInRegister);
}

Result<int64_t> Executor::finish_single(const Tracee& task, const TaskContext& context) const {
  STASIS_TRY(Registers after, await_report(task, context));
  return static_cast<int64_t>(after.r14);
}

Result<int64_t> Executor::run_single(const Tracee& task, const TaskContext& context, const Unwind& unwind,
                                     long number, std::initializer_list<uint64_t> arguments) const {
  STASIS_CHECK(start_single(task, context, unwind, number, arguments));
  return finish_single(task, context);
}

}  // namespace stasis::remote

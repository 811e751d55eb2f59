#include "remote/foothold.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstring>

#include "kernel/affinity.h"
#include "remote/stub.h"

namespace stasis::remote {

namespace {

// An odd size, so that an area that was left behind can be told from the program's own memory together with
// kMagic.
constexpr uint64_t kScratchSize = 37 * kPageSize;
constexpr std::string_view kMagic = "stasis scratch area, safe to unmap";
constexpr uint64_t kMagicOffset = kScratchSize - 64;
// A call to undo a thread's move to our processor, and the mask for it; then the leader's.
constexpr uint64_t kAffinitySize = 1024;
constexpr uint64_t kThreadUndoOffset = kMagicOffset - 2 * kAffinitySize - Batch::kCallSize;
constexpr uint64_t kThreadMaskOffset = kThreadUndoOffset + Batch::kCallSize;
constexpr uint64_t kLeaderMaskOffset = kThreadMaskOffset + kAffinitySize;
constexpr uint64_t kUndoOffset = kThreadUndoOffset - (Foothold::kMaxUndoCalls + 1) * Batch::kCallSize;
// Batches may use everything before that.
constexpr uint64_t kUsable = kUndoOffset;

Error refuse(HostTid task, std::string cause, std::string hint) {
  return Error{"enter the program", fmt::format("task {}", task), std::move(cause), std::move(hint),
               ErrorCode::kRefused};
}

// True when the bytes are padding, or a stub that somebody left who died before he could clean up.
bool is_free(std::string_view bytes) {
  size_t code = static_cast<size_t>(stasis_stub_context - stasis_stub_begin);
  std::string_view stub(stasis_stub_begin, code);
  for (size_t start = 0; start < bytes.size(); start += stub_size()) {
    std::string_view slot = bytes.substr(start, stub_size());
    bool zero = std::all_of(slot.begin(), slot.end(), [](char byte) { return byte == 0; });
    if (!zero && !slot.starts_with(stub)) return false;
  }
  return true;
}

}  // namespace

Result<RemotePtr> find_cave(HostTid task, std::span<const kernel::MapsEntry> maps, uint64_t size) {
  auto usable = [&](const kernel::MapsEntry& entry) -> std::optional<RemotePtr> {
    if ((entry.protection & PROT_EXEC) == 0 || entry.shared || entry.name == "[vsyscall]")
      return std::nullopt;
    RemotePtr address{(entry.end - size) & ~uint64_t{15}};
    std::string content(entry.end - address.value, '\0');
    if (!read_memory(task, address, content).ok()) return std::nullopt;
    if (!is_free(std::string_view(content).substr(0, size))) return std::nullopt;
    return address;
  };
  // The vDSO first: it is never a file, so nothing else of the program changes.
  for (const auto& entry : maps) {
    if (entry.name != "[vdso]") continue;
    if (auto address = usable(entry)) return *address;
  }
  for (const auto& entry : maps) {
    if (auto address = usable(entry)) return *address;
  }
  return refuse(task, "no room for a few hundred bytes of code in its executable mappings", {});
}

Result<std::unique_ptr<Foothold>> Foothold::establish(HostTid leader, const TaskContext& context,
                                                      std::span<const kernel::MapsEntry> maps,
                                                      bool many_threads) {
  std::unique_ptr<Foothold> foothold(new Foothold(leader, context));
  uint64_t size = stub_size();
  STASIS_TRY(RemotePtr cave, find_cave(leader, maps, 2 * size));
  uint64_t program_counter = context.registers.rip;
  if (program_counter >= cave.value && program_counter < cave.value + 2 * size) {
    return Error{"enter the program", fmt::format("task {}", leader),
                 "it is still leaving an interrupted checkpoint", "try again", ErrorCode::kBusy};
  }
  foothold->leader_executor_ = Executor(cave, {{0}, kScratchSize});
  foothold->thread_executor_ = Executor(cave + size, {});
  STASIS_CHECK(foothold->map_leader_area());
  STASIS_CHECK(foothold->share_processor());
  if (many_threads) STASIS_CHECK(foothold->map_thread_area());

  // Areas that somebody left behind who was killed between two steps.
  Batch batch(foothold->scratch());
  for (const auto& entry : maps) {
    if (!entry.shared || entry.end - entry.start != kScratchSize || !entry.name.starts_with("/dev/zero"))
      continue;
    std::string magic(kMagic.size(), '\0');
    if (read_memory(leader, RemotePtr{entry.start + kMagicOffset}, magic).ok() && magic == kMagic) {
      batch.call(SYS_munmap, {entry.start, kScratchSize});
      foothold->cleared_.insert(entry.start);
    }
  }
  STASIS_CHECK(foothold->run(batch));
  return foothold;
}

namespace {

constexpr uint64_t kAreaProtection = PROT_READ | PROT_WRITE;
// Shared, so that it never merges with memory of the program; a snapshot child may use the same pages, since
// the program itself has let go of them by then.
constexpr uint64_t kAreaFlags = MAP_SHARED | MAP_ANONYMOUS;

}  // namespace

Result<void> Foothold::map_leader_area() {
  parked_ = true;
  STASIS_TRY(int64_t address,
             leader_executor_.run_single(leader_, context_, {}, SYS_mmap,
                                         {0, kScratchSize, kAreaProtection, kAreaFlags, ~uint64_t{0}, 0}));
  if (address < 0 && address > -4096) {
    return Error{"enter the program", fmt::format("task {}", leader_.tid()),
                 fmt::format("no memory for a scratch area: {}", std::strerror(static_cast<int>(-address))),
                 address == -EAGAIN
                     ? "it locks all its memory (mlockall), and its limit on locked memory is exhausted"
                     : "its address space limit or the number of its mappings is exhausted",
                 ErrorCode::kRefused};
  }
  RemotePtr area{static_cast<uint64_t>(address)};
  leader_executor_.set_scratch({area, kUsable});
  // unmap_scratch unmaps the whole area: the size is rounded up to pages.
  STASIS_CHECK(leader_executor_.install(leader_.tid(), context_, {}));
  return write_memory(leader_.tid(), area + kMagicOffset, kMagic);
}

Result<void> Foothold::map_thread_area() {
  Batch batch(scratch());
  size_t mapped = batch.call(SYS_mmap, {0, kScratchSize, kAreaProtection, kAreaFlags, ~uint64_t{0}, 0});
  STASIS_CHECK(run(batch));
  if (batch.result(mapped) < 0) {
    return errno_error("map a scratch area", fmt::format("task {}", leader_.tid()),
                       static_cast<int>(-batch.result(mapped)));
  }
  RemotePtr second{static_cast<uint64_t>(batch.result(mapped))};
  STASIS_CHECK(write_memory(leader_.tid(), second + kMagicOffset, kMagic));
  thread_executor_.set_scratch({second, kUsable});
  return {};
}

// First the way back, for the case of our death, then the move.
Result<void> Foothold::share_processor() {
  std::string before = kernel::affinity_of(leader_.tid());
  const std::string& ours = kernel::OneProcessor::mask();
  if (ours.empty() || before.empty() || before == ours || before.size() > kAffinitySize) return {};
  RemotePtr mask = leader_executor_.scratch().address + kLeaderMaskOffset;
  STASIS_CHECK(write_memory(leader_.tid(), mask, before));
  STASIS_CHECK(arm_undo({{{SYS_sched_setaffinity, 0, before.size(), mask.value}}}));
  affinity_ = std::move(before);
  kernel::set_affinity(leader_.tid(), ours);
  return {};
}

Foothold::~Foothold() { release(); }

Result<void> Foothold::run(Batch& batch) { return leader_executor_.run(leader_, context_, batch); }
Result<void> Foothold::start(const Batch& batch) { return leader_executor_.start(leader_, context_, batch); }
Result<void> Foothold::finish(Batch& batch) { return leader_executor_.finish(leader_, context_, batch); }

Result<void> Foothold::run_in(const Tracee& thread, const TaskContext& context, const std::string& affinity,
                              Batch& batch) {
  // If we die now the thread finishes its batch in its own area, which nobody else touches, and goes back to
  // its processors.
  Executor::Unwind unwind{.unmap_scratch = false};
  const std::string& ours = kernel::OneProcessor::mask();
  bool moves = !ours.empty() && !affinity.empty() && affinity != ours && affinity.size() <= kAffinitySize;
  if (moves) {
    RemotePtr area = leader_executor_.scratch().address;
    std::array<uint64_t, 8> back = {SYS_sched_setaffinity, 0, affinity.size(),
                                    (area + kThreadMaskOffset).value};
    std::string bytes(reinterpret_cast<const char*>(back.data()), sizeof back);
    STASIS_CHECK(write_memory(leader_.tid(), area + kThreadUndoOffset, bytes + affinity));
    unwind.undo_calls = area + kThreadUndoOffset;
    unwind.undo_count = 1;
  }
  STASIS_CHECK(thread_executor_.install(leader_.tid(), context, unwind));
  STASIS_CHECK(thread_executor_.start(thread, context, batch, moves ? ours : std::string()));
  STASIS_CHECK(thread_executor_.finish(thread, context, batch));
  if (moves) kernel::set_affinity(thread.tid(), affinity);
  STASIS_CHECK(thread.set_signal_mask(context.mask));
  return thread.set_registers(context.registers);
}

bool Foothold::is_ours(uint64_t address) const {
  for (const Executor* executor : {&leader_executor_, &thread_executor_}) {
    uint64_t start = executor->scratch().address.value;
    if (start != 0 && address >= start && address < start + kScratchSize) return true;
  }
  return cleared_.contains(address);
}

Result<void> Foothold::arm_undo(const UndoCalls& calls) {
  undo_.push_back(calls);
  return install_undo();
}

Result<void> Foothold::disarm_undo() {
  undo_.pop_back();
  return install_undo();
}

// Written from the end of their room, the last armed first, so that those that are armed already stay where
// the stub finds them until it is told of the new ones.
Result<void> Foothold::install_undo() {
  UndoCalls all;
  for (auto calls = undo_.rbegin(); calls != undo_.rend(); ++calls)
    all.insert(all.end(), calls->begin(), calls->end());
  if (all.size() > kMaxUndoCalls) {
    return Error{"enter the program", fmt::format("task {}", leader_.tid()), "too many changes to undo", {}};
  }
  RemotePtr end = leader_executor_.scratch().address + kThreadUndoOffset;
  uint64_t size = all.size() * Batch::kCallSize;
  RemotePtr place{end.value - size};
  if (!all.empty()) {
    STASIS_CHECK(write_memory(leader_.tid(), place, {reinterpret_cast<const char*>(all.data()), size}));
  }
  return leader_executor_.install(leader_.tid(), context_, {.undo_calls = place, .undo_count = all.size()});
}

void Foothold::release() {
  if (!parked_) return;
  parked_ = false;
  // Whoever armed something beyond that did not come to undo it himself.
  while (undo_.size() > (affinity_.empty() ? 0U : 1U)) {
    Batch batch(scratch());
    for (const auto& call : undo_.back())
      batch.call(static_cast<long>(call[0]), {call[1], call[2], call[3], call[4], call[5], call[6]});
    (void)run(batch).ok();
    (void)disarm_undo().ok();
  }
  // Every step is tried: the task may have been killed meanwhile, and then nothing of this matters.
  if (thread_executor_.scratch().address.value != 0) {
    Batch batch(scratch());
    batch.call(SYS_munmap, {thread_executor_.scratch().address.value, kScratchSize});
    (void)run(batch).ok();
  }
  kernel::set_affinity(leader_.tid(), affinity_);
  uint64_t area = leader_executor_.scratch().address.value;
  if (area != 0) {
    // The stub must not unmap it a second time by itself: another thread may have got the addresses by then.
    (void)leader_executor_
        .run_single(leader_, context_, {.unmap_scratch = false}, SYS_munmap, {area, kScratchSize})
        .ok();
  }
  (void)leader_.set_signal_mask(context_.mask).ok();
  (void)leader_.set_registers(context_.registers).ok();
  std::string zeros(2 * stub_size(), '\0');
  (void)write_code(leader_.tid(), leader_executor_.code(), zeros).ok();
}

}  // namespace stasis::remote

#include "remote/foothold.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstring>

extern "C" {
extern const char stasis_stub_begin[];
extern const char stasis_stub_context[];
}

namespace stasis::remote {

namespace {

// An odd size, so that an area that was left behind can be told from the program's own memory together with
// kMagic.
constexpr uint64_t kScratchSize = 33 * kPageSize;
constexpr std::string_view kMagic = "stasis scratch area, safe to unmap";
constexpr uint64_t kMagicOffset = kScratchSize - 64;
// The batch may use everything before the magic.
constexpr uint64_t kUsable = kScratchSize - 64;

// Calls to undo stand at the end of the data.
constexpr uint64_t kUndoOffset = kUsable - Foothold::kMostUndoCalls * Batch::kCallSize;

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
  if (context.report_signal == 0) {
    return refuse(leader, "it has a handler for every signal that is ignored by default", {});
  }
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
  STASIS_CHECK(foothold->map_areas(many_threads));

  // Areas that somebody left behind who was killed between two steps.
  Batch batch(foothold->scratch());
  for (const auto& entry : maps) {
    if (!entry.shared || entry.end - entry.start != kScratchSize || !entry.name.starts_with("/dev/zero"))
      continue;
    std::string magic(kMagic.size(), '\0');
    if (read_memory(leader, RemotePtr{entry.start + kMagicOffset}, magic).ok() && magic == kMagic) {
      batch.call(SYS_munmap, {entry.start, kScratchSize});
    }
  }
  STASIS_CHECK(foothold->run(batch));
  return foothold;
}

Result<void> Foothold::map_areas(bool many_threads) {
  constexpr uint64_t kProtection = PROT_READ | PROT_WRITE;
  // Shared, so that it never merges with memory of the program; a snapshot child may use the same pages,
  // since the program itself has let go of them by then.
  constexpr uint64_t kFlags = MAP_SHARED | MAP_ANONYMOUS;
  parked_ = true;
  STASIS_TRY(int64_t address,
             leader_executor_.run_single(leader_, context_, {}, SYS_mmap,
                                         {0, kScratchSize, kProtection, kFlags, ~uint64_t{0}, 0}));
  if (address < 0 && address > -4096) {
    return Error{"enter the program", fmt::format("task {}", leader_.tid()),
                 fmt::format("no memory for a scratch area: {}", std::strerror(static_cast<int>(-address))),
                 "its address space limit or the number of its mappings is exhausted", ErrorCode::kRefused};
  }
  RemotePtr area{static_cast<uint64_t>(address)};
  leader_executor_.set_scratch({area, kUsable});
  // unmap_scratch unmaps the whole area: the size is rounded up to pages.
  STASIS_CHECK(leader_executor_.install(leader_.tid(), context_, {}));
  STASIS_CHECK(write_memory(leader_.tid(), area + kMagicOffset, kMagic));
  if (many_threads) {
    Batch batch(scratch());
    size_t mapped = batch.call(SYS_mmap, {0, kScratchSize, kProtection, kFlags, ~uint64_t{0}, 0});
    STASIS_CHECK(run(batch));
    if (batch.result(mapped) < 0) {
      return errno_error("map a scratch area", fmt::format("task {}", leader_.tid()),
                         static_cast<int>(-batch.result(mapped)));
    }
    RemotePtr second{static_cast<uint64_t>(batch.result(mapped))};
    STASIS_CHECK(write_memory(leader_.tid(), second + kMagicOffset, kMagic));
    thread_executor_.set_scratch({second, kUsable});
  }
  return {};
}

Foothold::~Foothold() { release(); }

Result<void> Foothold::run(Batch& batch) { return leader_executor_.run(leader_, context_, batch); }
Result<void> Foothold::start(const Batch& batch) { return leader_executor_.start(leader_, context_, batch); }
Result<void> Foothold::finish(Batch& batch) { return leader_executor_.finish(leader_, context_, batch); }

Result<void> Foothold::run_in(const Tracee& thread, const TaskContext& context, Batch& batch) {
  // If we die now the thread finishes its batch in its own area and unmaps it; nobody else touches that one.
  STASIS_CHECK(thread_executor_.install(thread.tid(), context, {.unmap_scratch = false}));
  STASIS_CHECK(thread_executor_.run(thread, context, batch));
  STASIS_CHECK(thread.set_signal_mask(context.mask));
  return thread.set_registers(context.registers);
}

bool Foothold::is_ours(uint64_t address) const {
  for (const Executor* executor : {&leader_executor_, &thread_executor_}) {
    uint64_t start = executor->scratch().address.value;
    if (start != 0 && address >= start && address < start + kScratchSize) return true;
  }
  return false;
}

Result<void> Foothold::arm_undo(const std::vector<std::array<uint64_t, 8>>& calls) {
  if (calls.size() > kMostUndoCalls) {
    return Error{"enter the program", fmt::format("task {}", leader_.tid()), "too many changes to undo", {}};
  }
  RemotePtr place = leader_executor_.scratch().address + kUndoOffset;
  STASIS_CHECK(write_memory(leader_.tid(), place,
                            {reinterpret_cast<const char*>(calls.data()), calls.size() * Batch::kCallSize}));
  undo_count_ = calls.size();
  undo_.assign(calls.begin(), calls.end());
  return leader_executor_.install(leader_.tid(), context_, {.undo_calls = place, .undo_count = undo_count_});
}

Result<void> Foothold::disarm_undo() {
  undo_count_ = 0;
  return leader_executor_.install(leader_.tid(), context_, {});
}

void Foothold::release() {
  if (!parked_) return;
  parked_ = false;
  if (undo_count_ != 0) {
    // Whoever armed it did not come to undo it himself.
    Batch batch(scratch());
    for (const auto& call : undo_)
      batch.call(static_cast<long>(call[0]), {call[1], call[2], call[3], call[4], call[5], call[6]});
    (void)run(batch).ok();
  }
  // Every step is tried: the task may have been killed meanwhile, and then nothing of this matters.
  if (thread_executor_.scratch().address.value != 0) {
    Batch batch(scratch());
    batch.call(SYS_munmap, {thread_executor_.scratch().address.value, kScratchSize});
    (void)run(batch).ok();
  }
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

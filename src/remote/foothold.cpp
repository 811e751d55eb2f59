#include "remote/foothold.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernel/affinity.h"
#include "remote/stub.h"

namespace stasis::remote {

namespace {

// An odd size, so that an area that was left behind can be told from the program's own memory together with
// kMagic.
constexpr uint64_t kScratchSize = 37 * kPageSize;
constexpr std::string_view kMagic = "stasis scratch area, safe to unmap";
constexpr uint64_t kMagicOffset = kScratchSize - 64;
constexpr uint64_t kAffinitySize = 1024;
constexpr uint64_t kLeaderMaskOffset = kMagicOffset - kAffinitySize;
constexpr uint64_t kUndoOffset = kLeaderMaskOffset - (Foothold::kMaxUndoCalls + 1) * Batch::kCallSize;
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

namespace {

constexpr uint64_t kAreaProtection = PROT_READ | PROT_WRITE;
// Shared, so that it never merges with memory of the program; a snapshot child may use the same pages, since
// the program itself has let go of them by then. Fetched at once: page by page costs more.
constexpr uint64_t kAreaFlags = MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE;

// A thread's page: the stub, then its batch.
constexpr uint64_t kStationStub = 1024;
constexpr size_t kStationCalls = 24;
constexpr size_t kMostStations = 32;
static_assert(kMostStations * kPageSize < kMagicOffset);

}  // namespace

Result<std::unique_ptr<Foothold>> Foothold::begin(HostTid leader, const TaskContext& context,
                                                  std::span<const kernel::MapsEntry> maps) {
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
  auto started = foothold->leader_executor_.start_single(
      foothold->leader_, context, {}, SYS_mmap,
      {0, kScratchSize, kAreaProtection, kAreaFlags, ~uint64_t{0}, 0});
  // What did not start is not waited for, but its registers may be those of the stub already.
  foothold->state_ = started.ok() ? State::kEntering : State::kParked;
  STASIS_CHECK(std::move(started));
  return foothold;
}

Result<void> Foothold::complete(std::span<const kernel::MapsEntry> maps, bool many_threads) {
  STASIS_CHECK(take_leader_area());
  STASIS_CHECK(share_processor());
  if (many_threads) STASIS_CHECK(map_thread_area());

  // Areas that somebody left behind who was killed between two steps.
  Batch batch(scratch());
  for (const auto& entry : maps) {
    if (!entry.shared || entry.end - entry.start != kScratchSize || !entry.name.starts_with("/dev/zero"))
      continue;
    std::string magic(kMagic.size(), '\0');
    if (read_memory(leader_.tid(), RemotePtr{entry.start + kMagicOffset}, magic).ok() && magic == kMagic) {
      batch.call(SYS_munmap, {entry.start, kScratchSize});
      cleared_.insert(entry.start);
    }
  }
  return run(batch);
}

Result<void> Foothold::take_leader_area() {
  auto mapped = leader_executor_.finish_single(leader_, context_);
  state_ = State::kParked;
  STASIS_TRY(int64_t address, std::move(mapped));
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
  constexpr uint64_t kWithCode = kAreaProtection | PROT_EXEC;
  size_t mapped = batch.call(SYS_mmap, {0, kScratchSize, kWithCode, kAreaFlags, ~uint64_t{0}, 0});
  STASIS_CHECK(run(batch));
  bool with_code = batch.result(mapped) >= 0;
  if (!with_code) {
    batch.clear();
    mapped = batch.call(SYS_mmap, {0, kScratchSize, kAreaProtection, kAreaFlags, ~uint64_t{0}, 0});
    STASIS_CHECK(run(batch));
  }
  if (batch.result(mapped) < 0) {
    return errno_error("map a scratch area", fmt::format("task {}", leader_.tid()),
                       static_cast<int>(-batch.result(mapped)));
  }
  thread_area_ = static_cast<uint64_t>(batch.result(mapped));
  RemotePtr area{thread_area_};
  STASIS_CHECK(write_memory(leader_.tid(), area + kMagicOffset, kMagic));
  if (!with_code) {
    thread_executor_.set_scratch({area, kUsable});
    return {};
  }
  for (size_t i = 0; i < kMostStations; ++i) {
    RemotePtr page = area + i * kPageSize;
    Scratch scratch{page + kStationStub, kPageSize - kStationStub, kStationCalls};
    stations_.add(Executor(page, scratch, true));
  }
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

Result<void> Foothold::start(const Batch& batch) {
  STASIS_CHECK(leader_executor_.start(leader_, context_, batch));
  in_flight_ = true;
  return {};
}

Result<void> Foothold::finish(Batch& batch) {
  in_flight_ = false;
  return leader_executor_.finish(leader_, context_, batch);
}

Result<bool> Foothold::advance(const Stop& stop) {
  auto reported = leader_executor_.advance(leader_, context_, stop);
  in_flight_ = reported.ok() && !*reported;
  return reported;
}

Result<void> Foothold::put_back(const ThreadJob& job) {
  STASIS_CHECK(job.thread.set_signal_mask(job.context.mask));
  return job.thread.set_registers(job.context.registers);
}

Result<void> Foothold::run_in_threads(const std::vector<ThreadJob>& jobs) {
  if (!stations_.empty()) return stations_.run(leader_.tid(), jobs, put_back);
  Stations one;
  one.add(thread_executor_);
  return one.run(leader_.tid(), jobs, put_back);
}

bool Foothold::is_ours(uint64_t address) const {
  for (uint64_t start : {leader_executor_.scratch().address.value, thread_area_}) {
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
  RemotePtr end = leader_executor_.scratch().address + kLeaderMaskOffset;
  uint64_t size = all.size() * Batch::kCallSize;
  RemotePtr place{end.value - size};
  if (!all.empty()) {
    STASIS_CHECK(write_memory(leader_.tid(), place, {reinterpret_cast<const char*>(all.data()), size}));
  }
  return leader_executor_.install(leader_.tid(), context_, {.undo_calls = place, .undo_count = all.size()});
}

// Every step is tried: the task may have been killed meanwhile, and then nothing of this matters.
void Foothold::begin_release() {
  if (state_ == State::kEntering) {
    (void)take_leader_area().ok();
    state_ = State::kParked;
  }
  if (state_ != State::kParked) return;
  // What runs can be neither used nor let go; nobody wants to know any more what it says.
  if (std::exchange(in_flight_, false)) (void)leader_executor_.await_report(leader_, context_).ok();
  // Whoever armed something beyond that did not come to undo it himself.
  while (undo_.size() > (affinity_.empty() ? 0U : 1U)) {
    Batch batch(scratch());
    for (const auto& call : undo_.back())
      batch.call(static_cast<long>(call[0]), {call[1], call[2], call[3], call[4], call[5], call[6]});
    (void)run(batch).ok();
    (void)disarm_undo().ok();
  }
  if (thread_area_ != 0) {
    Batch batch(scratch());
    batch.call(SYS_munmap, {thread_area_, kScratchSize});
    (void)run(batch).ok();
  }
  kernel::set_affinity(leader_.tid(), affinity_);
  state_ = State::kLeaving;
  uint64_t area = leader_executor_.scratch().address.value;
  if (area == 0) return;
  // The stub must not unmap it a second time by itself: another thread may have got the addresses by then.
  left_ = leader_executor_
              .start_single(leader_, context_, {.unmap_scratch = false}, SYS_munmap, {area, kScratchSize})
              .ok();
}

void Foothold::release() {
  begin_release();
  if (state_ != State::kLeaving) return;
  state_ = State::kOut;
  if (left_) (void)leader_executor_.finish_single(leader_, context_).ok();
  (void)leader_.set_signal_mask(context_.mask).ok();
  (void)leader_.set_registers(context_.registers).ok();
  (void)leader_executor_.erase(leader_.tid(), 2 * stub_size()).ok();
}

}  // namespace stasis::remote

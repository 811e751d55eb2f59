#include "checkpoint/process_saver.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include <algorithm>
#include <utility>

#include "base/parallel.h"
#include "checkpoint/page_layout.h"
#include "kernel/pagemap.h"
#include "resource/file_search.h"

namespace stasis::checkpoint {

using inspect::Content;
using remote::Batch;
using schema::Mapping;

std::string ProcessSaver::describe() const {
  return fmt::format("task {} ({})", process_.status.ns_tgid, process_.status.name);
}

Result<void> ProcessSaver::read_mappings() {
  STASIS_TRY(maps_, kernel::read_maps(process_.pid));
  return {};
}

Result<void> ProcessSaver::enter() {
  for (const auto& thread : process_.threads) {
    STASIS_TRY(auto context, inspect::observe_context(process_, thread));
    contexts_.push_back(context);
  }
  STASIS_TRY(foothold_, remote::Foothold::begin(process_.pid, contexts_.front(), maps_));
  return {};
}

Result<void> ProcessSaver::read_from_proc(const std::string& init_groups, schema::Process& out,
                                          schema::Memory& memory) {
  STASIS_TRY(readings_, inspect::read_from_proc(process_, init_groups, out, memory));
  return {};
}

Result<Batch> ProcessSaver::complete_entry() {
  STASIS_CHECK(foothold_->complete(maps_, contexts_.size() > 1));
  return Batch(foothold_->scratch());
}

void ProcessSaver::end_child() {
  if (keeps_child_) {
    spent_.push_back(std::move(child_));
  } else {
    child_.reset();
  }
}

Result<void> ProcessSaver::begin_observation(schema::Process& out) {
  STASIS_CHECK(foothold_->complete(maps_, contexts_.size() > 1));
  STASIS_TRY(inspection_,
             inspect::begin_inspection(process_, std::move(readings_), contexts_, *foothold_, out));
  return {};
}

Result<void> ProcessSaver::observe(schema::Process& out, schema::Memory& memory) {
  return inspection_->finish(out, memory, system_v_);
}

Result<void> ProcessSaver::observe_system_v(const std::optional<inspect::SystemVCounts>& session,
                                            schema::SystemV& objects, schema::Process& out,
                                            std::vector<std::string>& warnings) {
  if (session && system_v_ != *session) {
    return Error{"save", describe(), "it has an IPC namespace of its own, with System V objects in it",
                 "nested namespaces are not supported yet", ErrorCode::kRefused};
  }
  for (const auto& facts : mappings_) {
    if (facts.mapping.kind() == Mapping::SYSTEM_V)
      STASIS_CHECK(inspect::match_segment(facts, describe(), objects));
  }
  return inspect::observe_adjustments(*foothold_, objects, out, warnings);
}

void ProcessSaver::add_segments(std::set<int>& attached) const {
  for (const auto& facts : mappings_) {
    if (facts.mapping.kind() == Mapping::SYSTEM_V) attached.insert(facts.mapping.segment());
  }
}

Result<void> ProcessSaver::classify(const inspect::DescriptorGraph& files, inspect::SharedMemoryTable& shared,
                                    schema::Manifest& manifest, schema::Memory& memory) {
  STASIS_TRY(mappings_, inspect::classify_mappings(process_, maps_, *foothold_, files, shared, manifest));
  // Asked now, when our scratch area is there: it is locked in a program that locks all memory to come.
  STASIS_TRY(auto status, kernel::read_status(process_.pid));
  if (status.locked_kib != 0) {
    // A fork has no locks, so the flags have to be read here, for the few programs that lock memory.
    STASIS_TRY(auto flags, kernel::read_mapping_flags(process_.pid));
    inspect::add_flags(mappings_, flags);
    memory.set_lock_future(inspect::lock_of_future_mappings(flags, *foothold_));
  }
  return {};
}

Result<void> ProcessSaver::track(const Tracking& before, uint64_t base,
                                 ProcessTracker::Afterwards afterwards) {
  auto same = std::find_if(before.processes.begin(), before.processes.end(), [&](const auto& one) {
    return one.pid == process_.pid && one.start_time == process_.stat.start_time;
  });
  known_base_ = base;
  return tracker_.arm(same == before.processes.end() ? nullptr : &*same, process_, mappings_, *foothold_,
                      afterwards);
}

Result<void> ProcessSaver::fork_snapshots(std::span<const std::unique_ptr<ProcessSaver>> savers) {
  std::vector<remote::Foothold*> footholds;
  for (const auto& saver : savers) footholds.push_back(saver->foothold_.get());
  for (const auto& saver : savers) STASIS_CHECK(saver->leave_out_copied());
  STASIS_TRY(auto children, SnapshotChild::fork(footholds));
  for (size_t i = 0; i < savers.size(); ++i) savers[i]->child_ = std::move(children[i]);
  STASIS_CHECK(try_each_index(savers.size(), [&](size_t i) { return savers[i]->look_at_copy(); }));
  for (const auto& saver : savers) STASIS_CHECK(saver->complete_snapshot());
  for (const auto& saver : savers) STASIS_CHECK(saver->put_back_copied());
  return {};
}

// Ranges with MADV_DONTFORK are missing in the child, which shows in its size.
Result<void> ProcessSaver::look_at_copy() {
  STASIS_TRY(uint64_t size_of_original, kernel::mapped_pages(process_.pid));
  STASIS_TRY(uint64_t size_of_copy, kernel::mapped_pages(child_->pid()));
  copy_is_smaller_ = size_of_original != size_of_copy;
  STASIS_TRY(wiped_, wiped_mappings());
  return {};
}

Result<void> ProcessSaver::complete_snapshot() {
  if (!copy_is_smaller_) return {};
  STASIS_TRY(auto copied, kernel::read_maps(child_->pid()));
  std::vector<Mapping*> missing;
  auto there = copied.begin();
  size_t ranges = 0;
  for (auto& facts : mappings_) {
    while (there != copied.end() && there->end <= facts.entry.start) ++there;
    if (there != copied.end() && there->start <= facts.entry.start) continue;
    if (missing.empty() || missing.back()->end() != facts.mapping.start()) ++ranges;
    missing.push_back(&facts.mapping);
  }
  if (missing.empty()) return {};
  end_child();

  // One call for neighbours. JavaScript engines mark their whole heap, in dozens of ranges.
  constexpr size_t kMost =
      remote::Foothold::kMaxUndoCalls - 2 - kMostCopied;  // see suspend_reaping(), and the foothold's own
  if (ranges > kMost) {
    return Error{"save", describe(), fmt::format("{} ranges of its memory are marked MADV_DONTFORK", ranges),
                 fmt::format("at most {} are supported", kMost), ErrorCode::kRefused};
  }
  Batch allow(foothold_->scratch());
  Batch forbid(foothold_->scratch());
  std::vector<std::array<uint64_t, 8>> undo;
  for (size_t first = 0, next = 0; first < missing.size(); first = next) {
    const uint64_t start = missing[first]->start();
    uint64_t end = start;
    for (; next < missing.size() && missing[next]->start() == end; ++next) {
      end = missing[next]->end();
      missing[next]->add_advice(MADV_DONTFORK);
    }
    allow.call(SYS_madvise, {start, end - start, MADV_DOFORK});
    forbid.call(SYS_madvise, {start, end - start, MADV_DONTFORK});
    undo.push_back({SYS_madvise, start, end - start, MADV_DONTFORK});
  }
  STASIS_CHECK(foothold_->arm_undo(undo));
  STASIS_CHECK(foothold_->run(allow));
  remote::Foothold* own = foothold_.get();
  auto forked = SnapshotChild::fork({&own, 1});
  STASIS_CHECK(foothold_->run(forbid));
  STASIS_CHECK(foothold_->disarm_undo());
  STASIS_TRY(auto children, std::move(forked));
  child_ = std::move(children.front());
  STASIS_TRY(wiped_, wiped_mappings());
  return {};
}

Result<void> ProcessSaver::detach_segments() {
  Batch batch = child_->batch();
  for (const auto& facts : mappings_) {
    if (facts.mapping.kind() != Mapping::SYSTEM_V) continue;
    if (batch.empty()) {
      // What it says of them is asked now. A fork has no page tables for shared memory, so this is quick.
      STASIS_TRY(auto flags, kernel::read_mapping_flags(child_->pid()));
      inspect::add_flags(mappings_, flags);
    }
    if (!batch.fits(1, 0)) {
      STASIS_CHECK(child_->run(batch));
      batch.clear();
    }
    batch.call(SYS_munmap, {facts.entry.start, facts.entry.end - facts.entry.start});
  }
  return batch.empty() ? Result<void>() : child_->run(batch);
}

// MADV_WIPEONFORK ranges are there in the child, but empty. Reading their flags would mean reading all of
// smaps, which walks all page tables; comparing one page that the process has tells the same. Neighbours are
// asked for together when they are small, or when there is little in them.
Result<std::vector<size_t>> ProcessSaver::wiped_mappings() const {
  constexpr uint64_t kSmall = 1 << 20;
  constexpr uint64_t kTogether = 16 << 20;
  constexpr uint64_t kLittleKib = 16 << 10;
  const bool has_little = process_.status.anonymous_kib <= kLittleKib;
  STASIS_TRY(auto original, kernel::PageMap::open(process_.pid));
  STASIS_TRY(auto copy, kernel::PageMap::open(child_->pid()));
  auto can_be_wiped = [this](const inspect::MappingFacts& facts) {
    return !contains(copied_, facts.entry.start) && facts.mapping.kind() == Mapping::ANONYMOUS &&
           facts.content != Content::kNone;
  };
  std::vector<size_t> wiped;
  for (size_t first = 0; first < mappings_.size();) {
    const auto& entry = mappings_[first].entry;
    size_t next = first + 1;
    if (!can_be_wiped(mappings_[first])) {
      first = next;
      continue;
    }
    uint64_t end = entry.end;
    const auto joins = [&](const inspect::MappingFacts& neighbour) {
      const uint64_t size = neighbour.entry.end - neighbour.entry.start;
      if (has_little) return size <= kTogether || can_be_wiped(neighbour);
      return size <= kSmall && neighbour.entry.end - entry.start <= kTogether;
    };
    if (has_little || end - entry.start <= kSmall) {
      for (; next < mappings_.size() && joins(mappings_[next]); ++next) end = mappings_[next].entry.end;
    }
    const uint64_t limit = next > first + 1 ? 0 : 1;
    STASIS_TRY(auto pages, original.own_pages(entry.start, end, limit));
    if (!pages.empty()) {
      uint64_t until = limit == 1 ? pages.front().start + kPageSize : end;
      STASIS_TRY(auto copied, copy.own_pages(pages.front().start, until, limit));
      for (size_t i = first; i < next; ++i) {
        if (!can_be_wiped(mappings_[i])) continue;
        auto page = std::upper_bound(pages.begin(), pages.end(), mappings_[i].entry.start,
                                     [](uint64_t value, const auto& range) { return value < range.end; });
        if (page == pages.end() || page->start >= mappings_[i].entry.end) continue;
        if (!contains(copied, std::max(page->start, mappings_[i].entry.start))) wiped.push_back(i);
      }
    }
    first = next;
  }
  return wiped;
}

Result<Fd> ProcessSaver::page_file(image::Writer& writer) {
  if (page_file_name_.empty()) {
    page_file_name_ = fmt::format("{}.stasis-pages", process_.status.ns_tgid);
    STASIS_TRY(page_file_, writer.create_file(page_file_name_));
  }
  return duplicate(page_file_.get());
}

Result<void> ProcessSaver::save_wiped_memory(image::Writer& writer) {
  if (wiped_.empty()) return {};
  STASIS_TRY(auto pages, kernel::PageMap::open(process_.pid));
  STASIS_TRY(Fd file, page_file(writer));
  std::vector<uint64_t> offsets = layout_offsets(mappings_);
  std::string buffer;
  for (size_t index : wiped_) {
    auto& facts = mappings_[index];
    STASIS_TRY(auto ranges, pages.own_pages(facts.entry.start, facts.entry.end));
    for (const auto& range : ranges) {
      constexpr uint64_t kPiece = 1 << 20;
      for (uint64_t at = range.start; at < range.end; at += kPiece) {
        uint64_t size = std::min(kPiece, range.end - at);
        uint64_t offset = offsets[index] + (at - facts.entry.start);
        buffer.resize(size);
        STASIS_CHECK(remote::read_memory(process_.pid, RemotePtr{at}, buffer));
        STASIS_CHECK(pwrite_all(file.get(), buffer, static_cast<off_t>(offset)));
        wiped_runs_.push_back({at, size, offset});
      }
    }
    facts.mapping.add_advice(MADV_WIPEONFORK);
  }
  return {};
}

Result<void> ProcessSaver::make_readable(const std::vector<Run>& runs) {
  Batch batch = child_->batch();
  auto run = runs.begin();
  for (const auto& facts : mappings_) {
    if ((facts.entry.protection & PROT_READ) != 0) continue;
    while (run != runs.end() && run->address < facts.entry.start) ++run;
    if (run == runs.end()) break;
    if (run->address >= facts.entry.end) continue;
    if (!batch.fits(1, 0)) {
      STASIS_CHECK(child_->run(batch));
      batch.clear();
    }
    batch.call(SYS_mprotect, {facts.entry.start, facts.entry.end - facts.entry.start,
                              static_cast<uint64_t>(facts.entry.protection | PROT_READ)});
  }
  return child_->run(batch);
}

namespace {

// Of anonymous memory and files in memory the kernel tells which pages exist, also those that this process
// never touched. Of a file on a disk that was removed it tells which are in memory: the others are on the
// disk, and read, except behind its end.
bool is_on_disk(HostTid process, const kernel::MapsEntry& entry) {
  constexpr long kInMemory = 0x01021994;  // TMPFS_MAGIC
  if (entry.name.starts_with("/dev/zero") || entry.name.starts_with("/memfd:") ||
      entry.name.starts_with("/SYSV"))
    return false;
  struct statfs fs = {};
  struct stat status = {};
  const std::string directory = fmt::format("/proc/{}/root{}", process, resource::directory_of(entry.name));
  const bool known = ::stat(directory.c_str(), &status) == 0 && status.st_dev == entry.device &&
                     ::statfs(directory.c_str(), &fs) == 0;
  return known ? fs.f_type != kInMemory : major(entry.device) != 0;
}

}  // namespace

// Reserved huge pages are not in the page tables of the child, which has never touched them, so that
// mincore() says nothing: all are read. Those of zeros may never have been there.
Result<void> ProcessSaver::find_huge_pages(const inspect::MappingFacts& facts, const PageRange& part,
                                           uint32_t shift, std::vector<Run>& runs) {
  const uint64_t base = facts.entry.start - facts.entry.offset;
  const uint64_t size = uint64_t{1} << shift;
  std::string page(std::min(size, uint64_t{2} << 20), '\0');
  const std::string zeros = page;
  for (uint64_t at = part.start; at < part.end; at += page.size()) {
    // The object may have become shorter than the mapping.
    if (!remote::read_memory(child_->pid(), RemotePtr{base + at}, page).ok()) continue;
    if (page != zeros) runs.push_back({base + at, page.size(), at});
  }
  return {};
}

// Adds the pages of a part of an object, `offset` to `end`, that are there.
Result<void> ProcessSaver::find_shared_pages(const inspect::MappingFacts& facts, const PageRange& part,
                                             std::vector<Run>& runs) {
  const uint64_t base = facts.entry.start - facts.entry.offset;
  constexpr uint64_t kAtOnce = uint64_t{64} << 20;
  const bool all = is_on_disk(process_.pid, facts.entry);
  for (uint64_t at = part.start; at < part.end; at += kAtOnce) {
    const uint64_t bytes = std::min(kAtOnce, part.end - at);
    Batch batch = child_->batch();
    const uint64_t vector = batch.reserve(bytes / kPageSize);
    const size_t asked = batch.call(SYS_mincore, {base + at, bytes, vector});
    STASIS_CHECK(child_->run(batch));
    for (uint64_t page = 0; page < bytes; page += kPageSize) {
      const uint64_t address = base + at + page;
      char byte = 0;
      const bool exists = batch.result(asked) != 0 ||
                          (batch.output<uint8_t>(vector + page / kPageSize) & 1) != 0 ||
                          (all && remote::read_memory(child_->pid(), RemotePtr{address}, {&byte, 1}).ok());
      if (!exists) continue;
      if (!runs.empty() && runs.back().address + runs.back().size == address) {
        runs.back().size += kPageSize;
      } else {
        runs.push_back({address, kPageSize, at + page});
      }
    }
  }
  return {};
}

Result<void> ProcessSaver::save_shared_memory(image::Writer& writer, schema::Manifest& manifest,
                                              std::vector<PageRanges>& covered) {
  covered.resize(static_cast<size_t>(manifest.shared_memories_size()));
  for (const auto& facts : mappings_) {
    if (facts.mapping.kind() != Mapping::SHARED_MEMORY) continue;
    uint32_t number = facts.mapping.shared_memory();
    auto& object = *manifest.mutable_shared_memories(static_cast<int>(number));
    const PageRange whole{facts.entry.offset, facts.entry.offset + (facts.entry.end - facts.entry.start)};
    // What another mapping or process has saved is saved.
    const PageRanges parts = difference({whole}, covered[number]);
    if (parts.empty()) continue;
    covered[number].push_back(whole);
    covered[number] = normalized(std::move(covered[number]));

    std::string name = fmt::format("shared-{}.stasis-pages", number);
    if (object.page_file().empty()) {
      STASIS_TRY(Fd created, writer.create_file(name));
      object.set_page_file(name);
    }
    STASIS_TRY(Fd file, open_file(writer.directory() + "/" + name, O_WRONLY));
    STASIS_TRY(int remote_file, child_->pass(file.get()));
    std::vector<Run> runs;
    for (const PageRange& part : parts) {
      STASIS_CHECK(object.huge_page_shift() != 0
                       ? find_huge_pages(facts, part, object.huge_page_shift(), runs)
                       : find_shared_pages(facts, part, runs));
    }
    STASIS_CHECK(make_readable(runs));
    STASIS_CHECK(child_->write(remote_file, file.get(), runs, [](const Run&) {}));
    for (const auto& run : runs) {
      auto* entry = object.add_runs();
      entry->set_address(run.offset);
      entry->set_size(run.size);
      entry->set_offset(run.offset);
    }
    std::sort(object.mutable_runs()->begin(), object.mutable_runs()->end(),
              [](const auto& one, const auto& other) { return one.address() < other.address(); });
  }
  return {};
}

void ProcessSaver::begin_to_leave() {
  (void)return_to_ended_namespace().ok();
  (void)resume_reaping().ok();
  if (foothold_) foothold_->begin_release();
}

void ProcessSaver::leave() {
  begin_to_leave();
  foothold_.reset();
}

Result<void> ProcessSaver::find_guards() {
  if (mappings_.empty()) return {};
  STASIS_TRY(auto pages, kernel::PageMap::open(child_->pid()));
  STASIS_TRY(auto guards, pages.guard_regions(mappings_.front().entry.start, mappings_.back().entry.end));
  auto guard = guards.begin();
  for (auto& facts : mappings_) {
    while (guard != guards.end() && guard->end <= facts.entry.start) ++guard;
    for (auto at = guard; at != guards.end() && at->start < facts.entry.end; ++at) {
      auto* range = facts.mapping.add_guards();
      range->set_start(std::max(at->start, facts.entry.start));
      range->set_end(std::min(at->end, facts.entry.end));
    }
  }
  return {};
}

Result<uint64_t> ProcessSaver::find_pages() {
  child_->leave_processor();
  STASIS_TRY(auto flags, kernel::read_mapping_flags(child_->pid()));
  inspect::add_flags(mappings_, flags);
  for (auto& facts : mappings_) {
    // It is ours, and not the program's.
    if (!contains(copied_, facts.entry.start)) continue;
    auto* advice = facts.mapping.mutable_advice();
    advice->erase(std::remove(advice->begin(), advice->end(), MADV_WIPEONFORK), advice->end());
  }
  STASIS_CHECK(find_guards());
  STASIS_TRY(pages_, checkpoint::find_pages(child_->pid(), mappings_, copied_, tracker_.present()));
  uint64_t bytes = 0;
  for (const auto& part : pages_) bytes += part.size;
  return bytes;
}

// In the order of their addresses; those of `kin` are in files behind the base's. Without a base the places
// in the page file do not depend on which pages there are, and what is between two pages is a hole, so that a
// restart can map both together. Pages that are added to a base are many small pieces, packed.
std::vector<Extent> ProcessSaver::find_extents(const BasePages& base, uint64_t base_sum,
                                               const Kin::Pages& kin,
                                               const std::function<void(uint64_t)>& wrote) {
  auto read = [this, pid = child_->pid()](uint64_t address, std::span<char> into) {
    if (contains(copied_, address)) return read_saved(address, into);
    return remote::read_memory(pid, RemotePtr{address}, into).ok();
  };
  std::vector<Extent> found;
  std::vector<Pages> rest = pages_;
  int first_file = 0;
  auto look_in = [&](const BasePages& pages, bool is_base) {
    std::vector<Candidate> candidates = find_candidates(rest, pages);
    if (!is_base) skip_unlike(candidates, pages, read);
    if (is_base && known_base_ != 0 && known_base_ == base_sum) share_known(candidates, tracker_.known());
    if (is_base) compared_ = bytes_to_compare(candidates);
    std::vector<Extent> extents = compare(candidates, pages, read, wrote);
    if (is_base) drop_wasteful_files(extents, pages);
    if (!is_base && found.size() + extents.size() > kMostExtents) return;
    rest = left_to_write(rest, extents);
    for (Extent& extent : extents) {
      if (extent.file == Extent::kOwn) continue;
      extent.file += first_file;
      found.push_back(extent);
    }
  };
  if (!base.runs.empty()) look_in(base, true);
  first_file = static_cast<int>(base.files.size());
  // What changed since the base may still be what a relative has, as may all of a process that is new.
  for (const auto& pages : kin) {
    look_in(*pages, false);
    first_file += static_cast<int>(pages->files.size());
  }
  std::optional<uint64_t> packed_from;
  if (!base.runs.empty()) {
    packed_from = 0;
    for (const auto& run : wiped_runs_) packed_from = std::max(*packed_from, run.offset + run.size);
  }
  for (const Extent& extent : own_extents(rest, packed_from)) found.push_back(extent);
  std::sort(found.begin(), found.end(),
            [](const Extent& a, const Extent& b) { return a.address < b.address; });
  return found;
}

Result<void> ProcessSaver::write_pages(image::Writer& writer, BaseImage* base, const Kin::Pages& kin,
                                       schema::Memory& memory, const std::function<void(uint64_t)>& wrote) {
  STASIS_TRY(Fd file, page_file(writer));
  STASIS_TRY(int number, child_->pass(file.get()));
  STASIS_CHECK(make_readable({pages_.begin(), pages_.end()}));
  BasePages shared = base != nullptr ? base->of_process(process_.status.ns_tgid) : BasePages();
  std::vector<Extent> extents = find_extents(shared, base != nullptr ? base->sum() : 0, kin, wrote);
  std::vector<Run> runs;
  for (const auto& extent : extents) {
    if (extent.file == Extent::kOwn && !contains(copied_, extent.address))
      runs.push_back({extent.address, extent.size, extent.offset});
  }
  STASIS_CHECK(write_copied(extents, wrote));
  auto written = child_->write(number, file.get(), runs, [&](const Run& piece) {
    writer.written(page_file_name_, piece.offset + piece.size);
    wrote(piece.size);
  });
  if (!written.ok()) return std::move(written).error().within("save the memory of " + describe());
  end_child();

  for (const auto& run : wiped_runs_) extents.push_back({run.address, run.size, Extent::kOwn, run.offset});
  std::sort(extents.begin(), extents.end(),
            [](const Extent& a, const Extent& b) { return a.address < b.address; });
  std::vector<std::string> names;
  for (const auto& one : shared.files) names.push_back(one.name);
  for (const auto& relative : kin) {
    for (const auto& one : relative->files) names.push_back(one.name);
  }
  place(extents, names, memory);
  if (base != nullptr) base->need(memory.layers());
  memory.set_page_file(page_file_name_);
  for (auto& facts : mappings_) *memory.add_mappings() = std::move(facts.mapping);
  return {};
}

}  // namespace stasis::checkpoint

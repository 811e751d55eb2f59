// What ProcessSaver does for mappings whose pages are copied instead of forked.
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <utility>

#include "checkpoint/process_saver.h"
#include "kernel/pagemap.h"

namespace stasis::checkpoint {

using remote::Batch;

Result<void> ProcessSaver::copy_rest(uint64_t base, const HeldByProcess& held, CopyRoom& room) {
  // Less is forked as quickly. More ranges would not fit into what the stub can undo.
  constexpr uint64_t kWorthCopying = 4 << 20;
  // A restarted program has a filter by which init is asked about madvise().
  if (known_base_ == 0 || known_base_ != base || process_.status.seccomp != 0) return {};
  auto pages_of_base = held.find(process_.pid.value);
  if (pages_of_base == held.end()) return {};
  held_ = pages_of_base->second;
  const PageRanges had = intersection(tracker_.known(), held_->pages());
  const PageRanges rest = difference(tracker_.present(), had);
  std::vector<PageRange> chosen;
  PageRanges pages;
  uint64_t bytes = 0;
  auto original = kernel::PageMap::open(process_.pid);
  if (!original.ok()) return {};
  for (const auto& mapping : tracker_.settled()) {
    if (chosen.size() == kMostCopied) break;
    if (bytes_of(intersection(had, {mapping})) < kWorthCopying || !is_readable(mapping)) continue;
    // The snapshot child, which is asked for guard regions, must have it then.
    auto guards = original->guard_regions(mapping.start, mapping.end);
    if (!guards.ok() || !guards->empty()) continue;
    PageRanges to_copy = intersection(rest, {mapping});
    const uint64_t size = bytes_of(to_copy);
    if (bytes + size > room.left()) continue;
    bytes += size;
    chosen.push_back(mapping);
  }
  if (chosen.empty()) return {};
  STASIS_TRY(chosen, without_those_wiped_already(chosen));
  for (const auto& mapping : chosen) {
    PageRanges to_copy = intersection(rest, {mapping});
    pages.insert(pages.end(), to_copy.begin(), to_copy.end());
  }
  if (copies_.take(process_.pid, pages, room)) copied_ = std::move(chosen);
  return {};
}

bool ProcessSaver::is_readable(const PageRange& mapping) const {
  return std::any_of(mappings_.begin(), mappings_.end(), [&](const auto& facts) {
    return facts.entry.start == mapping.start && facts.entry.end == mapping.end &&
           (facts.entry.protection & PROT_READ) != 0;
  });
}

// Nothing but smaps tells of MADV_WIPEONFORK, and smaps takes longer than the fork. But taking it from a page
// divides the mapping, if it had it.
Result<std::vector<PageRange>> ProcessSaver::without_those_wiped_already(
    const std::vector<PageRange>& mappings) {
  Batch take(foothold_->scratch());
  for (const auto& mapping : mappings) take.call(SYS_madvise, {mapping.start, kPageSize, MADV_KEEPONFORK});
  STASIS_CHECK(foothold_->run(take));
  Batch give(foothold_->scratch());
  std::vector<PageRange> left;
  for (const auto& mapping : mappings) {
    auto seen = kernel::mappings_between(process_.pid, mapping.start, mapping.start + kPageSize);
    if (seen.ok() && seen->size() == 1 && seen->front().end != mapping.start + kPageSize) {
      left.push_back(mapping);
    } else {
      give.call(SYS_madvise, {mapping.start, kPageSize, MADV_WIPEONFORK});
    }
  }
  if (!give.empty()) STASIS_CHECK(foothold_->run(give));
  return left;
}

Result<void> ProcessSaver::leave_out_copied() {
  if (copied_.empty()) return {};
  Batch wipe(foothold_->scratch());
  remote::Foothold::UndoCalls undo;
  for (const auto& mapping : copied_) {
    wipe.call(SYS_madvise, {mapping.start, mapping.end - mapping.start, MADV_WIPEONFORK});
    undo.push_back({SYS_madvise, mapping.start, mapping.end - mapping.start, MADV_KEEPONFORK});
  }
  STASIS_CHECK(foothold_->arm_undo(undo));
  return foothold_->run(wipe);
}

Result<void> ProcessSaver::put_back_copied() {
  if (copied_.empty()) return {};
  Batch keep(foothold_->scratch());
  for (const auto& mapping : copied_)
    keep.call(SYS_madvise, {mapping.start, mapping.end - mapping.start, MADV_KEEPONFORK});
  STASIS_CHECK(foothold_->run(keep));
  return foothold_->disarm_undo();
}

// Of a mapping that the child does not have.
bool ProcessSaver::read_saved(uint64_t address, std::span<char> into) const {
  while (!into.empty()) {
    uint64_t done = copies_.read(address, into);
    if (done == 0) {
      // One page at a time, since the next may have been copied.
      done = std::min<uint64_t>(into.size(), kPageSize - address % kPageSize);
      if (!held_ || !held_->read(address, into.first(done))) return false;
    }
    into = into.subspan(done);
    address += done;
  }
  return true;
}

// In the order of their offsets, which is that of their addresses.
Result<void> ProcessSaver::write_copied(const std::vector<Extent>& extents,
                                        const std::function<void(uint64_t)>& wrote) {
  constexpr size_t kAtOnce = 1 << 20;
  std::vector<char> buffer;
  uint64_t begin = 0;
  auto flush = [&]() -> Result<void> {
    if (buffer.empty()) return {};
    auto written = pwrite_all(page_file_.get(), {buffer.data(), buffer.size()}, static_cast<off_t>(begin));
    if (!written.ok()) return std::move(written).error().within("save the memory of " + describe());
    wrote(buffer.size());
    buffer.clear();
    return {};
  };
  buffer.reserve(kAtOnce);
  for (const auto& extent : extents) {
    if (extent.file != Extent::kOwn || !contains(copied_, extent.address)) continue;
    for (uint64_t done = 0; done < extent.size;) {
      if (buffer.size() == kAtOnce || begin + buffer.size() != extent.offset + done) STASIS_CHECK(flush());
      if (buffer.empty()) begin = extent.offset + done;
      const size_t size = std::min<uint64_t>(extent.size - done, kAtOnce - buffer.size());
      const size_t old = buffer.size();
      buffer.resize(old + size);
      if (!read_saved(extent.address + done, std::span(buffer).subspan(old)))
        return Error{"save", describe(),
                     "the checkpoint that has the unchanged part of its memory cannot be read",
                     "try again with --full"};
      done += size;
    }
  }
  return flush();
}

}  // namespace stasis::checkpoint

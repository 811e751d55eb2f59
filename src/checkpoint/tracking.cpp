#include "checkpoint/tracking.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "kernel/proc.h"

namespace stasis::checkpoint {

using remote::Batch;

namespace {

// Smaller processes and mappings are compared sooner than tracked.
constexpr uint64_t kWorthTrackingKib = 8 << 10;
constexpr uint64_t kWorthWatching = 64 * kPageSize;

// Only what is anonymous from the beginning: where a protected page of a file mapping is given back, a marker
// stays that looks like a page in swap. And only what is private: shared memory is written to through other
// page tables as well.
bool can_be_watched(const inspect::MappingFacts& facts) {
  const auto& entry = facts.entry;
  return facts.mapping.kind() == schema::Mapping::ANONYMOUS && !facts.mapped_page_file && !entry.shared &&
         entry.inode == 0 && entry.end - entry.start >= kWorthWatching;
}

// The first write to a protected huge page splits it, and it stays split while it is watched: every later
// fork would take a hundred times as long, and that is a pause. So where huge pages are, contents are
// compared.
bool is_mostly_huge(const kernel::PageMap& pagemap, uint64_t start, uint64_t end) {
  auto census = pagemap.count(start, end);
  return !census.ok() || census->in_huge_pages > census->bytes / 2;
}

// The lowest descriptor that is free, which is the one that the next call gets.
std::optional<uint64_t> next_descriptor(HostTid task) {
  auto numbers = kernel::list_numbers(fmt::format("{}/fd", task));
  if (!numbers.ok()) return {};
  std::sort(numbers->begin(), numbers->end());
  uint64_t next = 0;
  for (int number : *numbers) {
    if (static_cast<uint64_t>(number) == next) ++next;
  }
  return next;
}

// Makes the descriptor in the process, whose address space it belongs to, takes a copy and closes it there.
// If we die on the way the process closes it by itself. No tracker: the kernel has none for it.
Result<kernel::WriteTracker> make_tracker(HostTid task, remote::Foothold& foothold) {
  auto expected = next_descriptor(task);
  if (!expected) return kernel::WriteTracker();
  STASIS_CHECK(foothold.arm_undo({{SYS_close, *expected}}));
  Batch make(foothold.scratch());
  const size_t made = make.call(SYS_userfaultfd, {static_cast<uint64_t>(kernel::WriteTracker::kFlags)});
  STASIS_CHECK(foothold.run(make));
  const int64_t number = make.result(made);
  Fd copy;
  if (number >= 0) {
    Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, task.value, 0)));
    copy.reset(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), number, 0)));
    Batch close(foothold.scratch());
    close.call(SYS_close, {static_cast<uint64_t>(number)});
    STASIS_CHECK(foothold.run(close));
  }
  STASIS_CHECK(foothold.disarm_undo());
  if (!copy) return kernel::WriteTracker();
  auto tracker = kernel::WriteTracker::begin(std::move(copy));
  return tracker.ok() ? std::move(tracker).value() : kernel::WriteTracker();
}

void put_ranges(std::string& text, char word, const PageRanges& ranges) {
  for (const auto& range : ranges) text += fmt::format("{} {:x} {:x}\n", word, range.start, range.end);
}

template <typename... Numbers>
bool read_numbers(std::string_view text, int radix, Numbers&... numbers) {
  auto read = [&](auto& number) {
    while (text.starts_with(' ')) text.remove_prefix(1);
    auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number, radix);
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    return problem == std::errc();
  };
  return (read(numbers) && ...) && text.empty();
}

}  // namespace

std::string encode(const Tracking& tracking) {
  std::string text = fmt::format("b {:x}\n", tracking.base);
  for (const auto& process : tracking.processes) {
    text += fmt::format("p {:x} {:x}\n", process.pid.value, process.start_time);
    put_ranges(text, 'k', process.watched);
    put_ranges(text, 'w', process.written);
  }
  return text;
}

std::optional<Tracking> decode(std::string_view text) {
  constexpr int kRadix = 16;
  Tracking tracking;
  bool begun = false;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos || end < 2) return {};
    const char word = text[0];
    const std::string_view numbers = text.substr(1, end - 1);
    text.remove_prefix(end + 1);
    PageRange range;
    if (word == 'b' && !begun) {
      if (!read_numbers(numbers, kRadix, tracking.base)) return {};
      begun = true;
    } else if (word == 'p' && begun) {
      auto& process = tracking.processes.emplace_back();
      if (!read_numbers(numbers, kRadix, process.pid.value, process.start_time)) return {};
    } else if ((word == 'k' || word == 'w') && !tracking.processes.empty()) {
      if (!read_numbers(numbers, kRadix, range.start, range.end)) return {};
      auto& process = tracking.processes.back();
      (word == 'k' ? process.watched : process.written).push_back(range);
    } else {
      return {};
    }
  }
  if (!begun) return {};
  for (auto& process : tracking.processes) {
    process.watched = normalized(std::move(process.watched));
    process.written = normalized(std::move(process.written));
  }
  return tracking;
}

void note_writes(Tracking& tracking) {
  for (auto& process : tracking.processes) {
    auto stat = kernel::read_stat(process.pid);
    if (!stat.ok() || stat->start_time != process.start_time) continue;
    auto pagemap = kernel::PageMap::open(process.pid);
    if (!pagemap.ok()) continue;
    for (const auto& range : process.watched) {
      // What is protected has to be among what was written, or the whole would be taken for unchanged.
      if (!pagemap->protect_pages(range.start, range.end, &process.written).ok()) tracking.base = 0;
    }
    process.written = normalized(std::move(process.written));
  }
}

Result<void> ProcessTracker::arm(const TrackedProcess* before, const freeze::FrozenProcess& process,
                                 const std::vector<inspect::MappingFacts>& mappings,
                                 remote::Foothold& foothold, Afterwards afterwards) {
  std::vector<const kernel::MapsEntry*> candidates;
  for (const auto& facts : mappings) {
    if (can_be_watched(facts)) candidates.push_back(&facts.entry);
  }
  if (candidates.empty()) return {};
  auto pagemap = kernel::PageMap::open(process.pid);
  if (!pagemap.ok()) return {};
  pagemap_ = std::move(pagemap).value();
  if (before != nullptr && before->tracker.is_dead(page_down(foothold.scratch().address.value)))
    before = nullptr;
  next_.pid = process.pid;
  next_.start_time = process.stat.start_time;
  if (before != nullptr) {
    // A copy, since the attempt may fail.
    STASIS_TRY(Fd copy, duplicate(before->tracker.fd()));
    next_.tracker = kernel::WriteTracker(std::move(copy));
    STASIS_CHECK(find_known(*before, candidates));
  } else {
    if (afterwards == Afterwards::kEnds || process.status.anonymous_kib < kWorthTrackingKib) return {};
    STASIS_TRY(next_.tracker, make_tracker(process.pid, foothold));
  }
  if (!next_.tracker) return {};
  watch(candidates, afterwards);
  return afterwards == Afterwards::kGoesOn ? protect() : Result<void>();
}

Result<void> ProcessTracker::find_known(const TrackedProcess& before,
                                        const std::vector<const kernel::MapsEntry*>& candidates) {
  STASIS_TRY(unwritten_,
             pagemap_->unwritten_pages(candidates.front()->start, candidates.back()->end, &present_));
  known_ = difference(intersection(unwritten_, before.watched), before.written);
  return {};
}

// Memory can be watched by one only. So what has protected pages and can be watched by ours was watched by
// ours before: if it were another's, it would be refused.
void ProcessTracker::watch(const std::vector<const kernel::MapsEntry*>& candidates, Afterwards afterwards) {
  for (const auto* entry : candidates) {
    const bool was_watched = overlaps(unwritten_, entry->start, entry->end);
    if (!was_watched &&
        (afterwards == Afterwards::kEnds || is_mostly_huge(*pagemap_, entry->start, entry->end)))
      continue;
    if (!next_.tracker.watch(entry->start, entry->end)) continue;
    (was_watched ? settled_ : fresh_).push_back({entry->start, entry->end});
  }
  next_.watched = normalized(settled_);
  known_ = intersection(known_, next_.watched);
}

Result<void> ProcessTracker::protect() {
  for (const auto& range : next_.watched)
    STASIS_CHECK(pagemap_->protect_pages(range.start, range.end, nullptr));
  // Before Linux 6.13 a page that was moved by mremap() kept its mark and could be written to nevertheless.
  for (const auto& range : fresh_) {
    STASIS_TRY(auto marked, pagemap_->unwritten_pages(range.start, range.end));
    for (const auto& stale : marked) {
      if (next_.tracker.protect(stale.start, stale.end)) continue;
      next_.tracker = kernel::WriteTracker();
      return {};
    }
  }
  return {};
}

void ProcessTracker::protect_rest() const {
  if (!pagemap_) return;
  for (const auto& range : fresh_) (void)pagemap_->protect_pages(range.start, range.end, nullptr).ok();
}

std::optional<TrackedProcess> ProcessTracker::take() {
  if (!next_.tracker) return {};
  return std::move(next_);
}

}  // namespace stasis::checkpoint

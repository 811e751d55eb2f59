#include "checkpoint/increment.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <csignal>
#include <cstring>
#include <mutex>
#include <numeric>
#include <thread>

#include "kernel/affinity.h"

namespace stasis::checkpoint {

using Work = Candidate::Work;

namespace {

// What one thread compares at a time: one bit of a word for each page, and both copies stay in the cache.
constexpr uint64_t kChunk = 64 * kPageSize;
// Less than this is compared without threads.
constexpr uint64_t kWorthThreads = 8 << 20;
constexpr unsigned kMostThreads = 4;

constexpr size_t kMostFiles = 12;
constexpr size_t kLargeFiles = 3;  // that stay when there are too many
// Of candidates that are skipped when the samples differ. Smaller ones are compared anyway.
constexpr uint64_t kWorthSamples = kChunk;
constexpr uint64_t kMostSamples = 64;
constexpr uint64_t kPagesForSample = 4;

struct Chunk {
  const Candidate* candidate = nullptr;
  uint64_t at = 0;  // from the candidate's beginning
  uint64_t size = 0;
  uint64_t changed = ~uint64_t{0};  // a bit for each page
};

bool needs_reading(Work work) { return work == Work::kCompare || work == Work::kWriteUnlessZero; }

// Where a page that did not change is.
bool is_shared(Work work) { return work == Work::kCompare || work == Work::kShare; }

bool read_file(int fd, std::span<char> into, uint64_t offset) {
  return pread_all(fd, into, static_cast<off_t>(offset)).ok();
}

// One for each thread.
class Comparer {
 public:
  Comparer(const BasePages& base, const ReadMemory& read) : base_(base), read_(read) {}

  void look(Chunk& chunk) {
    const Extent& extent = chunk.candidate->extent;
    if (chunk.candidate->work == Work::kShare) {
      chunk.changed = 0;
      return;
    }
    if (!needs_reading(chunk.candidate->work)) return;
    std::span now(now_.data(), chunk.size);
    std::span then(then_.data(), chunk.size);
    // What cannot be read is written: there the failure gets its message.
    if (!read_(extent.address + chunk.at, now)) return;
    if (chunk.candidate->work == Work::kCompare) {
      then_is_zero_ = false;
      const auto& file = base_.files[static_cast<size_t>(extent.file)];
      if (!read_file(file.fd.get(), then, extent.offset + chunk.at)) return;
    } else if (!then_is_zero_) {
      std::fill(then_.begin(), then_.end(), '\0');
      then_is_zero_ = true;
    }
    chunk.changed = 0;
    for (uint64_t page = 0; page < chunk.size / kPageSize; ++page) {
      const uint64_t at = page * kPageSize;
      if (std::memcmp(&now[at], &then[at], kPageSize) != 0) chunk.changed |= uint64_t{1} << page;
    }
  }

 private:
  // There may be hundreds of processes, and fresh memory costs more than to compare a small one's.
  static std::vector<char>& buffer(int which) {
    thread_local std::vector<char> buffers[2];
    buffers[which].resize(kChunk);
    return buffers[which];
  }

  const BasePages& base_;
  const ReadMemory& read_;
  std::vector<char>& now_ = buffer(0);
  std::vector<char>& then_ = buffer(1);
  bool then_is_zero_ = false;
};

std::vector<Chunk> divide(const std::vector<Candidate>& candidates) {
  std::vector<Chunk> chunks;
  for (const auto& candidate : candidates) {
    const uint64_t size = candidate.extent.size;
    for (uint64_t at = 0; at < size; at += kChunk)
      chunks.push_back({&candidate, at, std::min(kChunk, size - at)});
  }
  return chunks;
}

void look_at_all(std::vector<Chunk>& chunks, uint64_t bytes_to_read, const BasePages& base,
                 const ReadMemory& read, const std::function<void(uint64_t)>& told) {
  std::atomic<size_t> next = 0;
  std::mutex telling;
  auto work = [&] {
    Comparer comparer(base, read);
    for (size_t i = next++; i < chunks.size(); i = next++) {
      Chunk& chunk = chunks[i];
      comparer.look(chunk);
      const uint64_t done =
          chunk.size - std::min(chunk.size, static_cast<uint64_t>(std::popcount(chunk.changed)) * kPageSize);
      if (done == 0 || !told) continue;
      std::lock_guard lock(telling);
      told(done);
    }
  };
  std::vector<std::thread> others;
  if (bytes_to_read >= kWorthThreads) {
    // Signals are the business of whoever uses us.
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    const unsigned processors = std::min(kMostThreads, std::thread::hardware_concurrency());
    for (unsigned i = 1; i < processors; ++i) {
      others.emplace_back([&] {
        kernel::OneProcessor::leave_in_new_thread();
        work();
      });
    }
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
  }
  work();
  for (auto& other : others) other.join();
}

}  // namespace

std::vector<Candidate> find_candidates(const std::vector<Pages>& pages, const BasePages& base) {
  std::vector<Candidate> candidates;
  auto run = base.runs.begin();
  for (const Pages& part : pages) {
    const uint64_t end = part.address + part.size;
    uint64_t at = part.address;
    auto add = [&](uint64_t until, Work work, int file, uint64_t offset) {
      if (at < until) candidates.push_back({{at, until - at, file, offset}, work, part.mapping});
      at = std::max(at, until);
    };
    const Work without_base = part.untouched_of ? Work::kWriteUnlessZero : Work::kWrite;
    while (run != base.runs.end() && run->address() + run->size() <= part.address) ++run;
    // The last run may go on in the next pages, so the outer iterator stays before it.
    for (auto one = run; one != base.runs.end() && one->address() < end; ++one) {
      const auto& file = base.files[one->layer()];
      if (!file.fd) continue;
      add(std::min(one->address(), end), without_base, Extent::kOwn, 0);
      if (one->address() + one->size() <= at) continue;
      const uint64_t offset = one->offset() + (at - one->address());
      const bool same = part.untouched_of == file.identity && file.identity &&
                        part.file_offset + (at - part.address) == offset;
      add(std::min(one->address() + one->size(), end), same ? Work::kShare : Work::kCompare,
          static_cast<int>(one->layer()), offset);
    }
    add(end, without_base, Extent::kOwn, 0);
  }
  return candidates;
}

void share_known(std::vector<Candidate>& candidates, const std::vector<kernel::PageRange>& known) {
  if (known.empty()) return;
  std::vector<Candidate> divided;
  auto next = known.begin();
  for (const Candidate& candidate : candidates) {
    const uint64_t start = candidate.extent.address;
    const uint64_t end = start + candidate.extent.size;
    if (candidate.work != Work::kCompare) {
      divided.push_back(candidate);
      continue;
    }
    uint64_t at = start;
    auto add = [&](uint64_t until, Work work) {
      if (at >= until) return;
      Candidate& part = divided.emplace_back(candidate);
      part.work = work;
      part.extent = {at, until - at, candidate.extent.file, candidate.extent.offset + (at - start)};
      at = until;
    };
    while (next != known.end() && next->end <= start) ++next;
    // The last range may go on in the next candidate, so the outer iterator stays before it.
    for (auto one = next; one != known.end() && one->start < end; ++one) {
      add(std::min(one->start, end), Work::kCompare);
      add(std::min(one->end, end), Work::kShare);
    }
    add(end, Work::kCompare);
  }
  candidates = std::move(divided);
}

uint64_t bytes_to_compare(const std::vector<Candidate>& candidates) {
  return std::accumulate(candidates.begin(), candidates.end(), uint64_t{0},
                         [](uint64_t sum, const Candidate& candidate) {
                           return sum + (needs_reading(candidate.work) ? candidate.extent.size : 0);
                         });
}

std::vector<Extent> compare(const std::vector<Candidate>& candidates, const BasePages& base,
                            const ReadMemory& read, const std::function<void(uint64_t)>& told) {
  std::vector<Chunk> chunks = divide(candidates);
  look_at_all(chunks, bytes_to_compare(candidates), base, read, told);

  std::vector<Extent> extents;
  size_t last_mapping = 0;
  for (const Chunk& chunk : chunks) {
    const Candidate& candidate = *chunk.candidate;
    for (uint64_t page = 0; page < chunk.size / kPageSize; ++page) {
      const uint64_t at = chunk.at + page * kPageSize;
      Extent one{candidate.extent.address + at, kPageSize, Extent::kOwn, 0};
      if ((chunk.changed >> page & 1) == 0) {
        if (!is_shared(candidate.work)) continue;
        one.file = candidate.extent.file;
        one.offset = candidate.extent.offset + at;
      }
      // Not across what belongs to two mappings: a restart maps each by itself.
      if (!extents.empty() && candidate.mapping == last_mapping) {
        Extent& last = extents.back();
        const bool follows = last.address + last.size == one.address && last.file == one.file &&
                             (one.file == Extent::kOwn || last.offset + last.size == one.offset);
        if (follows) {
          last.size += kPageSize;
          continue;
        }
      }
      extents.push_back(one);
      last_mapping = candidate.mapping;
    }
  }
  return extents;
}

std::vector<bool> files_to_share(const std::vector<FileUse>& files) {
  std::vector<bool> share(files.size());
  std::vector<size_t> by_size;
  for (size_t i = 0; i < files.size(); ++i) {
    if (files[i].needed == 0 || files[i].needed < files[i].stored / 2) continue;
    by_size.push_back(i);
  }
  std::stable_sort(by_size.begin(), by_size.end(),
                   [&](size_t a, size_t b) { return files[a].needed > files[b].needed; });
  // One more comes with what the new checkpoint writes.
  if (by_size.size() >= kMostFiles) by_size.resize(kLargeFiles);
  for (size_t i : by_size) share[i] = true;
  return share;
}

void drop_wasteful_files(std::vector<Extent>& extents, const BasePages& base) {
  std::vector<FileUse> uses;
  uses.reserve(base.files.size());
  for (const auto& file : base.files) uses.push_back({file.stored, 0});
  for (const auto& extent : extents) {
    if (extent.file != Extent::kOwn) uses[static_cast<size_t>(extent.file)].needed += extent.size;
  }
  std::vector<bool> share = files_to_share(uses);
  if (extents.size() > kMostExtents) share.assign(share.size(), false);
  for (auto& extent : extents) {
    if (extent.file == Extent::kOwn || share[static_cast<size_t>(extent.file)]) continue;
    extent.file = Extent::kOwn;
    extent.offset = 0;
  }
}

void skip_unlike(std::vector<Candidate>& candidates, const BasePages& base, const ReadMemory& read) {
  std::vector<char> now(kPageSize), then(kPageSize);
  for (Candidate& candidate : candidates) {
    const Extent& extent = candidate.extent;
    if (candidate.work != Work::kCompare || extent.size < kWorthSamples) continue;
    const int file = base.files[static_cast<size_t>(extent.file)].fd.get();
    const uint64_t pages = extent.size / kPageSize;
    const uint64_t samples = std::min(kMostSamples, pages / kPagesForSample);
    bool alike = false;
    for (uint64_t i = 0; i < samples && !alike; ++i) {
      // Spread without a period: programs write to every second page.
      const uint64_t scattered = (i * 0x9E3779B97F4A7C15) >> 32;
      const uint64_t at = (scattered * pages >> 32) * kPageSize;
      alike = read(extent.address + at, now) && read_file(file, then, extent.offset + at) && now == then;
    }
    if (!alike) {
      candidate.work = Work::kWrite;
      candidate.extent.file = Extent::kOwn;
      candidate.extent.offset = 0;
    }
  }
}

std::vector<Pages> left_to_write(const std::vector<Pages>& pages, const std::vector<Extent>& extents) {
  std::vector<Pages> left;
  auto part = pages.begin();
  for (const Extent& extent : extents) {
    if (extent.file != Extent::kOwn) continue;
    const uint64_t end = extent.address + extent.size;
    while (part != pages.end() && part->address + part->size <= extent.address) ++part;
    // The last part may go on in the next extent, so the outer iterator stays before it.
    for (auto one = part; one != pages.end() && one->address < end; ++one) {
      const uint64_t from = std::max(one->address, extent.address);
      const uint64_t skipped = from - one->address;
      Pages& piece = left.emplace_back(*one);
      piece.address = from;
      piece.size = std::min(one->address + one->size, end) - from;
      piece.offset += skipped;
      piece.file_offset += skipped;
    }
  }
  return left;
}

std::vector<Extent> own_extents(const std::vector<Pages>& pages, std::optional<uint64_t> packed_from) {
  std::vector<Extent> extents;
  size_t mapping = 0;
  for (const Pages& part : pages) {
    const uint64_t offset = packed_from ? *packed_from : part.offset;
    // Not across what belongs to two mappings: a restart maps each by itself.
    Extent* last = extents.empty() || mapping != part.mapping ? nullptr : &extents.back();
    mapping = part.mapping;
    if (last != nullptr && last->address + last->size == part.address &&
        last->offset + last->size == offset) {
      last->size += part.size;
    } else {
      extents.push_back({part.address, part.size, Extent::kOwn, offset});
    }
    if (packed_from) *packed_from += part.size;
  }
  return extents;
}

}  // namespace stasis::checkpoint

#include "checkpoint/page_copies.h"

#include <limits.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace stasis::checkpoint {

CopyRoom::CopyRoom(uint64_t size) {
  if (size == 0) return;
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return;
  memory_ = static_cast<char*>(memory);
  size_ = size;
  // In a virtual machine without nested paging a hundred small pages cost more than a huge one.
  ::madvise(memory_, size_, MADV_HUGEPAGE);
  constexpr int kPopulateWrite = 23;  // Linux 5.14
  ::madvise(memory_, size_, kPopulateWrite);
}

CopyRoom::~CopyRoom() {
  if (memory_ != nullptr) ::munmap(memory_, size_);
}

char* CopyRoom::take(uint64_t size) {
  if (size > left()) return nullptr;
  return memory_ + std::exchange(used_, used_ + size);
}

bool PageCopies::take(HostTid task, const PageRanges& pages, CopyRoom& room) {
  const uint64_t bytes = bytes_of(pages);
  char* place = room.take(bytes);
  if (place == nullptr && bytes != 0) return false;
  std::array<iovec, IOV_MAX> vectors;
  for (size_t next = 0; next < pages.size();) {
    size_t count = 0;
    uint64_t size = 0;
    char* const begin = place;
    for (; next < pages.size() && count < vectors.size(); ++next, ++count) {
      const uint64_t length = pages[next].end - pages[next].start;
      vectors[count] = {reinterpret_cast<void*>(pages[next].start), length};
      places_.push_back(place);
      place += length;
      size += length;
    }
    const iovec local{begin, size};
    // What one call cannot do at once is more than a checkpoint copies.
    if (::process_vm_readv(task.value, &local, 1, vectors.data(), count, 0) != static_cast<ssize_t>(size)) {
      places_.clear();
      return false;
    }
  }
  pages_ = pages;
  return true;
}

uint64_t PageCopies::read(uint64_t address, std::span<char> into) const {
  auto range = std::upper_bound(pages_.begin(), pages_.end(), address,
                                [](uint64_t value, const PageRange& one) { return value < one.end; });
  if (range == pages_.end() || range->start > address) return 0;
  const uint64_t size = std::min<uint64_t>(range->end - address, into.size());
  std::memcpy(into.data(), places_[static_cast<size_t>(range - pages_.begin())] + (address - range->start),
              size);
  return size;
}

}  // namespace stasis::checkpoint

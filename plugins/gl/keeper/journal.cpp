#include "keeper/journal.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "reader/ring_reader.h"

namespace stasis::gl {

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kSlotSize = size_t{8} << 30;  // of addresses; memory is taken as it is filled

}  // namespace

Journal::Journal(int file) {
  const size_t size = kPage + 2 * kSlotSize;
  struct stat status = {};
  if (fstat(file, &status) < 0) return;
  if (static_cast<size_t>(status.st_size) != size && ftruncate(file, static_cast<off_t>(size)) < 0) return;
  void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
  if (at != MAP_FAILED) header_ = static_cast<Header*>(at);
}

char* Journal::slot(uint64_t generation) const {
  return reinterpret_cast<char*>(header_) + kPage + (generation & 1) * kSlotSize;
}

void Journal::begin(const std::string& log, const std::string& more) {
  const uint64_t generation = header_->generation.load() + 1;
  const uint64_t sizes[] = {log.size(), more.size()};
  if (sizeof sizes + log.size() + more.size() > kSlotSize / 2) throw BadStream{"the log is too large"};
  char* at = slot(generation);
  std::memcpy(at, sizes, sizeof sizes);
  std::memcpy(at + sizeof sizes, log.data(), log.size());
  std::memcpy(at + sizeof sizes + log.size(), more.data(), more.size());
  length_ = entries_at_ = (sizeof sizes + log.size() + more.size() + 7) & ~uint64_t{7};
  header_->length[generation & 1].store(length_);
  header_->generation.store(generation);
}

void Journal::add(uint32_t ring, uint64_t position, const Packet& packet) {
  const uint64_t generation = header_->generation.load(std::memory_order_relaxed);
  if (length_ + sizeof(EntryHeader) + packet.size > kSlotSize) throw BadStream{"the log is too large"};
  char* at = slot(generation) + length_;
  const EntryHeader entry = {ring, 0, position};
  std::memcpy(at, &entry, sizeof entry);
  std::memcpy(at + sizeof entry, &packet, packet.size);
  length_ += sizeof entry + packet.size;
  header_->length[generation & 1].store(length_, std::memory_order_release);
}

bool Journal::is_long() const {
  constexpr uint64_t kShort = uint64_t{32} << 20;
  return length_ - entries_at_ > std::max(kShort, entries_at_);
}

bool Journal::read(std::string& log, std::string& more,
                   const std::function<void(const Entry&)>& handle) const {
  const uint64_t generation = header_->generation.load();
  const char* from = slot(generation);
  const uint64_t length = header_->length[generation & 1].load();
  uint64_t sizes[2];
  if (length > kSlotSize || length < sizeof sizes) return false;
  std::memcpy(sizes, from, sizeof sizes);
  if (sizes[0] > length || sizes[1] > length || sizeof sizes + sizes[0] + sizes[1] > length) return false;
  log.assign(from + sizeof sizes, sizes[0]);
  more.assign(from + sizeof sizes + sizes[0], sizes[1]);
  uint64_t at = (sizeof sizes + sizes[0] + sizes[1] + 7) & ~uint64_t{7};
  while (at + sizeof(EntryHeader) + sizeof(Packet) <= length) {
    EntryHeader entry;
    std::memcpy(&entry, from + at, sizeof entry);
    const auto* packet = reinterpret_cast<const Packet*>(from + at + sizeof entry);
    if (packet->size < sizeof(Packet) || packet->size % 8 != 0 || packet->size > length - at - sizeof entry)
      return false;
    handle({entry.ring, entry.position, packet});
    at += sizeof entry + packet->size;
  }
  return at == length;
}

}  // namespace stasis::gl

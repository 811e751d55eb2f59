#include "restore/work_area.h"

#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string_view>

namespace stasis::restore {

namespace {

constexpr size_t kMostStations =
    32;  // of threads; they use the room for batches while the process itself does not
constexpr uint64_t kCodeSize = 8 * kPageSize;
constexpr uint64_t kScratchSize = 128 * kPageSize;
constexpr uint64_t kParkingSize = 64 * kPageSize;
// Below the mmap area of ordinary programs and above their executables.
constexpr uint64_t kFirst = uint64_t{1} << 40;
constexpr uint64_t kLast = uint64_t{1} << 46;

}  // namespace

uint64_t WorkArea::size() { return kCodeSize + kScratchSize + kParkingSize; }

remote::Executor WorkArea::executor() const {
  return {RemotePtr{start_}, {RemotePtr{start_ + kCodeSize}, kScratchSize}};
}

remote::Stations WorkArea::stations(const remote::Executor& process) const {
  constexpr uint64_t kRoom = kScratchSize / kMostStations;
  constexpr size_t kCalls = kRoom / 2 / remote::Scratch::kCallSize;
  const size_t count = std::min<size_t>(kMostStations, kCodeSize / remote::stub_size() - 1);
  remote::Stations stations;
  for (size_t i = 0; i < count; ++i) {
    remote::Scratch scratch{RemotePtr{start_ + kCodeSize + i * kRoom}, kRoom, kCalls};
    stations.add(process.at(RemotePtr{start_ + (i + 1) * remote::stub_size()}, scratch));
  }
  return stations;
}

uint64_t WorkArea::parking() const { return start_ + kCodeSize + kScratchSize; }

Result<WorkArea> WorkArea::create(const schema::Manifest& manifest) {
  auto used = [&](uint64_t start, uint64_t end) {
    for (const auto& memory : manifest.memories()) {
      for (const auto& mapping : memory.mappings()) {
        // A stack needs room to grow below itself.
        uint64_t guard = mapping.grows_down() ? uint64_t{1} << 24 : 0;
        if (mapping.start() - guard < end && start < mapping.end()) return true;
      }
    }
    return false;
  };
  WorkArea area;
  for (uint64_t at = kFirst; at < kLast; at += uint64_t{1} << 30) {
    if (used(at, at + size())) continue;
    void* wanted = reinterpret_cast<void*>(at);
    void* got = ::mmap(wanted, size(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (got != wanted) {
      if (got != MAP_FAILED) ::munmap(got, size());
      continue;
    }
    area.start_ = at;
    break;
  }
  if (::getrandom(&area.guard_pass_, sizeof area.guard_pass_, 0) < 0)
    return errno_error("restart: get random bytes", {});
  if (area.start_ == 0) return Error{"restart", {}, "no free addresses for building", {}};
  ::mprotect(reinterpret_cast<void*>(area.start_), kCodeSize, PROT_READ | PROT_EXEC);
  ::mprotect(reinterpret_cast<void*>(area.start_ + kCodeSize), kScratchSize, PROT_READ | PROT_WRITE);

  STASIS_TRY(auto maps, kernel::read_maps(HostTid{::getpid()}));
  for (auto& entry : maps) {
    if (entry.name == "[vdso]") {
      std::string_view code(reinterpret_cast<const char*>(entry.start), entry.end - entry.start);
      size_t offset = code.find("\x0f\x05");
      if (offset == std::string_view::npos)
        return Error{"restart", "vDSO", "it has no system call instruction", {}};
      area.syscall_offset_ = offset;
    }
    if (entry.name == "[vdso]" || entry.name.starts_with("[vvar")) area.kernel_mappings_.push_back(entry);
  }
  return area;
}

}  // namespace stasis::restore

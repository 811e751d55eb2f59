#include "restore/address_space.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <linux/prctl.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "image/page_files.h"
#include "kernel/vdso.h"
#include "restore/aio_ring.h"
#include "restore/mapped_pages.h"
#include "restore/vdso.h"

namespace stasis::restore {

using remote::Batch;
using schema::Mapping;

namespace {

constexpr int kPrctlSetMm = 35;
constexpr int kSetMmMap = 14;
constexpr int kSetVma = 0x53564d41;

// struct prctl_mm_map
struct MemoryMap {
  uint64_t start_code, end_code, start_data, end_data, start_brk, brk, start_stack;
  uint64_t arg_start, arg_end, env_start, env_end;
  uint64_t auxv;
  uint32_t auxv_size;
  uint32_t exe_fd;
};

Error changed(const Mapping& mapping, std::string cause) {
  return Error{"restart: map a file", mapping.path(), std::move(cause),
               "the program needs the very file that it had mapped; put it back", ErrorCode::kRefused};
}

Result<void> check_identity(const Mapping& mapping, const struct stat& status) {
  const auto& identity = mapping.identity();
  int64_t modified = int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
  // A shared mapping shows what is in the file now, as it did before; only code and data that the program
  // relies on to be unchanged must be the same.
  if (mapping.kind() != Mapping::PRIVATE_FILE) return {};
  if (static_cast<uint64_t>(status.st_size) != identity.size())
    return changed(mapping, "its size has changed");
  if ((mapping.protection() & PROT_WRITE) == 0 && modified != identity.modified_ns()) {
    return changed(mapping, "it was modified after the checkpoint");
  }
  return {};
}

bool writable_shared(const Mapping& mapping) {
  return mapping.kind() == Mapping::SHARED_FILE && (mapping.protection() & PROT_WRITE) != 0;
}

// Its own descriptor may be for reading only, and what is for reading may have to become writable later: only
// a file that is open for both can be mapped so.
Result<int> file_of(const Mapping& mapping, int memory, DescriptorTable& table) {
  std::string path = mapping.path();
  if (mapping.description() != 0) {
    const int number = table.number_of(mapping.description());
    const int flags = ::fcntl(number, F_GETFL);
    const bool opened = (flags & O_PATH) == 0;
    if (opened && (flags & O_ACCMODE) == O_RDWR) return number;
    if (opened && (flags & O_ACCMODE) == O_RDONLY && mapping.kind() == Mapping::PRIVATE_FILE) return number;
    path = fmt::format("/proc/self/fd/{}", number);
  }
  if (writable_shared(mapping)) return table.open_for_mapping(memory, path, true);
  if (mapping.kind() == Mapping::SHARED_FILE && mapping.may_write()) {
    auto both = table.open_for_mapping(memory, path, true);
    if (both.ok()) return both;
  }
  return table.open_for_mapping(memory, path, false);
}

// A file of reserved huge pages cannot be written, only mapped.
Result<void> fill_huge_pages(const Fd& memory, const image::Image& image,
                             const schema::SharedMemory& object) {
  void* mapped = ::mmap(nullptr, object.size(), PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (mapped == MAP_FAILED) {
    return errno_error("restart: make shared memory of reserved huge pages", object.name(), errno,
                       "reserve as many as the program had: sysctl vm.nr_hugepages");
  }
  auto fill = [&]() -> Result<void> {
    STASIS_TRY(auto files, image::open_page_files(image, object));
    for (const auto& run : object.runs()) {
      STASIS_CHECK(pread_all(files[run.layer()].get(),
                             {static_cast<char*>(mapped) + run.address(), run.size()},
                             static_cast<off_t>(run.offset())));
    }
    return {};
  };
  auto filled = fill();
  ::munmap(mapped, object.size());
  return filled;
}

Result<int> make_shared_memory(const image::Image& image, const schema::SharedMemory& object,
                               DescriptorTable& table) {
  const uint32_t shift = object.huge_page_shift();
  const unsigned flags = MFD_CLOEXEC | (shift != 0 ? MFD_HUGETLB | shift << MFD_HUGE_SHIFT : 0U);
  Fd memory(::memfd_create(object.name().empty() ? "shared" : object.name().c_str(), flags));
  if (!memory || ::ftruncate(memory.get(), static_cast<off_t>(object.size())) != 0) {
    return errno_error("restart: make shared memory", object.name());
  }
  if (shift != 0) {
    STASIS_CHECK(fill_huge_pages(memory, image, object));
  } else if (object.runs_size() > 0) {
    STASIS_TRY(auto files, image::open_page_files(image, object));
    for (const auto& run : object.runs()) {
      const Fd& pages = files[run.layer()];
      auto from = static_cast<off_t>(run.offset());
      auto to = static_cast<off_t>(run.address());
      uint64_t left = run.size();
      while (left > 0) {
        ssize_t count = ::copy_file_range(pages.get(), &from, memory.get(), &to, left, 0);
        if (count <= 0) break;
        left -= static_cast<uint64_t>(count);
      }
      std::string buffer;
      while (left > 0) {
        buffer.resize(std::min<uint64_t>(left, 1 << 20));
        STASIS_CHECK(pread_all(pages.get(), buffer, from));
        STASIS_CHECK(pwrite_all(memory.get(), buffer, to));
        from += static_cast<off_t>(buffer.size());
        to += static_cast<off_t>(buffer.size());
        left -= buffer.size();
      }
    }
  }
  return table.add(std::move(memory));
}

class Builder {
 public:
  Builder(Skeleton& skeleton, const MemoryRequest& request, InheritedMemory& inherited)
      : skeleton_(skeleton),
        memory_(request.memory),
        index_(request.index),
        files_(request.files),
        table_(request.table),
        mode_(request.mode),
        saved_vdso_(request.saved_vdso),
        common_(request.common),
        read_(request.read),
        inherited_(inherited),
        pass_(request.area.guard_pass()),
        batch_(skeleton.batch()) {}

  Result<void> begin() {
    const auto& wanted = common_.with_descendants(index_);
    if (wanted.empty()) return {};
    for (const auto& mapping : memory_.mappings()) {
      const std::vector<StoredPages> pages = within(wanted, {mapping.start(), mapping.end()});
      if (pages.empty() || !can_be_inherited(mapping) || !pieces_of(mapping).empty()) continue;
      if (!inherited_.covers(mapping)) {
        STASIS_CHECK(room());
        const Mapping wide = common_.widened(index_, mapping);
        STASIS_CHECK(make_mapping(wide, kInherited));
        inherited_.add_mapping(wide);
      }
      const std::vector<StoredPages> missing = without(pages, inherited_.find(pages));
      to_read_.insert(to_read_.end(), missing.begin(), missing.end());
      for (const auto& one : pages) inherited_.add_pages(one);
    }
    STASIS_CHECK(flush());
    return fill();
  }

  Result<void> build(const WorkArea& area) {
    STASIS_CHECK(unmap_foreign());
    STASIS_CHECK(place_kernel_mappings(area));
    int next_run = 0;

    for (const auto& mapping : memory_.mappings()) {
      if (mapping.kind() == Mapping::VDSO || mapping.kind() == Mapping::VVAR) continue;
      STASIS_CHECK(map(mapping, next_run));
    }
    STASIS_CHECK(flush());
    STASIS_CHECK(fill());
    for (const auto& mapping : memory_.mappings()) {
      if (mapping.kind() == Mapping::VDSO || mapping.kind() == Mapping::VVAR) continue;
      STASIS_CHECK(finish(mapping));
    }
    STASIS_CHECK(set_memory_map());
    return flush();
  }

 private:
  static constexpr uint64_t kInherited = PROT_READ | PROT_WRITE;  // what can be done with inherited memory

  Result<void> room() {
    if (batch_.fits(16, 4096)) return {};
    return flush();
  }
  Result<void> flush() {
    if (batch_.empty()) return {};

    STASIS_CHECK(skeleton_.run(batch_));

    for (size_t i = 0; i < batch_.size(); ++i) {
      int64_t result = batch_.result(i);
      if (result < 0 && result > -4096 && !is_optional(i)) {
        return errno_error(fmt::format("restart: build the memory of task {}", skeleton_.ns_pid()),
                           fmt::format("system call {} at {:#x}", batch_.number(i), batch_.argument(i, 0)),
                           static_cast<int>(-result));
      }
    }
    batch_.clear();
    optional_.clear();
    return {};
  }
  bool is_optional(size_t index) const {
    return std::find(optional_.begin(), optional_.end(), index) != optional_.end();
  }
  // Of which size the pages are is decided when they come.
  static bool is_about_size(int advice) { return advice == MADV_HUGEPAGE || advice == MADV_NOHUGEPAGE; }
  // Advice is advice: a kernel without the feature lacks it for the program, too.
  void optional(size_t index) { optional_.push_back(index); }

  Result<void> place_kernel_mappings(const WorkArea& area) {
    STASIS_TRY(const VdsoPlace place, place_vdso(memory_, saved_vdso_, area));
    if (place.start == 0) return {};
    const auto& have = area.kernel_mappings();
    uint64_t parked = area.parking();
    for (const auto& entry : have) {
      const uint64_t size = entry.end - entry.start;
      const uint64_t to = place.start + (entry.start - have.front().start);
      batch_.call(SYS_mremap, {parked, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to, pass_});
      parked += size;
    }
    if (place.redirected == 0) return {};
    const std::string code = redirect_vdso(std::string(saved_vdso_), kernel::own_vdso(), place.vdso);
    batch_.call(SYS_mmap, {place.redirected, code.size(), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, ~uint64_t{0}, 0});
    STASIS_CHECK(flush());
    STASIS_CHECK(remote::write_memory(skeleton_.pid(), RemotePtr{place.redirected}, code));
    batch_.call(SYS_mprotect, {place.redirected, code.size(), PROT_READ | PROT_EXEC});
    return {};
  }

  std::vector<MappedPages> pieces_of(const Mapping& mapping) const {
    return mode_ == MemoryMode::kMapped ? mapped_pages(memory_, mapping) : std::vector<MappedPages>();
  }

  // Whether the mapping has been there from birth. Where the image is mapped over it nothing would be left of
  // that.
  bool is_inherited(const Mapping& mapping) const {
    return !inherited_.empty() && inherited_.covers(mapping) && pieces_of(mapping).empty();
  }

  // What is there from birth and belongs to others who descend from the same process.
  Result<void> unmap_foreign() {
    kernel::PageRanges kept;
    for (const auto& mapping : memory_.mappings()) {
      if (is_inherited(mapping)) kept.push_back({mapping.start(), mapping.end()});
    }
    for (const auto& range : inherited_.except(kept)) {
      STASIS_CHECK(room());
      batch_.call(SYS_munmap, {range.start, range.end - range.start});
    }
    return {};
  }

  Result<void> map(const Mapping& mapping, int& next_run) {
    if (mapping.kind() == Mapping::DEVICE) return {};  // its descriptor does it
    STASIS_CHECK(room());
    if (mapping.kind() == Mapping::AIO_RING) {
      STASIS_CHECK(flush());
      return make_aio_ring(skeleton_, mapping, pass_);
    }
    const uint64_t protection = mapping.protection();
    const std::vector<MappedPages> mapped = pieces_of(mapping);
    std::vector<StoredPages> pages;
    for (; next_run < memory_.runs_size() && memory_.runs(next_run).address() < mapping.end(); ++next_run) {
      const auto& run = memory_.runs(next_run);
      if (!is_mapped(mapped, run)) pages.push_back(common_.stored(index_, run));
    }
    if (is_inherited(mapping)) return keep(mapping, pages);

    const uint64_t fill_protection = !pages.empty() ? protection | PROT_WRITE : protection;
    STASIS_CHECK(make_mapping(mapping, fill_protection));
    for (const auto& piece : mapped) {
      STASIS_CHECK(room());
      auto file = static_cast<uint64_t>(files_.page_file(index_, piece.layer));
      uint64_t private_flags = MAP_FIXED | MAP_PRIVATE | (mapping.no_reserve() ? MAP_NORESERVE : 0);
      batch_.call(SYS_mmap, {piece.address, piece.size, fill_protection, private_flags, file, piece.offset});
    }
    if (fill_protection != protection) unprotected_.insert(mapping.start());
    to_read_.insert(to_read_.end(), pages.begin(), pages.end());
    return {};
  }

  // One that was there from birth, with pages of which some may be those of others.
  Result<void> keep(const Mapping& mapping, const std::vector<StoredPages>& pages) {
    const kernel::PageRanges whole = {{mapping.start(), mapping.end()}};
    const kernel::PageRanges there = kernel::intersection(inherited_.find(pages), whole);
    const std::vector<StoredPages> missing = without(pages, there);
    kernel::PageRanges own;
    for (const auto& one : pages) own.push_back({one.address, one.end()});
    const kernel::PageRanges inherited = kernel::intersection(inherited_.pages(), whole);
    for (const auto& range : kernel::difference(inherited, kernel::normalized(std::move(own)))) {
      STASIS_CHECK(room());
      batch_.call(SYS_madvise, {range.start, range.end - range.start, MADV_DONTNEED, 0, 0, pass_});
    }
    const uint64_t protection = mapping.protection();
    const uint64_t fill_protection = !missing.empty() ? protection | PROT_WRITE : protection;
    if (fill_protection != kInherited)
      batch_.call(SYS_mprotect, {mapping.start(), mapping.end() - mapping.start(), fill_protection});
    if (fill_protection != protection) unprotected_.insert(mapping.start());
    to_read_.insert(to_read_.end(), missing.begin(), missing.end());
    return {};
  }

  Result<void> make_mapping(const Mapping& mapping, uint64_t protection) {
    const uint64_t size = mapping.end() - mapping.start();
    uint64_t flags = MAP_FIXED;
    uint64_t fd = ~uint64_t{0};
    uint64_t offset = mapping.file_offset();
    switch (mapping.kind()) {
      case Mapping::ANONYMOUS:
        flags |= MAP_PRIVATE | MAP_ANONYMOUS;
        offset = 0;
        break;
      case Mapping::PRIVATE_FILE:
      case Mapping::SHARED_FILE: {
        flags |= mapping.kind() == Mapping::PRIVATE_FILE ? MAP_PRIVATE : MAP_SHARED;
        STASIS_TRY(int number, file_of(mapping, index_, table_));
        fd = static_cast<uint64_t>(number);
        break;
      }
      case Mapping::SYSTEM_V:
        break;
      default:
        flags |= MAP_SHARED;
        fd = static_cast<uint64_t>(files_.shared_memory(static_cast<int>(mapping.shared_memory())));
        break;
    }
    if (mapping.grows_down()) flags |= MAP_GROWSDOWN;
    if (mapping.no_reserve()) flags |= MAP_NORESERVE;
    if (mapping.huge_page_shift() != 0) flags |= MAP_HUGETLB | (uint64_t{mapping.huge_page_shift()} << 26);
    if (mapping.kind() == Mapping::SYSTEM_V) {
      STASIS_CHECK(attach_segment(mapping));
    } else {
      batch_.call(SYS_mmap, {mapping.start(), size, protection, flags, fd, offset});
    }
    if (mapping.kind() == Mapping::ANONYMOUS && mapping.path().starts_with("[anon:")) {
      std::string name = mapping.path().substr(6, mapping.path().size() - 7);
      uint64_t address = batch_.put({name.c_str(), name.size() + 1});
      optional(batch_.call(SYS_prctl, {kSetVma, 0, mapping.start(), size, address}));
    }
    for (int advice : mapping.advice()) {
      if (!is_about_size(advice)) continue;
      STASIS_CHECK(room());
      optional(batch_.call(SYS_madvise, {mapping.start(), size, static_cast<uint64_t>(advice), 0, 0, pass_}));
    }
    return {};
  }

  // We read, and the kernel copies: a read() by the process itself would meet each page for the first time,
  // which costs more than a second copy of what is in the cache of the processor.
  Result<void> fill() {
    constexpr uint64_t kPiece = 64 << 10;  // of which each page is new to us, too
    constexpr uint64_t kTold = 32 << 20;
    std::vector<char> buffer(kPiece);
    remote::Transfer pieces;  // that are in the buffer: there may be many small ones
    uint64_t buffered = 0, untold = 0;
    auto hand_over = [&]() -> Result<void> {
      auto written = std::exchange(pieces, {}).write(skeleton_.pid());
      if (!written.ok()) return std::move(written).error().within("restart");
      untold += std::exchange(buffered, 0);
      if (untold >= kTold && read_) read_(std::exchange(untold, 0));
      return {};
    };
    for (const auto& run : std::exchange(to_read_, {})) {
      for (uint64_t done = 0, size = 0; done < run.size; done += size) {
        if (buffered == kPiece) STASIS_CHECK(hand_over());
        size = std::min(kPiece - buffered, run.size - done);
        const std::span<char> room(buffer.data() + buffered, size);
        auto got =
            pread_all(files_.page_file(index_, run.layer), room, static_cast<off_t>(run.offset + done));
        if (!got.ok()) {
          Error error = std::move(got).error().within(
              fmt::format("restart: read the memory of task {}", skeleton_.ns_pid()));
          error.hint = "`stasis verify` tells more";
          error.code = ErrorCode::kDamaged;
          return error;
        }
        pieces.put(RemotePtr{run.address + done}, std::string_view(room.data(), size));
        buffered += size;
      }
    }
    STASIS_CHECK(hand_over());
    if (untold > 0 && read_) read_(untold);
    return {};
  }

  // What would be in the way of filling it.
  Result<void> finish(const Mapping& mapping) {
    STASIS_CHECK(room());
    uint64_t size = mapping.end() - mapping.start();
    if (unprotected_.contains(mapping.start()))
      batch_.call(SYS_mprotect, {mapping.start(), size, mapping.protection()});
    constexpr uint64_t kInstallGuard = 102;  // MADV_GUARD_INSTALL, Linux 6.13
    for (const auto& guard : mapping.guards()) {
      STASIS_CHECK(room());
      batch_.call(SYS_madvise, {guard.start(), guard.end() - guard.start(), kInstallGuard, 0, 0, pass_});
    }
    for (int advice : mapping.advice()) {
      if (is_about_size(advice)) continue;
      STASIS_CHECK(room());
      optional(batch_.call(SYS_madvise, {mapping.start(), size, static_cast<uint64_t>(advice), 0, 0, pass_}));
    }
    if (mapping.lock_flags() != 0) {
      optional(batch_.call(SYS_mlock2,
                           {mapping.start(), size, mapping.lock_flags() == 2 ? uint64_t{1} : uint64_t{0}}));
    }
    return {};
  }

  // A segment is attached as a whole only; of which a part is left, or was moved, that part is cut out.
  Result<void> attach_segment(const Mapping& mapping) {
    const uint64_t size = mapping.end() - mapping.start();
    const uint64_t whole = files_.segment_size(mapping.segment());
    const uint64_t front = mapping.file_offset();
    const auto segment = static_cast<uint64_t>(mapping.segment());
    uint64_t attached = PROT_READ | (mapping.read_only() ? 0 : PROT_WRITE);
    uint64_t flags = mapping.read_only() ? SHM_RDONLY : 0;
    if ((mapping.protection() & PROT_EXEC) != 0) {
      attached |= PROT_EXEC;
      flags |= SHM_EXEC;
    }
    if (front == 0 && size == whole) {
      batch_.call(SYS_shmat, {segment, mapping.start(), flags});
    } else {
      STASIS_CHECK(flush());
      size_t index = batch_.call(SYS_shmat, {segment, 0, flags});
      STASIS_CHECK(skeleton_.run_checked(batch_, "attach a segment"));
      const auto at = static_cast<uint64_t>(batch_.result(index));
      batch_.clear();
      batch_.call(SYS_mremap,
                  {at + front, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, mapping.start(), pass_});
      if (front != 0) batch_.call(SYS_munmap, {at, front});
      if (front + size < whole) batch_.call(SYS_munmap, {at + front + size, whole - front - size});
    }
    if (attached != mapping.protection())
      batch_.call(SYS_mprotect, {mapping.start(), size, mapping.protection()});
    return {};
  }

  Result<void> set_memory_map() {
    STASIS_CHECK(flush());
    MemoryMap map = {};
    map.start_code = memory_.start_code();
    map.end_code = memory_.end_code();
    map.start_data = memory_.start_data();
    map.end_data = memory_.end_data();
    map.start_brk = memory_.start_brk();
    map.brk = memory_.brk();
    map.start_stack = memory_.start_stack();
    map.arg_start = memory_.arg_start();
    map.arg_end = memory_.arg_end();
    map.env_start = memory_.env_start();
    map.env_end = memory_.env_end();
    map.auxv = batch_.put(memory_.auxv());
    map.auxv_size = static_cast<uint32_t>(memory_.auxv().size());
    int executable = files_.executable(index_);
    map.exe_fd = executable >= 0 ? static_cast<uint32_t>(executable) : ~uint32_t{0};
    uint64_t address = batch_.put_object(map);
    batch_.call(SYS_prctl, {kPrctlSetMm, kSetMmMap, address, sizeof map, 0});
    return {};
  }

  Skeleton& skeleton_;
  const schema::Memory& memory_;
  int index_;
  const MemoryFiles& files_;
  DescriptorTable& table_;
  MemoryMode mode_;
  std::string_view saved_vdso_;
  const PagesInCommon& common_;
  const std::function<void(uint64_t bytes)>& read_;
  InheritedMemory& inherited_;
  uint64_t pass_;
  Batch batch_;
  std::vector<size_t> optional_;
  std::vector<StoredPages> to_read_;
  std::set<uint64_t> unprotected_;  // by the start: writable until they are filled
};

}  // namespace

namespace {

// The path of a file that is not on something that the program has mounted, which is not there yet.
std::string path_now(const Mapping& mapping) {
  if (mapping.host_path().empty()) return mapping.path();
  return mapping.host_path().starts_with('/') ? mapping.host_path() : std::string();
}

}  // namespace

Result<void> MemoryFiles::check(const schema::Manifest& manifest) {
  // What is going to be put back need not be there yet.
  std::set<std::string_view> captured;
  for (const auto& file : manifest.captured_files()) {
    if (file.method() != schema::CapturedFile::CONTENT) continue;
    captured.insert(file.path());
    captured.insert(file.other_paths().begin(), file.other_paths().end());
  }
  std::map<std::string, struct stat> seen;  // a library is four or five mappings in each process
  for (const auto& memory : manifest.memories()) {
    for (const auto& mapping : memory.mappings()) {
      bool named = mapping.kind() == Mapping::PRIVATE_FILE || mapping.kind() == Mapping::SHARED_FILE;
      const std::string path = path_now(mapping);
      if (!named || path.empty() || captured.contains(path)) continue;
      auto [status, is_new] = seen.try_emplace(path);
      if (is_new && ::stat(path.c_str(), &status->second) != 0) {
        return errno_error("restart: map a file", path, errno,
                           "the program needs the file that it had mapped; put it back");
      }
      STASIS_CHECK(check_identity(mapping, status->second));
    }
  }
  return {};
}

Result<MemoryFiles> MemoryFiles::open(const image::Image& image, DescriptorTable& table) {
  MemoryFiles files;
  for (const auto& segment : image.manifest().system_v().segments())
    files.segment_sizes_[segment.object().id()] = page_up(segment.size());
  for (const auto& memory : image.manifest().memories()) {
    const auto index = static_cast<int>(files.page_files_.size());
    auto& numbers = files.page_files_.emplace_back();
    STASIS_TRY(auto opened, image::open_page_files(image, memory));
    for (Fd& file : opened) {
      int number = -1;
      if (file) {
        STASIS_TRY(number, table.add(std::move(file)));
      }
      numbers.push_back(number);
    }
    int executable = -1;
    if (memory.executable_description() != 0) {
      executable = table.number_of(memory.executable_description());
    } else if (!memory.executable().ends_with(" (deleted)")) {
      // Of an older image, which does not have what was removed, /proc/PID/exe will show ours.
      STASIS_TRY(executable, table.open_for_mapping(index, memory.executable(), false));
    }
    files.executables_.push_back(executable);
    for (const auto& mapping : memory.mappings()) {
      bool named = mapping.kind() == Mapping::PRIVATE_FILE || mapping.kind() == Mapping::SHARED_FILE;
      if (!named || (mapping.description() == 0 && mapping.path().empty())) continue;
      STASIS_TRY([[maybe_unused]] int number, file_of(mapping, index, table));
    }
  }
  for (const auto& object : image.manifest().shared_memories()) {
    STASIS_TRY(int number, make_shared_memory(image, object, table));
    files.shared_.push_back(number);
  }
  return files;
}

Result<void> begin_memory(Skeleton& skeleton, const MemoryRequest& request, InheritedMemory& inherited) {
  return Builder(skeleton, request, inherited).begin();
}

Result<void> build_memory(Skeleton& skeleton, const MemoryRequest& request, InheritedMemory& inherited) {
  return Builder(skeleton, request, inherited).build(request.area);
}

}  // namespace stasis::restore

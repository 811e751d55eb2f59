#include "inspect/memory.h"

#include <fcntl.h>
#include <linux/mman.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>

#include "kernel/huge_pages.h"
#include "resource/registry.h"
#include "resource/socket/packet_ring.h"

namespace stasis::inspect {

using schema::Mapping;

namespace {

constexpr std::string_view kDeleted = " (deleted)";
constexpr std::string_view kMemfd = "/memfd:";  // and the name that the program has given it

// Page files of our own images: the process was restarted from one, and what such a mapping shows is the
// program's anonymous memory.
bool is_page_file(std::string_view name) {
  if (name.ends_with(kDeleted)) name.remove_suffix(kDeleted.size());
  return name.ends_with(".stasis-pages");
}

// Shared memory that has never had a name in a file system is on one of the kernel's own.
bool is_on_kernels_own(const kernel::MapsEntry& entry) {
  static const uint64_t kernels_own = [] {
    Fd file(::memfd_create("device", MFD_CLOEXEC));
    struct stat status = {};
    return ::fstat(file.get(), &status) == 0 ? status.st_dev : 0;
  }();
  return entry.device == kernels_own;
}

// The kernel names the file of a segment after its key, and numbers it by its id. A file of the program's
// could have such a name, but would be on another file system.
bool is_system_v(const kernel::MapsEntry& entry) {
  return entry.name.starts_with("/SYSV") && entry.name.ends_with(kDeleted) &&
         (is_on_kernels_own(entry) || kernel::huge_page_shift_of(entry.device) != 0);
}

bool is_anonymous_name(std::string_view name) {
  return name.empty() || name == "[heap]" || name == "[stack]" || name.starts_with("[anon:") ||
         name.starts_with("[stack:");
}

void set_identity(Mapping& mapping, const struct stat& status) {
  auto* identity = mapping.mutable_identity();
  identity->set_size(static_cast<uint64_t>(status.st_size));
  identity->set_modified_ns(int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec);
  identity->set_device(status.st_dev);
  identity->set_inode(status.st_ino);
}

class Classifier {
 public:
  Classifier(const freeze::FrozenProcess& process, const DescriptorGraph& files, SharedMemoryTable& shared,
             schema::Manifest& manifest)
      : process_(process), files_(files), shared_(shared), manifest_(manifest) {}

  Result<MappingFacts> classify(const kernel::MapsEntry& entry) {
    MappingFacts facts;
    facts.entry = entry;
    Mapping& mapping = facts.mapping;
    mapping.set_start(entry.start);
    mapping.set_end(entry.end);
    mapping.set_protection(static_cast<uint32_t>(entry.protection));
    if (entry.name == "[vdso]") {
      mapping.set_kind(Mapping::VDSO);
    } else if (entry.name.starts_with("[vvar")) {
      mapping.set_kind(Mapping::VVAR);
    } else if (resource::is_mapped_by_kind(entry.name)) {
      mapping.set_kind(Mapping::DEVICE);
      mapping.set_path(entry.name);
    } else if (entry.name.starts_with("socket:[")) {
      const auto* file = files_.find_file(entry.device, entry.inode);
      if (file == nullptr || !resource::is_ring_of(*file, process_.pid)) {
        return refuse(entry, "it is memory of a socket that another process has opened, or that is closed",
                      "unmap it before a checkpoint");
      }
      mapping.set_kind(Mapping::DEVICE);
      mapping.set_path(entry.name);
    } else if (entry.shared) {
      STASIS_CHECK(classify_shared(facts));
    } else if (is_anonymous_name(entry.name)) {
      mapping.set_kind(Mapping::ANONYMOUS);
      mapping.set_stack(entry.name == "[stack]");
      if (entry.name.starts_with("[anon:")) mapping.set_path(entry.name);
      facts.content = Content::kModified;
    } else if (is_page_file(entry.name)) {
      mapping.set_kind(Mapping::ANONYMOUS);
      facts.content = Content::kEverything;
      facts.mapped_page_file = true;
    } else {
      STASIS_CHECK(classify_private_file(facts));
    }
    return facts;
  }

 private:
  Error refuse(const kernel::MapsEntry& entry, std::string cause, std::string hint) const {
    return Error{
        "save",
        fmt::format("mapping {:#x} of task {} ({})", entry.start, process_.status.ns_tgid, entry.name),
        std::move(cause), std::move(hint), ErrorCode::kRefused};
  }

  // A library is four or five mappings in a row.
  bool still_named(const kernel::MapsEntry& entry, struct stat& status) {
    if (entry.name != last_name_ || entry.device != last_device_ || entry.inode != last_inode_) {
      last_is_named_ = files_.names(process_, entry, last_status_);
      last_name_ = entry.name;
      last_device_ = entry.device;
      last_inode_ = entry.inode;
    }
    status = last_status_;
    return last_is_named_;
  }

  Result<void> classify_private_file(MappingFacts& facts) {
    const auto& entry = facts.entry;
    // Private pages of /dev/zero are anonymous memory with a name. So is shared anonymous memory called,
    // which can be opened and mapped as a private copy, too: of that the file has what was not written.
    const bool is_zero = entry.name.starts_with("/dev/zero") && !is_on_kernels_own(entry);
    if (is_zero || entry.name.starts_with("/anon_hugepage")) {
      facts.mapping.set_kind(Mapping::ANONYMOUS);
      facts.content = Content::kModified;
      return {};
    }
    if (entry.name.starts_with("anon_inode:"))
      return refuse(entry, "this kind of memory cannot be saved", {});
    struct stat status = {};
    if (!entry.name.ends_with(kDeleted) && still_named(entry, status)) {
      if (S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode)) {
        return refuse(entry, "it is memory of a device", "only a plugin that knows the device could save it");
      }
      facts.mapping.set_kind(Mapping::PRIVATE_FILE);
      facts.mapping.set_path(entry.name);
      facts.mapping.set_file_offset(entry.offset);
      set_identity(facts.mapping, status);
    } else if (const auto* file = files_.find_file(entry.device, entry.inode)) {
      facts.mapping.set_kind(Mapping::PRIVATE_FILE);
      facts.mapping.set_description(file->id);
      facts.mapping.set_file_offset(entry.offset);
    } else {
      // Deleted, replaced by an upgrade, or covered by a mount: nobody can give us the file again, so all of
      // it is saved, and comes back as memory without a file.
      facts.mapping.set_kind(Mapping::ANONYMOUS);
      facts.content = Content::kEverything;
      return {};
    }
    facts.content = Content::kModified;
    return {};
  }

  Result<void> classify_shared(MappingFacts& facts) {
    const auto& entry = facts.entry;
    Mapping& mapping = facts.mapping;
    mapping.set_file_offset(entry.offset);
    if (is_system_v(entry)) {
      mapping.set_kind(Mapping::SYSTEM_V);
      mapping.set_segment(static_cast<int32_t>(entry.inode));
      return {};
    }
    if (entry.name.starts_with("anon_inode:"))
      return refuse(entry, "this kind of memory cannot be saved", {});
    if (entry.name.starts_with("/[aio]")) {
      mapping.set_kind(Mapping::AIO_RING);
      std::string ring(entry.end - entry.start, '\0');
      STASIS_CHECK(remote::read_memory(process_.pid, RemotePtr{entry.start}, ring));
      mapping.set_ring(std::move(ring));
      return {};
    }
    bool anonymous = entry.name.starts_with("/dev/zero");
    struct stat status = {};
    if (!anonymous && !entry.name.ends_with(kDeleted) && still_named(entry, status)) {
      if (S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode)) {
        return refuse(entry, "it is memory of a device", "only a plugin that knows the device could save it");
      }
      mapping.set_kind(Mapping::SHARED_FILE);
      mapping.set_path(entry.name);
      set_identity(mapping, status);
      return {};
    }
    // Anonymous memory, too, can be opened as a file: by its link in /proc/PID/map_files.
    if (const auto* file = files_.find_file(entry.device, entry.inode)) {
      mapping.set_kind(Mapping::SHARED_FILE);
      mapping.set_description(file->id);
      return {};
    }
    bool is_new = false;
    mapping.set_kind(Mapping::SHARED_MEMORY);
    mapping.set_shared_memory(shared_.index_of(entry.device, entry.inode, is_new));
    if (is_new) {
      auto* object = manifest_.add_shared_memories();
      object->set_huge_page_shift(kernel::huge_page_shift_of(entry.device));
      if (!anonymous) {
        std::string name = entry.name.substr(entry.name.rfind('/') + 1);
        if (entry.name.starts_with(kMemfd)) name = entry.name.substr(kMemfd.size());
        object->set_name(name.substr(0, name.size() - std::min(name.size(), kDeleted.size())));
      }
    }
    auto* object = manifest_.mutable_shared_memories(static_cast<int>(mapping.shared_memory()));
    object->set_size(std::max<uint64_t>(object->size(), entry.offset + (entry.end - entry.start)));
    facts.content = Content::kEverything;
    return {};
  }

  const freeze::FrozenProcess& process_;
  const DescriptorGraph& files_;
  SharedMemoryTable& shared_;
  schema::Manifest& manifest_;
  std::string last_name_;
  uint64_t last_device_ = 0, last_inode_ = 0;
  struct stat last_status_ = {};
  bool last_is_named_ = false;
};

// VmFlags and the madvise() that sets each.
struct Advice {
  std::string_view flag;
  int advice;
};
constexpr Advice kAdvice[] = {
    {"dc", MADV_DONTFORK},   {"dd", MADV_DONTDUMP},  {"wf", MADV_WIPEONFORK}, {"hg", MADV_HUGEPAGE},
    {"nh", MADV_NOHUGEPAGE}, {"mg", MADV_MERGEABLE}, {"sr", MADV_SEQUENTIAL}, {"rr", MADV_RANDOM},
};

}  // namespace

uint32_t SharedMemoryTable::index_of(uint64_t device, uint64_t inode, bool& is_new) {
  auto [position, inserted] = known_.try_emplace({device, inode}, static_cast<uint32_t>(known_.size()));
  is_new = inserted;
  return position->second;
}

Result<std::vector<MappingFacts>> classify_mappings(const freeze::FrozenProcess& process,
                                                    const std::vector<kernel::MapsEntry>& maps,
                                                    const remote::Foothold& foothold,
                                                    const DescriptorGraph& files, SharedMemoryTable& shared,
                                                    schema::Manifest& manifest) {
  Classifier classifier(process, files, shared, manifest);
  std::vector<MappingFacts> all;
  for (const auto& entry : maps) {
    if (entry.name == "[vsyscall]" || foothold.is_ours(entry.start)) continue;
    STASIS_TRY(MappingFacts facts, classifier.classify(entry));
    all.push_back(std::move(facts));
  }
  return all;
}

void add_flags(std::vector<MappingFacts>& mappings, const std::vector<kernel::MappingFlags>& flags) {
  auto flag = flags.begin();
  for (auto& facts : mappings) {
    while (flag != flags.end() && flag->end <= facts.entry.start) ++flag;
    if (flag == flags.end()) return;
    if (flag->start > facts.entry.start) continue;
    Mapping& mapping = facts.mapping;
    mapping.set_grows_down(mapping.grows_down() || flag->has("gd"));
    mapping.set_no_reserve(mapping.no_reserve() || flag->has("nr"));
    if (mapping.kind() == Mapping::SYSTEM_V) mapping.set_read_only(!flag->has("mw"));
    if (mapping.kind() == Mapping::SHARED_FILE) mapping.set_may_write(flag->has("mw"));
    if (flag->has("ht"))
      mapping.set_huge_page_shift(static_cast<uint32_t>(std::countr_zero(flag->page_size)));
    if (flag->has("lo")) mapping.set_lock_flags(flag->has("lf") ? 2 : 1);
    for (const Advice& advice : kAdvice) {
      bool known = std::find(mapping.advice().begin(), mapping.advice().end(), advice.advice) !=
                   mapping.advice().end();
      if (flag->has(advice.flag) && !known) mapping.add_advice(advice.advice);
    }
  }
}

uint32_t lock_of_future_mappings(const std::vector<kernel::MappingFlags>& flags,
                                 const remote::Foothold& foothold) {
  for (const auto& mapping : flags) {
    if (!foothold.is_ours(mapping.start) || !mapping.has("lo")) continue;
    return mapping.has("lf") ? MCL_FUTURE | MCL_ONFAULT : MCL_FUTURE;
  }
  return 0;
}

}  // namespace stasis::inspect

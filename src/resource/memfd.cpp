#include "resource/memfd.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <bit>

#include "resource/content.h"
#include "resource/payload.h"
#include "resource/refusal.h"
#include "resource/reopen.h"
#include "schema/kinds/memfd.pb.h"

namespace stasis::resource {
namespace {

constexpr std::string_view kPrefix = "/memfd:";
constexpr std::string_view kSuffix = " (deleted)";

std::string object_key(const schema::Memfd& message) {
  return fmt::format("memfd:{:x}:{}", message.device(), message.inode());
}

bool is_writable(const Record& record) { return (record.flags & O_ACCMODE) != O_RDONLY; }

// The description whose fill() or finish() seals the object: seals need a writable one, and are to be set
// once.
uint32_t sealer(const Record& record, const schema::Memfd& message, const Making& context) {
  for (const Record& other : context.records()) {
    if (other.kind != record.kind || !is_writable(other)) continue;
    auto others = unpack<schema::Memfd>(other);
    if (others.ok() && object_key(*others) == object_key(message)) return other.id;
  }
  return 0;
}

// The description that memfd_create() has made is no writer to the kernel, as one by open() is: a program
// that is in the memory can be executed while it is open. Which one that was is not shown; it is for reading
// and writing, and nobody opens another one before it.
bool is_original(const Record& record, const schema::Memfd& message, const Making& context) {
  const auto& candidates = context.index(record.kind, "original", [](const Record& other) {
    if ((other.flags & (O_ACCMODE | O_PATH)) != O_RDWR) return std::string();
    auto others = unpack<schema::Memfd>(other);
    return others.ok() ? object_key(*others) : std::string();
  });
  const auto [first, last] = candidates.equal_range(object_key(message));
  return first != last && first->second->id == record.id;
}

Result<Fd> make_object(const Record& record, const schema::Memfd& message, Making& context) {
  unsigned flags = MFD_CLOEXEC;
  // Without MFD_ALLOW_SEALING the kernel sets F_SEAL_SEAL alone. Executable or not is in the mode since
  // Linux 6.3.
  if (message.seals() != F_SEAL_SEAL) flags |= MFD_ALLOW_SEALING;
  if (message.huge_page_shift() != 0) flags |= MFD_HUGETLB | message.huge_page_shift() << MFD_HUGE_SHIFT;
  Fd object(memfd_create(message.name().c_str(), flags));
  if (!object) return cannot_make(record, "memfd_create");
  STASIS_TRY(Fd content, context.open_image_file(message.content()));
  if (auto copied = copy_content(content.get(), object.get()); !copied.ok())
    return std::move(copied).error().within("restore " + record.describe());
  if (fchmod(object.get(), message.mode() & 07777) < 0) return cannot_make(record, "fchmod");
  return object;
}

}  // namespace

KindInfo MemfdKind::info() const {
  return {"memfd", "Memory", "memfd: name, content, seals, huge pages; one object however often it is open"};
}

bool MemfdKind::recognises(const OpenFile& file, const Observation&) const {
  return file.link.starts_with(kPrefix) && S_ISREG(file.status.st_mode) && file.status.st_nlink == 0;
}

Result<std::string> MemfdKind::observe(const OpenFile& file, Observation& tree) const {
  schema::Memfd message;
  std::string name = file.link.substr(kPrefix.size());
  if (name.ends_with(kSuffix)) name.resize(name.size() - kSuffix.size());
  message.set_name(name);
  message.set_device(file.status.st_dev);
  message.set_inode(file.status.st_ino);
  message.set_size(static_cast<uint64_t>(file.status.st_size));
  message.set_mode(file.status.st_mode);
  message.set_content(content_name("memfd", file.status));
  int seals = fcntl(file.duplicate.get(), F_GET_SEALS);
  if (seals < 0) return cannot_observe(file, "F_GET_SEALS");
  message.set_seals(static_cast<uint32_t>(seals));
  struct statfs fs = {};
  if (fstatfs(file.duplicate.get(), &fs) < 0) return cannot_observe(file, "fstatfs");
  if (fs.f_type == HUGETLBFS_MAGIC) {
    message.set_huge_page_shift(static_cast<uint32_t>(std::countr_zero(static_cast<uint64_t>(fs.f_bsize))));
  }
  STASIS_CHECK(save_content(file, message.content(), tree));
  return pack(message);
}

Result<Fd> MemfdKind::make(const Record& record, Making& context) const {
  STASIS_TRY(auto message, unpack<schema::Memfd>(record));
  Fd& object = context.shared_objects()[object_key(message)];
  if (!object) {
    STASIS_TRY(object, make_object(record, message, context));
  }
  const bool original = is_original(record, message, context);
  auto fd = original ? duplicate(object.get()) : reopen(object.get(), open_flags(record.flags));
  if (!fd.ok()) return std::move(fd).error().within("restore " + record.describe());
  if (record.flags & O_PATH) return fd;
  if (original) STASIS_CHECK(set_status_flags(fd->get(), record.flags));
  if (lseek(fd->get(), record.position, SEEK_SET) < 0) return cannot_make(record, "lseek");
  return fd;
}

// Sealing comes last. F_SEAL_FUTURE_WRITE forbids new writable mappings but leaves those that exist: the
// memory of the program must be mapped first, so that seal waits for finish(). The other seals exclude no
// mapping that the program has.
Result<void> MemfdKind::fill(const Record& record, int, Making& context) const {
  STASIS_TRY(auto message, unpack<schema::Memfd>(record));
  uint32_t by = sealer(record, message, context);
  bool later = by != 0 && message.seals() & F_SEAL_FUTURE_WRITE;
  if (message.seals() == 0 || message.seals() == F_SEAL_SEAL || later || (by != 0 && by != record.id))
    return {};
  int object = context.shared_objects()[object_key(message)].get();
  if (fcntl(object, F_ADD_SEALS, message.seals()) == 0) return {};
  // Descriptions for reading only: each of them comes here, the first has sealed the object already.
  if (errno == EPERM && fcntl(object, F_GET_SEALS) == static_cast<int>(message.seals())) return {};
  return cannot_make(record, "F_ADD_SEALS");
}

Result<void> MemfdKind::finish(const Record& record, Finishing& owner) const {
  STASIS_TRY(auto message, unpack<schema::Memfd>(record));
  if (!(message.seals() & F_SEAL_FUTURE_WRITE) || !is_writable(record)) return {};
  auto number = static_cast<uint64_t>(owner.number());
  STASIS_TRY(int64_t present, owner.call(SYS_fcntl, std::array{number, uint64_t{F_GET_SEALS}}));
  if (present == static_cast<int64_t>(message.seals())) return {};
  STASIS_TRY(int64_t result,
             owner.call(SYS_fcntl, std::array{number, uint64_t{F_ADD_SEALS}, uint64_t{message.seals()}}));
  if (result < 0) return cannot_make(record, "F_ADD_SEALS", static_cast<int>(-result));
  return {};
}

std::string MemfdKind::summary(const Record& record) const {
  auto message = unpack<schema::Memfd>(record);
  if (!message.ok()) return {};
  return fmt::format("\"{}\", {} bytes, seals {:#x}", message->name(), message->size(), message->seals());
}

}  // namespace stasis::resource

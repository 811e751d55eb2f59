#include "inspect/aio.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <time.h>

#include <algorithm>
#include <sstream>

#include "kernel/proc.h"

namespace stasis::inspect {

namespace {

constexpr const char* kHint =
    "let the program do its I/O in threads instead (aio=threads, innodb_use_native_aio=0, or the like)";

// Of requests to files only those that go to the disk at once (O_DIRECT) return before they have ended.
bool goes_to_disk(const resource::OpenFile& file, NsTid process) {
  return (file.flags & O_DIRECT) != 0 && (S_ISREG(file.status.st_mode) || S_ISBLK(file.status.st_mode)) &&
         std::any_of(file.owners.begin(), file.owners.end(),
                     [&](const auto& owner) { return owner.first == process; });
}

bool is_remote(const resource::OpenFile& file) {
  constexpr unsigned long kRemote[] = {NFS_SUPER_MAGIC,  SMB_SUPER_MAGIC, SMB2_SUPER_MAGIC, CIFS_SUPER_MAGIC,
                                       FUSE_SUPER_MAGIC, V9FS_MAGIC,      CEPH_SUPER_MAGIC};
  struct statfs fs = {};
  return ::fstatfs(file.duplicate.get(), &fs) != 0 ||
         std::find(std::begin(kRemote), std::end(kRemote), static_cast<unsigned long>(fs.f_type)) !=
             std::end(kRemote);
}

// Documentation/admin-guide/iostats.rst: field 9 counts the requests that a disk is at work on.
Result<bool> disks_are_quiet() {
  STASIS_TRY(Fd file, open_file(kernel::host_proc(), "diskstats", O_RDONLY));
  STASIS_TRY(std::string text, read_all(file.get()));
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string major, minor, name;
    uint64_t value = 0;
    words >> major >> minor >> name;
    for (int field = 1; field <= 9; ++field) words >> value;
    if (!words.fail() && value != 0) return false;
  }
  return true;
}

}  // namespace

Result<void> check_rings(const freeze::FrozenProcess& process, std::span<const MappingFacts> mappings,
                         DescriptorGraph& files) {
  const bool any = std::any_of(mappings.begin(), mappings.end(), [](const MappingFacts& facts) {
    return facts.mapping.kind() == schema::Mapping::AIO_RING;
  });
  if (!any) return {};
  const std::string name = fmt::format("task {} ({})", process.status.ns_tgid, process.status.name);
  files.warn(fmt::format(
      "{}: it has a context for asynchronous I/O; requests to wait for a file (IOCB_CMD_POLL) or to "
      "flush one that are under way in it do not end after a restart",
      name));
  bool direct = false;
  for (const auto& file : files.all()) {
    if (!goes_to_disk(*file, process.status.ns_tgid)) continue;
    direct = true;
    if (is_remote(*file)) {
      return Error{
          "save", name,
          fmt::format("requests may be under way in its context for asynchronous I/O: {} is not on a disk "
                      "whose requests are counted",
                      file->link),
          kHint, ErrorCode::kRefused};
    }
  }
  // Nobody of the session makes a request now, so what the disks do not have is not there.
  constexpr int kQuiet = 2, kTries = 10;
  for (int tries = 0, quiet = 0; direct && quiet < kQuiet; ++tries) {
    STASIS_TRY(bool now, disks_are_quiet());
    quiet = now ? quiet + 1 : 0;
    if (quiet < kQuiet && tries >= kTries) {
      return Error{"save", name,
                   "requests may be under way in its context for asynchronous I/O: the disks are at work",
                   kHint, ErrorCode::kRefusedNow};
    }
    const timespec moment{0, 500'000};
    ::nanosleep(&moment, nullptr);
  }
  return {};
}

}  // namespace stasis::inspect

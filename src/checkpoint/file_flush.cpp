#include "checkpoint/file_flush.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <set>

#include "kernel/proc.h"
#include "stasis/fd.h"

namespace stasis::checkpoint {
namespace {

// Less is on the disk before anybody notices.
constexpr off_t kWorthFlushing = 1 << 20;

bool can_clone(const struct statfs& fs) {
  return fs.f_type == BTRFS_SUPER_MAGIC || fs.f_type == XFS_SUPER_MAGIC;
}

}  // namespace

void flush_for_clones(const freeze::Scope& scope, const std::string& store) {
  struct statfs of_store = {};
  if (::statfs(store.c_str(), &of_store) != 0 || !can_clone(of_store)) return;
  auto pids = freeze::processes_of(scope);
  if (!pids.ok()) return;
  std::set<std::pair<dev_t, ino_t>> done;
  for (HostTid pid : *pids) {
    auto numbers = kernel::list_numbers(fmt::format("{}/fd", pid));
    if (!numbers.ok()) continue;
    for (int number : *numbers) {
      const std::string path = fmt::format("{}/fd/{}", pid, number);
      struct stat status = {};
      if (::fstatat(kernel::host_proc(), path.c_str(), &status, 0) != 0 || !S_ISREG(status.st_mode) ||
          status.st_size < kWorthFlushing || !done.insert({status.st_dev, status.st_ino}).second)
        continue;
      auto file = open_file(kernel::host_proc(), path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
      struct statfs fs = {};
      if (!file.ok() || ::fstatfs(file->get(), &fs) != 0 || !can_clone(fs)) continue;
      ::sync_file_range(file->get(), 0, 0, SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    }
  }
}

}  // namespace stasis::checkpoint

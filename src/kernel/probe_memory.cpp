#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "kernel/probe_internal.h"
#include "stasis/fd.h"
#include "stasis/types.h"

namespace stasis::kernel::probing {
namespace {

// Of linux/fs.h and linux/userfaultfd.h since 6.7; Debian 12's headers are older.
struct PageRegion {
  uint64_t start, end, categories;
};
struct ScanArgument {
  uint64_t size, flags, start, end, walk_end, regions, regions_length, max_pages;
  uint64_t category_inverted, category_mask, category_any_of_mask, return_mask;
};
constexpr uint64_t kPageIsTracked = 1 << 0;  // PAGE_IS_WPALLOWED
constexpr uint64_t kPageIsWritten = 1 << 1;
constexpr uint64_t kPageIsPresent = 1 << 3;
constexpr unsigned long kPagemapScan = _IOWR('f', 16, ScanArgument);
constexpr uint64_t kFeatureWriteProtectAsync = 1 << 15;

char* two_pages() {
  void* memory = mmap(nullptr, 2 * kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<char*>(memory);
}

// The nearest directory that exists: the store is made at the first checkpoint.
std::string existing_parent(std::string path) {
  while (access(path.c_str(), F_OK) != 0) {
    const size_t slash = path.find_last_of('/', path.find_last_not_of('/'));
    if (slash == std::string::npos) return ".";
    if (slash == 0) return "/";
    path.resize(slash);
  }
  return path;
}

}  // namespace

Outcome try_pagemap_scan() {
  char* memory = two_pages();
  if (memory == nullptr) return lacking(failed("mmap"), "");
  memory[0] = 1;
  auto pagemap = open_file("/proc/self/pagemap", O_RDONLY);
  if (!pagemap.ok()) return lacking(pagemap.error().message(), "a kernel with CONFIG_PROC_PAGE_MONITOR");
  PageRegion region = {};
  ScanArgument scan = {};
  scan.size = sizeof scan;
  scan.start = reinterpret_cast<uint64_t>(memory);
  scan.end = scan.start + 2 * kPageSize;
  scan.regions = reinterpret_cast<uint64_t>(&region);
  scan.regions_length = 1;
  scan.category_mask = scan.return_mask = kPageIsPresent;
  const int found = ioctl(pagemap->get(), kPagemapScan, &scan);
  if (found < 0) {
    return partly(fmt::format("PAGEMAP_SCAN: {}; /proc/PID/pagemap is read instead, which is slower",
                              std::strerror(errno)),
                  "Linux 6.7 or later");
  }
  if (found != 1 || region.start != scan.start || region.end != scan.start + kPageSize) {
    return lacking("PAGEMAP_SCAN does not find a page that was written", "");
  }
  return works("PAGEMAP_SCAN finds the pages that hold data");
}

Outcome try_write_tracking() {
  const char* remedy =
      "Linux 6.7 or later with CONFIG_USERFAULTFD, and nothing that forbids userfaultfd (a container's "
      "seccomp "
      "profile, a security module); until then increments read all memory and compare it";
  Fd tracker(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY)));
  if (!tracker) return lacking(failed("userfaultfd"), remedy);
  uffdio_api api = {};
  api.api = UFFD_API;
  api.features = kFeatureWriteProtectAsync | UFFD_FEATURE_PAGEFAULT_FLAG_WP;
  if (ioctl(tracker.get(), UFFDIO_API, &api) != 0)
    return lacking(failed("asynchronous write-protection"), remedy);
  char* memory = two_pages();
  if (memory == nullptr) return lacking(failed("mmap"), "");
  memory[0] = memory[kPageSize] = 1;
  uffdio_register range = {};
  range.range = {reinterpret_cast<uint64_t>(memory), 2 * kPageSize};
  range.mode = UFFDIO_REGISTER_MODE_WP;
  if (ioctl(tracker.get(), UFFDIO_REGISTER, &range) != 0) return lacking(failed("UFFDIO_REGISTER"), remedy);
  uffdio_writeprotect protect = {};
  protect.range = range.range;
  protect.mode = UFFDIO_WRITEPROTECT_MODE_WP;
  if (ioctl(tracker.get(), UFFDIO_WRITEPROTECT, &protect) != 0)
    return lacking(failed("UFFDIO_WRITEPROTECT"), remedy);
  memory[0] = 2;  // resolved by the kernel itself; if not, the trial hangs and is found missing
  // As an increment asks: what has been written is not known any more, and all the rest is.
  PageRegion region = {};
  ScanArgument scan = {};
  scan.size = sizeof scan;
  scan.start = range.range.start;
  scan.end = scan.start + 2 * kPageSize;
  scan.regions = reinterpret_cast<uint64_t>(&region);
  scan.regions_length = 1;
  scan.category_inverted = kPageIsWritten;
  scan.category_mask = kPageIsTracked | kPageIsWritten;
  scan.category_any_of_mask = kPageIsPresent;
  scan.return_mask = kPageIsTracked;
  auto pagemap = open_file("/proc/self/pagemap", O_RDONLY);
  if (!pagemap.ok()) return lacking(pagemap.error().message(), "a kernel with CONFIG_PROC_PAGE_MONITOR");
  const int found = ioctl(pagemap->get(), kPagemapScan, &scan);
  if (found < 0) return lacking(failed("PAGEMAP_SCAN"), remedy);
  if (found != 1 || region.start != scan.start + kPageSize)
    return lacking("PAGEMAP_SCAN does not tell pages that were written from others", remedy);
  return works("increments do not read what has not been written since the last checkpoint");
}

Outcome try_seccomp_notification() {
  const char* remedy = "Linux 5.5 or later; mapped restarts need it, --memory=eager does not";
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return lacking(failed("prctl"), remedy);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return lacking(failed("pipe"), "");

  // Shares our descriptors, so that we have the listener by its number.
  const long child = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
  if (child < 0) return lacking(failed("clone"), "");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    sock_fprog program = {sizeof code / sizeof code[0], code};
    const int listener = static_cast<int>(
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program));
    const int answer = listener < 0 ? -errno : listener;
    if (write(ends[1], &answer, sizeof answer) != sizeof answer || listener < 0) _exit(1);
    // Allowed to go on by the notified one: advice on nothing succeeds.
    _exit(madvise(nullptr, 0, MADV_NORMAL) == 0 ? 0 : 2);
  }
  int listener = -EPIPE;
  if (read(ends[0], &listener, sizeof listener) != sizeof listener) listener = -EPIPE;
  if (listener < 0) {
    errno = -listener;
    return lacking(failed("seccomp(SECCOMP_FILTER_FLAG_NEW_LISTENER)"), remedy);
  }
  seccomp_notif notification = {};
  if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &notification) != 0)
    return lacking(failed("SECCOMP_IOCTL_NOTIF_RECV"), remedy);
  seccomp_notif_resp response = {};
  response.id = notification.id;
  response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
  if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response) != 0)
    return lacking(failed("SECCOMP_IOCTL_NOTIF_SEND"), remedy);
  int status = 0;
  waitpid(static_cast<pid_t>(child), &status, 0);
  if (status != 0) return lacking("a notified system call was not continued", remedy);
  return works("discarded memory of a mapped restart reads zeros at once");
}

Outcome try_store(const std::string& directory) {
  const std::string parent = existing_parent(directory);
  if (access(parent.c_str(), W_OK | X_OK) != 0) {
    return lacking(fmt::format("{}: {}", parent, std::strerror(errno)),
                   "set STASIS_HOME to a directory of yours, or use --store");
  }
  struct statfs status;
  if (statfs(parent.c_str(), &status) != 0) return lacking(failed("statfs"), "");
  const double free_gib =
      static_cast<double>(status.f_bavail) * static_cast<double>(status.f_bsize) / (1 << 30);
  const std::string what = fmt::format("{}: {:.1f} GiB free", directory, free_gib);
  if (free_gib < 1) return partly(what, "free some space there, or choose another place with --store");
  return works(what);
}

Outcome try_reflink(const std::string& directory) {
  const std::string parent = existing_parent(directory);
  const char* remedy = "a store on Btrfs or XFS keeps unchanged data of checkpoints once";
  auto source = open_file(parent, O_TMPFILE | O_RDWR);
  auto copy = open_file(parent, O_TMPFILE | O_RDWR);
  if (!source.ok() || !copy.ok())
    return lacking(fmt::format("{}: unnamed files: {}", parent, std::strerror(errno)), remedy);
  if (!write_all(source->get(), std::string(kPageSize, 'x')).ok()) return lacking(failed("write"), remedy);
  if (ioctl(copy->get(), FICLONE, source->get()) != 0) {
    return lacking(fmt::format("the file system of {} has none ({})", parent, std::strerror(errno)), remedy);
  }
  return works(fmt::format("files under {} can share their data", parent));
}

}  // namespace stasis::kernel::probing

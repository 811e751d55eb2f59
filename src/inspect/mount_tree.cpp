#include "inspect/mount_tree.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "kernel/beside.h"
#include "kernel/proc.h"

namespace stasis::inspect {
namespace {

constexpr const char* kStep = "look into a mount namespace";

// To the user namespace that a mount namespace belongs to. 1. An ordinary user has rights in that of the
// session only. 2. In a copy that belongs to another one all mounts are locked to each other
// (mount_namespaces(7)).
bool enter_owner(const Fd& mounts) {
  Fd owner(::ioctl(mounts.get(), NS_GET_USERNS));
  struct stat wanted = {}, own = {};
  if (!owner || ::fstat(owner.get(), &wanted) != 0 ||
      ::fstatat(kernel::host_proc(), "thread-self/ns/user", &own, 0) != 0)
    return false;
  return wanted.st_ino == own.st_ino || ::setns(owner.get(), CLONE_NEWUSER) == 0;
}

Result<void> enter(HostTid task) {
  STASIS_TRY(Fd mounts, kernel::open_proc(task, "ns/mnt", O_RDONLY));
  (void)enter_owner(mounts);
  if (::setns(mounts.get(), CLONE_NEWNS) != 0)
    return Error{kStep, fmt::format("task {}", task), "it cannot be entered", "take the checkpoint as root",
                 ErrorCode::kRefused};
  return {};
}

// Parents first: a mount that was moved can have a lower number than the one it is on.
std::vector<kernel::Mount> sorted(std::vector<kernel::Mount> mounts) {
  std::vector<kernel::Mount> result;
  std::set<int> known;
  while (!mounts.empty()) {
    auto rest = std::stable_partition(mounts.begin(), mounts.end(), [&](const auto& mount) {
      return (mount.parent == 0 || known.contains(mount.parent)) && known.insert(mount.id).second;
    });
    if (rest == mounts.begin()) break;
    std::move(mounts.begin(), rest, std::back_inserter(result));
    mounts.erase(mounts.begin(), rest);
  }
  return result;
}

Result<std::vector<kernel::Mount>> list() {
  STASIS_TRY(std::string text, read_file(kernel::host_proc(), "self/mountinfo"));
  auto mounts = kernel::parse_mounts(text);
  if (!kernel::link_mounts(mounts)) return Error{kStep, "/proc/self/mountinfo", "its mounts are no tree", {}};
  return sorted(std::move(mounts));
}

// A copy of the namespace that we are in, in which nothing that is done shows elsewhere.
Result<Fd> enter_copy() {
  if (::unshare(CLONE_NEWNS) != 0) return errno_error(kStep, "copy it");
  // Else the copies would be unmounted together with what they are copies of.
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return errno_error(kStep, "/");
  return open_file(kernel::host_proc(), "self/ns/mnt", O_RDONLY);
}

// To the root directory that lies beneath the one of a copy. False: there is none but the kernel's own.
bool descend(const Fd& copy) {
  if (::umount2("/", MNT_DETACH) != 0 || ::setns(copy.get(), CLONE_NEWNS) != 0) return false;
  auto mounts = list();
  return mounts.ok() && !mounts->empty() && mounts->front().type != "rootfs";
}

// The copies of mounts have numbers of their own, but stand at the same places.
std::map<int, int> copies_of(std::span<const kernel::Mount> mounts,
                             const std::vector<kernel::Mount>& copies) {
  std::map<std::pair<int, std::string>, int> by_place;
  for (const auto& copy : copies) by_place[{copy.parent, copy.below}] = copy.id;
  std::map<int, int> result = {{mounts.empty() ? 0 : mounts.front().parent, 0}};
  for (const auto& mount : mounts) {
    auto parent = result.find(mount.parent);
    if (parent == result.end()) continue;
    if (auto copy = by_place.find({parent->second, mount.below}); copy != by_place.end())
      result[mount.id] = copy->second;
  }
  return result;
}

}  // namespace

int mount_of(int fd, const char* path) {
  struct statx status = {};
  const bool known = ::statx(fd, path, AT_EMPTY_PATH, STATX_MNT_ID, &status) == 0;
  return known ? static_cast<int>(status.stx_mnt_id) : 0;
}

Result<MountTree> MountTree::open(HostTid task, Depth depth) {
  MountTree tree;
  tree.task_ = task;
  std::vector<std::vector<kernel::Mount>> layers;
  auto looked = kernel::run_beside([&]() -> Result<void> {
    STASIS_CHECK(enter(task));
    tree.top_.reset(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!tree.top_) return errno_error(kStep, "/");
    STASIS_TRY(auto mounts, list());
    layers.push_back(std::move(mounts));
    if (depth == Depth::kTop) return {};
    STASIS_TRY(Fd copy, enter_copy());
    while (descend(copy)) {
      STASIS_TRY(auto beneath, list());
      // Nobody tells the numbers of what these are copies of.
      for (auto& mount : beneath) {
        mount.id = -mount.id;
        mount.parent = -mount.parent;
      }
      layers.push_back(std::move(beneath));
    }
    return {};
  });
  STASIS_CHECK(looked);
  // Each is on the root of the one beneath it.
  for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) {
    if (!tree.mounts_.empty()) layer->front().parent = tree.mounts_[tree.layers_.back()].id;
    tree.layers_.push_back(tree.mounts_.size());
    std::move(layer->begin(), layer->end(), std::back_inserter(tree.mounts_));
  }
  return tree;
}

const kernel::Mount* MountTree::find(int id) const {
  auto found = std::find_if(mounts_.begin(), mounts_.end(), [id](const auto& one) { return one.id == id; });
  return found == mounts_.end() ? nullptr : &*found;
}

int MountTree::root_of(int id) const {
  auto found = roots_.find(id);
  return found == roots_.end() ? -1 : found->second.get();
}

// In a copy of the namespace they can be unmounted.
Result<void> MountTree::uncover(const std::set<int>& ids) {
  return kernel::run_beside([&]() -> Result<void> {
    STASIS_CHECK(enter(task_));
    STASIS_TRY(Fd copy, enter_copy());
    // Looking must not show: reading a link is an access, too.
    constexpr uint64_t kNoAccessTime = 0x10, kAccessTimes = 0x70;  // MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME
    const uint64_t attributes[4] = {kNoAccessTime, kAccessTimes, 0, 0};
    constexpr unsigned kRecursive = 0x8000;  // AT_RECURSIVE
    ::syscall(SYS_mount_setattr, AT_FDCWD, "/", kRecursive, attributes, sizeof attributes);
    size_t end = mounts_.size();
    for (auto first = layers_.rbegin(); first != layers_.rend(); ++first) {
      STASIS_TRY(auto copied, list());
      uncover(std::span(mounts_).subspan(*first, end - *first), copied, ids);
      end = *first;
      if (end != 0 && !descend(copy)) return errno_error(kStep, fmt::format("task {}", task_));
    }
    return {};
  });
}

void MountTree::uncover(std::span<const kernel::Mount> mounts, const std::vector<kernel::Mount>& copied,
                        const std::set<int>& ids) {
  const auto copies = copies_of(mounts, copied);
  const auto keep = [&](const kernel::Mount& mount) {
    Fd root(::open(mount.point.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    auto copy = copies.find(mount.id);
    if (!root || copy == copies.end() || mount_of(root.get()) != copy->second) return false;
    roots_[mount.id] = std::move(root);
    return true;
  };
  // Whatever stands on top of another one goes first; the kernel does not tell which that is. The root stays
  // to the end, for the paths of all others.
  std::vector<const kernel::Mount*> left;
  for (size_t i = mounts.size(); i > 1; --i) {
    if (ids.contains(mounts[i - 1].id)) left.push_back(&mounts[i - 1]);
  }
  for (bool some = true; some && !left.empty();) {
    some = false;
    std::erase_if(left, [&](const kernel::Mount* mount) {
      const bool bare = std::none_of(left.begin(), left.end(),
                                     [&](const auto* other) { return other->parent == mount->id; });
      if (!bare || !keep(*mount)) return false;
      // One that is locked to what is beneath it stays.
      const bool gone = ::umount2(mount->point.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0;
      some = some || gone;
      return gone;
    });
  }
  for (const auto& mount : mounts) {
    if (root_of(mount.id) < 0) keep(mount);
  }
}

}  // namespace stasis::inspect

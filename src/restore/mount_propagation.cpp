// Who gets what is mounted elsewhere: groups of peers, and their slaves.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "restore/mount_calls.h"
#include "restore/mounts.h"

namespace stasis::restore {

using schema::Mount;

// Whether it shows all that the other members of its group do, as far as they are to be made.
bool Mounts::is_widest(const Entry& entry) const {
  const Mount& mount = *entry.mount;
  return !mount.has_removed() && std::all_of(in_order_.begin(), in_order_.end(), [&](const Entry* one) {
    const Mount& other = *one->mount;
    if (!other.set_propagation() || other.group() != mount.group()) return true;
    return !other.existing() && !other.has_removed() && other.of_mount() == mount.of_mount() &&
           other.file_system() == mount.file_system() &&
           (mount.root().empty() || other.root() == mount.root() ||
            other.root().starts_with(mount.root() + "/"));
  });
}

// Of what one of the members shows, if that is all: what covers the rest cannot be in the way then.
Result<Fd> Mounts::clone_widest(const Entry& first) {
  const auto widest = std::find_if(in_order_.begin(), in_order_.end(), [&](const Entry* one) {
    return one->mount->set_propagation() && one->mount->group() == first.mount->group() && one->root &&
           is_widest(*one);
  });
  STASIS_TRY(Fd directory, source_directory(widest == in_order_.end() ? first : **widest));
  return widest == in_order_.end() ? clone_tree(directory.get()) : clone_below(**widest, directory.get());
}

// A mount that is a peer in the group, of as much of the file system as any member can show.
Result<Fd*> Mounts::anchor(uint32_t group, Stage stage) {
  if (auto found = anchors_.find(group); found != anchors_.end()) return &found->second;
  const auto is_member = [group](const Entry* entry) {
    return entry->mount->set_propagation() && entry->mount->group() == group && entry->root;
  };
  auto member = std::find_if(in_order_.begin(), in_order_.end(), is_member);
  if (member == in_order_.end())
    return Error{kMountStep, fmt::format("group {}", group), "nothing is in it", {}, ErrorCode::kDamaged};
  // Members that came before are in it already.
  for (auto one = member; stage == Stage::kInner && one != in_order_.end(); ++one) {
    if (!is_member(*one) || (*one)->stage == Stage::kInner) continue;
    STASIS_TRY(anchors_[group], duplicate((*one)->root.get(), base_));
    return &anchors_[group];
  }
  // One that has its master from outside keeps it.
  for (auto one = member; one != in_order_.end(); ++one) {
    const Mount& mount = *(*one)->mount;
    if (!is_member(*one) || !mount.existing() || mount.master() == 0 || mount.master_of() != 0) continue;
    const bool inside = std::any_of(in_order_.begin(), in_order_.end(), [&](const Entry* other) {
      return other->mount->set_propagation() && other->mount->group() == mount.master();
    });
    if (inside) continue;
    STASIS_CHECK(enter(names_of((*one)->of)));
    if (set_propagation((*one)->root.get(), MS_SHARED) != 0) return cannot_mount(mount);
    STASIS_TRY(anchors_[group], duplicate((*one)->root.get(), base_));
    return &anchors_[group];
  }
  const Entry& first = **member;
  const Mount& mount = *first.mount;
  Fd clone;
  if (mount.existing()) {
    // A clone of it may be forbidden, when something that is mounted on it is locked.
    STASIS_CHECK(enter(names_of(first.of)));
    STASIS_TRY(clone, duplicate(first.root.get()));
  } else {
    STASIS_TRY(clone, clone_widest(first));
  }
  if (!clone || set_propagation(clone.get(), MS_PRIVATE) != 0) return cannot_mount(mount);
  if (mount.master_of() != 0) {
    const int other = root_of(mount.master_of());
    if (other >= 0) ::syscall(SYS_move_mount, other, "", clone.get(), "", kFromFd | kToFd | kSetGroup);
  } else if (mount.master() != 0) {
    STASIS_TRY(Fd * master, anchor(mount.master(), stage));
    if (::syscall(SYS_move_mount, master->get(), "", clone.get(), "", kFromFd | kToFd | kSetGroup) != 0 ||
        set_propagation(clone.get(), MS_SLAVE) != 0)
      return cannot_mount(mount);
  }
  if (set_propagation(clone.get(), MS_SHARED) != 0) return cannot_mount(mount);
  STASIS_CHECK(keep(anchors_[group], std::move(clone)));
  return &anchors_[group];
}

Result<void> Mounts::join(const Entry& entry, Stage stage) {
  const Mount& mount = *entry.mount;
  const int root = entry.root.get();
  const auto change = [&](uint64_t propagation) -> Result<void> {
    STASIS_CHECK(enter(names_of(entry.of)));
    return set_propagation(root, propagation) == 0 ? Result<void>() : cannot_mount(mount);
  };
  const auto become_like = [&](int other) -> Result<void> {
    if (mount.existing()) STASIS_CHECK(change(MS_PRIVATE));
    if (::syscall(SYS_move_mount, other, "", root, "", kFromFd | kToFd | kSetGroup) == 0) return {};
    return errno_error(kMountStep, shown(mount), errno,
                       errno == EINVAL
                           ? "in a user namespace the kernel refuses it where mounts on it are locked, "
                             "and before Linux 5.15 always"
                           : "");
  };
  if (mount.unbindable()) return change(MS_UNBINDABLE);
  if (mount.group() != 0) {
    STASIS_TRY(Fd * peer, anchor(mount.group(), stage));
    struct statx one = {}, other = {};
    constexpr unsigned kMountId = 0x1000;  // STATX_MNT_ID
    if (::statx(root, "", AT_EMPTY_PATH, kMountId, &one) == 0 &&
        ::statx(peer->get(), "", AT_EMPTY_PATH, kMountId, &other) == 0 && one.stx_mnt_id == other.stx_mnt_id)
      return {};
    return become_like(peer->get());
  }
  if (mount.master_of() != 0) {
    // On this host it may be a slave of nobody.
    const int other = root_of(mount.master_of());
    if (other >= 0) (void)become_like(other).ok();
    return {};
  }
  const bool inside = std::any_of(in_order_.begin(), in_order_.end(), [&](const Entry* one) {
    return one->mount->set_propagation() && one->mount->group() == mount.master();
  });
  if (mount.master() != 0 && inside) {
    STASIS_TRY(Fd * master, anchor(mount.master(), stage));
    STASIS_CHECK(become_like(master->get()));
    return change(MS_SLAVE);
  }
  return mount.master() == 0 ? change(MS_PRIVATE) : Result<void>();
}

// What is mounted on a peer of others would come to these by itself. A clone keeps the place in the group.
Result<void> Mounts::part_from_groups() {
  for (const Entry* entry : in_order_) {
    if (entry->stage != Stage::kInner || entry->mount->parent() == 0) continue;
    const Entry& parent = entries_.at(entry->mount->parent());
    const uint32_t group = parent.mount->set_propagation() ? parent.mount->group() : 0;
    if (parent.stage == Stage::kInner || group == 0 || !parent.root || !parted_.insert(&parent).second)
      continue;
    STASIS_CHECK(enter(names_of(parent.of)));
    Fd peer = clone_tree(parent.root.get());
    if (!peer || set_propagation(parent.root.get(), MS_PRIVATE) != 0) return cannot_mount(*parent.mount);
    if (!anchors_.contains(group)) STASIS_CHECK(keep(anchors_[group], std::move(peer)));
  }
  return {};
}

Result<void> Mounts::propagate(Stage stage) {
  for (const Entry* entry : in_order_) {
    const bool now = (entry->stage == Stage::kInner) == (stage == Stage::kInner) || parted_.contains(entry);
    if (now && entry->mount->set_propagation() && entry->root) STASIS_CHECK(join(*entry, stage));
  }
  anchors_.clear();
  parted_.clear();
  return {};
}

}  // namespace stasis::restore

// What mounts are clones of: file systems that stand ready in the workshop, and existing mounts of the
// session.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "kernel/beside.h"
#include "restore/mount_calls.h"
#include "restore/mounted_content.h"
#include "restore/mounts.h"
#include "restore/user_namespaces.h"

namespace stasis::restore {

using schema::Mount;

// The directory of which its root is a part. We are where it can be cloned.
Result<Fd> Mounts::source_directory(const Entry& entry) {
  const Mount& mount = *entry.mount;
  if (mount.of_mount() == 0) {
    System& system = systems_.at(mount.file_system());
    if (!system.root) STASIS_CHECK(make_system(system));
    STASIS_CHECK(enter(workshop_.get()));
    return duplicate(system.root.get());
  }
  if (entries_.at(mount.of_mount()).stage != Stage::kFirst) {
    STASIS_CHECK(enter(names_of(0)));
    return duplicate(root_of(mount.of_mount()));
  }
  STASIS_CHECK(enter(workshop_.get()));
  return duplicate(sources_.at(mount.of_mount()).get());
}

Result<Fd> Mounts::clone_source(const Entry& entry) {
  STASIS_TRY(Fd directory, source_directory(entry));
  STASIS_TRY(Fd clone, entry.mount->has_removed() ? clone_removed(entry, std::move(directory))
                                                  : clone_below(entry, directory.get()));
  const auto owner = owners_.find(entry.of);
  if (owner == owners_.end()) return clone;
  const auto system = systems_.find(entry.mount->file_system());
  const Beside* users = system == systems_.end() ? nullptr : users_of(*system->second.system);
  const Beside& wanted = beside_.at(owner->second);
  return users == &wanted ? std::move(clone) : hand_down(std::move(clone), *entry.mount, wanted);
}

// The clone as a mount namespace that belongs to these users gets it: with what is locked. Only that of a
// whole namespace locks anything.
Result<Fd> Mounts::hand_down(Fd clone, const Mount& mount, const Beside& users) {
  // Times of access are always locked, so they have to be the right ones.
  const MountAttributes locked_there{mount.locked_attributes() | (mount.attributes() & kAccessTimes),
                                     kAccessTimes};
  if (set_mount(clone.get(), locked_there) != 0) return cannot_mount(mount);
  Fd locked;
  auto done = kernel::run_beside([&]() -> Result<void> {
    struct stat status = {};
    STASIS_CHECK(enter(workshop_.get()));
    STASIS_CHECK(enter_copy_of_mounts());
    if (::fstat(clone.get(), &status) != 0 || ::mount("none", kOnRoot, "tmpfs", 0, "mode=755") != 0 ||
        ::chdir(kOnRoot) != 0)
      return errno_error(kMountStep, "a place for a moment");
    constexpr const char* kPlace = "place";
    if (S_ISDIR(status.st_mode)) {
      ::mkdir(kPlace, 0755);
    } else {
      Fd(::open(kPlace, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    }
    Fd place(::open(kPlace, O_PATH | O_CLOEXEC));
    if (!place || move_mount(clone.get(), place.get()) != 0) return errno_error(kMountStep, kPlace);
    STASIS_CHECK(enter_users(users.fd, *users.record));
    if (::unshare(CLONE_NEWNS) != 0) return errno_error(kMountStep, "a mount namespace");
    // The working directory has gone along.
    Fd copied(::open(kPlace, O_PATH | O_CLOEXEC));
    locked = copied ? clone_tree(copied.get()) : Fd();
    return locked ? Result<void>() : errno_error(kMountStep, "a clone in a user namespace");
  });
  STASIS_CHECK(done);
  return locked;
}

Result<Fd> Mounts::clone_below(const Entry& entry, int directory) {
  const Mount& mount = *entry.mount;
  Fd found = open_within(directory, mount.root());
  if (!found && errno == EXDEV) {
    // Something is mounted over it: a copy of what is beneath has nothing on it. In the workshop it covers
    // nothing.
    Fd bare = clone_tree(directory);
    STASIS_CHECK(enter(workshop_.get()));
    Fd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!bare || move_mount(bare.get(), root.get()) != 0) return cannot_mount(mount);
    found = open_within(bare.get(), mount.root());
  }
  if (!found) return cannot_mount(mount);
  Fd clone = clone_tree(found.get());
  if (!clone) return cannot_mount(mount);
  return clone;
}

// It is there for a moment, under its old name if that is free.
Result<Fd> Mounts::clone_removed(const Entry& entry, Fd directory) {
  const Mount& mount = *entry.mount;
  STASIS_TRY(Fd content, image_->open_file(mount.content()));
  if (::fchdir(directory.get()) != 0) return cannot_mount(mount);
  const std::string spare = fmt::format(".stasis-{}-{}", ::getpid(), mount.id());
  std::string name = mount.root();
  struct stat status = {};
  const size_t slash = name.rfind('/');
  const std::string above = slash == std::string::npos ? "." : name.substr(0, slash);
  if (::stat(above.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) name = spare;
  if (::lstat(name.c_str(), &status) == 0) name = slash == std::string::npos ? spare : above + "/" + spare;
  STASIS_CHECK(put_file(mount.removed(), name, content.get()));
  remove_ = {std::move(directory), name, S_ISDIR(mount.removed().mode()) ? AT_REMOVEDIR : 0};
  Fd found(::open(name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  Fd clone = found ? clone_tree(found.get()) : Fd();
  if (!clone) return cannot_mount(mount);
  return clone;
}

const Mounts::Beside* Mounts::users_of(const schema::FileSystem& system) const {
  for (uint32_t id : system.namespaces()) {
    auto other = beside_.find(id);
    if (other != beside_.end() && other->second.record->type() == CLONE_NEWUSER) return &other->second;
  }
  return nullptr;
}

Result<void> Mounts::make_system(System& made) {
  const schema::FileSystem& system = *made.system;
  // Only names in its options count in one namespace rather than in another one.
  const bool is_apart =
      system.type() == "overlay" || std::any_of(system.namespaces().begin(), system.namespaces().end(),
                                                [this](uint32_t id) { return beside_.contains(id); });
  if (!is_apart) STASIS_CHECK(enter(workshop_.get()));
  auto root = is_apart ? mount_apart(system) : mount_system(system);
  if (!root.ok()) return std::move(root).error();
  STASIS_CHECK(keep(made.root, std::move(*root)));
  if (!system.content().empty()) {
    STASIS_TRY(Fd content, image_->open_file(system.content()));
    const Beside* users = users_of(system);
    const auto put = [&](const schema::FileSystem& files) {
      return put_content(files, made.root.get(), content.get());
    };
    if (users == nullptr) {
      STASIS_CHECK(put(system));
    } else {
      STASIS_CHECK(
          in_users(users->fd, *users->record, [&] { return put(as_seen_inside(system, *users->record)); }));
    }
  }
  if (system.read_only() && (::fchdir(made.root.get()) != 0 ||
                             ::mount(nullptr, ".", nullptr, MS_REMOUNT | MS_RDONLY, nullptr) != 0))
    return errno_error(kMountStep, fmt::format("{} ({})", system.source(), system.type()));
  return {};
}

// In a namespace that is there for this only, by somebody with the rights that the file system is to have.
Result<Fd> Mounts::mount_apart(const schema::FileSystem& system) {
  Fd clone;
  auto done = kernel::run_beside([&]() -> Result<void> {
    uint32_t view = 0;
    // Networks and the like: what is mounted in one shows it.
    for (uint32_t id : system.namespaces()) {
      auto other = beside_.find(id);
      if (other == beside_.end()) {
        view = id;
        continue;
      }
      const uint64_t type = other->second.record->type();
      if (type != CLONE_NEWUSER && ::setns(other->second.fd, static_cast<int>(type)) != 0)
        return errno_error(kMountStep, system.type(), errno, mount_remedy(errno));
    }
    STASIS_CHECK(enter(system.type() == "overlay" ? names_of(view) : workshop_.get()));
    const Beside* users = users_of(system);
    if (users != nullptr) STASIS_CHECK(enter_users(users->fd, *users->record));
    STASIS_CHECK(enter_copy_of_mounts());
    STASIS_TRY(Fd mounted, mount_system(users != nullptr ? as_seen_inside(system, *users->record) : system));
    clone = clone_tree(mounted.get());
    return clone ? Result<void>() : errno_error(kMountStep, system.source());
  });
  STASIS_CHECK(done);
  STASIS_CHECK(enter(workshop_.get()));
  Fd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root || move_mount(clone.get(), root.get()) != 0) return errno_error(kMountStep, system.source());
  return clone;
}

Result<Fd> Mounts::mount_system(const schema::FileSystem& system) {
  // A disk may be one that cannot be written to.
  const bool of_disk = system.source().starts_with("/dev/") && system.content().empty();
  const unsigned long flags = system.read_only() && of_disk ? MS_RDONLY : 0;
  if (::mount(system.source().c_str(), kOnRoot, system.type().c_str(), flags,
              system.options().empty() ? nullptr : system.options().c_str()) != 0) {
    return errno_error(kMountStep, fmt::format("{} ({})", system.source(), system.type()), errno,
                       mount_remedy(errno));
  }
  return open_file(kOnRoot, O_PATH | O_DIRECTORY);
}

}  // namespace stasis::restore

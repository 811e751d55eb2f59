#include "restore/mounts.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "restore/mounted_content.h"

namespace stasis::restore {
namespace {

using schema::Mount;

constexpr const char* kStep = "restart: mount what the program had mounted";

// linux/mount.h clashes with the C library's header.
constexpr unsigned kClone = 1;                   // OPEN_TREE_CLONE
constexpr unsigned kFromFd = 0x4, kToFd = 0x40;  // MOVE_MOUNT_[FT]_EMPTY_PATH
constexpr unsigned kSetGroup = 0x100;            // MOVE_MOUNT_SET_GROUP, Linux 5.15
constexpr uint64_t kAllAttributes = 0x2000ff;    // MOUNT_ATTR_* that can be changed
constexpr uint64_t kNoSymlinks = 0x200000;       // MOUNT_ATTR_NOSYMFOLLOW, Linux 5.14
constexpr uint64_t kIsMountRoot = 0x2000;        // STATX_ATTR_MOUNT_ROOT
struct Attributes {                              // struct mount_attr
  uint64_t set = 0, clear = 0, propagation = 0, user = 0;
};

// ".." at the root directory stays there, but goes on to what is mounted on it.
constexpr const char* kOnRoot = "/..";

int set(int mount, const Attributes& attributes) {
  return static_cast<int>(
      ::syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, &attributes, sizeof attributes));
}

int set_propagation(int mount, uint64_t propagation) {
  Attributes attributes;
  attributes.propagation = propagation;
  return set(mount, attributes);
}

int move_mount(int from, int to) {
  return static_cast<int>(::syscall(SYS_move_mount, from, "", to, "", kFromFd | kToFd));
}

Fd clone_tree(int directory) {
  return Fd(static_cast<int>(::syscall(SYS_open_tree, directory, "", AT_EMPTY_PATH | O_CLOEXEC | kClone)));
}

// Nothing that is mounted on the way is followed.
Fd open_within(int directory, const std::string& path) {
  if (path.empty()) return Fd(::fcntl(directory, F_DUPFD_CLOEXEC, 3));
  open_how how = {};
  how.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS;
  return Fd(static_cast<int>(::syscall(SYS_openat2, directory, path.c_str(), &how, sizeof how)));
}

bool is_directory(int fd) {
  struct stat status = {};
  return ::fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
}

bool is_mount_root(int fd) {
  struct statx status = {};
  return ::statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_TYPE, &status) == 0 &&
         ((status.stx_attributes_mask & kIsMountRoot) == 0 || (status.stx_attributes & kIsMountRoot) != 0);
}

std::string shown(const Mount& mount) {
  return fmt::format("{} ({}) at {}", mount.source(), mount.type(), mount.path());
}

std::string remedy(int error) {
  return error == EPERM || error == EACCES ? "restart as root"
         : error == ENOENT                 ? "what is mounted there is needed on this host, too"
                                           : "";
}

Error cannot_mount(const Mount& mount, int error = errno) {
  return errno_error(kStep, shown(mount), error, remedy(error));
}

Error is_missing(const Mount& mount) {
  return Error{kStep, mount.path(),
               fmt::format("{} ({}) was mounted there, and is not; the program has mounted something that "
                           "depends on it",
                           mount.source(), mount.type()),
               "mount it again to restart", ErrorCode::kNotFound};
}

// A mount point on a file system of the host may have gone.
Fd make_point(int parent, const std::string& path, bool directory) {
  for (size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1))
    ::mkdirat(parent, path.substr(0, slash).c_str(), 0755);
  if (directory) {
    ::mkdirat(parent, path.c_str(), 0755);
  } else {
    Fd(::openat(parent, path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  }
  return open_within(parent, path);
}

// Into a copy of the mount namespace in which we are. What happens in it does not show elsewhere.
Result<void> enter_copy() {
  if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return errno_error(kStep, "a mount namespace", errno, "restart as root");
  return {};
}

Result<Fd> open_names() { return open_file("/proc/self/ns/mnt", O_RDONLY); }

}  // namespace

Result<void> Mounts::keep(Fd& place, Fd fd) const {
  STASIS_TRY(place, duplicate(fd.get(), base_));
  return {};
}

void Mounts::add(const schema::Namespace& names) {
  if (names.from_nothing()) from_nothing_.insert(names.id());
  for (const auto& mount : names.mounts()) {
    Entry& entry = entries_[mount.id()];
    entry.mount = &mount;
    entry.of = names.type() == CLONE_NEWNS ? names.id() : 0;
    in_order_.push_back(&entry);
    if (mount.parent() != 0) entries_[mount.parent()].children.push_back(&entry);
  }
}

// What shows processes, and what is on that or shows a part of it.
void Mounts::find_late() {
  for (bool more = true; more;) {
    more = false;
    for (Entry* entry : in_order_) {
      const Mount& mount = *entry->mount;
      const auto is_late = [&](uint32_t id) { return id != 0 && entries_.at(id).late; };
      const auto system = systems_.find(mount.file_system());
      const bool late = mount.session_proc() || is_late(mount.parent()) || is_late(mount.of_mount()) ||
                        (system != systems_.end() && system->second.late);
      if (late && !entry->late) more = entry->late = true;
    }
    for (auto& [id, system] : systems_) {
      const bool late = system.system->of_processes() ||
                        std::any_of(system.system->layers().begin(), system.system->layers().end(),
                                    [this](uint32_t layer) { return entries_.at(layer).late; });
      if (late && !system.late) more = system.late = true;
    }
  }
}

Result<void> Mounts::begin(const image::Image& image, int base) {
  image_ = &image;
  base_ = base;
  const auto& manifest = image.manifest();
  const bool has_own = std::any_of(manifest.namespaces().begin(), manifest.namespaces().end(),
                                   [](const auto& one) { return one.type() == CLONE_NEWNS; });
  for (const auto& system : manifest.file_systems()) systems_[system.id()].system = &system;
  add(manifest.session_mounts());
  for (const auto& names : manifest.namespaces()) add(names);
  find_late();
  if (empty() && !has_own && manifest.session_mounts().unmounted_size() == 0) return {};
  STASIS_TRY(Fd session, open_names());
  STASIS_CHECK(keep(names_[0], std::move(session)));
  STASIS_TRY(Fd directory, open_file(".", O_PATH | O_DIRECTORY));
  STASIS_CHECK(keep(directory_, std::move(directory)));
  if (entries_.empty()) return {};
  STASIS_CHECK(enter_copy());
  STASIS_TRY(Fd workshop, open_names());
  STASIS_CHECK(keep(workshop_, std::move(workshop)));
  for (const Entry* entry : in_order_) {
    const uint32_t id = entry->mount->of_mount();
    if (id == 0 || entries_.at(id).late || sources_.contains(id)) continue;
    const Mount& source = *entries_.at(id).mount;
    Fd opened(::open(source.path().c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!opened) return cannot_mount(source);
    if (source.path() != "/" && !is_mount_root(opened.get())) return is_missing(source);
    STASIS_CHECK(keep(sources_[id], std::move(opened)));
  }
  return enter(names_[0].get());
}

int Mounts::names_of(uint32_t of) const {
  auto found = names_.find(of);
  return found == names_.end() ? -1 : found->second.get();
}

Result<void> Mounts::enter(int names) {
  if (::setns(names, CLONE_NEWNS) != 0) return errno_error(kStep, "enter a mount namespace");
  // It leads to the root of the namespace.
  if (names == names_of(0) && ::fchdir(directory_.get()) != 0) return errno_error(kStep, ".");
  return {};
}

int Mounts::root_of(uint32_t mount) const {
  auto found = entries_.find(mount);
  return found == entries_.end() || !found->second.root ? -1 : found->second.root.get();
}

void Mounts::close() {
  entries_.clear();
  in_order_.clear();
  systems_.clear();
  names_.clear();
  sources_.clear();
  anchors_.clear();
  workshop_.reset();
  directory_.reset();
}

// In its namespace, before anything of the program's is mounted there.
Result<void> Mounts::open_existing(Entry& entry) {
  const Mount& mount = *entry.mount;
  Fd root(::open(mount.path().c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!root) return cannot_mount(mount);
  if (mount.path() != "/" && !is_mount_root(root.get())) {
    // What only differs in its flags may be gone, but nothing can be put in its place.
    const bool needed = !entry.children.empty();
    if (needed) return is_missing(mount);
    entry.done = true;
    return {};
  }
  STASIS_CHECK(keep(entry.root, std::move(root)));
  entry.done = true;
  if (mount.set_attributes() && set(entry.root.get(), {mount.attributes(), kAllAttributes}) != 0)
    return cannot_mount(mount);
  return open_points(entry);
}

Result<void> Mounts::open_points(Entry& entry) {
  for (Entry* child : entry.children) {
    Fd point = open_within(entry.root.get(), child->mount->point());
    if (!point) continue;
    STASIS_CHECK(keep(child->point, std::move(point)));
  }
  return {};
}

Result<void> Mounts::make_session() {
  if (!names_.contains(0)) return {};
  const auto& wanted = image_->manifest().session_mounts();
  for (Entry* entry : in_order_) {
    if (entry->of == 0 && entry->mount->existing() && !entry->mount->session_proc())
      STASIS_CHECK(open_existing(*entry));
  }
  for (auto point = wanted.unmounted().rbegin(); point != wanted.unmounted().rend(); ++point)
    ::umount2(point->c_str(), MNT_DETACH);
  STASIS_CHECK(make_all(false, {0}));
  return enter(names_[0].get());
}

Result<void> Mounts::make_own(const schema::Namespace& wanted) {
  STASIS_TRY(Fd names, open_names());
  STASIS_CHECK(keep(names_[wanted.id()], std::move(names)));
  if (wanted.from_nothing() && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return errno_error(kStep, "/");
  for (Entry* entry : in_order_) {
    if (entry->of == wanted.id() && entry->mount->existing()) STASIS_CHECK(open_existing(*entry));
  }
  for (auto point = wanted.unmounted().rbegin(); point != wanted.unmounted().rend(); ++point)
    ::umount2(point->c_str(), MNT_DETACH);
  return make_all(false, {wanted.id()});
}

Result<void> Mounts::make_rest() {
  if (entries_.empty()) return {};
  std::set<uint32_t> all;
  for (const auto& names : names_) all.insert(names.first);
  STASIS_CHECK(make_all(false, all));
  for (const Entry* entry : in_order_) {
    if (!entry->done && !entry->late)
      return Error{kStep,
                   shown(*entry->mount),
                   "what it depends on cannot be mounted before it",
                   {},
                   ErrorCode::kDamaged};
  }
  return enter(names_[0].get());
}

Result<void> Mounts::complete() {
  if (entries_.empty()) return {};
  for (Entry* entry : in_order_) {
    if (entry->mount->session_proc()) STASIS_CHECK(open_existing(*entry));
  }
  std::set<uint32_t> all;
  for (const auto& names : names_) all.insert(names.first);
  STASIS_CHECK(make_all(true, all));
  for (const Entry* entry : in_order_) {
    if (!entry->done)
      return Error{kStep,
                   shown(*entry->mount),
                   "what it depends on cannot be mounted before it",
                   {},
                   ErrorCode::kDamaged};
  }
  STASIS_CHECK(propagate());
  return enter(names_[0].get());
}

bool Mounts::is_ready(const Entry& entry, bool late) const {
  const Mount& mount = *entry.mount;
  const auto is_done = [this](uint32_t id) { return id == 0 || entries_.at(id).done; };
  if (entry.done || mount.existing() || entry.late != late) return false;
  if (!is_done(mount.parent())) return false;
  if (mount.of_mount() != 0) return !entries_.at(mount.of_mount()).late || is_done(mount.of_mount());
  const schema::FileSystem& system = *systems_.at(mount.file_system()).system;
  return std::all_of(system.layers().begin(), system.layers().end(), is_done) &&
         std::all_of(system.namespaces().begin(), system.namespaces().end(),
                     [&](uint32_t id) { return beside_.contains(id) || names_.contains(id); });
}

Result<void> Mounts::make_all(bool late, const std::set<uint32_t>& of) {
  for (bool more = true; more;) {
    more = false;
    for (Entry* entry : in_order_) {
      if (!of.contains(entry->of) || !is_ready(*entry, late)) continue;
      STASIS_CHECK(make_one(*entry));
      more = true;
    }
  }
  return {};
}

Result<void> Mounts::make_one(Entry& entry) {
  auto made = make_and_attach(entry);
  // Only what has a name can be mounted anywhere, but it may lose that afterwards.
  if (!remove_.name.empty()) {
    const auto removed = std::exchange(remove_, {});
    if (::unlinkat(removed.directory.get(), removed.name.c_str(), removed.flags) != 0 && made.ok())
      return cannot_mount(*entry.mount);
  }
  return made;
}

Result<void> Mounts::make_and_attach(Entry& entry) {
  const Mount& mount = *entry.mount;
  STASIS_TRY(Fd clone, clone_source(entry));
  STASIS_CHECK(keep(entry.root, std::move(clone)));
  Attributes attributes{mount.attributes(), kAllAttributes};
  attributes.propagation = MS_PRIVATE;
  int done = set(entry.root.get(), attributes);
  if (done != 0 && errno == EINVAL && (mount.attributes() & kNoSymlinks) == 0) {
    attributes.clear &= ~kNoSymlinks;
    done = set(entry.root.get(), attributes);
  }
  if (done != 0) return cannot_mount(mount);
  STASIS_CHECK(open_points(entry));
  if (!mount.detached()) STASIS_CHECK(mount.parent() == 0 ? attach_root(entry) : attach(entry));
  entry.done = true;
  return {};
}

Result<void> Mounts::attach(Entry& entry) {
  const Mount& mount = *entry.mount;
  if (!entry.point) {
    Fd point =
        make_point(entries_.at(mount.parent()).root.get(), mount.point(), is_directory(entry.root.get()));
    if (!point) return cannot_mount(mount);
    STASIS_CHECK(keep(entry.point, std::move(point)));
  }
  STASIS_CHECK(enter(names_of(entry.of)));
  if (move_mount(entry.root.get(), entry.point.get()) != 0) return cannot_mount(mount);
  entry.point.reset();
  return {};
}

// pivot_root(2): "this allows us to leave the old root directory, which is then mounted on top of the new
// one, behind".
Result<void> Mounts::attach_root(Entry& entry) {
  STASIS_CHECK(enter(names_of(entry.of)));
  Fd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root || move_mount(entry.root.get(), root.get()) != 0 || ::fchdir(entry.root.get()) != 0 ||
      ::syscall(SYS_pivot_root, ".", ".") != 0 || ::umount2(".", MNT_DETACH) != 0 || ::chdir("/") != 0)
    return cannot_mount(*entry.mount);
  return {};
}

// The directory of which its root is a part. We are where it can be cloned.
Result<Fd> Mounts::source_directory(const Entry& entry) {
  const Mount& mount = *entry.mount;
  if (mount.of_mount() == 0) {
    System& system = systems_.at(mount.file_system());
    if (!system.root) STASIS_CHECK(make_system(system));
    STASIS_CHECK(enter(workshop_.get()));
    return duplicate(system.root.get());
  }
  if (entries_.at(mount.of_mount()).late) {
    STASIS_CHECK(enter(names_of(0)));
    return duplicate(root_of(mount.of_mount()));
  }
  STASIS_CHECK(enter(workshop_.get()));
  return duplicate(sources_.at(mount.of_mount()).get());
}

Result<Fd> Mounts::clone_source(const Entry& entry) {
  STASIS_TRY(Fd directory, source_directory(entry));
  return entry.mount->has_removed() ? clone_removed(entry, std::move(directory))
                                    : clone_below(entry, directory.get());
}

Result<Fd> Mounts::clone_below(const Entry& entry, int directory) {
  const Mount& mount = *entry.mount;
  Fd found = open_within(directory, mount.root());
  if (!found && errno == EXDEV) {
    // Something is mounted over it: a copy of what is beneath has nothing on it.
    Fd bare = clone_tree(directory);
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

Result<void> Mounts::make_system(System& made) {
  const schema::FileSystem& system = *made.system;
  std::vector<Fd> before;
  std::vector<uint64_t> types;
  // Network and IPC namespaces: what is mounted in one shows it.
  uint32_t view = 0;
  for (uint32_t id : system.namespaces()) {
    auto other = beside_.find(id);
    if (other == beside_.end()) {
      view = id;
      continue;
    }
    const auto& [type, fd] = other->second;
    const char* name = type == CLONE_NEWNET ? "net" : type == CLONE_NEWIPC ? "ipc" : "cgroup";
    STASIS_TRY(Fd own, open_file(fmt::format("/proc/thread-self/ns/{}", name), O_RDONLY));
    if (::setns(fd, static_cast<int>(type)) != 0) return errno_error(kStep, system.type());
    before.push_back(std::move(own));
    types.push_back(type);
  }
  const auto mount_it = [&]() -> Result<Fd> {
    // Only names in its options count in one namespace rather than in another one.
    if (system.type() != "overlay") {
      STASIS_CHECK(enter(workshop_.get()));
      return mount_system(system);
    }
    STASIS_CHECK(enter(names_of(view)));
    STASIS_CHECK(enter_copy());
    STASIS_TRY(Fd mounted, mount_system(system));
    Fd clone = clone_tree(mounted.get());
    STASIS_CHECK(enter(workshop_.get()));
    Fd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!clone || move_mount(clone.get(), root.get()) != 0) return errno_error(kStep, system.source());
    return clone;
  };
  auto root = mount_it();
  for (size_t i = 0; i < before.size(); ++i) {
    if (::setns(before[i].get(), static_cast<int>(types[i])) != 0) return errno_error(kStep, system.type());
  }
  if (!root.ok()) return std::move(root).error();
  STASIS_CHECK(keep(made.root, std::move(*root)));
  if (!system.content().empty()) {
    STASIS_TRY(Fd content, image_->open_file(system.content()));
    STASIS_CHECK(put_content(system, made.root.get(), content.get()));
  }
  if (system.read_only() && (::fchdir(made.root.get()) != 0 ||
                             ::mount(nullptr, ".", nullptr, MS_REMOUNT | MS_RDONLY, nullptr) != 0))
    return errno_error(kStep, fmt::format("{} ({})", system.source(), system.type()));
  return {};
}

Result<Fd> Mounts::mount_system(const schema::FileSystem& system) {
  // A disk may be one that cannot be written to.
  const bool of_disk = system.source().starts_with("/dev/") && system.content().empty();
  const unsigned long flags = system.read_only() && of_disk ? MS_RDONLY : 0;
  if (::mount(system.source().c_str(), kOnRoot, system.type().c_str(), flags,
              system.options().empty() ? nullptr : system.options().c_str()) != 0) {
    return errno_error(kStep, fmt::format("{} ({})", system.source(), system.type()), errno, remedy(errno));
  }
  return open_file(kOnRoot, O_PATH | O_DIRECTORY);
}

// A mount that is a peer in the group, of as much of the file system as any member can show.
Result<Fd*> Mounts::anchor(uint32_t group) {
  if (auto found = anchors_.find(group); found != anchors_.end()) return &found->second;
  const auto is_member = [group](const Entry* entry) {
    return entry->mount->set_propagation() && entry->mount->group() == group && entry->root;
  };
  auto member = std::find_if(in_order_.begin(), in_order_.end(), is_member);
  if (member == in_order_.end())
    return Error{kStep, fmt::format("group {}", group), "nothing is in it", {}, ErrorCode::kDamaged};
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
    STASIS_CHECK(enter(names_of(first.of)));
    clone = clone_tree(first.root.get());
  } else {
    STASIS_TRY(Fd directory, source_directory(first));
    clone = clone_tree(directory.get());
  }
  if (!clone || set_propagation(clone.get(), MS_PRIVATE) != 0) return cannot_mount(mount);
  if (mount.master_of() != 0) {
    const int other = root_of(mount.master_of());
    if (other >= 0) ::syscall(SYS_move_mount, other, "", clone.get(), "", kFromFd | kToFd | kSetGroup);
  } else if (mount.master() != 0) {
    STASIS_TRY(Fd * master, anchor(mount.master()));
    if (::syscall(SYS_move_mount, master->get(), "", clone.get(), "", kFromFd | kToFd | kSetGroup) != 0 ||
        set_propagation(clone.get(), MS_SLAVE) != 0)
      return cannot_mount(mount);
  }
  if (set_propagation(clone.get(), MS_SHARED) != 0) return cannot_mount(mount);
  STASIS_CHECK(keep(anchors_[group], std::move(clone)));
  return &anchors_[group];
}

Result<void> Mounts::join(const Entry& entry) {
  const Mount& mount = *entry.mount;
  const int root = entry.root.get();
  const auto change = [&](uint64_t propagation) -> Result<void> {
    STASIS_CHECK(enter(names_of(entry.of)));
    return set_propagation(root, propagation) == 0 ? Result<void>() : cannot_mount(mount);
  };
  const auto become_like = [&](int other) -> Result<void> {
    if (mount.existing()) STASIS_CHECK(change(MS_PRIVATE));
    if (::syscall(SYS_move_mount, other, "", root, "", kFromFd | kToFd | kSetGroup) == 0) return {};
    return errno_error(kStep, shown(mount), errno, errno == EINVAL ? "Linux 5.15 or later is needed" : "");
  };
  if (mount.unbindable()) return change(MS_UNBINDABLE);
  if (mount.group() != 0) {
    STASIS_TRY(Fd * peer, anchor(mount.group()));
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
    STASIS_TRY(Fd * master, anchor(mount.master()));
    STASIS_CHECK(become_like(master->get()));
    return change(MS_SLAVE);
  }
  return mount.master() == 0 ? change(MS_PRIVATE) : Result<void>();
}

Result<void> Mounts::propagate() {
  for (const Entry* entry : in_order_) {
    if (entry->mount->set_propagation() && entry->root) STASIS_CHECK(join(*entry));
  }
  anchors_.clear();
  return {};
}

}  // namespace stasis::restore

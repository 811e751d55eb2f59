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

#include "restore/mount_calls.h"

namespace stasis::restore {
namespace {

using schema::Mount;

bool is_directory(int fd) {
  struct stat status = {};
  return ::fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
}

bool is_mount_root(int fd) {
  struct statx status = {};
  return ::statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_TYPE, &status) == 0 &&
         ((status.stx_attributes_mask & kIsMountRoot) == 0 || (status.stx_attributes & kIsMountRoot) != 0);
}

Error is_missing(const Mount& mount) {
  return Error{kMountStep, mount.path(),
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

Result<Fd> open_names() { return open_file("/proc/self/ns/mnt", O_RDONLY); }

}  // namespace

Result<void> Mounts::keep(Fd& place, Fd fd) const {
  STASIS_TRY(place, duplicate(fd.get(), base_));
  return {};
}

void Mounts::add(const schema::Namespace& names) {
  if (names.from_nothing()) from_nothing_.insert(names.id());
  if (names.type() == CLONE_NEWNS && names.owner() != 0) owners_[names.id()] = names.owner();
  for (const auto& mount : names.mounts()) {
    Entry& entry = entries_[mount.id()];
    entry.mount = &mount;
    entry.of = names.type() == CLONE_NEWNS ? names.id() : 0;
    in_order_.push_back(&entry);
    if (mount.parent() != 0) entries_[mount.parent()].children.push_back(&entry);
  }
}

// What shows processes, and what is on that or shows a part of it.
void Mounts::find_stages() {
  for (const auto& names : image_->manifest().namespaces()) {
    if (names.type() != CLONE_NEWPID) continue;
    for (auto& [id, system] : systems_) {
      const auto& shown = system.system->namespaces();
      if (std::find(shown.begin(), shown.end(), names.id()) != shown.end()) system.pids = names.id();
    }
  }
  for (bool more = true; more;) {
    more = false;
    const auto raise = [&more](Stage& stage, Stage least) {
      if (stage >= least) return;
      stage = least;
      more = true;
    };
    for (Entry* entry : in_order_) {
      const Mount& mount = *entry->mount;
      if (mount.session_proc()) raise(entry->stage, Stage::kSession);
      for (uint32_t id : {mount.parent(), mount.of_mount()}) {
        if (id != 0) raise(entry->stage, entries_.at(id).stage);
      }
      if (auto system = systems_.find(mount.file_system()); system != systems_.end())
        raise(entry->stage, system->second.stage);
    }
    for (auto& [id, system] : systems_) {
      if (system.system->of_processes())
        raise(system.stage, system.pids != 0 ? Stage::kInner : Stage::kSession);
      for (uint32_t layer : system.system->layers()) raise(system.stage, entries_.at(layer).stage);
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
  for (const auto& description : manifest.descriptions()) {
    if (description.beneath_mount()) entries_[description.mount()].hides = true;
  }
  find_stages();
  if (empty() && !has_own && manifest.session_mounts().unmounted_size() == 0) return {};
  STASIS_TRY(Fd session, open_names());
  STASIS_CHECK(keep(names_[0], std::move(session)));
  STASIS_TRY(Fd directory, open_file(".", O_PATH | O_DIRECTORY));
  STASIS_CHECK(keep(directory_, std::move(directory)));
  if (entries_.empty()) return {};
  STASIS_CHECK(enter_copy_of_mounts());
  STASIS_TRY(Fd workshop, open_names());
  STASIS_CHECK(keep(workshop_, std::move(workshop)));
  for (const Entry* entry : in_order_) {
    const uint32_t id = entry->mount->of_mount();
    if (id == 0 || entries_.at(id).stage != Stage::kFirst || sources_.contains(id)) continue;
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
  if (::setns(names, CLONE_NEWNS) != 0) return errno_error(kMountStep, "enter a mount namespace");
  // It leads to the root of the namespace.
  if (names == names_of(0) && ::fchdir(directory_.get()) != 0) return errno_error(kMountStep, ".");
  return {};
}

int Mounts::root_of(uint32_t mount) const {
  auto found = entries_.find(mount);
  return found == entries_.end() || !found->second.root ? -1 : found->second.root.get();
}

int Mounts::point_of(uint32_t mount) const {
  auto found = entries_.find(mount);
  return found == entries_.end() || !found->second.point ? -1 : found->second.point.get();
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
  if (mount.set_attributes() && set_mount(entry.root.get(), {mount.attributes(), kAllAttributes}) != 0)
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
  STASIS_CHECK(make_all(Stage::kFirst, {0}));
  return enter(names_[0].get());
}

Result<void> Mounts::make_own(const schema::Namespace& wanted) {
  STASIS_TRY(Fd names, open_names());
  STASIS_CHECK(keep(names_[wanted.id()], std::move(names)));
  if (wanted.from_nothing() && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return errno_error(kMountStep, "/");
  for (Entry* entry : in_order_) {
    if (entry->of == wanted.id() && entry->mount->existing()) STASIS_CHECK(open_existing(*entry));
  }
  for (auto point = wanted.unmounted().rbegin(); point != wanted.unmounted().rend(); ++point)
    ::umount2(point->c_str(), MNT_DETACH);
  return make_all(Stage::kFirst, {wanted.id()});
}

Result<void> Mounts::make_rest() {
  if (entries_.empty()) return {};
  STASIS_CHECK(make_all(Stage::kFirst, all_names()));
  STASIS_CHECK(check_done(Stage::kFirst));
  return enter(names_[0].get());
}

Result<void> Mounts::complete() {
  if (entries_.empty()) return {};
  for (Entry* entry : in_order_) {
    if (entry->mount->session_proc()) STASIS_CHECK(open_existing(*entry));
  }
  STASIS_CHECK(make_all(Stage::kSession, all_names()));
  STASIS_CHECK(check_done(Stage::kSession));
  STASIS_CHECK(propagate(Stage::kSession));
  return enter(names_[0].get());
}

Result<void> Mounts::complete_inner(const MountProcesses& mount) {
  bool any = false;
  for (auto& [id, system] : systems_) {
    if (system.pids == 0) continue;
    STASIS_TRY(Fd mounted, mount(*system.system, system.pids));
    STASIS_CHECK(enter(workshop_.get()));
    Fd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!root || move_mount(mounted.get(), root.get()) != 0)
      return errno_error(kMountStep, system.system->source());
    STASIS_CHECK(keep(system.root, std::move(mounted)));
    any = true;
  }
  if (!any) return {};
  // What init has mounted meanwhile: nothing that is still to come covers it.
  for (Entry* entry : in_order_) {
    if (entry->stage != Stage::kSession || entry->done || entry->mount->detached()) continue;
    STASIS_CHECK(enter(names_of(entry->of)));
    Fd root(::open(entry->mount->path().c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!root || !is_mount_root(root.get())) continue;
    STASIS_CHECK(keep(entry->root, std::move(root)));
    entry->done = true;
    STASIS_CHECK(open_points(*entry));
  }
  STASIS_CHECK(part_from_groups());
  STASIS_CHECK(make_all(Stage::kInner, all_names()));
  STASIS_CHECK(check_done(Stage::kInner));
  STASIS_CHECK(propagate(Stage::kInner));
  return enter(names_[0].get());
}

std::set<uint32_t> Mounts::all_names() const {
  std::set<uint32_t> all;
  for (const auto& names : names_) all.insert(names.first);
  return all;
}

Result<void> Mounts::check_done(Stage stage) const {
  for (const Entry* entry : in_order_) {
    if (entry->done || entry->stage != stage) continue;
    return Error{kMountStep,
                 shown(*entry->mount),
                 "what it depends on cannot be mounted before it",
                 {},
                 ErrorCode::kDamaged};
  }
  return {};
}

bool Mounts::is_ready(const Entry& entry, Stage stage) const {
  const Mount& mount = *entry.mount;
  const auto is_done = [this](uint32_t id) { return id == 0 || entries_.at(id).done; };
  if (entry.done || mount.existing() || entry.stage != stage) return false;
  if (!is_done(mount.parent())) return false;
  if (mount.of_mount() != 0)
    return entries_.at(mount.of_mount()).stage == Stage::kFirst || is_done(mount.of_mount());
  const schema::FileSystem& system = *systems_.at(mount.file_system()).system;
  if (stage == Stage::kInner) return std::all_of(system.layers().begin(), system.layers().end(), is_done);
  return std::all_of(system.layers().begin(), system.layers().end(), is_done) &&
         std::all_of(system.namespaces().begin(), system.namespaces().end(),
                     [&](uint32_t id) { return beside_.contains(id) || names_.contains(id); });
}

Result<void> Mounts::make_all(Stage stage, const std::set<uint32_t>& of) {
  for (bool more = true; more;) {
    more = false;
    for (Entry* entry : in_order_) {
      if (!of.contains(entry->of) || !is_ready(*entry, stage)) continue;
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
  auto clone = clone_source(entry);
  if (!clone.ok() && mount.detached() && mount.of_mount() != 0 && !mount.has_removed()) {
    // A user namespace does not clone what has locked mounts on it. Nothing leads to this mount, so that
    // which it is a clone of shows the same.
    STASIS_TRY(Fd directory, source_directory(entry));
    Fd root = open_within(directory.get(), mount.root());
    if (!root) return cannot_mount(mount);
    STASIS_CHECK(keep(entry.root, std::move(root)));
    entry.done = true;
    return open_points(entry);
  }
  if (!clone.ok()) return std::move(clone).error();
  STASIS_CHECK(keep(entry.root, std::move(*clone)));
  MountAttributes attributes{mount.attributes(), kAllAttributes};
  attributes.propagation = MS_PRIVATE;
  int done = set_mount(entry.root.get(), attributes);
  if (done != 0 && errno == EINVAL && (mount.attributes() & kNoSymlinks) == 0) {
    attributes.clear &= ~kNoSymlinks;
    done = set_mount(entry.root.get(), attributes);
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
  if (!entry.hides) entry.point.reset();
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

}  // namespace stasis::restore

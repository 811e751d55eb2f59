// Where a restart finds an open file: by which mount, and by which path.
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>

#include "inspect/mounts.h"
#include "kernel/proc.h"
#include "resource/file_search.h"

namespace stasis::inspect {
namespace {

using kernel::Mount;
using kernel::path_below;
using kernel::path_joined;

constexpr std::string_view kNoPath = "-";

constexpr std::string_view kMark = " (deleted)";

std::string without_mark(const std::string& link) {
  return link.ends_with(kMark) ? link.substr(0, link.size() - kMark.size()) : link;
}

bool is_same_file(int fd, const struct stat& status) {
  struct stat found = {};
  return fd >= 0 && ::fstat(fd, &found) == 0 && found.st_dev == status.st_dev &&
         found.st_ino == status.st_ino;
}

// The path below a mount of the same file system, given our own descriptor of that one's root; nothing when
// the kernel does not find it there.
std::optional<std::string> path_by_handle(const resource::OpenFile& file, int root) {
  alignas(file_handle) std::array<char, sizeof(file_handle) + MAX_HANDLE_SZ> storage = {};
  auto* handle = reinterpret_cast<file_handle*>(storage.data());
  handle->handle_bytes = MAX_HANDLE_SZ;
  int mount = 0;
  if (::name_to_handle_at(file.duplicate.get(), "", handle, &mount, AT_EMPTY_PATH) != 0) return std::nullopt;
  Fd directory(::openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  Fd found(directory ? ::open_by_handle_at(directory.get(), handle, O_PATH | O_CLOEXEC) : -1);
  if (!is_same_file(found.get(), file.status)) return std::nullopt;
  std::array<char, PATH_MAX> path;
  const ssize_t length =
      ::readlink(fmt::format("/proc/self/fd/{}", found.get()).c_str(), path.data(), path.size());
  if (length <= 0 || path[0] != '/') return std::nullopt;
  std::string text(path.data(), static_cast<size_t>(length));
  return is_same_file(open_below(root, text).get(), file.status) ? std::optional(text) : std::nullopt;
}

// What can be told of a mount of a file system in memory that is mounted nowhere any more.
std::unique_ptr<Mount> unmounted_memory(const resource::OpenFile& file) {
  struct statfs system = {};
  if (::fstatfs(file.duplicate.get(), &system) != 0 || system.f_type != TMPFS_MAGIC) return nullptr;
  auto mount = std::make_unique<Mount>();
  mount->device = file.status.st_dev;
  mount->root = mount->point = "/";
  mount->type = mount->source = "tmpfs";
  struct {
    unsigned long flag;
    const char* name;
  } const flags[] = {{ST_RDONLY, "ro"},        {ST_NOSUID, "nosuid"},   {ST_NODEV, "nodev"},
                     {ST_NOEXEC, "noexec"},    {ST_NOATIME, "noatime"}, {ST_NODIRATIME, "nodiratime"},
                     {ST_RELATIME, "relatime"}};
  for (const auto& [flag, name] : flags) {
    if ((static_cast<unsigned long>(system.f_flags) & flag) != 0)
      mount->options += (mount->options.empty() ? "" : ",") + std::string(name);
  }
  mount->super_options = fmt::format(
      "size={},nr_inodes={}", static_cast<uint64_t>(system.f_blocks) * static_cast<uint64_t>(system.f_bsize),
      static_cast<uint64_t>(system.f_files));
  return mount;
}

// The root of the mount that a directory is on, when that is mounted nowhere.
Result<Fd> root_above(int directory) {
  STASIS_TRY(Fd here, open_file(directory, ".", O_PATH | O_DIRECTORY));
  for (;;) {
    STASIS_TRY(Fd above, open_file(here.get(), "..", O_PATH | O_DIRECTORY));
    struct stat status = {};
    if (::fstat(above.get(), &status) != 0) return errno_error("look at", "a directory");
    if (is_same_file(here.get(), status)) return here;
    here = std::move(above);
  }
}

}  // namespace

Fd open_below(int directory, std::string path) {
  while (path.starts_with('/')) path.erase(0, 1);
  return Fd(::openat(directory, path.empty() ? "." : path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
}

bool Mounts::leads_to(uint32_t of, const std::string& path, uint64_t inode, struct stat& status) const {
  const Tree* tree = tree_of(of);
  const Fd found = tree != nullptr ? open_below(tree->mounts.top(), path) : Fd();
  return found && ::fstat(found.get(), &status) == 0 && status.st_ino == inode;
}

std::vector<std::string> Mounts::points_of(uint32_t of, uint64_t device) const {
  std::vector<std::string> points;
  const Tree* tree = tree_of(of);
  for (size_t i = 0; tree != nullptr && i < tree->known.size(); ++i) {
    const Known& known = tree->known[i];
    if (!known.existing && known.mount->device == device) points.push_back(known.mount->point);
  }
  return points;
}

bool Mounts::is_top(uint32_t of, int directory) const {
  const Tree* tree = tree_of(of);
  struct stat status = {};
  return tree != nullptr && ::fstat(tree->mounts.top(), &status) == 0 && is_same_file(directory, status) &&
         mount_of(directory) == mount_of(tree->mounts.top());
}

std::string Mounts::outside_path(const Mount& mount, const std::string& below) const {
  const std::string wanted = path_joined(clean_root(mount), below);
  for (auto other = outside_.rbegin(); other != outside_.rend(); ++other) {
    if (other->device != mount.device) continue;
    const auto rest = path_below(wanted, other->root);
    if (!rest) continue;
    std::string path = path_joined(other->point, *rest);
    struct stat status = {};
    if (::lstat(path.c_str(), &status) == 0 && status.st_dev == mount.device) return path;
  }
  return std::string(kNoPath);
}

std::string Mounts::host_path(uint32_t of, const std::string& path) const {
  Tree* tree = tree_of(of);
  if (tree == nullptr) return {};
  const Fd found = open_below(tree->mounts.top(), path);
  const Known* known = found ? find(*tree, mount_of(found.get())) : nullptr;
  if (known == nullptr) return std::string(kNoPath);
  if (of == 0 && known->existing) return {};
  const auto below = path_below(path, known->mount->point);
  return below ? outside_path(*known->mount, *below) : std::string(kNoPath);
}

Result<std::optional<Mounts::Place>> Mounts::locate(resource::OpenFile& file, uint32_t own) {
  const std::string shown = file.info("mnt_id");
  const int id = shown.empty() ? mount_of(file.duplicate.get()) : std::atoi(shown.c_str());
  Tree& mine = *tree_of(own);
  Tree* tree = nullptr;
  Known* known = nullptr;
  for (const auto& one : trees_) {
    Known* found = find(*one, id);
    if (found == nullptr) continue;
    tree = one.get();
    known = found;
  }
  if (known == nullptr) known = find_beneath(file, mine);
  if (known != nullptr && tree == nullptr) tree = &mine;
  if (known == nullptr) {
    const bool outside =
        std::any_of(outside_.begin(), outside_.end(), [id](const auto& mount) { return mount.id == id; });
    if (!outside) return locate_detached(file, id, mine);
    // Opened before the session was there: its name tells all, in the session.
    Place place;
    if (own != 0) file.root = session().mounts.top();
    return std::optional<Place>(place);
  }
  Place place;
  place.of = tree->of;
  // A removed file that has come to its mount by another one (see reopen_on_mount_of()) is shown where that
  // had it.
  if (file.link.ends_with(kMark) && !path_below(without_mark(file.link), known->mount->point)) {
    const std::string name = file.link.substr(file.link.rfind('/') + 1);
    file.link = path_joined(known->mount->point, name);
  }
  const std::string path = without_mark(file.link);
  const auto on_it = [&](const std::string& where) {
    const Fd found = open_below(tree->mounts.top(), where);
    return found && mount_of(found.get()) == id;
  };
  const auto leads_to_it = [&](const std::string& where) {
    return on_it(where) && is_same_file(open_below(tree->mounts.top(), where).get(), file.status);
  };
  const bool leads = leads_to_it(file.link);
  // What was removed can still be reached where it is mounted.
  if (!leads && leads_to_it(path)) {
    file.link = path;
    return locate(file, own);
  }
  const auto below = path_below(path, known->mount->point);
  Known* const cover = below ? cover_of(*tree, *known, *below) : nullptr;
  const bool removed = file.link != path && (on_it(resource::directory_of(path)) ||
                                             (cover == nullptr && on_it(known->mount->point)));
  if (leads || removed) {
    if (own != 0 || tree->of != 0) file.root = tree->mounts.top();
    if (tree->of != 0 || !known->existing) place.host_path = host_path(tree->of, path);
    return std::optional<Place>(place);
  }
  if (!below || tree->mounts.root_of(known->mount->id) < 0) return std::optional<Place>();
  place.visible = false;
  place.mount = number(*known);
  place.host_path = outside_path(*known->mount, *below);
  file.root = tree->mounts.root_of(known->mount->id);
  file.link = "/" + *below + file.link.substr(path.size());
  if (cover != nullptr) look_beneath(*tree, *known, *cover, *below, file, place);
  return std::optional<Place>(place);
}

// What the program has mounted on the way from the root of a mount to a file: the nearest to the file counts.
Mounts::Known* Mounts::cover_of(Tree& tree, const Known& on, const std::string& below) {
  Known* cover = nullptr;
  for (Known& other : tree.known) {
    if (other.mount->parent != on.mount->id || &other == &on || other.existing ||
        other.mount->below.empty() || !path_below("/" + below, "/" + other.mount->below))
      continue;
    if (cover == nullptr || other.mount->below.size() >= cover->mount->below.size()) cover = &other;
  }
  return cover;
}

// No path from the root of its mount leads to such a file. The directory on which the cover stands is bare
// when it is mounted again.
void Mounts::look_beneath(Tree& tree, const Known& on, Known& cover, const std::string& below,
                          resource::OpenFile& file, Place& place) {
  Fd& point = points_[&cover];
  if (!point) point = open_below(tree.mounts.root_of(on.mount->id), cover.mount->below);
  struct stat status = {};
  if (!point || ::fstat(point.get(), &status) != 0 || !S_ISDIR(status.st_mode)) return;
  const std::string mark = file.link.substr(below.size() + 1);
  file.link = "/" + *path_below("/" + below, "/" + cover.mount->below) + mark;
  file.root = point.get();
  place.mount = number(cover);
  place.beneath = true;
}

// A mount that lies beneath the root directory, whose number is not known.
Mounts::Known* Mounts::find_beneath(const resource::OpenFile& file, Tree& tree) {
  const std::string path = without_mark(file.link);
  for (Known& known : tree.known) {
    const auto below = path_below(path, known.mount->point);
    const int root = tree.mounts.root_of(known.mount->id);
    if (known.mount->id > 0 || known.mount->device != file.status.st_dev || !below || root < 0) continue;
    const Fd there = open_below(root, file.link == path ? *below : resource::directory_of("/" + *below));
    if (there && (file.link != path || is_same_file(there.get(), file.status))) return &known;
  }
  return nullptr;
}

// A mount that was unmounted while it was in use (MNT_DETACH): paths on it count from its root, and the
// kernel does not tell what that is. The same file system is mounted elsewhere, most often.
Result<std::optional<Mounts::Place>> Mounts::locate_detached(resource::OpenFile& file, int id, Tree& own) {
  const std::string path = without_mark(file.link);
  Place place;
  place.of = own.of;
  place.visible = false;
  const auto use = [&](Tree& tree, Known& known) {
    place.of = tree.of;
    place.mount = known.id;
    place.host_path = outside_path(*known.mount, path.substr(1));
    file.root = known.root;
    return std::optional<Place>(place);
  };
  if (auto found = detached_.find(id); found != detached_.end())
    return use(*found->second.first, *found->second.second);
  for (const auto& tree : trees_) {
    for (Known& known : tree->known) {
      const int root = tree->mounts.root_of(known.mount->id);
      if (known.mount->device != file.status.st_dev || root < 0) continue;
      const Fd there = open_below(root, file.link == path ? path : resource::directory_of(path));
      std::string prefix;
      if (!there || (file.link == path && !is_same_file(there.get(), file.status))) {
        auto found = path_by_handle(file, root);
        if (!found || !found->ends_with(path == "/" ? "" : path)) continue;
        prefix = path == "/" ? *found : found->substr(0, found->size() - path.size());
      }
      auto mount = std::make_unique<Mount>(*known.mount);
      mount->root = path_joined(clean_root(*known.mount), prefix.empty() ? "" : prefix.substr(1));
      Fd directory = open_below(root, prefix);
      if (!directory) continue;
      STASIS_TRY(auto* made, add_detached(own, id, std::move(mount), std::move(directory)));
      STASIS_CHECK(describe_source(*tree, *made));
      return use(own, *made);
    }
  }
  if (auto mount = unmounted_memory(file); mount && S_ISDIR(file.status.st_mode)) {
    STASIS_TRY(Fd root, root_above(file.duplicate.get()));
    STASIS_TRY(auto* made, add_detached(own, id, std::move(mount), std::move(root)));
    STASIS_CHECK(describe_source(own, *made));
    return use(own, *made);
  } else if (mount && S_ISREG(file.status.st_mode) && file.link == path) {
    // Nobody has a way to its name any more.
    file.link += kMark;
  }
  return std::optional<Place>();
}

Result<Mounts::Known*> Mounts::add_detached(Tree& tree, int id, std::unique_ptr<Mount> mount, Fd root) {
  mount->id = id;
  mount->parent = 0;
  mount->below.clear();
  mount->shared = mount->master = 0;
  auto detached = std::make_unique<Known>();
  detached->mount = mount.get();
  detached->root = root.get();
  number(*detached);
  detached->message.set_detached(true);
  detached->message.set_attributes(kernel::mount_attributes(mount->options));
  detached->message.set_set_attributes(true);
  detached_[id] = {&tree, detached.get()};
  detached_roots_.push_back(std::move(root));
  tree.detached_mounts.push_back(std::move(mount));
  tree.detached.push_back(std::move(detached));
  return tree.detached.back().get();
}

}  // namespace stasis::inspect

#include "inspect/mounts.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "inspect/mounted_content.h"
#include "kernel/proc.h"

namespace stasis::inspect {
namespace {

using kernel::Mount;
using kernel::path_below;

constexpr std::string_view kRemoved = "//deleted";

bool is_in_memory(const std::string& type) { return type == "tmpfs" || type == "ramfs"; }

bool can_be_made(const Mount& mount) {
  constexpr std::string_view kTypes[] = {"tmpfs",      "ramfs",     "proc",    "sysfs",   "devpts",
                                         "mqueue",     "overlay",   "debugfs", "tracefs", "cgroup2",
                                         "securityfs", "cgroup",    "pstore",  "bpf",     "binfmt_misc",
                                         "fusectl",    "hugetlbfs", "configfs"};
  return std::find(std::begin(kTypes), std::end(kTypes), mount.type) != std::end(kTypes) ||
         (mount.source.starts_with("/dev/") && !mount.type.starts_with("fuse"));
}

Error refuse(const Mount& mount, std::string cause, std::string hint = "unmount it before a checkpoint") {
  return Error{"save", fmt::format("the mount of {} ({}) at {}", mount.source, mount.type, mount.point),
               std::move(cause), std::move(hint), ErrorCode::kRefused};
}

// The kernel shows the ids in these options as the first user namespace numbers them, whoever reads them. Of
// an id that has no number here nothing can be said. For a namespace in a namespace only the nearest map is
// known.
std::optional<std::string> option_here(const std::string& word) {
  const bool user = word.starts_with("uid=");
  if (!user && !word.starts_with("gid=")) return word;
  const uint64_t id = std::strtoull(word.c_str() + 4, nullptr, 10);
  auto map = kernel::read_proc(HostTid{::getpid()}, user ? "uid_map" : "gid_map");
  if (!map.ok()) return word;
  std::istringstream lines(*map);
  for (uint64_t here, above, count; lines >> here >> above >> count;) {
    if (id >= above && id - above < count) return word.substr(0, 4) + std::to_string(id - above + here);
  }
  return std::nullopt;
}

// Options of the file system that mount() takes again.
std::string data_of(const Mount& mount) {
  std::string data;
  for (const std::string& word : kernel::mount_options(mount.super_options)) {
    constexpr std::string_view kLeftOut[] = {"rw", "ro", "seclabel", "inode64", "inode32"};
    if (std::find(std::begin(kLeftOut), std::end(kLeftOut), word) != std::end(kLeftOut)) continue;
    if (auto here = option_here(word)) data += (data.empty() ? "" : ",") + *here;
  }
  return data;
}

const Mount* take_same(const std::vector<Mount>& among, std::vector<bool>& used, const Mount& mount) {
  used.resize(among.size());
  for (size_t i = 0; i < among.size(); ++i) {
    const Mount& other = among[i];
    if (used[i] || other.point != mount.point || other.device != mount.device || other.root != mount.root)
      continue;
    used[i] = true;
    return &other;
  }
  return nullptr;
}

}  // namespace

// The path of what was mounted, below the root of the file system and without the kernel's mark.
std::string Mounts::clean_root(const Mount& mount) {
  std::string root = mount.root;
  if (root.ends_with(kRemoved)) root.resize(root.size() - kRemoved.size());
  return root.empty() ? "/" : root;
}

Result<void> Mounts::observe_session(HostTid task, MountsBefore before, OwnProc proc) {
  outside_ = before.outside;
  STASIS_TRY(const std::string users, kernel::read_proc(task, "uid_map"));
  // That of the host has all ids there are.
  locked_ = users.find("4294967295") == std::string::npos;
  auto tree = std::make_unique<Tree>();
  STASIS_TRY(tree->mounts, MountTree::open(task, MountTree::Depth::kTop));
  const auto is_root = [&](const Mount& mount) {
    const Mount& root = tree->mounts.all().front();
    return mount.point == "/" && mount.device == root.device && mount.root == root.root;
  };
  if (std::none_of(before.first.begin(), before.first.end(), is_root)) {
    STASIS_TRY(tree->mounts, MountTree::open(task, MountTree::Depth::kAll));
  }
  tree->before = std::move(before);
  trees_.push_back(std::move(tree));
  compare(session(), proc);
  const Known& root = session().known.front();
  if (!root.existing)
    return refuse(*root.mount, "it has taken the place of the root directory of the session (pivot_root)",
                  "let the program do that in a mount namespace of its own (unshare --mount)");
  return {};
}

Result<void> Mounts::observe_own(uint32_t id, HostTid task, std::vector<uint32_t> beside, uint32_t owner) {
  auto tree = std::make_unique<Tree>();
  tree->of = id;
  tree->owner = owner;
  tree->beside = std::move(beside);
  if (owner != 0) tree->beside.push_back(owner);
  STASIS_TRY(tree->mounts, MountTree::open(task, MountTree::Depth::kAll));
  // The session's own /proc shows its processes, and is there when it has some.
  for (const Known& known : session().known) {
    if (!known.session_proc) tree->before.first.push_back(*known.mount);
  }
  tree->before.outside = tree->before.first;
  const auto& mounts = tree->mounts.all();
  const auto& others = session().mounts.all();
  tree->from_nothing = mounts.empty() || others.empty() || mounts.front().device != others.front().device ||
                       mounts.front().root != others.front().root;
  trees_.push_back(std::move(tree));
  compare(*trees_.back(), OwnProc::kNo);
  return {};
}

void Mounts::compare(Tree& tree, OwnProc proc) {
  std::vector<bool> first_used, outside_used;
  bool proc_to_come = proc == OwnProc::kYes;
  for (const Mount& mount : tree.mounts.all()) {
    Known& known = tree.known.emplace_back();
    known.mount = &mount;
    if (tree.from_nothing) continue;
    const Mount* first = take_same(tree.before.first, first_used, mount);
    const Mount* outside = take_same(tree.before.outside, outside_used, mount);
    known.before = first != nullptr ? first : outside;
    if (known.before == nullptr && proc_to_come && mount.type == "proc" && mount.point == "/proc") {
      known.session_proc = true;
      proc_to_come = false;
    }
    const Known* parent = find(tree, mount.parent);
    known.existing = (known.before != nullptr || known.session_proc) &&
                     (parent == nullptr || parent == &known || parent->existing);
  }
  first_used.resize(tree.before.first.size());
  for (size_t i = 0; !tree.from_nothing && i < tree.before.first.size(); ++i) {
    // What has gone outside, too, has gone by itself.
    const Mount& mount = tree.before.first[i];
    if (first_used[i] || mount.type == "proc" ||
        take_same(tree.before.outside, outside_used, mount) == nullptr)
      continue;
    tree.unmounted.push_back(mount.point);
  }
}

Mounts::Tree* Mounts::tree_of(uint32_t id) const {
  for (const auto& tree : trees_) {
    if (tree->of == id) return tree.get();
  }
  return nullptr;
}

Mounts::Known* Mounts::find(Tree& tree, int id) {
  auto found = std::find_if(tree.known.begin(), tree.known.end(),
                            [id](const Known& known) { return known.mount->id == id; });
  return found == tree.known.end() ? nullptr : &*found;
}

uint32_t Mounts::number(Known& known) {
  if (known.id != 0) return known.id;
  known.id = ++last_id_;
  known.message.set_id(known.id);
  known.message.set_existing(known.existing);
  known.message.set_session_proc(known.session_proc);
  known.message.set_path(known.mount->point);
  known.message.set_type(known.mount->type);
  known.message.set_source(known.mount->source);
  return known.id;
}

Result<void> Mounts::conclude(const FindPids& find_pids) {
  for (const auto& tree : trees_) {
    for (Known& known : tree->known) {
      if (known.mount->shared != 0 && !known.existing) groups_.insert(known.mount->shared);
      if (known.mount->shared != 0 && known.existing && known.before != nullptr &&
          known.mount->shared != known.before->shared)
        groups_.insert(known.mount->shared);
    }
  }
  STASIS_CHECK(check_shared_from_before());
  for (const auto& tree : trees_) {
    std::set<int> made;
    for (Known& known : tree->known) {
      STASIS_CHECK(describe(*tree, known));
      if (!known.existing) made.insert(known.mount->id);
    }
    STASIS_CHECK(tree->mounts.uncover(made));
    // They are seen in a copy of the namespace, which had to be made private.
    const bool hidden = std::any_of(tree->known.begin(), tree->known.end(), [](const Known& known) {
      return !known.existing && known.mount->id < 0;
    });
    if (hidden)
      warnings_.push_back(
          "what is mounted beneath the root directory, and hidden by another one, may have shared with "
          "others what is mounted "
          "on it; after a restart it does not");
  }
  for (const auto& system : systems_) {
    if (system->of_processes()) STASIS_CHECK(find_shown_pids(*system, find_pids));
  }
  return {};
}

// In a user namespace the mounts that came with it are locked to the places where they are, and the kernel
// lets nothing become a peer of what they are on (MOVE_MOUNT_SET_GROUP: "from mount should not have locked
// children").
Result<void> Mounts::check_shared_from_before() {
  std::map<int, uint32_t> tree_of_group;
  for (const auto& tree : trees_) {
    for (const Known& known : tree->known) {
      const Mount& mount = *known.mount;
      if (!known.existing || !groups_.contains(mount.shared)) continue;
      const bool carries = std::any_of(tree->known.begin(), tree->known.end(), [&](const Known& other) {
        return other.existing && other.mount->parent == mount.id && other.mount->id != mount.id;
      });
      const auto [first, is_first] = tree_of_group.try_emplace(mount.shared, tree->of);
      if (is_first || first->second == tree->of || !carries || (!locked_ && tree->owner == 0)) continue;
      return refuse(
          mount,
          "two mount namespaces share it, and what is mounted on it is locked by a user namespace: a "
          "restart could not join them again",
          "make it private in one of them (mount --make-private), or launch the program as root");
    }
  }
  return {};
}

// Each /proc shows one pid namespace, which is to be seen at its first process.
Result<void> Mounts::find_shown_pids(schema::FileSystem& system, const FindPids& find_pids) const {
  const Mount* mount = nullptr;
  for (const auto& tree : trees_) {
    for (const Known& known : tree->known) {
      if (known.message.file_system() != system.id()) continue;
      mount = known.mount;
      struct stat status = {};
      const int root = tree->mounts.root_of(mount->id);
      if (root < 0 || mount->root != "/" || ::fstatat(root, "1/ns/pid", &status, 0) != 0) continue;
      const auto id = find_pids(status.st_ino);
      if (!id) return refuse(*mount, "it shows the processes of a pid namespace that is not in the session");
      if (*id != 0) system.add_namespaces(*id);
      return {};
    }
  }
  return mount == nullptr ? Result<void>()
                          : refuse(*mount,
                                   "the pid namespace whose processes it shows has ended, or nothing shows "
                                   "which one that is");
}

Result<void> Mounts::describe(Tree& tree, Known& known) {
  const Mount& mount = *known.mount;
  if (!known.existing) {
    if (kernel::has_option(mount.options, "idmapped"))
      return refuse(mount, "its users are mapped (an idmapped mount), and the kernel does not tell how");
    if (Known* parent = find(tree, mount.parent); parent != nullptr && parent != &known) {
      known.message.set_parent(number(*parent));
      known.message.set_point(mount.below);
    }
    number(known);
    known.message.set_attributes(kernel::mount_attributes(mount.options));
    known.message.set_set_attributes(true);
    if (tree.owner != 0) known.message.set_locked_attributes(locked_attributes(mount));
    STASIS_CHECK(describe_source(tree, known));
    describe_propagation(tree, known);
    return {};
  }
  if (known.before == nullptr) return {};
  if (mount.options != known.before->options) {
    number(known);
    known.message.set_attributes(kernel::mount_attributes(mount.options));
    known.message.set_set_attributes(true);
  }
  // What is shared outside the session is a slave in it, and is noted so. The members of a group of the
  // session are made one again.
  const bool as_before = mount.shared == known.before->shared && mount.master == known.before->master &&
                         mount.unbindable == known.before->unbindable;
  const bool as_outside = tree.of == 0 && mount.shared == 0 && mount.master != 0 &&
                          (known.before->shared == mount.master || known.before->master == mount.master);
  const bool in_group = mount.shared != 0 && groups_.contains(mount.shared);
  if ((!as_before && !as_outside) || in_group) {
    number(known);
    describe_propagation(tree, known);
  }
  return {};
}

void Mounts::describe_propagation(Tree& tree, Known& known) {
  const Mount& mount = *known.mount;
  schema::Mount& out = known.message;
  if (!known.existing && mount.shared == 0 && mount.master == 0 && !mount.unbindable) return;
  out.set_set_propagation(true);
  out.set_group(static_cast<uint32_t>(mount.shared));
  out.set_unbindable(mount.unbindable);
  if (mount.master == 0) return;
  if (groups_.contains(mount.master)) {
    out.set_master(static_cast<uint32_t>(mount.master));
    return;
  }
  // A group outside: the session's own mounts are slaves of it, too.
  for (Known& other : session().known) {
    if (!other.existing || other.mount->master != mount.master || other.mount->device != mount.device ||
        !path_below(clean_root(mount), other.mount->root))
      continue;
    if (&other != &known) out.set_master_of(number(other));
    out.set_master(static_cast<uint32_t>(mount.master));
    return;
  }
  warnings_.push_back(
      fmt::format("the mount at {}{} gets what is mounted at a place that nothing leads to any more; after a "
                  "restart it does not",
                  mount.point, tree.of != 0 ? " in a namespace of the program's" : ""));
}

// A mount of the session from which it can be bound again.
Mounts::Known* Mounts::existing_source(const Mount& mount) {
  Known* best = nullptr;
  for (Known& other : session().known) {
    if (!other.existing || other.mount->device != mount.device || other.mount->root.ends_with(kRemoved) ||
        !path_below(clean_root(mount), other.mount->root))
      continue;
    if (best == nullptr || other.mount->root.size() >= best->mount->root.size()) best = &other;
  }
  return best;
}

// The kernel does not tell which attributes are locked: those that it has from the mount of the session which
// is nearest to what it shows. That may be one too many, when whoever mounted it chose the same.
uint64_t Mounts::locked_attributes(const Mount& mount) {
  const Mount* nearest = nullptr;
  for (const Known& other : session().known) {
    if (other.mount->device != mount.device || !path_below(clean_root(mount), clean_root(*other.mount)))
      continue;
    if (nearest == nullptr || other.mount->root.size() >= nearest->root.size()) nearest = other.mount;
  }
  return nearest == nullptr
             ? 0
             : kernel::mount_attributes(nearest->options) & kernel::mount_attributes(mount.options);
}

Result<void> Mounts::describe_source(Tree& tree, Known& known) {
  const Mount& mount = *known.mount;
  std::string root = "/";
  if (Known* source = existing_source(mount)) {
    known.message.set_of_mount(number(*source));
    root = source->mount->root;
  } else {
    STASIS_TRY(auto* system, file_system(tree, known));
    known.message.set_file_system(system->id());
  }
  known.message.set_root(*path_below(clean_root(mount), root));
  if (mount.root.ends_with(kRemoved)) known.message.mutable_removed();
  return {};
}

Result<schema::FileSystem*> Mounts::file_system(Tree& tree, const Known& known) {
  const Mount& mount = *known.mount;
  for (const auto& system : systems_) {
    if (system->device() == mount.device) return system.get();
  }
  if (!can_be_made(mount)) {
    return mount.type.starts_with("fuse")
               ? refuse(mount,
                        "a process serves this file system (FUSE), and requests to it wait in the kernel")
               : refuse(mount, "this type of file system is not supported inside a session");
  }
  auto system = std::make_unique<schema::FileSystem>();
  system->set_id(static_cast<uint32_t>(systems_.size() + 1));
  system->set_type(mount.type);
  system->set_source(mount.source);
  system->set_options(data_of(mount));
  system->set_read_only(kernel::has_option(mount.super_options, "ro"));
  system->set_device(mount.device);
  system->set_of_processes(mount.type == "proc");
  for (uint32_t id : tree.beside) system->add_namespaces(id);
  if (mount.type == "overlay") STASIS_CHECK(find_layers(tree, known, *system));
  if (is_in_memory(mount.type)) system->set_content(fmt::format("mount-{}", system->id()));
  systems_.push_back(std::move(system));
  return systems_.back().get();
}

// Whether a mount is of this file system, or on a mount of it.
bool Mounts::is_on(Tree& tree, const Known& known, uint64_t device) {
  for (const Known* at = &known; at != nullptr; at = find(tree, at->mount->parent)) {
    if (at->mount->device == device) return true;
    if (at->mount->parent == 0) break;
  }
  return false;
}

// Its options name directories, by the names that they had for whoever mounted it.
Result<void> Mounts::find_layers(Tree& tree, const Known& known, schema::FileSystem& out) {
  const Mount& mount = *known.mount;
  std::vector<std::string> paths;
  for (const std::string& word : kernel::mount_options(mount.super_options)) {
    const size_t sign = word.find('=');
    const std::string key = word.substr(0, sign);
    if (key != "lowerdir" && key != "upperdir" && key != "workdir" && key != "lowerdir+" && key != "datadir+")
      continue;
    // Lower directories are separated by colons, and a colon in a name has a backslash before it.
    std::string path;
    const auto add = [&] {
      if (!path.empty()) paths.push_back(path);
      path.clear();
    };
    for (size_t i = sign + 1; i < word.size(); ++i) {
      if (word[i] == '\\' && i + 1 < word.size()) {
        path += word[++i];
      } else if (word[i] == ':' && key == "lowerdir") {
        add();
      } else {
        path += word[i];
      }
    }
    add();
  }
  for (const std::string& path : paths) {
    if (!path.starts_with('/'))
      return refuse(mount, fmt::format("it was mounted with the relative path {}", path),
                    "mount it with absolute paths");
  }
  Tree* const views[] = {&tree, &session()};
  for (Tree* view : views) {
    std::set<uint32_t> layers;
    const bool leads = std::all_of(paths.begin(), paths.end(), [&](const std::string& path) {
      const Fd found = open_below(view->mounts.top(), path);
      struct stat status = {};
      if (!found || ::fstat(found.get(), &status) != 0 || !S_ISDIR(status.st_mode)) return false;
      Known* on = find(*view, mount_of(found.get()));
      if (on == nullptr || is_on(*view, *on, mount.device)) return false;
      if (!on->existing) layers.insert(number(*on));
      return true;
    });
    if (!leads) continue;
    if (view->of != 0) out.add_namespaces(view->of);
    for (uint32_t layer : layers) out.add_layers(layer);
    return {};
  }
  return refuse(mount, "the directories that it consists of cannot be reached any more",
                "keep what they are on mounted");
}

Result<void> Mounts::note_removed(Tree& tree, Known& known, image::Writer& writer) {
  const int root = known.root >= 0 ? known.root : tree.mounts.root_of(known.mount->id);
  if (root < 0) return refuse(*known.mount, "what it shows was removed, and cannot be looked at");
  known.message.set_content(fmt::format("mount-removed-{}", known.id));
  STASIS_TRY(Fd content, writer.create_file(known.message.content()));
  MountedContent walk(std::move(content));
  return walk.add_file(root, *known.message.mutable_removed());
}

// Only what mounts show can be seen; that may be a part of it.
Result<void> Mounts::save_content(schema::FileSystem& system, image::Writer& writer) {
  struct Part {
    std::string path;
    int root;
    const Mount* mount;
  };
  std::vector<Part> parts;
  for (const auto& tree : trees_) {
    const auto add = [&](const Known& known, int root) {
      if (known.message.file_system() != system.id() || known.message.has_removed()) return;
      parts.push_back({clean_root(*known.mount), root, known.mount});
    };
    for (const Known& known : tree->known) add(known, tree->mounts.root_of(known.mount->id));
    for (const auto& known : tree->detached) add(*known, known->root);
  }
  std::stable_sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) {
    return a.path != b.path ? a.path < b.path : a.root > b.root;
  });
  STASIS_TRY(Fd content, writer.create_file(system.content()));
  MountedContent walk(std::move(content));
  std::vector<std::string> done;
  for (const Part& part : parts) {
    if (std::any_of(done.begin(), done.end(),
                    [&](const std::string& path) { return path_below(part.path, path).has_value(); }))
      continue;
    if (part.root < 0)
      return refuse(*part.mount, "it is locked beneath another mount, so that nobody sees it");
    STASIS_CHECK(walk.add(part.root, part.path.substr(1), system));
    done.push_back(part.path);
  }
  return {};
}

Result<void> Mounts::save(image::Writer& writer, schema::Manifest& manifest,
                          const std::function<schema::Namespace*(uint32_t id)>& find_message) {
  for (const auto& system : systems_) {
    if (!system->content().empty()) STASIS_CHECK(save_content(*system, writer));
    *manifest.add_file_systems() = *system;
  }
  for (const auto& tree : trees_) {
    schema::Namespace& out = *find_message(tree->of);
    out.set_from_nothing(tree->from_nothing);
    for (const auto& point : tree->unmounted) out.add_unmounted(point);
    const auto add = [&](Known& known) -> Result<void> {
      if (known.id == 0) return {};
      if (known.message.has_removed()) STASIS_CHECK(note_removed(*tree, known, writer));
      *out.add_mounts() = known.message;
      return {};
    };
    for (Known& known : tree->known) STASIS_CHECK(add(known));
    for (auto& known : tree->detached) STASIS_CHECK(add(*known));
  }
  return {};
}

}  // namespace stasis::inspect

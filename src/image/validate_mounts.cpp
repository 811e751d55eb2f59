#include <sched.h>
#include <sys/stat.h>

#include <map>
#include <set>

#include "image/validate_internal.h"

namespace stasis::image::validation {
namespace {

using schema::Mount;

// MOUNT_ATTR_*
constexpr uint64_t kAttributes = 0x2000ff;

// A restart makes files by these paths, from the root of a file system.
bool is_below(const std::string& path) {
  return sane_text(path, kPathLimit) && !path.starts_with('/') &&
         ("/" + path + "/").find("/../") == std::string::npos;
}

Result<void> check_file(const schema::MountedFile& file, const std::string& where, uint64_t content) {
  if (!is_below(file.path())) return bad(where, "the path of one of its files is none below it");
  if (!sane_text(file.target(), kPathLimit)) return bad(where, "a link leads to an impossible path");
  if (file.other_name() && !is_below(file.target()))
    return bad(where, "one of its files has another name that is none below it");
  switch (file.mode() & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK:
    case S_IFIFO:
    case S_IFSOCK:
    case S_IFCHR:
    case S_IFBLK:
      break;
    default:
      return bad(where, fmt::format("the type of a file is {:o}", file.mode()));
  }
  if (file.size() > kSizeLimit) return bad(where, fmt::format("a file of {} bytes", file.size()));
  for (const auto& run : file.runs()) {
    if (run.offset() > file.size() || run.size() > file.size() - run.offset())
      return bad(where, "a file has bytes behind its end");
    if (run.place() > content || run.size() > content - run.place())
      return bad(where, "the bytes of a file are not in its content");
  }
  constexpr size_t kLongest = 64 << 10;
  for (const auto& attribute : file.attributes()) {
    if (attribute.name().empty() || !sane_text(attribute.name(), 256) || attribute.value().size() > kLongest)
      return bad(where, "an extended attribute is impossible");
  }
  return {};
}

class Checker {
 public:
  explicit Checker(const Known& known) : known_(known), manifest_(*known.manifest) {}

  Result<void> check() {
    for (const auto& names : manifest_.namespaces()) namespaces_.insert(names.id());
    STASIS_CHECK(check_names(manifest_.session_mounts(), 0));
    for (const auto& names : manifest_.namespaces()) STASIS_CHECK(check_names(names, names.id()));
    for (const auto& system : manifest_.file_systems()) STASIS_CHECK(check_system(system));
    for (const auto& [id, mount] : mounts_) STASIS_CHECK(check_references(*mount, where(*mount)));
    STASIS_CHECK(check_groups());
    for (const auto& description : manifest_.descriptions()) {
      const std::string place = fmt::format("description {}", description.id());
      if (!sane_text(description.host_path(), kPathLimit))
        return bad(place, "its path outside is impossible");
      if (description.mount() != 0 && !mounts_.contains(description.mount()))
        return bad(place, "it is on a mount that does not exist");
      if (description.beneath_mount() &&
          (description.mount() == 0 || mounts_.at(description.mount())->parent() == 0))
        return bad(place, "it is beneath a mount that is on nothing");
    }
    return {};
  }

 private:
  static std::string where(const Mount& mount) { return fmt::format("mount {}", mount.id()); }

  Result<void> check_names(const schema::Namespace& names, uint32_t id) {
    const std::string place = id == 0 ? "mounts of the session" : fmt::format("namespace {}", id);
    if (names.old_mounts_size() > 0) {
      return Error{"manifest", place, "an earlier version has noted there what the program had mounted",
                   "restart it with that version, and checkpoint it again", ErrorCode::kUnsupported};
    }
    for (const auto& point : names.unmounted()) {
      if (!point.starts_with('/') || !sane_text(point, kPathLimit))
        return bad(place, "what was unmounted is no absolute path");
    }
    if (id != 0 && names.type() != CLONE_NEWNS && names.mounts_size() > 0)
      return bad(place, "it has mounts, but is of another type");
    if (id == 0 && names.from_nothing()) return bad(place, "the session has a root of its own");
    std::set<uint32_t> own;
    int roots = 0;
    for (const Mount& mount : names.mounts()) {
      if (mount.id() == 0 || !mounts_.emplace(mount.id(), &mount).second)
        return bad(where(mount), "its number is 0, or is there twice");
      if (id == 0) of_session_.insert(mount.id());
      if (mount.parent() != 0 && !own.contains(mount.parent()))
        return bad(where(mount), "what it is on does not come before it");
      const bool free = mount.existing() || mount.detached();
      if (mount.parent() != 0 && free) return bad(where(mount), "it is at no place, but on something");
      if (mount.parent() == 0 && !free) ++roots;
      own.insert(mount.id());
    }
    if (roots != (names.from_nothing() ? 1 : 0)) return bad(place, fmt::format("it has {} roots", roots));
    return {};
  }

  Result<void> check_system(const schema::FileSystem& system) {
    const std::string place = fmt::format("file system {}", system.id());
    if (system.id() == 0 || !systems_.insert(system.id()).second)
      return bad(place, "its number is 0, or is there twice");
    if (system.type().empty() || !sane_text(system.type(), 256) || !sane_text(system.source(), kPathLimit) ||
        !sane_text(system.options(), kPathLimit))
      return bad(place, "its type, source or options are impossible");
    for (uint32_t id : system.namespaces()) {
      if (!namespaces_.contains(id)) return bad(place, "it is of a namespace that does not exist");
    }
    for (uint32_t id : system.layers()) {
      if (!mounts_.contains(id)) return bad(place, "it consists of a mount that does not exist");
    }
    uint64_t size = 0;
    STASIS_CHECK(check_content(system.content(), place, size));
    for (const auto& file : system.files()) STASIS_CHECK(check_file(file, place, size));
    return {};
  }

  Result<void> check_content(const std::string& name, const std::string& place, uint64_t& size) const {
    if (name.empty()) return {};
    const auto content = known_.file_sizes.find(name);
    if (content == known_.file_sizes.end()) return bad(place, "its content is not in the image");
    size = content->second;
    return {};
  }

  Result<void> check_references(const Mount& mount, const std::string& place) {
    if (!mount.path().starts_with('/') || !sane_text(mount.path(), kPathLimit))
      return bad(place, "it is at no absolute path");
    if (!is_below(mount.point())) return bad(place, "its place is none below what it is on");
    if (!is_below(mount.root())) return bad(place, "what it shows is none below a file system");
    if ((mount.attributes() & ~kAttributes) != 0)
      return bad(place, fmt::format("unknown attributes {:#x}", mount.attributes()));
    if ((mount.locked_attributes() & ~mount.attributes()) != 0)
      return bad(place, "it has not the attributes that are locked");
    const auto is_existing = [this](uint32_t id) {
      return of_session_.contains(id) && mounts_.at(id)->existing();
    };
    if (mount.master_of() != 0 && !is_existing(mount.master_of()))
      return bad(place, "it is a slave of a mount that does not exist");
    if (mount.existing()) return {};
    if ((mount.file_system() == 0) == (mount.of_mount() == 0))
      return bad(place, "what it shows is not clear");
    if (mount.file_system() != 0 && !systems_.contains(mount.file_system()))
      return bad(place, "it shows a file system that does not exist");
    if (mount.of_mount() != 0 && !is_existing(mount.of_mount()))
      return bad(place, "it shows a part of a mount that does not exist");
    if (!mount.has_removed()) return {};
    if (mount.root().empty()) return bad(place, "the root of a file system cannot be removed");
    uint64_t size = 0;
    STASIS_CHECK(check_content(mount.content(), place, size));
    return check_file(mount.removed(), place, size);
  }

  // No group gets from itself what is mounted in it.
  Result<void> check_groups() const {
    std::map<uint32_t, std::set<uint32_t>> masters;
    for (const auto& [id, mount] : mounts_) {
      if (mount->group() != 0 && mount->master() != 0) masters[mount->group()].insert(mount->master());
    }
    for (bool more = true; more;) {
      more = false;
      for (auto group = masters.begin(); group != masters.end();) {
        std::erase_if(group->second, [&](uint32_t master) { return !masters.contains(master); });
        const bool ends = group->second.empty();
        more = more || ends;
        group = ends ? masters.erase(group) : std::next(group);
      }
    }
    return masters.empty() ? Result<void>() : bad("mounts", "groups of peers are slaves of each other");
  }

  const Known& known_;
  const schema::Manifest& manifest_;
  std::set<uint32_t> namespaces_, systems_, of_session_;
  std::map<uint32_t, const Mount*> mounts_;
};

}  // namespace

Result<void> check_mounts(const Known& known) { return Checker(known).check(); }

}  // namespace stasis::image::validation

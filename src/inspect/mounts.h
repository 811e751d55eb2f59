// What a program has mounted: in the session's own mount namespace what differs from what was there before,
// in one of the program's the same, or, when it has taken another root directory (pivot_root), all.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "image/writer.h"
#include "inspect/mount_tree.h"
#include "kernel/mounts.h"
#include "schema/manifest.pb.h"
#include "stasis/descriptor.h"
#include "stasis/result.h"

namespace stasis::inspect {

// What is mounted where a namespace was copied from.
struct MountsBefore {
  std::vector<kernel::Mount> first;    // when it was made
  std::vector<kernel::Mount> outside;  // now: it may have come, or gone, since
};

class Mounts {
 public:
  // `task`: one that is in the namespace. The session's comes first. `proc`: whether the first /proc that is
  // new is the session's own, which it has in any case.
  enum class OwnProc { kYes, kNo };
  Result<void> observe_session(HostTid task, MountsBefore before, OwnProc proc);
  // Of the namespace with this number in the image. `beside`: those of other types in which `task` is, and
  // `owner`, the users to which it belongs; 0: to those of the session.
  Result<void> observe_own(uint32_t id, HostTid task, std::vector<uint32_t> beside, uint32_t owner);
  // When all are observed: what every mount shows. An Error refuses what cannot be mounted again.
  // `find_pids`: the number in the image of a pid namespace, 0: the session's; nothing: it has no process.
  using FindPids = std::function<std::optional<uint32_t>(uint64_t identity)>;
  Result<void> conclude(const FindPids& find_pids);

  // Whether anything is there that a program may have mounted.
  bool empty() const { return trees_.empty(); }

  // Where a restart finds a file.
  struct Place {
    uint32_t of = 0;        // the number of the mount namespace; 0: the session's
    uint32_t mount = 0;     // from whose root the path counts; 0: from that of the namespace
    bool beneath = false;   // it counts from the directory on which that mount is
    bool visible = true;    // its path leads to it in that namespace
    std::string host_path;  // as in schema::Description
  };
  // `own`: the mount namespace of its task. Changes its link and its root, so that they say where it is
  // found. Nothing: its name tells all.
  Result<std::optional<Place>> locate(resource::OpenFile& file, uint32_t own);
  // The path of a file outside of the session, as in schema::Mapping.
  std::string host_path(uint32_t of, const std::string& path) const;
  // Where the program has mounted the file system with this number in a namespace.
  std::vector<std::string> points_of(uint32_t of, uint64_t device) const;
  // Whether this path leads whoever enters the namespace to the file with this inode.
  bool leads_to(uint32_t of, const std::string& path, uint64_t inode, struct stat& status) const;
  // Whether this is the root directory that whoever enters the namespace has.
  bool is_top(uint32_t of, int directory) const;

  // Everything, with the contents of file systems that are in memory only.
  Result<void> save(image::Writer& writer, schema::Manifest& manifest,
                    const std::function<schema::Namespace*(uint32_t id)>& find);
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  struct Known {
    const kernel::Mount* mount = nullptr;
    const kernel::Mount* before = nullptr;  // of an existing one, where it came from
    bool existing = false;
    bool session_proc = false;
    uint32_t id = 0;  // when something refers to it
    schema::Mount message;
    int root = -1;  // of a detached one
  };
  struct Tree {
    uint32_t of = 0, owner = 0;
    MountTree mounts;
    MountsBefore before;
    bool from_nothing = false;
    std::vector<uint32_t> beside;
    std::vector<Known> known;  // parallel to mounts.all()
    std::vector<std::string> unmounted;
    std::vector<std::unique_ptr<Known>> detached;
    std::vector<std::unique_ptr<kernel::Mount>> detached_mounts;
  };
  Tree& session() { return *trees_.front(); }
  Tree* tree_of(uint32_t id) const;
  static Known* find(Tree& tree, int id);
  void compare(Tree& tree, OwnProc proc);
  static bool is_on(Tree& tree, const Known& known, uint64_t device);
  uint32_t number(Known& known);
  Result<void> describe(Tree& tree, Known& known);
  Result<void> describe_source(Tree& tree, Known& known);
  void describe_propagation(Tree& tree, Known& known);
  Result<schema::FileSystem*> file_system(Tree& tree, const Known& known);
  Result<void> find_layers(Tree& tree, const Known& known, schema::FileSystem& out);
  Known* existing_source(const kernel::Mount& mount);
  uint64_t locked_attributes(const kernel::Mount& mount);
  Result<void> check_shared_from_before();
  Result<void> find_shown_pids(schema::FileSystem& system, const FindPids& find_pids) const;
  Result<void> note_removed(Tree& tree, Known& known, image::Writer& writer);
  Result<void> save_content(schema::FileSystem& system, image::Writer& writer);
  static Known* cover_of(Tree& tree, const Known& on, const std::string& below);
  void look_beneath(Tree& tree, const Known& on, Known& cover, const std::string& below,
                    resource::OpenFile& file, Place& place);
  static Known* find_beneath(const resource::OpenFile& file, Tree& tree);
  Result<std::optional<Place>> locate_detached(resource::OpenFile& file, int id, Tree& own);
  Result<Known*> add_detached(Tree& tree, int id, std::unique_ptr<kernel::Mount> mount, Fd root);
  std::string outside_path(const kernel::Mount& mount, const std::string& below) const;
  static std::string clean_root(const kernel::Mount& mount);

  std::vector<std::unique_ptr<Tree>> trees_;
  std::vector<std::unique_ptr<schema::FileSystem>> systems_;
  std::vector<kernel::Mount> outside_;
  bool locked_ = false;   // the session is in a user namespace, and so are its mounts
  std::set<int> groups_;  // of peers that mounts of the image are in
  std::map<int, std::pair<Tree*, Known*>> detached_;
  std::vector<Fd> detached_roots_;
  std::map<const Known*, Fd> points_;  // the directories on which mounts are that hide something
  uint32_t last_id_ = 0;
  std::vector<std::string> warnings_;
};

// What is found from one of our own descriptors, by a path with or without a slash before it.
Fd open_below(int directory, std::string path);

}  // namespace stasis::inspect

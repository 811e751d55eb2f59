// Mounts again what the program had mounted: in the session's mount namespace what is more than there was, in
// those of the program the same or, when they had nothing of the session's, all.
//
// Every mount is made detached (open_tree(2)), as one of a file system that stands ready in a *workshop*, a
// namespace of our own, so that nothing covers anything while the pieces are made. Then they are put together
// from the roots up: what a mount is on is opened while that still is bare. Who gets what is mounted
// elsewhere (propagation) comes last, since until then nothing may come to a mount by itself.
//
// In a mount namespace that belongs to a user namespace of the program's, rights over mounts are fewer:
// 1. File systems that are made for it are mounted by a process that is in the user namespace, since they
// take
//    their rights from that one. 2. What it shows of the session's mounts is cloned from a copy that belongs
//    to the user namespace, so that read-only and the like are locked there (mount_namespaces(7)).
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "image/reader.h"
#include "schema/manifest.pb.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::restore {

class Mounts {
 public:
  // In the builder, in the namespaces of the session. Our own descriptors are kept at `base` and above.
  Result<void> begin(const image::Image& image, int base);
  bool empty() const { return entries_.empty() && systems_.empty(); }
  // The session's. Then, in a copy of those that was just made, those of a namespace of the program's.
  Result<void> make_session();
  Result<void> make_own(const schema::Namespace& wanted);
  // Lets a file system be mounted in namespaces of other types; by their numbers in the image.
  void add_namespace(const schema::Namespace& other, int fd) { beside_[other.id()] = {&other, fd}; }
  // What the namespaces need of each other.
  Result<void> make_rest();
  // In init, when the session has its /proc: what shows processes and what is on that, and the propagation.
  Result<void> complete();
  // In the builder, when pid namespaces below the session's have their first processes: what shows them.
  // `mount` has it mounted by one of those that are in such a namespace, at no place.
  using MountProcesses = std::function<Result<Fd>(const schema::FileSystem& system, uint32_t pids)>;
  Result<void> complete_inner(const MountProcesses& mount);
  void close();

  // The root of a mount of the image, whatever is mounted on it; -1: there is none.
  int root_of(uint32_t mount) const;
  // The directory on which it stands, as the file system has it beneath.
  int point_of(uint32_t mount) const;

 private:
  // When something can be mounted: at once, when the session has its /proc, when pid namespaces below it have
  // their first processes.
  enum class Stage { kFirst, kSession, kInner };
  struct Entry {
    const schema::Mount* mount = nullptr;
    uint32_t of = 0;
    Stage stage = Stage::kFirst;
    bool done = false;
    Fd root;
    Fd point;  // on which it is to be mounted, and, where files are beneath, is
    bool hides = false;
    std::vector<Entry*> children;
  };
  struct System {
    const schema::FileSystem* system = nullptr;
    Stage stage = Stage::kFirst;
    uint32_t pids = 0;  // the pid namespace that it shows, when that is not the session's
    Fd root;            // in the workshop
  };
  struct Beside {
    const schema::Namespace* record = nullptr;
    int fd = -1;
  };

  void add(const schema::Namespace& names);
  void find_stages();
  Result<void> enter(int names);
  int names_of(uint32_t of) const;
  Result<void> keep(Fd& place, Fd fd) const;
  Result<void> open_existing(Entry& entry);
  Result<void> open_points(Entry& entry);
  bool is_ready(const Entry& entry, Stage stage) const;
  Result<void> make_all(Stage stage, const std::set<uint32_t>& of);
  Result<void> check_done(Stage stage) const;
  std::set<uint32_t> all_names() const;
  Result<void> make_one(Entry& entry);
  Result<void> make_and_attach(Entry& entry);
  Result<Fd> clone_source(const Entry& entry);
  Result<Fd> clone_below(const Entry& entry, int directory);
  Result<Fd> clone_removed(const Entry& entry, Fd directory);
  Result<Fd> source_directory(const Entry& entry);
  Result<void> attach(Entry& entry);
  Result<void> attach_root(Entry& entry);
  Result<void> make_system(System& system);
  static Result<Fd> mount_system(const schema::FileSystem& system);
  Result<Fd> mount_apart(const schema::FileSystem& system);
  // The user namespace that a file system takes its rights from; nullptr: the session's.
  const Beside* users_of(const schema::FileSystem& system) const;
  Result<Fd> hand_down(Fd clone, const schema::Mount& mount, const Beside& users);
  Result<void> part_from_groups();
  Result<void> propagate(Stage stage);
  bool is_widest(const Entry& entry) const;
  Result<Fd> clone_widest(const Entry& first);
  Result<Fd*> anchor(uint32_t group, Stage stage);
  Result<void> join(const Entry& entry, Stage stage);

  const image::Image* image_ = nullptr;
  int base_ = 0;
  std::map<uint32_t, Entry> entries_;
  std::vector<Entry*> in_order_;
  std::map<uint32_t, System> systems_;
  std::map<uint32_t, Fd> names_;         // mount namespaces; 0: the session's
  std::map<uint32_t, uint32_t> owners_;  // of mount namespaces: the users to which they belong
  std::map<uint32_t, Beside> beside_;
  std::map<uint32_t, Fd> sources_;  // of existing mounts of the session, in the workshop
  std::map<uint32_t, Fd> anchors_;
  std::set<const Entry*> parted_;
  std::set<uint32_t> from_nothing_;
  // What is there only until it is mounted.
  struct ToRemove {
    Fd directory;
    std::string name;
    int flags = 0;
  };
  ToRemove remove_;
  Fd workshop_, directory_;
};

}  // namespace stasis::restore

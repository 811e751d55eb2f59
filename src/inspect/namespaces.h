// Which processes are in namespaces of their own, and what these are like.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/parallel.h"
#include "freeze/frozen_tree.h"
#include "image/writer.h"
#include "inspect/mounts.h"
#include "inspect/network.h"
#include "kernel/network_view.h"
#include "schema/manifest.pb.h"
#include "stasis/descriptor.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::inspect {

class Namespaces {
 public:
  // Finds them all. An Error refuses those that cannot be made again.
  // `first_mounts`: of a session, the file with what was mounted before the program began. `has_network`: the
  // session has a network of its own.
  Result<void> collect(const freeze::FrozenTree& tree, const std::string& first_mounts, bool has_network);
  // Waits for what collect() has begun. An Error refuses.
  Result<void> finish();
  // Of the i-th process of the tree.
  Result<void> describe(size_t process, schema::Process& out) const;
  // What an open file has to be made in, since it is a socket of a network or on a mount.
  std::vector<uint32_t> of(const resource::OpenFile& file) const;
  // Looks at all mounts if some file is on one that was unmounted while it was in use.
  Result<void> find_unmounted(const freeze::FrozenTree& tree,
                              const std::vector<std::unique_ptr<resource::OpenFile>>& files);
  // Where a restart finds a file: changes its link and its root so that they say so.
  Result<void> locate(resource::OpenFile& file);
  // After that; nullptr: its name tells all.
  const Mounts::Place* place_of(const resource::OpenFile& file) const;
  // Where the program has mounted what the file is on, as its name counts.
  std::vector<std::string> mounted_at(const resource::OpenFile& file) const;
  // Whether the name of a file, or of a directory of a process, leads whoever enters the namespaces of its
  // task to it.
  bool is_found_by_name(const resource::OpenFile& file) const;
  // Whether names may lead elsewhere than the session's.
  bool has_mounts() const { return !mounts_.empty(); }
  // Whether a directory is the root of the mount namespace of a process.
  bool is_top(const freeze::FrozenProcess& process, int directory) const;
  // Whether the name of what a process has mapped leads whoever enters its mount namespace to it.
  bool leads_to(const freeze::FrozenProcess& process, const kernel::MapsEntry& entry,
                struct stat& status) const;
  // What a restart has to know of the path of a file that a process has mapped.
  void describe_path(const freeze::FrozenProcess& process, schema::Mapping& mapping);
  const std::vector<std::string>& warnings() const { return mounts_.warnings(); }
  bool has_own_ipc(const schema::Process& process) const;
  // Everything, with the contents of what is mounted; when the manifest has all descriptions.
  Result<void> save(image::Writer& writer, schema::Manifest& manifest);
  // What we ask the kernel about a socket, or a descriptor of /dev/net/tun, is asked in its network as long
  // as this lives.
  Result<kernel::LookingInto> look_into_network_of(const resource::OpenFile& file) const;
  // Whether there are pid namespaces below the session's.
  bool has_pids() const;
  bool has_ended(uint32_t id) const { return id != 0 && found_[id - 1]->message.ended(); }

 private:
  struct Found {
    schema::Namespace message;
    uint64_t identity = 0;
    HostTid task;  // that is in it
  };
  void read_identities(const freeze::FrozenTree& tree);
  void begin_with_threads(const freeze::FrozenTree& tree);
  Result<void> check_threads();
  Result<void> collect_process(size_t index, const freeze::FrozenProcess& process);
  Result<void> collect_mounts(const freeze::FrozenTree& tree, const std::string& first_mounts);
  Result<void> look_at_mounts(const freeze::FrozenTree& tree);
  // Notes that a process is in this one.
  Result<void> add(size_t index, HostTid task, uint64_t type, const char* name, uint64_t identity);
  Result<void> collect_time(size_t index, const freeze::FrozenProcess& process);
  // That of the process and that of its children. `level`: FrozenTree::level().
  Result<void> collect_pids(size_t index, const freeze::FrozenProcess& process, size_t level);
  // Finds or adds it, and those above; 0: the session's.
  Result<uint32_t> find_pids(const Fd& place, HostTid task);
  // The same for users.
  Result<uint32_t> find_users(const Fd& place);
  // That of users to which another one belongs.
  Result<uint32_t> find_owner(const Fd& place);
  void note_ended(const freeze::FrozenTree& tree);
  Result<void> observe(Found& found);
  // What the session's own IPC namespace has been given, where that can be.
  void begin_with_ipc(const freeze::FrozenTree& tree);
  Result<void> observe_time(HostTid task, schema::Namespace& out) const;
  Result<void> begin_with_networks(bool has_network);
  // The identity of the network of a socket or tun descriptor; 0: it has none, or none that we could look
  // into.
  uint64_t network_of(const resource::OpenFile& file) const;
  uint32_t mounts_of(int pid) const;
  uint64_t session_identity(const char* name);
  const Found* find(uint64_t type, uint64_t identity) const;

  HostTid reference_;                                        // FrozenTree::surroundings()
  std::map<std::string, uint64_t> of_session_;               // identities, by type
  std::vector<std::map<std::string, uint64_t>> identities_;  // of processes, by names as in /proc/PID/ns
  struct Stray {
    const freeze::FrozenProcess* process;
    const char* type;
  };
  std::vector<std::optional<Stray>> strays_;  // threads that are elsewhere than their processes
  std::vector<std::unique_ptr<Found>> found_;
  std::vector<std::vector<uint32_t>> of_processes_;  // ids
  std::vector<uint32_t> of_children_;                // the pid namespace, when it is not the process's own
  std::map<int, size_t> by_number_;                  // the index of a process of the session
  Mounts mounts_;
  MountsBefore before_;
  std::set<int> listed_;  // ids of mounts that somebody sees
  std::map<const resource::OpenFile*, Mounts::Place> places_;
  std::map<std::pair<uint32_t, std::string>, std::string> host_paths_;
  schema::Namespace session_;
  schema::Network session_network_;
  std::vector<NetworkPlace> networks_;
  std::vector<NetworkObserver> observers_;  // of each of them
  mutable std::map<uint64_t, std::unique_ptr<kernel::NetworkHelper>>
      helpers_;  // by identity, made when needed
  schema::IpcSettings session_ipc_;
  std::jthread ipc_;                         // reads them
  std::unique_ptr<ConcurrentWork> threads_;  // looks at them; it ends before what it fills
};

}  // namespace stasis::inspect

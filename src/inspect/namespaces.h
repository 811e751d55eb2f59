// Which processes are in namespaces of their own, and what these are like.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "freeze/frozen_tree.h"
#include "image/writer.h"
#include "schema/manifest.pb.h"
#include "stasis/descriptor.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::inspect {

class Namespaces {
 public:
  // Finds them all. An Error refuses those that cannot be made again.
  // `first_mounts`: of a session, the file with what was mounted before the program began.
  Result<void> collect(const freeze::FrozenTree& tree, const std::string& first_mounts);
  // Of the i-th process of the tree.
  Result<void> describe(size_t process, schema::Process& out) const;
  // What an open file has to be made in, since it is a socket of a network or on a mount.
  std::vector<uint32_t> of(const resource::OpenFile& file) const;
  bool has_own_ipc(const schema::Process& process) const;
  // Everything, with the contents of what is mounted.
  Result<void> save(image::Writer& writer, schema::Manifest& manifest);
  // Our own process in the network of a socket, as long as this lives.
  class InNetwork {
   public:
    InNetwork() = default;
    InNetwork(InNetwork&& other) noexcept = default;
    InNetwork& operator=(InNetwork&& other) noexcept = default;
    ~InNetwork();

   private:
    friend class Namespaces;
    Fd before_;
  };
  Result<InNetwork> enter_network(const resource::OpenFile& file) const;
  bool empty() const { return found_.empty(); }
  // Whether there are pid namespaces below the session's.
  bool has_pids() const;
  bool has_ended(uint32_t id) const { return id != 0 && found_[id - 1]->message.ended(); }

 private:
  struct Found {
    schema::Namespace message;
    uint64_t identity = 0;
    HostTid task;  // that is in it
  };
  Result<void> collect_process(size_t index, const freeze::FrozenProcess& process);
  // Of pids: that of the process and that of its children.
  Result<void> collect_pids(size_t index, const freeze::FrozenProcess& process);
  // Finds or adds it, and those above; 0: the session's.
  Result<uint32_t> find_pids(const Fd& place, HostTid task);
  Result<void> find_shown_pids(HostTid task, schema::Namespace& mounts) const;
  // The same for users.
  Result<uint32_t> find_users(const Fd& place);
  // That of users to which another one belongs.
  Result<uint32_t> find_owner(const Fd& place);
  void note_ended(const freeze::FrozenTree& tree);
  Result<void> observe(Found& found);
  const Found* find(uint64_t type, uint64_t identity) const;

  HostTid reference_;  // FrozenTree::surroundings()
  uint64_t session_identity(const char* name);
  std::map<std::string, uint64_t> of_session_;  // identities, by type
  std::vector<std::unique_ptr<Found>> found_;
  std::vector<std::vector<uint32_t>> of_processes_;  // ids
  std::vector<uint32_t> of_children_;                // the pid namespace, when it is not the process's own
  std::map<int, size_t> by_number_;                  // the index of a process of the session
  schema::Namespace session_;
};

}  // namespace stasis::inspect

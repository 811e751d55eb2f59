// The open file descriptions of a frozen tree: who shares which, and what each of them is.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "freeze/frozen_tree.h"
#include "image/writer.h"
#include "remote/foothold.h"
#include "schema/manifest.pb.h"
#include "stasis/descriptor.h"
#include "stasis/result.h"

namespace stasis::inspect {

// launch's own 0, 1 and 2 when they came from outside the session and are no terminals or files.
struct SessionStdio {
  bool outside = false;
  uint64_t device = 0;
  uint64_t inode = 0;
};

// What was there before the session, and is replaced by what a restart has.
struct OutsideStreams {
  uint64_t terminal = 0;  // st_rdev of the slave of the session's own terminal; 0: none
  std::array<SessionStdio, 3> stdio;
};

class Namespaces;

class DescriptorGraph final : public resource::Observation {
 public:
  explicit DescriptorGraph(const OutsideStreams& streams) : streams_(streams) {}

  // Who knows where a description has to be made; must live as long as this.
  void set_namespaces(Namespaces& namespaces) { namespaces_ = &namespaces; }
  // Finds all descriptors of all processes and which of them share an open file description.
  Result<void> collect(const freeze::FrozenTree& tree);
  // Asks a process who is at the other ends of its sockets: of one that is gone the kernel tells a number
  // only, and to each the number in its own namespace.
  Result<void> ask_for_peers(HostTid process, remote::Foothold& foothold);
  // Through whom processes are asked by the kinds; as long as the footholds are there.
  void set_foothold(const freeze::FrozenProcess& process, remote::Foothold& foothold);
  // Asks the kinds about each; an Error names what cannot be saved. Nothing is written when `writer` is not
  // set yet: contents of unlinked files are taken by observe(), so it comes after everything that can refuse.
  Result<void> observe(const freeze::FrozenTree& tree, image::Writer& writer, schema::Manifest& manifest);
  // After collect(), of a program of which nobody knew them.
  void set_streams(const OutsideStreams& streams) { streams_ = streams; }
  // Refuses what no kind claims, before anything is written.
  Result<void> classify();

  // Slots of the i-th process of the tree.
  const std::vector<schema::DescriptorSlot>& slots(size_t process) const { return slots_[process]; }
  // Descriptions that no descriptor refers to: of a working directory, a program or a root directory to which
  // no name leads; 0: there is one.
  struct Hidden {
    uint32_t working_directory = 0;
    uint32_t executable = 0;
    uint32_t root = 0;
  };
  const Hidden& hidden(size_t process) const { return hidden_[process]; }
  // The locks on files that belong to it.
  const std::vector<schema::RecordLock>& record_locks(size_t process) const { return locks_[process]; }
  // The first description of the file with this identity that is open for at least reading; nullptr: none.
  const resource::OpenFile* find_file(uint64_t device, uint64_t inode) const;
  // Whether the name of a file that a process has mapped leads a restart to it.
  bool names(const freeze::FrozenProcess& process, const kernel::MapsEntry& entry, struct stat& status) const;
  // A description of the terminal with this device number, also one opened as /dev/tty; nullptr: none.
  const resource::OpenFile* find_terminal(uint64_t device) const;
  const std::vector<std::string>& warnings() const { return warnings_; }

  const std::vector<std::unique_ptr<resource::OpenFile>>& all() const override { return files_; }
  const resource::OpenFile* find(HostTid pid, int number) const override;
  uint64_t session_terminal() const override { return streams_.terminal; }
  std::optional<int> session_stdio(const resource::OpenFile& file) const override;
  NsTid peer_process(const resource::OpenFile& socket) const override;
  NsTid session_task(HostTid task) const override;
  const resource::OpenFile* description_of(int own) const override;
  Result<Fd> create_file(const std::string& name) override;
  Result<Process*> owner(const resource::OpenFile& file) override;
  void warn(std::string text) override { warnings_.push_back(std::move(text)); }

 private:
  struct Candidate;
  static Result<std::vector<Candidate>> open_descriptors(const freeze::FrozenProcess& process,
                                                         const std::vector<int>& numbers);
  Result<void> collect_descriptors(const std::vector<freeze::FrozenProcess>& processes);
  Result<void> add_process(const freeze::FrozenProcess& process, std::vector<Candidate>&& candidates,
                           std::vector<schema::DescriptorSlot>& slots,
                           std::vector<schema::RecordLock>& locks);
  // What is in flight in the queues of unix sockets, which may have been sent sockets, too.
  Result<void> collect_in_flight();
  Result<void> add_in_flight(Fd fd);
  // Where in its bucket a description is, or belongs.
  struct Place {
    std::vector<resource::OpenFile*>* bucket = nullptr;
    size_t index = 0;
    resource::OpenFile* found = nullptr;
  };
  Result<Place> find_place(const resource::OpenFile& candidate) const;
  Result<resource::OpenFile*> same_description(resource::OpenFile& candidate);
  Result<void> collect_hidden(const freeze::FrozenTree& tree);
  Result<void> check_can_name(const resource::OpenFile& file) const;
  NsTid peer_by_our_number(const resource::OpenFile& socket) const;
  Result<uint32_t> collect_hidden(const freeze::FrozenProcess& process, const char* link, int flags);
  Result<void> check_working_directory(const resource::OpenFile& file);
  Result<uint32_t> collect_root(const freeze::FrozenProcess& process);
  Result<void> collect_mapped(const freeze::FrozenProcess& process);
  Result<uint32_t> keep_hidden(std::unique_ptr<resource::OpenFile> file);
  void find_other_names();

  OutsideStreams streams_;
  std::vector<std::unique_ptr<resource::OpenFile>> files_;
  std::vector<const resource::DescriptorKind*> kinds_;  // parallel to files_
  std::vector<std::vector<schema::DescriptorSlot>> slots_;
  std::vector<std::vector<schema::RecordLock>> locks_;
  std::vector<Hidden> hidden_;
  std::string directory_of_dead_;  // in which somebody works
  std::map<int, NsTid> tasks_;
  std::set<int> inner_;  // processes (host) in pid namespaces below the session's
  // Descriptions with the same inode, position and flags may be the same one; within a bucket kcmp() orders
  // them.
  mutable std::unordered_map<std::string, std::vector<resource::OpenFile*>> buckets_;
  std::unordered_map<uint64_t, resource::OpenFile*> by_slot_;
  std::map<int, std::vector<const resource::OpenFile*>> sockets_;  // unix ones, by their first owner
  std::map<uint32_t, NsTid> peers_;                                // by the socket's description
  std::map<int, std::unique_ptr<Process>> processes_;
  // For names(): the root directory of each process, and what is found under a name in it.
  mutable std::map<int, std::string> roots_;
  mutable std::map<std::pair<std::string, std::string>, std::optional<struct stat>> named_;
  Namespaces* namespaces_ = nullptr;
  image::Writer* writer_ = nullptr;
  std::vector<std::string> warnings_;
};

}  // namespace stasis::inspect

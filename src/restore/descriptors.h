// The builder's table of descriptors: made once, inherited by every process of the new tree, placed there by
// number.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "image/reader.h"
#include "restore/actors.h"
#include "restore/namespaces.h"
#include "restore/numbers.h"
#include "restore/skeleton.h"
#include "schema/manifest.pb.h"
#include "stasis/descriptor.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::restore {

// Everything that processes inherit stands at numbers from base() on, above all numbers that the program
// uses.
class DescriptorTable final : public resource::Making {
 public:
  explicit DescriptorTable(const image::Image& image);

  // Moves a descriptor up; owned by the table. Returns its number.
  Result<int> add(Fd fd);
  // By path: files that stand in for those of the checkpoint.
  void set_copies(std::map<std::string, std::string> copies) { copies_ = std::move(copies); }
  // Where descriptions are made, and what processes have to enter.
  Namespaces& namespaces() { return namespaces_; }
  const Namespaces& namespaces() const { return namespaces_; }
  // Makes all descriptions and fills them.
  Result<void> make(const std::string& terminal_path);
  // In init, before it has children: what is to be done by processes with certain numbers.
  Result<void> settle();
  // Opens a file for the mappings of a memory of the image, or finds it open already.
  Result<int> open_for_mapping(int memory, const std::string& path, bool writable);
  int number_of(uint32_t description) const { return made_.at(description); }
  bool has(uint32_t description) const { return made_.contains(description); }

  // What a process calls a task; 0: it cannot name it.
  int number_as_seen_by(int process, int task) const {
    return numbers_.seen_from(numbers_.find(process).space, task);
  }

  // Whether somebody with all rights in the user namespace `users` may enter a namespace.
  bool may_enter(uint32_t users, uint32_t id) const { return numbers_.rules(users, numbers_.owner(id)); }

  int base() const { return base_; }
  // Gives a process the descriptors that it had, and takes all others from it.
  Result<void> place(Skeleton& skeleton, const schema::Process& process) const;
  // The last step of descriptors, in each one's first owner, when all have their numbers everywhere.
  Result<void> finish(std::map<int, Skeleton>& skeletons, const schema::Manifest& manifest) const;
  // What is left of the descriptors of which this process is the first owner, when it closes nothing any
  // more.
  Result<void> finish_last(Skeleton& skeleton, const schema::Process& process) const;
  // The locks of descriptions that show who took them: by these, while they have all descriptions.
  Result<void> take_locks_of_descriptions(std::map<int, Skeleton>& skeletons) const;
  // The locks that a process had on files, when it closes nothing any more.
  Result<void> take_record_locks(Skeleton& skeleton, const schema::Process& process) const;
  bool has_leases() const { return !leased_.empty(); }
  // The leases on files that this process took; it is then the one who is told. Where that process has the
  // file open no more, the first owner does.
  Result<void> take_leases(Skeleton& skeleton, const schema::Process& process) const;
  // Whom the descriptions signal of which this process is the first owner.
  Result<void> set_signal_owners(Skeleton& skeleton, const schema::Process& process) const;
  // Forgets the builder's own copies.
  void close_all() {
    owned_.clear();
    kept_objects_.clear();
    namespaces_.close();
  }

  const std::vector<resource::Record>& records() const override { return records_; }
  Result<int> description(uint32_t id) override;
  void provide(uint32_t id, Fd fd) override;
  bool provided(uint32_t id) const override { return made_.contains(id); }
  std::map<std::string, Fd>& shared_objects() override { return shared_objects_; }
  std::map<std::string, Fd>& kept_objects() override { return kept_objects_; }
  Result<void> within(uint32_t id, const std::function<Result<void>()>& act) override;
  void as(const resource::Actor& actor, std::function<Result<void>()> act) override;
  Result<Fd> open_image_file(const std::string& name) override { return image_.open_file(name); }
  std::string place_of(const std::string& path) const override;
  std::string terminal_path() const override { return terminal_path_; }
  int stdio(int which) const override { return which; }

 private:
  // Of a description.
  const Namespaces::Where& where(uint32_t id) const;

  const image::Image& image_;
  Numbers numbers_;
  Namespaces namespaces_;
  std::map<uint32_t, Namespaces::Where> where_;  // those that are not made in the session's namespaces
  std::map<uint32_t, std::string> host_paths_;   // by description
  Namespaces::Where settling_in_;
  std::map<int, Namespaces::Where> mounts_of_memories_;  // those that are not the session's
  int base_ = 256;
  std::vector<resource::Record> records_;
  std::vector<Fd> owned_;
  std::map<uint32_t, int> made_;
  std::map<uint32_t, int> first_owners_;  // pids, by description
  std::set<std::pair<uint32_t, int>> owners_;
  std::vector<const schema::Description*> signalling_, leased_;
  std::set<uint32_t> being_made_;
  std::map<std::string, Fd> shared_objects_, kept_objects_;
  std::map<std::string, int> mapped_files_;
  std::map<std::string, std::string> copies_;
  std::string copy_;  // that stands in for the file of the description that is being made
  std::string terminal_path_;
  Result<void> pending_error_;
  std::vector<Deed> deeds_;
};

}  // namespace stasis::restore

// The restart of an image, over three processes (restart.h). In two files: pid and user namespaces of the
// program's own, below the session's, have theirs.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "image/reader.h"
#include "kernel/affinity.h"
#include "kernel/pid_namespace.h"
#include "restore/address_space.h"
#include "restore/descriptors.h"
#include "restore/last_number.h"
#include "restore/restart.h"
#include "restore/system_v.h"
#include "restore/tasks.h"
#include "restore/topology.h"
#include "restore/work_area.h"

namespace stasis::restore {

class RestartFromImage final : public Restart {
 public:
  RestartFromImage(image::Image image, MemoryMode mode)
      : image_(std::move(image)), mode_(mode), system_v_(image_) {
    // The guard of mapped memory is a filter, too, which a program with filters would see and strict mode
    // forbids.
    for (const auto& process : manifest().processes()) {
      for (const auto& thread : process.threads()) {
        if (thread.strict() || thread.filters_size() > 0) mode_ = MemoryMode::kEager;
      }
    }
  }

  // The plan points into the manifest, so it is made where the image stays.
  Result<void> plan() {
    STASIS_TRY(topology_, Topology::plan(manifest()));
    return {};
  }

  const schema::Manifest& manifest() const override { return image_.manifest(); }
  const image::Image& image() const override { return image_; }
  void set_copies(std::map<std::string, std::string> copies) override { copies_ = std::move(copies); }
  void set_clocks(const kernel::ClockOffsets& clocks) override { clocks_ = clocks; }
  Result<void> make_descriptions(const std::string& terminal_slave_path) override;
  Result<std::unique_ptr<MemoryGuard>> spawn_roots() override;
  Result<void> build(HostTid init, const std::string& deadlines_file,
                     const std::function<void(uint64_t bytes)>& read) override;
  Result<void> release() override;

 private:
  GuardPlan plan_guard() const;
  Result<Fd> enter_directory_of_dead();
  Result<void> adopt_roots(HostTid init);
  MemoryRequest memory_of(const schema::Process& process);
  Result<void> raise(size_t index);
  Result<void> raise_children(Skeleton& maker, const std::vector<size_t>& children);
  Result<void> raise_postponed();
  Result<void> make_children(Skeleton& maker, const std::vector<size_t>& children);
  Result<void> make_alike(Skeleton& maker, std::span<const size_t> children);
  Result<void> make_in_batches(Skeleton& maker, std::span<const size_t> children, uint64_t flags);
  // Somebody who ends soon, with the numbers that are kept for it.
  Result<Skeleton> make_helper(Skeleton& maker, uint32_t space, uint64_t exit_signal);
  Result<void> end_helper(Skeleton& maker, const Skeleton& helper);
  Result<void> make_init_of_users(Skeleton& maker, std::span<const size_t> child);
  uint32_t users_of(const Skeleton& task) const;
  // Those of `levels` that the maker may choose; the others come by themselves if it makes one task now.
  Result<std::vector<int>> prepare_numbers(uint32_t users, uint32_t space, const std::vector<int>& levels);
  Result<void> set_next_number(uint32_t space, int number);
  Result<void> enter_users();
  bool can_be_born(const Birth& child) const;
  Result<void> begin_session(Skeleton& leader, const schema::Process* process);
  Result<void> join_group(const Birth& birth, bool may_wait);
  Result<void> join_groups();
  // What the maker calls a task.
  int seen_by(const Skeleton& maker, int number) const {
    return numbers().seen_from(space_of(maker), number);
  }
  const Numbers& numbers() const { return topology_.numbers(); }
  uint32_t space_of(const Skeleton& task) const;
  Result<void> choose_space_of_children(Skeleton& maker, uint32_t space);
  Result<void> keep_ended_namespaces();
  Result<void> settle_spaces_of_children(bool of_single_threads);
  Result<void> mount_inner_procs();
  Result<Fd> mount_inner_proc(const schema::FileSystem& system, uint32_t space);
  Result<void> end_temporaries();
  Result<void> tell_parents();

  image::Image image_;
  Topology topology_;
  MemoryMode mode_;
  std::map<std::string, std::string> copies_;
  std::unique_ptr<DescriptorTable> table_;
  MemoryFiles files_;
  SystemV system_v_;
  kernel::ClockOffsets clocks_;
  WorkArea area_;
  std::optional<kernel::PidNamespace> session_;
  std::map<int, Skeleton> skeletons_;  // by pid in the session
  PagesInCommon common_;
  std::map<int, InheritedMemory> inherited_;  // by pid in the session
  std::function<void(uint64_t bytes)> told_;  // of memory that was read
  // Pid namespaces below the session's: by a pid in the session, where a task is and where its children are
  // born now.
  std::map<int, uint32_t> spaces_, spaces_of_children_;
  std::map<int, uint32_t> users_;  // the user namespaces in which tasks are now
  std::optional<LastNumber> last_number_;
  std::map<uint32_t, int> inits_;  // pids in the session
  std::map<int, int> groups_;      // in which tasks are now
  // Who is made when the init of its namespace is there.
  std::vector<std::pair<int, size_t>> postponed_;
  std::map<int, int> ended_spaces_;  // descriptors in processes, by their pids
  std::deque<TaskBuilder> builders_;
  std::optional<kernel::OneProcessor> together_;
};

}  // namespace stasis::restore

// Saves one process: a foothold in it while all stands still, a snapshot child that writes its pages
// afterwards.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "checkpoint/base_image.h"
#include "checkpoint/kin.h"
#include "checkpoint/page_copies.h"
#include "checkpoint/snapshot.h"
#include "checkpoint/tracking.h"
#include "freeze/frozen_tree.h"
#include "image/writer.h"
#include "inspect/descriptors.h"
#include "inspect/memory.h"
#include "inspect/process.h"
#include "inspect/system_v.h"
#include "remote/foothold.h"
#include "schema/manifest.pb.h"

namespace stasis::checkpoint {

class ProcessSaver {
 public:
  explicit ProcessSaver(const freeze::FrozenProcess& process) : process_(process) {}
  ~ProcessSaver() { leave(); }
  ProcessSaver(const ProcessSaver&) = delete;
  ProcessSaver& operator=(const ProcessSaver&) = delete;

  // While frozen, in this order; each for all processes before the next, so that they work at the same time.
  // enter() is the first thing that happens in the process.
  Result<void> read_mappings();  // side by side, too
  Result<void> enter();
  // What can be read without the process, for many side by side. `init_groups`: the control groups of init,
  // as /proc shows them.
  Result<void> read_from_proc(const std::string& init_groups, schema::Process& out, schema::Memory& memory);
  Result<void> begin_observation(schema::Process& out);
  Result<void> observe(schema::Process& out, schema::Memory& memory);
  // The same for System V objects, when any process sees one; `session`: how many there are, where that can
  // be told.
  Result<void> observe_system_v(const std::optional<inspect::SystemVCounts>& session,
                                schema::SystemV& objects, schema::Process& out,
                                std::vector<std::string>& warnings);
  Result<void> ask_for_peers(inspect::DescriptorGraph& files) {
    return files.ask_for_peers(process_.pid, *foothold_);
  }
  void lend_to(inspect::DescriptorGraph& files) { files.set_foothold(process_, *foothold_); }
  bool sees_system_v() const { return system_v_.any(); }
  // The ids of the System V segments that it has attached.
  void add_segments(std::set<int>& attached) const;
  Result<void> classify(const inspect::DescriptorGraph& files, inspect::SharedMemoryTable& shared,
                        schema::Manifest& manifest, schema::Memory& memory);
  const freeze::FrozenProcess& process() const { return process_; }
  const std::vector<inspect::MappingFacts>& mappings() const { return mappings_; }
  std::vector<inspect::MappingFacts>& mappings_to_complete() { return mappings_; }
  static Result<void> fork_snapshots(std::span<const std::unique_ptr<ProcessSaver>> savers);
  // A fork counts as a user of the segments that the process has attached, which the program would see.
  Result<void> detach_segments();
  // A sub-reaper adopts orphans, and a snapshot child is one: around the forks of the tree the role is laid
  // down, so that the session's init gets them and the program sees none.
  Result<void> suspend_reaping(const schema::Process& process);
  // Nobody can be born in a pid namespace that has ended, and which is that of the process's children: around
  // the forks it has its own.
  Result<void> leave_ended_namespace();
  Result<void> return_to_ended_namespace();
  Result<void> resume_reaping();
  // `before`: what is known of the process; see ProcessTracker. `base`: of which checkpoint that is.
  Result<void> track(const Tracking& before, uint64_t base, ProcessTracker::Afterwards afterwards);
  // Of mappings of which nearly all is known, as `held` of the checkpoint `base` has it, the rest is copied
  // into `room` now, and a fork leaves them out. After track(), and before fork_snapshots(). Does nothing
  // where that cannot be had.
  Result<void> copy_rest(uint64_t base, const HeldByProcess& held, CopyRoom& room);
  // What a fork does not copy, and shared memory that no other process has saved yet.
  Result<void> save_wiped_memory(image::Writer& writer);
  Result<void> save_shared_memory(image::Writer& writer, schema::Manifest& manifest,
                                  std::vector<PageRanges>& covered);
  // Gives the process its own context back. Before the tree is thawed.
  void begin_to_leave();
  void leave();

  // Afterwards, while the program runs. find_pages() comes first for all processes, so that progress is
  // known.
  Result<uint64_t> find_pages();
  // Of `base` (nullptr: there is none), and of `kin`, processes that have been written, those pages are
  // shared that are the same.
  Result<void> write_pages(image::Writer& writer, BaseImage* base, const Kin::Pages& kin,
                           schema::Memory& memory, const std::function<void(uint64_t)>& wrote);
  ProcessTracker& tracker() { return tracker_; }
  // In a pid namespace below the session's the init of that adopts a snapshot child, and is told of its end:
  // it is kept until somebody takes it, to end it while that process stands still.
  void keep_child() { keeps_child_ = true; }
  std::vector<std::unique_ptr<SnapshotChild>> take_spent() { return std::move(spent_); }
  // Of a process that stands still, of whom nothing else is wanted: between enter() and leave().
  Result<void> run(remote::Batch& batch) { return foothold_->run(batch); }
  Result<remote::Batch> complete_entry();
  remote::Batch batch() const { return remote::Batch(foothold_->scratch()); }
  // Bytes that were read to see whether they had changed.
  uint64_t compared() const { return compared_; }

 private:
  static constexpr size_t kMostCopied = 32;  // mappings
  std::string describe() const;
  Result<void> find_guards();
  Result<void> find_huge_pages(const inspect::MappingFacts& facts, const PageRange& part, uint32_t shift,
                               std::vector<Run>& runs);
  Result<void> find_shared_pages(const inspect::MappingFacts& facts, const PageRange& part,
                                 std::vector<Run>& runs);
  // With the ranges that a fork leaves out.
  Result<void> look_at_copy();
  Result<void> complete_snapshot();
  Result<std::vector<size_t>> wiped_mappings() const;
  // Around forks: mappings whose pages were copied are empty in the child.
  Result<void> leave_out_copied();
  Result<void> put_back_copied();
  Result<std::vector<PageRange>> without_those_wiped_already(const std::vector<PageRange>& mappings);
  bool is_readable(const PageRange& mapping) const;
  bool read_saved(uint64_t address, std::span<char> into) const;
  Result<void> write_copied(const std::vector<Extent>& extents, const std::function<void(uint64_t)>& wrote);
  Result<void> make_readable(const std::vector<Run>& runs);
  std::vector<Extent> find_extents(const BasePages& base, uint64_t base_sum, const Kin::Pages& kin,
                                   const std::function<void(uint64_t)>& wrote);
  Result<Fd> page_file(image::Writer& writer);
  void end_child();

  const freeze::FrozenProcess& process_;
  std::vector<remote::TaskContext> contexts_;
  std::vector<kernel::MapsEntry> maps_;
  inspect::ProcReadings readings_;
  std::unique_ptr<remote::Foothold> foothold_;
  std::unique_ptr<inspect::Inspection> inspection_;
  std::vector<inspect::MappingFacts> mappings_;
  inspect::SystemVCounts system_v_;
  std::unique_ptr<SnapshotChild> child_;
  std::vector<std::unique_ptr<SnapshotChild>> spent_;
  bool keeps_child_ = false;
  std::vector<Pages> pages_;
  std::vector<Run> wiped_runs_;  // already in the page file
  std::vector<size_t> wiped_;
  bool copy_is_smaller_ = false;
  bool reaping_suspended_ = false;
  uint64_t ended_namespace_ = 0;  // a descriptor of the process; 0: none
  ProcessTracker tracker_;
  PageCopies copies_;
  std::shared_ptr<const HeldPages> held_;  // has what was neither copied nor forked
  PageRanges copied_;                      // mappings that the snapshot child does not have
  uint64_t known_base_ = 0;                // the checkpoint to which tracker_.known() refers; 0: to none
  uint64_t compared_ = 0;
  std::string page_file_name_;
  Fd page_file_;
};

}  // namespace stasis::checkpoint

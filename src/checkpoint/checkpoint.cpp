#include "checkpoint/checkpoint.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "base/clock.h"
#include "base/parallel.h"
#include "base/prefault.h"
#include "checkpoint/file_flush.h"
#include "checkpoint/process_saver.h"
#include "freeze/frozen_tree.h"
#include "image/writer.h"
#include "inspect/aio.h"
#include "inspect/filters.h"
#include "inspect/job_control.h"
#include "inspect/message_queues.h"
#include "inspect/namespaces.h"
#include "inspect/outside.h"
#include "inspect/process.h"
#include "inspect/sharing.h"
#include "inspect/system_v.h"
#include "kernel/affinity.h"
#include "kernel/cpu.h"
#include "kernel/mounts.h"
#include "kernel/proc.h"
#include "kernel/vdso.h"
#include "picture/screen.h"

namespace stasis::checkpoint {

namespace {

// One attempt, from the freeze to the published image.
class Attempt {
 public:
  Attempt(const Request& request, BaseImage* base, const HeldByProcess& held, const Fd& queues)
      : request_(request),
        base_(base),
        held_(held),
        queues_(queues),
        room_(base != nullptr ? room_for_copies(request) : 0),
        files_(request.streams) {}

  // Of a failed attempt: whether a process was killed while the tree stood still. What is read of a dead
  // process looks like many things, so this says more than the error does.
  bool somebody_died() const {
    if (!standing_ || !tree_) return false;
    for (const auto& process : tree_->processes()) {
      if (process.zombie) continue;
      constexpr uint64_t kExiting = 0x4;  // PF_EXITING
      auto stat = kernel::read_stat(process.pid);
      if (!stat.ok() || (stat->flags & kExiting) != 0) return true;
    }
    return false;
  }

  // All tasks of the program that are or were traced.
  std::set<int> tasks() const {
    std::set<int> all;
    if (!tree_) return all;
    for (const auto& process : tree_->processes()) {
      for (const auto& thread : process.threads) all.insert(thread.tid.value);
    }
    return all;
  }

  Result<Report> execute() {
    STASIS_CHECK(prepare_participants());
    kernel::OneProcessor together;
    // What may fail without the program fails before it stands still. Of a refused checkpoint nothing is
    // left.
    STASIS_TRY(image::Writer writer, image::Writer::create(request_.store));
    STASIS_TRY(tree_, freeze::FrozenTree::freeze(request_.scope, request_.deadlines));
    // Many work side by side, on all processors.
    constexpr size_t kFew = 2;
    if (tree_->processes().size() > kFew) together.release();
    if (tree_->processes().empty()) {
      return Error{"checkpoint", request_.session, "no process of it is left", {}, ErrorCode::kNotFound};
    }
    started_ns_ = tree_->frozen_since_ns();
    STASIS_CHECK(ask_participants());
    STASIS_CHECK(look());

    // From here on little is refused any more, so now something may be written.
    STASIS_CHECK(files_->observe(*tree_, writer, manifest_));
    STASIS_CHECK(inspect::save_message_queues(*tree_, queues_, *files_, manifest_));
    STASIS_CHECK(namespaces_->save(writer, manifest_));
    if (request_.approve) STASIS_CHECK(request_.approve(manifest_));
    STASIS_CHECK(capture_written_files(writer));
    STASIS_CHECK(track());
    STASIS_CHECK(fork_snapshots(writer));
    ImageFiles beside(writer);
    for (auto& participant : participants_) STASIS_CHECK(participant->save(beside));
    for (auto& saver : savers_) saver->begin_to_leave();
    for (auto& saver : savers_) saver->leave();
    int64_t pause_ns = monotonic_ns() - started_ns_;
    standing_ = false;
    if (!request_.stop) {
      tree_->thaw();
      for (auto& participant : participants_) participant->go_on();
      pause_ns = monotonic_ns() - started_ns_;
    }
    let_go();
    together.release();
    STASIS_CHECK(write_held_files(held_files_, writer));
    STASIS_CHECK(write_pages(writer));
    end_kept_children();
    for (auto& participant : participants_) {
      STASIS_TRY(auto warnings, participant->finish());
      for (std::string& warning : warnings) warnings_.push_back(std::move(warning));
    }
    if (!request_.stop) {
      for (const auto& saver : savers_) saver->tracker().protect_rest();
    }
    add_screen(writer);
    STASIS_TRY(Report report, publish(writer, pause_ns));
    if (request_.stop) STASIS_CHECK(end_session());
    return report;
  }

 private:
  class ImageFiles final : public plugin::ImageFiles {
   public:
    explicit ImageFiles(image::Writer& writer) : writer_(writer) {}
    Result<Fd> create(const std::string& name) override { return writer_.create_file(name); }

   private:
    image::Writer& writer_;
  };

  // What the program gives up from now on is free at once, however long the image takes.
  void let_go() {
    warnings_ = files_->warnings();
    files_.reset();
    namespaces_.reset();
  }

  Result<void> prepare_participants() {
    if (request_.participants.empty()) return {};
    STASIS_TRY(auto processes, freeze::processes_of(request_.scope));
    for (const auto& make : request_.participants) {
      if (auto made = make()) participants_.push_back(std::move(made));
    }
    for (auto& participant : participants_) STASIS_CHECK(participant->prepare(processes));
    return {};
  }

  Result<void> ask_participants() {
    if (participants_.empty()) return {};
    std::vector<plugin::StoppedProcess> processes;
    for (const auto& process : tree_->processes()) {
      if (process.zombie) continue;
      auto& out = processes.emplace_back();
      out.task = process.pid;
      out.pid = process.status.ns_tgid;
      for (const auto& thread : process.threads) {
        out.threads.push_back({thread.ns_tid, static_cast<long>(thread.registers.orig_rax),
                               static_cast<int64_t>(thread.registers.rax)});
      }
    }
    for (auto& participant : participants_) STASIS_CHECK(participant->inspect(processes));
    return {};
  }

  Result<void> look() {
    STASIS_CHECK(inspect::refuse_unsupported(*tree_));
    STASIS_CHECK(inspect::suspend_filters(*tree_));
    for (const std::string& warning : tree_->warnings()) files_->warn(warning);
    const std::string directory = request_.deadlines.substr(0, request_.deadlines.rfind('/') + 1);
    STASIS_CHECK(namespaces_->collect(*tree_, directory + kernel::kFirstMounts, request_.private_network));
    files_->set_namespaces(*namespaces_);
    STASIS_CHECK(files_->collect(*tree_));
    if (!request_.scope.is_session()) files_->set_streams(inspect::find_outside_streams(*tree_, *files_));
    STASIS_CHECK(files_->classify());

    const auto& processes = tree_->processes();
    std::vector<size_t> living;
    for (size_t i = 0; i < processes.size(); ++i) {
      auto* out = manifest_.add_processes();
      inspect::observe_identity(processes[i], *tree_, *out);
      STASIS_CHECK(namespaces_->describe(i, *out));
      if (processes[i].zombie) continue;
      for (const auto& slot : files_->slots(i)) *out->add_descriptors() = slot;
      for (const auto& lock : files_->record_locks(i)) *out->add_record_locks() = lock;
      out->set_memory(static_cast<uint32_t>(manifest_.memories_size()));
      out->set_working_directory_description(files_->hidden(i).working_directory);
      out->set_root_description(files_->hidden(i).root);
      manifest_.add_memories()->set_executable_description(files_->hidden(i).executable);
      savers_.push_back(std::make_unique<ProcessSaver>(processes[i]));
      if (namespaces_->has_pids()) savers_.back()->keep_child();
      living.push_back(i);
    }
    STASIS_CHECK(try_each_index(savers_.size(), [&](size_t i) { return savers_[i]->read_mappings(); }));
    for (auto& saver : savers_) STASIS_CHECK(saver->enter());
    auto out = [&](size_t saver) { return manifest_.mutable_processes(static_cast<int>(living[saver])); };
    auto memory = [&](size_t saver) { return manifest_.mutable_memories(static_cast<int>(saver)); };
    // In which a program was is a matter of whoever started it: only what differs from its root is its own.
    const freeze::Scope& scope = request_.scope;
    auto groups = kernel::read_proc(scope.is_session() ? scope.init : scope.root, "cgroup");
    const std::string init_groups = groups.ok() ? *groups : std::string();
    STASIS_CHECK(try_each_index(savers_.size(), [&](size_t i) {
      return savers_[i]->read_from_proc(init_groups, *out(i), *memory(i));
    }));
    for (size_t i = 0; i < savers_.size(); ++i) STASIS_CHECK(savers_[i]->begin_observation(*out(i)));
    for (size_t i = 0; i < savers_.size(); ++i) STASIS_CHECK(savers_[i]->observe(*out(i), *memory(i)));
    for (size_t i = 0; i < savers_.size(); ++i) {
      STASIS_CHECK(inspect::observe_filters(*tree_, processes[living[i]], *out(i), manifest_));
      STASIS_CHECK(savers_[i]->ask_for_peers(*files_));
      savers_[i]->lend_to(*files_);
      STASIS_CHECK(savers_[i]->classify(*files_, shared_, manifest_, *memory(i)));
      for (auto& facts : savers_[i]->mappings_to_complete())
        namespaces_->describe_path(processes[living[i]], facts.mapping);
      STASIS_CHECK(inspect::check_rings(processes[living[i]], savers_[i]->mappings(), *files_));
      observe_terminal(processes[living[i]], *out(i));
      STASIS_CHECK(inspect::observe_news(
          *tree_, processes[living[i]], savers_[i]->batch(),
          [&](remote::Batch& batch) { return savers_[i]->run(batch); }, manifest_));
    }
    for (const std::string& warning : namespaces_->warnings()) files_->warn(warning);
    STASIS_CHECK(inspect::observe_sharing(*tree_, *files_, manifest_));
    STASIS_CHECK(observe_system_v());
    observe_clocks();
    observe_session_terminal();
    return namespaces_->finish();
  }

  Result<void> capture_written_files(image::Writer& writer) {
    std::vector<MappedFiles> mapped;
    mapped.reserve(savers_.size());
    for (const auto& saver : savers_)
      mapped.push_back({saver->process().pid, saver->process().status.ns_tgid, &saver->mappings()});
    STASIS_TRY(held_files_, capture_files(*files_, mapped, request_.files, request_.stop, writer, manifest_));
    return {};
  }

  Result<void> observe_system_v() {
    if (std::none_of(savers_.begin(), savers_.end(),
                     [](const auto& saver) { return saver->sees_system_v(); }))
      return {};
    std::set<int> attached;
    for (const auto& saver : savers_) saver->add_segments(attached);
    STASIS_TRY(auto objects, inspect::read_system_v(*tree_, attached));
    // Whoever sees others than init does is elsewhere. A program sees those of the whole host.
    std::optional<inspect::SystemVCounts> counts;
    if (request_.scope.is_session())
      counts = {objects.semaphore_sets_size(), objects.queues_size(), objects.segments_size()};
    size_t next = 0;
    std::vector<std::string> warnings;
    for (auto& process : *manifest_.mutable_processes()) {
      if (process.state() == schema::Process::ZOMBIE) continue;
      if (namespaces_->has_own_ipc(process)) {
        if (savers_[next++]->sees_system_v()) {
          return Error{"save", fmt::format("task {}", process.pid()),
                       "it has an IPC namespace of its own, with System V objects in it",
                       "this is not supported yet", ErrorCode::kRefused};
        }
        continue;
      }
      STASIS_CHECK(savers_[next++]->observe_system_v(counts, objects, process, warnings));
    }
    for (auto& warning : warnings) files_->warn(std::move(warning));
    *manifest_.mutable_system_v() = std::move(objects);
    return {};
  }

  // What is protected anew does not refer to the last checkpoint any more, and to this one only if it is
  // published.
  Result<void> track() {
    if (request_.tracking == nullptr) return {};
    Tracking& tracking = *request_.tracking;
    const uint64_t base = request_.stop ? tracking.base : std::exchange(tracking.base, 0);
    const auto afterwards =
        request_.stop ? ProcessTracker::Afterwards::kEnds : ProcessTracker::Afterwards::kGoesOn;
    // As many as fit into a socket on their way to init.
    constexpr size_t kMostTracked = 128;
    for (size_t i = 0; i < std::min(savers_.size(), kMostTracked); ++i)
      STASIS_CHECK(savers_[i]->track(tracking, base, afterwards));
    if (base_ == nullptr || base_->sum() != base) return {};
    for (auto& saver : savers_) STASIS_CHECK(saver->copy_rest(base, held_, room_));
    return {};
  }

  void keep_tracking(const image::Writer::Published& published) {
    if (request_.tracking == nullptr) return;
    request_.tracking->base = published.sum;
    request_.tracking->processes.clear();
    for (auto& saver : savers_) {
      if (auto process = saver->tracker().take()) request_.tracking->processes.push_back(std::move(*process));
    }
  }

  Result<void> fork_snapshots(image::Writer& writer) {
    std::vector<PageRanges> covered;
    size_t next = 0;
    for (const auto& process : manifest_.processes()) {
      if (process.state() == schema::Process::ZOMBIE) continue;
      ProcessSaver& saver = *savers_[next++];
      STASIS_CHECK(saver.suspend_reaping(process));
      if (namespaces_->has_ended(process.namespace_of_children()))
        STASIS_CHECK(saver.leave_ended_namespace());
    }
    STASIS_CHECK(ProcessSaver::fork_snapshots(savers_));
    for (auto& saver : savers_) {
      STASIS_CHECK(saver->save_wiped_memory(writer));
      STASIS_CHECK(saver->save_shared_memory(writer, manifest_, covered));
      STASIS_CHECK(saver->detach_segments());
    }
    if (manifest_.has_system_v())
      STASIS_CHECK(inspect::save_segments(*tree_, writer, *manifest_.mutable_system_v()));
    return {};
  }

  Result<void> write_pages(image::Writer& writer) {
    uint64_t total = 0;
    for (auto& saver : savers_) {
      STASIS_TRY(uint64_t bytes, saver->find_pages());

      total += bytes;
    }
    uint64_t done = 0;
    if (base_ != nullptr) base_->share_with(writer);
    Kin kin(manifest_, writer.directory());
    for (size_t i : kin.order()) {
      STASIS_CHECK(savers_[i]->write_pages(writer, base_, kin.written_relatives(i),
                                           *manifest_.mutable_memories(static_cast<int>(i)),
                                           [&](uint64_t bytes) {
                                             done += bytes;
                                             if (request_.progress) request_.progress(done, total);
                                           }));
    }
    if (base_ != nullptr) STASIS_CHECK(share_with(*base_));
    return {};
  }

  // Snapshot children that processes of the program have adopted: these learn nothing of it when it is done
  // while they stand still. If they cannot be stopped now, they reap children that they do not know, as every
  // init does now and then.
  void end_kept_children() {
    std::vector<std::unique_ptr<SnapshotChild>> children;
    for (auto& saver : savers_) {
      for (auto& child : saver->take_spent()) children.push_back(std::move(child));
    }
    if (children.empty() || request_.stop) return;
    auto standing = freeze::FrozenTree::freeze(request_.scope, request_.deadlines);
    if (!standing.ok()) return;
    for (const auto& process : (*standing)->processes()) {
      if (process.zombie) continue;
      std::vector<std::unique_ptr<SnapshotChild>> adopted;
      std::vector<NsTid> numbers;  // as the adopter knows them
      for (auto& child : children) {
        if (!child) continue;
        auto status = kernel::read_status(child->pid());
        auto stat = kernel::read_stat(child->pid());
        const size_t level = process.status.levels.size();
        if (!status.ok() || !stat.ok() || stat->parent != process.leader || status->levels.size() < level)
          continue;
        numbers.push_back(status->levels[level - 1].tid);
        adopted.push_back(std::move(child));
      }
      if (!adopted.empty() && !end_adopted(process, adopted, numbers).ok()) return;
    }
  }

  static Result<void> end_adopted(const freeze::FrozenProcess& adopter,
                                  std::vector<std::unique_ptr<SnapshotChild>>& children,
                                  const std::vector<NsTid>& numbers) {
    ProcessSaver saver(adopter);
    STASIS_CHECK(saver.read_mappings());
    STASIS_CHECK(saver.enter());
    STASIS_TRY(auto batch, saver.complete_entry());
    children.clear();
    for (NsTid number : numbers) {
      if (!batch.fits(2, 64)) {
        STASIS_CHECK(saver.run(batch));
        batch.clear();
      }
      batch.call(SYS_wait4, {static_cast<uint64_t>(number.value), 0, __WALL, 0});
    }
    const uint64_t child_signal = uint64_t{1} << (SIGCHLD - 1);
    if ((adopter.status.shared_pending & child_signal) == 0) {
      const uint64_t set = batch.put_object(child_signal);
      batch.call(SYS_rt_sigtimedwait, {set, 0, batch.put_object(timespec{}), sizeof child_signal});
    }
    return saver.run(batch);
  }

  // A checkpoint without a picture is as good.
  void add_screen(image::Writer& writer) {
    manifest_.set_opengl(request_.opengl);
    for (const std::string& name : request_.plugins) manifest_.add_plugins(name);
    if (!request_.display) return;
    *manifest_.mutable_display() = *request_.display;
    if (request_.display->vnc()) return;  // that server has no screen in shared memory
    if (auto added = picture::add_screen(writer, manifest_); !added.ok())
      warnings_.push_back("no picture of the screen: " + added.error().message());
  }

  // What was copied while the program stood still.
  Result<void> share_with(BaseImage& base) {
    for (int i = 0; i < manifest_.shared_memories_size(); ++i) {
      STASIS_CHECK(base.share_pages(base.of_shared_memory(i), *manifest_.mutable_shared_memories(i)));
    }
    if (manifest_.has_system_v()) {
      for (auto& segment : *manifest_.mutable_system_v()->mutable_segments())
        STASIS_CHECK(base.share_pages(base.of_segment(segment.object().id()), segment));
    }
    if (base.drop_unneeded()) manifest_.set_base(base.id());
    return {};
  }

  Result<Report> publish(image::Writer& writer, int64_t pause_ns) {
    manifest_.set_session(request_.session);
    manifest_.set_tag(request_.tag);
    manifest_.set_root_pid(request_.root.value);
    manifest_.set_user(::geteuid());
    manifest_.set_user_namespace(request_.user_namespace);
    for (const auto& word : request_.command) manifest_.add_command(word);
    for (const auto& warning : warnings_) manifest_.add_warnings(warning);
    kernel::describe_cpu(*manifest_.mutable_host());
    utsname system;
    if (::uname(&system) == 0) manifest_.mutable_host()->set_kernel(system.release);
    manifest_.set_vdso(std::string(kernel::own_vdso()));
    manifest_.set_pause_ns(pause_ns);
    manifest_.set_total_ns(monotonic_ns() - started_ns_);
    STASIS_TRY(auto published, writer.publish(manifest_));
    keep_tracking(published);

    Report report;
    report.id = published.id;
    report.directory = published.directory;
    report.stored = published.stored - published.shared;
    report.shared = published.shared;
    report.base = manifest_.base();
    for (const auto& saver : savers_) report.compared += saver->compared();
    report.pause_ns = pause_ns;
    report.total_ns = monotonic_ns() - started_ns_;
    report.processes = static_cast<uint64_t>(manifest_.processes_size());
    report.warnings = warnings_;
    return report;
  }

  // The image is on the disk, and the tree still stands: it ends where the image begins.
  Result<void> end_session() {
    // The kernel lets init end when its whole namespace has.
    std::vector<HostTid> last;
    if (request_.scope.is_session()) {
      last.push_back(request_.scope.init);
    } else {
      for (const auto& process : tree_->processes()) last.push_back(process.leader);
    }
    std::vector<Fd> ends;
    for (HostTid task : last) {
      Fd end(static_cast<int>(::syscall(SYS_pidfd_open, task.value, 0)));
      if (end) ends.push_back(std::move(end));
    }
    if (request_.scope.is_session()) ::kill(request_.scope.init.value, SIGKILL);
    tree_->kill();
    // Tasks that we trace are gone only when waited for.
    for (int i = 0; !ends.empty() && i < 10'000; ++i) {
      while (::waitpid(-1, nullptr, __WALL | WNOHANG) > 0) {
      }
      pollfd wait{ends.back().get(), POLLIN, 0};
      if (::poll(&wait, 1, 1) == 1) ends.pop_back();
    }
    return {};
  }

  void observe_clocks() {
    kernel::ClockOffsets offset;  // a program has our own clocks
    if (request_.scope.is_session()) {
      if (auto offsets = kernel::read_clock_offsets(request_.scope.init); offsets.ok()) offset = *offsets;
    }
    auto* clocks = manifest_.mutable_clocks();
    clocks->set_realtime_ns(clock_ns(CLOCK_REALTIME));
    clocks->set_monotonic_ns(clock_ns(CLOCK_MONOTONIC) + offset.monotonic_ns);
    clocks->set_boottime_ns(clock_ns(CLOCK_BOOTTIME) + offset.boottime_ns);
  }

  void observe_terminal(const freeze::FrozenProcess& process, schema::Process& out) {
    int64_t number = process.stat.terminal;
    if (out.session() != out.pid()) {
      // A process has its own reference to the terminal of its session, or none.
      if (number != 0) return;
      for (const auto& leader : tree_->processes()) {
        if (leader.status.ns_tgid.value == out.session() && !leader.zombie) number = leader.stat.terminal;
      }
      out.set_without_terminal(number != 0);
    }
    if (number == 0) return;
    const auto* terminal = files_->find_terminal(kernel::terminal_device(number));
    if (terminal == nullptr) {
      files_->warn(fmt::format("the controlling terminal of task {} is open in no process; it will have none",
                               out.pid()));
      return;
    }
    out.set_controlling_terminal(terminal->id);
    if (out.without_terminal()) return;
    for (const auto& other : tree_->processes()) {
      if (other.stat.group == process.stat.foreground_group)
        out.set_foreground_group(other.status.ns_group.value);
    }
  }

  void observe_session_terminal() {
    const uint64_t device = files_->session_terminal();
    if (device == 0) return;
    const auto* file = files_->find_terminal(device);
    auto* terminal = manifest_.mutable_terminal();
    terminal->set_present(true);
    terminal->set_device(device);
    if (file == nullptr) return;
    termios attributes;
    if (::tcgetattr(file->duplicate.get(), &attributes) == 0) {
      terminal->set_attributes(std::string(reinterpret_cast<const char*>(&attributes), sizeof attributes));
    }
    winsize size;
    if (::ioctl(file->duplicate.get(), TIOCGWINSZ, &size) == 0) {
      terminal->set_rows(size.ws_row);
      terminal->set_columns(size.ws_col);
    }
  }

  // Some more than what was written until now.
  static uint64_t room_for_copies(const Request& request) {
    constexpr uint64_t kMost = uint64_t{256} << 20;
    if (request.tracking == nullptr || request.tracking->base == 0) return 0;
    uint64_t known = 0, written = 0;
    for (const auto& process : request.tracking->processes) {
      known += bytes_of(process.watched);
      written += bytes_of(process.written);
    }
    const uint64_t wanted = written + std::min(known / 8, uint64_t{8} << 20);
    return wanted > kMost ? 0 : page_up(wanted);
  }

  const Request& request_;
  BaseImage* base_;
  const HeldByProcess& held_;
  const Fd& queues_;
  CopyRoom room_;  // the savers have pages in it
  // They end last, when the tasks run.
  std::vector<std::unique_ptr<plugin::Participant>> participants_;
  // Order matters: savers must go before the tree, whose destruction lets the tasks run.
  std::unique_ptr<freeze::FrozenTree> tree_;
  bool standing_ = true;
  int64_t started_ns_ = 0;
  // Until the program runs on: they have descriptors of its files, sockets and mounts.
  std::optional<inspect::Namespaces> namespaces_{std::in_place};
  std::optional<inspect::DescriptorGraph> files_;
  std::vector<std::string> warnings_;
  inspect::SharedMemoryTable shared_;
  schema::Manifest manifest_;
  std::vector<std::unique_ptr<ProcessSaver>> savers_;
  std::vector<HeldFile> held_files_;
};

// A process that was killed in the middle of its fork leaves a helper or a copy behind, which nobody knows
// and which must not be taken for another process's in the next attempt.
void end_strays(const std::set<int>& program) {
  constexpr int kLooks = 50;
  for (int look = 0; look < kLooks;) {
    int status = 0;
    pid_t pid = ::waitpid(-1, &status, __WALL | WNOHANG);
    if (pid < 0 && errno != EINTR) return;  // there is none
    if (pid > 0 && WIFSTOPPED(status) && !program.contains(pid)) ::kill(pid, SIGKILL);
    if (pid != 0) continue;
    timespec moment{0, 200'000};
    ::nanosleep(&moment, nullptr);
    ++look;
  }
}

// Before anything stands still, since there may be a hundred thousand pieces to look at.
HeldByProcess hold_tracked(const std::optional<BaseImage>& base, const Request& request) {
  HeldByProcess held;
  const Tracking* tracking = request.tracking;
  if (!base || tracking == nullptr || tracking->base != base->sum()) return held;
  const size_t level = request.scope.level();
  for (const auto& process : tracking->processes) {
    auto status = kernel::read_status(process.pid);
    if (!status.ok()) continue;
    status->choose_level(level);
    if (auto pages = base->hold(status->ns_tgid))
      held[process.pid.value] = std::make_shared<HeldPages>(std::move(*pages));
  }
  return held;
}

bool has_many_pieces(const Tracking* tracking) {
  constexpr uint64_t kMuch = 64 << 20;
  if (tracking == nullptr || tracking->base == 0) return false;
  uint64_t watched = 0;
  for (const auto& process : tracking->processes) watched += bytes_of(process.watched);
  return watched >= kMuch;
}

}  // namespace

Result<Report> run(const Request& request) {
  constexpr int kAttempts = 100;
  // Each lets the program stand still for some milliseconds, so not many when it may never pass.
  constexpr int kTriesOfRefused = 40;
  constexpr int64_t kLongestWait_ns = 4'000'000'000;  // some look for half a second
  constexpr int64_t kLongestPause_ns = 60'000'000;
  int64_t pause_ns = 2'000'000;
  // Memory that we need while the program stands still is fetched from the kernel before.
  // The pieces of an increment take more of it, afterwards.
  constexpr size_t kEnough = 4 << 20, kForPieces = 48 << 20, kForFewTasks = 512 << 10;
  prefault(has_many_pieces(request.tracking) ? kForPieces : kEnough, kForFewTasks);
  if (request.files.mode != FileMode::kNone) flush_for_clones(request.scope, request.store);
  auto base = BaseImage::open(request.base);
  auto held = hold_tracked(base, request);
  STASIS_TRY(Fd queues, inspect::open_message_queues(request.scope));
  const int64_t begun_ns = monotonic_ns();
  for (int attempt = 1;; ++attempt) {
    if (request.tracking != nullptr) note_writes(*request.tracking);
    std::optional<Attempt> trial(std::in_place, request, base ? &*base : nullptr, held, queues);
    auto report = trial->execute();
    if (report.ok()) return report;
    // A task that is still leaving the stub of a checkpoint that was killed is through within a moment.
    bool retry = report.error().code == ErrorCode::kBusy || trial->somebody_died();
    const bool refused_now = report.error().code == ErrorCode::kRefusedNow;
    retry = refused_now ? attempt < kTriesOfRefused && monotonic_ns() - begun_ns < kLongestWait_ns
                        : retry && attempt < kAttempts;
    if (!retry) return report;
    std::set<int> program = trial->tasks();
    trial.reset();  // lets the tree go on
    end_strays(program);
    timespec pause{0, pause_ns};
    ::nanosleep(&pause, nullptr);
    // A server that has much to do needs longer, the more so when it was stopped.
    if (refused_now) pause_ns = std::min(2 * pause_ns, kLongestPause_ns);
  }
}

}  // namespace stasis::checkpoint

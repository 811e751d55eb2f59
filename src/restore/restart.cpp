#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <span>
#include <string_view>

#include "kernel/cpu.h"
#include "kernel/ipc_settings.h"
#include "kernel/proc.h"
#include "remote/interrupted.h"
#include "resource/mqueue.h"
#include "restore/actors.h"
#include "restore/address_space.h"
#include "restore/clone.h"
#include "restore/mapped_pages.h"
#include "restore/restart_from_image.h"
#include "restore/vdso.h"

namespace stasis::restore {

using remote::Batch;

Result<void> RestartFromImage::make_descriptions(const std::string& terminal_slave_path) {
  kernel::host_proc();
  // What is born from now on is born on this processor, until its own are set.
  together_.emplace();
  table_ = std::make_unique<DescriptorTable>(image_);
  table_->set_copies(copies_);
  table_->namespaces().set_clocks(clocks_);
  STASIS_CHECK(kernel::apply_ipc_settings(manifest().ipc_settings(), kernel::IpcStage::kRoom));
  STASIS_CHECK(table_->namespaces().make(image_, table_->base(), table_->shared_objects()));
  STASIS_CHECK(table_->make(terminal_slave_path));
  for (const auto& queue : manifest().message_queues()) {
    STASIS_TRY([[maybe_unused]] Fd made, resource::make_queue(queue));
  }
  STASIS_TRY(files_, MemoryFiles::open(image_, *table_));
  STASIS_CHECK(system_v_.make());
  STASIS_CHECK(kernel::apply_ipc_settings(manifest().ipc_settings(), kernel::IpcStage::kExact));
  STASIS_TRY(area_, WorkArea::create(manifest()));
  return {};
}

GuardPlan RestartFromImage::plan_guard() const {
  GuardPlan plan;
  plan.pass = area_.guard_pass();
  for (int index = 0; index < manifest().memories_size(); ++index) {
    const auto& memory = manifest().memories(index);
    for (const auto& mapping : memory.mappings()) {
      for (const auto& piece : mapped_pages(memory, mapping)) {
        struct stat file = {};
        if (::fstat(files_.page_file(index, piece.layer), &file) != 0) continue;
        plan.ranges.push_back({piece.address, piece.end()});
        GuardedPages pages = {.inode = file.st_ino, .offset = piece.offset, .size = piece.size};
        pages.no_reserve = mapping.no_reserve();
        pages.lock_flags = mapping.lock_flags();
        for (int advice : mapping.advice()) pages.advice.push_back(static_cast<uint64_t>(advice));
        plan.pages.push_back(std::move(pages));
      }
    }
  }
  return plan;
}

// All inherit it, and those who work elsewhere leave it. Returns where we have been; nothing: there is no
// need.
Result<Fd> RestartFromImage::enter_directory_of_dead() {
  for (const auto& process : manifest().processes()) {
    if (!works_where_process_has_ended(process)) continue;
    const std::string& shown = process.working_directory();
    const std::string path = shown.substr(0, shown.size() - std::string_view(" (deleted)").size());
    STASIS_TRY(Fd directory, open_file(".", O_PATH | O_DIRECTORY));
    STASIS_CHECK(
        enter_directory_of(NsTid{std::atoi(path.c_str() + std::string_view("/proc/").size())}, path));
    return directory;
  }
  return Fd();
}

Result<std::unique_ptr<MemoryGuard>> RestartFromImage::spawn_roots() {
  STASIS_CHECK(table_->namespaces().complete());
  STASIS_CHECK(table_->settle());
  STASIS_CHECK(table_->namespaces().make_filters(manifest()));
  std::unique_ptr<MemoryGuard> guard;
  if (mode_ == MemoryMode::kMapped) {
    STASIS_TRY(guard, MemoryGuard::install(plan_guard()));
  }
  STASIS_TRY(Fd directory, enter_directory_of_dead());
  for (size_t index : topology_.roots()) {
    int32_t tid = topology_.births()[index].pid.value;
    CloneRequest request;
    request.exit_signal = SIGCHLD;
    request.set_tid = reinterpret_cast<uint64_t>(&tid);
    request.set_tid_size = 1;
    long pid = ::syscall(SYS_clone3, &request, sizeof request);
    if (pid < 0) {
      return errno_error("restart: make a process", fmt::format("task {}", tid), errno,
                         "`stasis check` tells what this host allows");
    }
    if (pid == 0) {
      // Waits for the builder to take over; everything else is done to it from there.
      uint64_t all = ~uint64_t{0};
      ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, nullptr, 8);
      for (;;) ::syscall(SYS_pause);
    }
  }
  if (directory && ::fchdir(directory.get()) != 0) return errno_error("restart", "the working directory");
  directory.reset();
  together_.reset();
  system_v_.detach();
  // init must hold nothing of the program: an end of a pipe here would keep it open for ever.
  ::syscall(SYS_close_range, table_->base(), ~0U, 0);
  return guard;
}

Result<void> RestartFromImage::adopt_roots(HostTid init) {
  STASIS_TRY(session_, kernel::PidNamespace::open(init));
  STASIS_TRY(auto children, kernel::read_proc(init, fmt::format("task/{}/children", init)));
  std::map<int, HostTid> by_number;
  size_t position = 0;
  while (position < children.size()) {
    size_t used = 0;
    HostTid host{std::stoi(children.substr(position), &used)};
    position += used + 1;
    STASIS_TRY(NsTid number, session_->number_of(host));
    by_number[number.value] = host;
  }
  for (size_t index : topology_.roots()) {
    NsTid pid = topology_.births()[index].pid;
    auto host = by_number.find(pid.value);
    if (host == by_number.end()) return Error{"restart", fmt::format("task {}", pid), "it ended at once", {}};
    remote::Tracee task(host->second);
    STASIS_CHECK(task.seize(PTRACE_O_EXITKILL));
    STASIS_CHECK(task.interrupt());
    STASIS_TRY(auto stop, task.wait());
    if (stop->kind == remote::Stop::Kind::kExited)
      return Error{"restart", fmt::format("task {}", pid), "it ended", {}};
    auto [entry, inserted] = skeletons_.try_emplace(pid.value, host->second, pid, pid, area_);
    STASIS_CHECK(entry->second.prepare());
    STASIS_CHECK(entry->second.strip(area_));
  }
  for (size_t index : topology_.roots()) STASIS_CHECK(raise(index));
  return raise_postponed();
}

MemoryRequest RestartFromImage::memory_of(const schema::Process& process) {
  const auto index = static_cast<int>(process.memory());
  return {manifest().memories(index), index,   files_, *table_, area_, mode_,
          manifest().vdso(),          common_, told_};
}

// Makes the whole subtree of a skeleton that stands stripped.
Result<void> RestartFromImage::raise(size_t index) {
  const Birth& birth = topology_.births()[index];
  Skeleton& maker = skeletons_.at(birth.pid.value);
  if (birth.process != nullptr && birth.process->state() != schema::Process::ZOMBIE &&
      !common_.with_descendants(static_cast<int>(birth.process->memory())).empty()) {
    STASIS_CHECK(maker.prepare());
    STASIS_CHECK(begin_memory(maker, memory_of(*birth.process), inherited_[birth.pid.value]));
  }
  // Whoever is born in a pid namespace inherits a group that it cannot name.
  if (numbers().nested() && birth.early_children.empty()) STASIS_CHECK(join_group(birth, true));
  STASIS_CHECK(raise_children(maker, birth.early_children));
  if (birth.becomes_session_leader) STASIS_CHECK(begin_session(maker, birth.process));
  STASIS_CHECK(raise_children(maker, birth.children));
  return {};
}

// A process has its controlling terminal from birth, or never: only the leader can ask for one.
Result<void> RestartFromImage::begin_session(Skeleton& leader, const schema::Process* process) {
  STASIS_CHECK(leader.prepare());
  Batch batch = leader.batch();
  batch.call(SYS_setsid, {});
  STASIS_CHECK(leader.run_checked(batch, "make a session"));
  groups_[leader.ns_pid().value] = leader.ns_pid().value;
  if (process == nullptr || !table_->has(process->controlling_terminal())) return {};
  batch.clear();
  auto terminal = static_cast<uint64_t>(table_->number_of(process->controlling_terminal()));
  batch.call(SYS_ioctl, {terminal, TIOCSCTTY, 0});
  return leader.run_checked(batch, "take the controlling terminal");
}

Result<void> RestartFromImage::raise_children(Skeleton& maker, const std::vector<size_t>& children) {
  std::vector<size_t> now;
  for (size_t child : children) {
    if (can_be_born(topology_.births()[child])) {
      now.push_back(child);
    } else {
      postponed_.emplace_back(maker.ns_pid().value, child);
    }
  }
  STASIS_CHECK(make_children(maker, now));
  for (size_t child : now) STASIS_CHECK(raise(child));
  return {};
}

// Neighbours that are born in the same pid namespace are made together.
Result<void> RestartFromImage::make_children(Skeleton& maker, const std::vector<size_t>& children) {
  const auto& births = topology_.births();
  for (size_t first = 0, next = 0; first < children.size(); first = next) {
    const Birth& one = births[children[first]];
    next = first + 1;
    while (!one.is_init() && next < children.size() && !births[children[next]].is_init() &&
           births[children[next]].numbers.space == one.numbers.space)
      ++next;
    STASIS_CHECK(make_alike(maker, std::span(children).subspan(first, next - first)));
  }
  return {};
}

Result<void> RestartFromImage::make_alike(Skeleton& maker, std::span<const size_t> children) {
  const Birth& first = topology_.births()[children.front()];
  // The kernel makes a pid namespace in that of its maker only.
  const bool makes_namespace = first.is_init();
  const uint32_t owner = numbers().owner(first.numbers.space);
  const bool of_others = makes_namespace && owner != users_of(maker);
  STASIS_CHECK(choose_space_of_children(maker, makes_namespace ? space_of(maker) : first.numbers.space));
  if (!makes_namespace) return make_in_batches(maker, children, 0);
  if (numbers().parent(first.numbers.space) != space_of(maker) || inits_.contains(first.numbers.space)) {
    return Error{"restart",
                 fmt::format("task {}", first.pid),
                 "it cannot be the first process of its pid namespace",
                 {},
                 ErrorCode::kDamaged};
  }
  if (of_others) {
    STASIS_CHECK(make_init_of_users(maker, children));
  } else {
    STASIS_CHECK(make_in_batches(maker, children, CLONE_NEWPID));
  }
  inits_[first.numbers.space] = first.pid.value;
  return {};
}

Result<void> RestartFromImage::make_in_batches(Skeleton& maker, std::span<const size_t> children,
                                               uint64_t flags) {
  const size_t at_once = users_of(maker) == 0 ? 256 : 1;
  for (size_t first = 0; first < children.size(); first += at_once) {
    size_t last = std::min(first + at_once, children.size());
    const Birth& one = topology_.births()[children[first]];
    STASIS_TRY(const auto given, prepare_numbers(users_of(maker), one.numbers.space, one.numbers.levels));
    STASIS_CHECK(maker.prepare());
    Batch batch = maker.batch();
    for (size_t i = first; i < last; ++i) {
      const Birth& child = topology_.births()[children[i]];
      CloneRequest request;
      request.flags = CLONE_PTRACE | flags;
      if (child.process != nullptr && child.process->descriptors_of() != 0) request.flags |= CLONE_FILES;
      if (child.process != nullptr && child.process->directories_of() != 0) request.flags |= CLONE_FS;
      request.exit_signal =
          child.process != nullptr ? static_cast<uint64_t>(child.process->exit_signal()) : SIGCHLD;
      // It gets the exit signal of its brother, which is the same.
      if (child.of_brother) {
        request.flags |= CLONE_PARENT;
        request.exit_signal = 0;
      }
      if ((flags & CLONE_PARENT) != 0) request.exit_signal = 0;
      add_clone(batch, request, last - first == 1 ? given : child.numbers.levels);
    }
    STASIS_CHECK(maker.run_checked(batch, "make processes"));
    std::vector<NsTid> expected;
    for (size_t i = first; i < last; ++i) expected.push_back(topology_.births()[children[i]].pid);
    STASIS_TRY(auto born, await_births(*session_, expected));
    for (size_t i = first; i < last; ++i) {
      const Birth& child = topology_.births()[children[i]];
      const NsTid pid = child.pid;
      auto [entry, inserted] = skeletons_.try_emplace(pid.value, born.at(pid.value), pid,
                                                      NsTid{child.numbers.levels.back()}, area_);
      STASIS_CHECK(entry->second.prepare());
      spaces_[pid.value] = spaces_of_children_[pid.value] = child.numbers.space;
      if (const uint32_t users = users_of(maker); users != 0) users_[pid.value] = users;
      groups_[pid.value] = groups_[maker.ns_pid().value];
      inherited_[pid.value] = inherited_[maker.ns_pid().value];
    }
  }
  return {};
}

Result<void> RestartFromImage::join_groups() {
  // Leaders first, then members.
  for (bool leaders : {true, false}) {
    for (const auto& birth : topology_.births()) {
      if ((birth.group == birth.pid) == leaders) STASIS_CHECK(join_group(birth, false));
    }
  }
  return {};
}

Result<void> RestartFromImage::end_temporaries() {
  for (const Ending& ending : topology_.endings()) {
    const Birth& birth = topology_.births()[ending.birth];
    const auto set_reaping = [&](uint64_t on) -> Result<void> {
      if (ending.adopter.value <= 1) return {};
      Skeleton& adopter = skeletons_.at(ending.adopter.value);
      STASIS_CHECK(adopter.prepare());
      Batch batch = adopter.batch();
      batch.call(SYS_prctl, {PR_SET_CHILD_SUBREAPER, on});
      return adopter.run_checked(batch, "adopt a process");
    };
    STASIS_CHECK(set_reaping(1));
    HostTid host = skeletons_.at(birth.pid.value).pid();
    ::kill(host.value, SIGKILL);
    while (::waitpid(host.value, nullptr, __WALL) > 0) {
    }
    STASIS_CHECK(set_reaping(0));
    // Its parent is init, which reaps it, or a process of the program, which must not find it.
    if (birth.parent.value > 1 && skeletons_.contains(birth.parent.value)) {
      Skeleton& parent = skeletons_.at(birth.parent.value);
      Batch reap = parent.batch();
      const auto level = numbers().depth(space_of(parent));
      reap.call(SYS_wait4, {static_cast<uint64_t>(birth.numbers.levels.at(level)), 0, __WALL, 0});
      STASIS_CHECK(parent.prepare());
      STASIS_CHECK(parent.run(reap));
    }
    skeletons_.erase(birth.pid.value);
  }
  return {};
}

Result<void> RestartFromImage::build(HostTid init, const std::string& deadlines_file,
                                     const std::function<void(uint64_t bytes)>& read) {
  told_ = read;
  common_ = PagesInCommon(manifest(), topology_);
  STASIS_CHECK(adopt_roots(init));
  STASIS_CHECK(join_groups());
  STASIS_CHECK(keep_ended_namespaces());
  STASIS_CHECK(end_temporaries());
  STASIS_CHECK(mount_inner_procs());
  STASIS_CHECK(table_->take_locks_of_descriptions(skeletons_));
  // Before any parent ignores SIGCHLD: then the kernel would reap them.
  for (const auto& process : manifest().processes()) {
    if (process.state() != schema::Process::ZOMBIE) continue;
    STASIS_CHECK(become_zombie(skeletons_.at(process.pid()), process));
  }
  for (const auto& process : manifest().processes()) {
    if (process.state() == schema::Process::ZOMBIE) continue;
    Skeleton& task = skeletons_.at(process.pid());
    const MemoryRequest memory = memory_of(process);
    STASIS_CHECK(task.prepare());
    STASIS_CHECK(build_memory(task, memory, inherited_[process.pid()]));
    STASIS_CHECK(check_not_in_vdso(process, memory.memory, manifest().vdso(), area_));
    builders_.emplace_back(task, process, manifest(), memory.memory, area_, *session_, *table_);
    STASIS_CHECK(builders_.back().set_process(users_of(task)));
  }
  // Only now: who shares the table of another finds everything in it until then.
  for (const auto& process : manifest().processes()) {
    if (process.state() == schema::Process::ZOMBIE || process.descriptors_of() != 0) continue;
    STASIS_CHECK(table_->place(skeletons_.at(process.pid()), process));
  }
  system_v_.detach();
  STASIS_CHECK(system_v_.restore_semaphores(skeletons_));
  if (numbers().nested()) {
    for (const auto& process : manifest().processes()) {
      if (process.state() == schema::Process::ZOMBIE) continue;
      Skeleton& task = skeletons_.at(process.pid());
      STASIS_CHECK(choose_space_of_children(task, space_of(task)));
    }
  }
  // Those who make no threads can do it while they have all rights.
  STASIS_CHECK(settle_spaces_of_children(true));
  STASIS_CHECK(enter_users());
  for (auto& builder : builders_) STASIS_CHECK(builder.make_threads());
  last_number_.reset();
  STASIS_CHECK(settle_spaces_of_children(false));
  // When every task is there: some descriptors refer to tasks.
  STASIS_CHECK(table_->finish(skeletons_, manifest()));
  for (auto& builder : builders_) STASIS_CHECK(builder.start_timers());
  for (auto& builder : builders_) STASIS_CHECK(builder.stop());
  STASIS_CHECK(tell_parents());
  for (auto& builder : builders_) STASIS_CHECK(builder.finish());
  remote::Deadlines deadlines(deadlines_file);
  for (auto& builder : builders_) STASIS_CHECK(builder.arm(deadlines));
  deadlines.save();
  table_->close_all();
  return {};
}

Result<void> RestartFromImage::release() {
  for (auto& builder : builders_) builder.detach();
  return {};
}

namespace {

Result<void> check_host(const schema::Manifest& manifest) {
  schema::Host here;
  kernel::describe_cpu(here);
  uint64_t missing = manifest.host().xsave_features() & ~here.xsave_features();
  if (missing != 0) {
    return Error{
        "restart", manifest.host().cpu(),
        fmt::format("this processor lacks register sets that the program was given (XSAVE features {:#x})",
                    missing),
        "restart it on a processor that has them", ErrorCode::kUnsupported};
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Restart>> Restart::prepare(const std::string& directory, MemoryMode mode,
                                                  const PathMap& paths) {
  STASIS_TRY(image::Image image, image::Image::open(directory));
  if (!paths.empty()) STASIS_CHECK(relocate(image.manifest_to_change(), paths));
  STASIS_CHECK(check_host(image.manifest()));
  STASIS_CHECK(MemoryFiles::check(image.manifest()));
  mode = effective_mode(image.manifest(), mode);
  if (mode == MemoryMode::kMapped && !can_guard_memory()) mode = MemoryMode::kEager;
  auto restart = std::make_unique<RestartFromImage>(std::move(image), mode);
  STASIS_CHECK(restart->plan());
  return std::unique_ptr<Restart>(std::move(restart));
}

}  // namespace stasis::restore

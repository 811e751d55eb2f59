// Pid and user namespaces below the session's: who is born in them, by whose help, and with which numbers.
#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <sstream>
#include <utility>

#include "restore/actors.h"
#include "restore/clone.h"
#include "restore/restart_from_image.h"

namespace stasis::restore {

using remote::Batch;

// Those that somebody makes in a pid namespace that is not below its own child's.
Result<void> RestartFromImage::raise_postponed() {
  while (!postponed_.empty()) {
    auto waiting = std::exchange(postponed_, {});
    for (const auto& [maker, child] : waiting) {
      if (can_be_born(topology_.births()[child])) {
        STASIS_CHECK(raise_children(skeletons_.at(maker), {child}));
      } else {
        postponed_.emplace_back(maker, child);
      }
    }
    if (postponed_.size() == waiting.size()) {
      return Error{"restart",
                   fmt::format("task {}", topology_.births()[waiting.front().second].pid),
                   "its pid namespace has no first process",
                   {},
                   ErrorCode::kDamaged};
    }
  }
  return {};
}

bool RestartFromImage::can_be_born(const Birth& child) const {
  const uint32_t space = child.numbers.space;
  return space == 0 || child.is_init() || inits_.contains(space);
}

uint32_t RestartFromImage::space_of(const Skeleton& task) const {
  auto found = spaces_.find(task.ns_pid().value);
  return found != spaces_.end() ? found->second : 0;
}

Result<Skeleton> RestartFromImage::make_helper(Skeleton& maker, uint32_t space, uint64_t exit_signal) {
  STASIS_CHECK(choose_space_of_children(maker, space));
  const Numbers::Of spare = numbers().spare(space);
  STASIS_TRY(const auto given, prepare_numbers(users_of(maker), space, spare.levels));
  const NsTid number{spare.levels.front()};
  STASIS_CHECK(maker.prepare());
  Batch batch = maker.batch();
  CloneRequest request;
  request.flags = CLONE_PTRACE;
  request.exit_signal = exit_signal;
  add_clone(batch, request, given);
  STASIS_CHECK(maker.run_checked(batch, "make a helper"));
  STASIS_TRY(auto born, await_births(*session_, {number}));
  Skeleton helper(born.at(number.value), number, NsTid{spare.levels.back()}, area_);
  STASIS_CHECK(helper.prepare());
  spaces_[number.value] = spaces_of_children_[number.value] = space;
  users_[number.value] = users_of(maker);
  groups_[number.value] = groups_[maker.ns_pid().value];
  inherited_[number.value] = inherited_[maker.ns_pid().value];
  return helper;
}

Result<void> RestartFromImage::end_helper(Skeleton& maker, const Skeleton& helper) {
  ::kill(helper.pid().value, SIGKILL);
  while (::waitpid(helper.pid().value, nullptr, __WALL) > 0) {
  }
  const Numbers::Of spare = numbers().spare(space_of(helper));
  const size_t level = numbers().depth(space_of(maker));
  Batch reap = maker.batch();
  reap.call(SYS_wait4, {static_cast<uint64_t>(spare.levels.at(level)), 0, __WALL, 0});
  STASIS_CHECK(maker.prepare());
  return maker.run_checked(reap, "reap a helper");
}

uint32_t RestartFromImage::users_of(const Skeleton& task) const {
  auto found = users_.find(task.ns_pid().value);
  return found != users_.end() ? found->second : 0;
}

// A pid namespace belongs to the user namespace of whoever makes it. The maker of its first process cannot go
// there and come back: a helper goes, and leaves the child to it. Namespaces that belong to those above can
// be entered only before.
Result<void> RestartFromImage::make_init_of_users(Skeleton& maker, std::span<const size_t> child) {
  const Birth& birth = topology_.births()[child.front()];
  const uint32_t owner = numbers().owner(birth.numbers.space);
  const uint64_t exit_signal =
      birth.process != nullptr ? static_cast<uint64_t>(birth.process->exit_signal()) : SIGCHLD;
  STASIS_TRY(Skeleton helper, make_helper(maker, space_of(maker), exit_signal));
  Batch batch = helper.batch();
  const auto& all = table_->namespaces();
  auto enter = [&](uint32_t id) {
    batch.call(SYS_setns, {static_cast<uint64_t>(all.descriptor(id)), all.type(id)});
  };
  if (birth.process != nullptr) {
    for (uint32_t id : birth.process->namespaces()) {
      const bool enterable = all.descriptor(id) >= 0 && all.type(id) != CLONE_NEWUSER;
      if (enterable && !numbers().rules(owner, numbers().owner(id))) enter(id);
    }
  }
  enter(owner);
  batch.call(SYS_prctl, {PR_SET_DUMPABLE, 1});
  STASIS_CHECK(helper.run_checked(batch, "enter the user namespace of a pid namespace"));
  users_[helper.ns_pid().value] = owner;
  STASIS_CHECK(make_in_batches(helper, child, CLONE_NEWPID | CLONE_PARENT));
  return end_helper(maker, helper);
}

Result<std::vector<int>> RestartFromImage::prepare_numbers(uint32_t users, uint32_t space,
                                                           const std::vector<int>& levels) {
  if (users == 0) return levels;
  size_t given = 0;
  for (uint32_t at = space; numbers().rules(users, numbers().owner(at)); at = numbers().parent(at)) {
    ++given;
    if (at == 0) break;
  }
  uint32_t at = space;
  for (size_t i = 0; i < given; ++i) at = numbers().parent(at);
  for (size_t level = levels.size() - given; level > 0; --level, at = numbers().parent(at))
    STASIS_CHECK(set_next_number(at, levels[level - 1]));
  return std::vector<int>(levels.end() - static_cast<ptrdiff_t>(given), levels.end());
}

Result<void> RestartFromImage::set_next_number(uint32_t space, int number) {
  if (space == 0) {
    if (!last_number_) {
      STASIS_TRY(auto started, LastNumber::start(unused_number(manifest())));
      last_number_.emplace(std::move(started));
    }
    return last_number_->set_next(number);
  }
  static constexpr char kFile[] = "/proc/sys/kernel/ns_last_pid";
  Skeleton& init = skeletons_.at(inits_.at(space));
  const std::string text = std::to_string(number - 1);
  STASIS_CHECK(init.prepare());
  Batch batch = init.batch();
  const uint64_t value = batch.put(text);
  const size_t opened = batch.call(
      SYS_openat, {static_cast<uint64_t>(AT_FDCWD), batch.put({kFile, sizeof kFile}), O_WRONLY, 0});
  batch.call_with_last(SYS_write, {value, text.size()});
  STASIS_CHECK(init.run_checked(batch, "choose the number of a task"));
  Batch closing = init.batch();
  closing.call(SYS_close, {static_cast<uint64_t>(batch.result(opened))});
  return init.run_checked(closing, "choose the number of a task");
}

Result<void> RestartFromImage::enter_users() {
  if (!numbers().has_users()) return {};
  for (auto& builder : builders_) {
    Skeleton& task = builder.skeleton();
    STASIS_TRY(const uint32_t users, builder.enter_users(users_of(task)));
    users_[task.ns_pid().value] = users;
    if (users == 0) continue;
    builder.choose_numbers([this, users, space = space_of(task)](const std::vector<int>& levels) {
      return prepare_numbers(users, space, levels);
    });
  }
  return {};
}

// In which its children are born: setns() takes only namespaces that are below its own.
Result<void> RestartFromImage::choose_space_of_children(Skeleton& maker, uint32_t space) {
  uint32_t& now = spaces_of_children_[maker.ns_pid().value];
  if (now == space) return {};
  auto init = inits_.find(space);
  const int target = space == space_of(maker) ? maker.own_pid().value
                     : init != inits_.end()   ? seen_by(maker, init->second)
                                              : 0;
  STASIS_CHECK(maker.prepare());
  Batch batch = maker.batch();
  const size_t handle = batch.call(SYS_pidfd_open, {static_cast<uint64_t>(target), 0});
  batch.call_with_last(SYS_setns, {CLONE_NEWPID});
  STASIS_CHECK(maker.run_checked(batch, "choose a pid namespace for children"));
  Batch closing = maker.batch();
  closing.call(SYS_close, {static_cast<uint64_t>(batch.result(handle))});
  STASIS_CHECK(maker.run_checked(closing, "choose a pid namespace for children"));
  now = space;
  return {};
}

// Nobody can be born in them any more, but for as long as their init is there they can be opened.
Result<void> RestartFromImage::keep_ended_namespaces() {
  for (const auto& process : manifest().processes()) {
    const uint32_t space = process.namespace_of_children();
    const bool ended = std::any_of(manifest().namespaces().begin(), manifest().namespaces().end(),
                                   [&](const auto& one) { return one.id() == space && one.ended(); });
    auto init = inits_.find(space);
    if (space == 0 || !ended || init == inits_.end()) continue;
    Skeleton& task = skeletons_.at(process.pid());
    STASIS_CHECK(task.prepare());
    Batch batch = task.batch();
    const std::string path = fmt::format("/proc/{}/ns/pid", init->second);
    batch.call(SYS_openat, {static_cast<uint64_t>(AT_FDCWD), batch.put({path.c_str(), path.size() + 1}),
                            O_RDONLY | O_CLOEXEC, 0});
    const size_t kept =
        batch.call_with_last(SYS_fcntl, {F_DUPFD_CLOEXEC, static_cast<uint64_t>(table_->base())});
    STASIS_CHECK(task.run_checked(batch, "keep a pid namespace that has ended"));
    ended_spaces_[process.pid()] = static_cast<int>(batch.result(kept));
    Batch closing = task.batch();
    closing.call(SYS_close, {static_cast<uint64_t>(batch.result(0))});
    STASIS_CHECK(task.run_checked(closing, "keep a pid namespace that has ended"));
  }
  return {};
}

// What shows the processes of a pid namespace can be mounted by these only.
Result<void> RestartFromImage::mount_inner_procs() {
  if (!numbers().nested()) return {};
  return table_->namespaces().complete_inner(
      [this](const schema::FileSystem& system, uint32_t space) { return mount_inner_proc(system, space); });
}

// By a helper, which need not come back: in a copy of the session's mounts that belongs to the user namespace
// in which it is, it has the rights, and the kernel's condition for them is met, another /proc
// (mount_too_revealing()).
Result<Fd> RestartFromImage::mount_inner_proc(const schema::FileSystem& system, uint32_t space) {
  constexpr const char* kStep = "mount the /proc of a pid namespace";
  constexpr uint64_t kSetFlag = 0, kSetString = 1, kCreate = 6;  // FSCONFIG_*
  auto init = inits_.find(space);
  if (init == inits_.end())
    return Error{kStep, system.source(), "its pid namespace is not in the image", {}, ErrorCode::kDamaged};
  Skeleton& maker = skeletons_.at(init->second);
  STASIS_TRY(Skeleton task, make_helper(maker, space_of(maker), SIGCHLD));
  Batch open = task.batch();
  const auto text = [](Batch& batch, const std::string& value) {
    return batch.put({value.c_str(), value.size() + 1});
  };
  open.call(SYS_unshare, {CLONE_NEWNS});
  const size_t opened = open.call(SYS_fsopen, {text(open, system.type()), 0});
  STASIS_CHECK(task.run_checked(open, kStep));
  const auto context = static_cast<uint64_t>(open.result(opened));
  Batch make = task.batch();
  make.call(SYS_fsconfig, {context, kSetString, text(make, "source"), text(make, system.source()), 0});
  std::istringstream options(system.options());
  for (std::string option; std::getline(options, option, ',');) {
    const size_t sign = option.find('=');
    const uint64_t key = text(make, option.substr(0, sign));
    if (sign == std::string::npos) {
      make.call(SYS_fsconfig, {context, kSetFlag, key, 0, 0});
    } else {
      make.call(SYS_fsconfig, {context, kSetString, key, text(make, option.substr(sign + 1)), 0});
    }
  }
  make.call(SYS_fsconfig, {context, kCreate, 0, 0, 0});
  const size_t mounted = make.call(SYS_fsmount, {context, 0, 0});
  STASIS_CHECK(task.prepare());
  STASIS_CHECK(task.run_checked(make, kStep));
  Fd handle(static_cast<int>(::syscall(SYS_pidfd_open, task.pid().value, 0)));
  Fd mount(static_cast<int>(::syscall(SYS_pidfd_getfd, handle.get(), make.result(mounted), 0)));
  if (!mount) return errno_error(kStep, system.source());
  STASIS_CHECK(end_helper(maker, task));
  return mount;
}

// When all threads are there: the kernel makes none in a process that has another namespace for children.
Result<void> RestartFromImage::settle_spaces_of_children(bool of_single_threads) {
  for (const auto& process : manifest().processes()) {
    if (process.namespace_of_children() == 0 || (process.threads_size() == 1) != of_single_threads) continue;
    Skeleton& task = skeletons_.at(process.pid());
    auto ended = ended_spaces_.find(process.pid());
    if (ended == ended_spaces_.end()) {
      STASIS_CHECK(choose_space_of_children(task, process.namespace_of_children()));
      continue;
    }
    STASIS_CHECK(task.prepare());
    Batch batch = task.batch();
    batch.call(SYS_setns, {static_cast<uint64_t>(ended->second), CLONE_NEWPID});
    STASIS_CHECK(task.run_checked(batch, "choose a pid namespace for children"));
  }
  return {};
}

// A process that cannot name its group is in it from birth, or is put into it by its parent. `may_wait`: the
// group may not be there yet.
Result<void> RestartFromImage::join_group(const Birth& birth, bool may_wait) {
  // A session leader is the leader of its group already.
  if (birth.becomes_session_leader || birth.group.value == 0) return {};
  const int group = birth.group.value;
  int& now = groups_[birth.pid.value];
  if (now == group && numbers().nested()) return {};
  const auto leader = skeletons_.find(group);
  const HostTid task = skeletons_.at(birth.pid.value).pid();
  if (leader != skeletons_.end() && ::getpgid(task.value) == leader->second.pid().value) return {};
  if (may_wait && group != birth.pid.value && !skeletons_.contains(group)) return {};
  Skeleton* caller = &skeletons_.at(birth.pid.value);
  int who = 0, which = seen_by(*caller, group);
  if (which == 0) {
    auto parent = skeletons_.find(birth.parent.value);
    if (parent != skeletons_.end()) {
      caller = &parent->second;
      who = seen_by(*caller, birth.pid.value);
      which = seen_by(*caller, group);
    }
    if (which == 0 && may_wait) return {};
    if (which == 0) {
      return Error{"restart: join a process group",
                   fmt::format("task {}", birth.pid),
                   fmt::format("neither it nor its parent can name group {}, which is outside of their pid "
                               "namespaces",
                               group),
                   {},
                   ErrorCode::kRefused};
    }
  }
  Batch batch = caller->batch();
  batch.call(SYS_setpgid, {static_cast<uint64_t>(who), static_cast<uint64_t>(which)});
  STASIS_CHECK(caller->prepare());
  if (may_wait) {
    STASIS_CHECK(caller->run(batch));
    if (batch.result(0) < 0) return {};
  } else {
    STASIS_CHECK(caller->run_checked(batch, "join a process group"));
  }
  now = group;
  return {};
}

}  // namespace stasis::restore

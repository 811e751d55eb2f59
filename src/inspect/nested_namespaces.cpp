// Of pids, users and times: namespaces that are one below another, or whose clocks go differently.
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <sstream>

#include "inspect/namespace_identity.h"
#include "inspect/namespaces.h"
#include "kernel/proc.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

namespace stasis::inspect {
namespace {

void parse_ranges(const std::string& text, google::protobuf::RepeatedPtrField<schema::IdRange>& out) {
  std::istringstream lines(text);
  uint32_t inside = 0, outside = 0, count = 0;
  while (lines >> inside >> outside >> count) {
    auto* range = out.Add();
    range->set_inside(inside);
    range->set_outside(outside);
    range->set_count(count);
  }
}

// No process of the program has to be in it: one of ours enters it, and is looked at from outside, so that
// ids are those that we know.
Result<void> look_at_visitor(const Fd& place, uint64_t type, const char* name,
                             const std::function<Result<void>(HostTid)>& look) {
  int entered[2], leave[2];
  if (::pipe2(entered, O_CLOEXEC) != 0) return errno_error("look at a namespace", name);
  Fd entered_from(entered[0]), entered_to(entered[1]);
  if (::pipe2(leave, O_CLOEXEC) != 0) return errno_error("look at a namespace", name);
  Fd leave_from(leave[0]), leave_to(leave[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    leave_to.reset();
    if (::setns(place.get(), static_cast<int>(type)) != 0) ::_exit(1);
    ::prctl(PR_SET_DUMPABLE, 1);
    if (!write_all(entered_to.get(), "x").ok()) ::_exit(1);
    entered_to.reset();
    (void)read_all(leave_from.get()).ok();
    ::_exit(0);
  }
  if (child < 0) return errno_error("look at a namespace", name);
  entered_to.reset();
  auto arrived = read_all(entered_from.get());
  Result<void> looked;
  if (!arrived.ok() || *arrived != "x") {
    looked = Error{"save", fmt::format("a {} namespace", name), "it cannot be entered",
                   "take the checkpoint as root", ErrorCode::kRefused};
  } else {
    looked = look(HostTid{child});
  }
  leave_to.reset();
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  return looked;
}

Result<void> observe_users(const Fd& place, schema::Namespace& out) {
  uid_t creator = 0;
  if (::ioctl(place.get(), NS_GET_OWNER_UID, &creator) != 0)
    return errno_error("look at a user namespace", {});
  out.set_creator(creator);
  return look_at_visitor(place, CLONE_NEWUSER, "user", [&](HostTid visitor) -> Result<void> {
    STASIS_TRY(auto users, kernel::read_proc(visitor, "uid_map"));
    STASIS_TRY(auto groups, kernel::read_proc(visitor, "gid_map"));
    STASIS_TRY(auto denied, kernel::read_proc(visitor, "setgroups"));
    parse_ranges(users, *out.mutable_users());
    parse_ranges(groups, *out.mutable_groups());
    out.set_setgroups_denied(denied.starts_with("deny"));
    return {};
  });
}

}  // namespace

uint64_t identity_of(HostTid task, const char* name) {
  auto link = kernel::read_proc_link(task, fmt::format("ns/{}", name));
  const size_t bracket = link.ok() ? link->find('[') : std::string::npos;
  return bracket == std::string::npos ? 0 : std::strtoull(link->c_str() + bracket + 1, nullptr, 10);
}

Result<uint64_t> identity_of(const Fd& place) {
  struct stat status = {};
  if (::fstat(place.get(), &status) != 0) return errno_error("look at a namespace", {});
  return status.st_ino;
}

Result<uint32_t> Namespaces::find_pids(const Fd& place, HostTid task) {
  STASIS_TRY(const uint64_t identity, identity_of(place));
  if (identity == session_identity("pid")) return 0;
  if (const Found* known = find(CLONE_NEWPID, identity)) return known->message.id();
  Fd above(::ioctl(place.get(), NS_GET_PARENT));
  if (!above) return errno_error("look at a pid namespace", fmt::format("task {}", task));
  STASIS_TRY(const uint32_t parent, find_pids(above, task));
  STASIS_TRY(const uint32_t owner, find_owner(place));
  auto found = std::make_unique<Found>();
  found->message.set_id(static_cast<uint32_t>(found_.size() + 1));
  found->message.set_type(CLONE_NEWPID);
  found->message.set_parent(parent);
  found->message.set_owner(owner);
  found->identity = identity;
  found->task = task;
  found_.push_back(std::move(found));
  return found_.back()->message.id();
}

uint64_t Namespaces::session_identity(const char* name) {
  auto [entry, is_new] = of_session_.try_emplace(name);
  if (is_new) entry->second = identity_of(reference_, name);
  return entry->second;
}

Result<uint32_t> Namespaces::find_owner(const Fd& place) {
  Fd users(::ioctl(place.get(), NS_GET_USERNS));
  // One of the host, above ours, is that of a namespace that came from outside.
  if (!users && errno == EPERM) return 0;
  if (!users) return errno_error("look at the owner of a namespace", {});
  return find_users(users);
}

Result<uint32_t> Namespaces::find_users(const Fd& place) {
  STASIS_TRY(const uint64_t identity, identity_of(place));
  if (identity == session_identity("user")) return 0;
  if (const Found* known = find(CLONE_NEWUSER, identity)) return known->message.id();
  Fd above(::ioctl(place.get(), NS_GET_PARENT));
  if (!above) {
    return Error{"save", "a user namespace", "it is not below that of the session", "this is not supported",
                 ErrorCode::kRefused};
  }
  STASIS_TRY(const uint32_t parent, find_users(above));
  auto found = std::make_unique<Found>();
  STASIS_CHECK(observe_users(place, found->message));
  found->message.set_id(static_cast<uint32_t>(found_.size() + 1));
  found->message.set_type(CLONE_NEWUSER);
  found->message.set_parent(parent);
  found->identity = identity;
  found_.push_back(std::move(found));
  return found_.back()->message.id();
}

// What a process has unshared for its children; of its threads, see begin_with_threads().
Result<void> Namespaces::collect_pids(size_t index, const freeze::FrozenProcess& process, size_t level) {
  const bool is_inner = process.status.levels.size() > level + 1;
  uint64_t mine = session_identity("pid");
  if (is_inner) {
    auto own = kernel::open_proc(process.leader, "ns/pid", O_RDONLY);
    if (!own.ok()) return std::move(own).error();
    STASIS_TRY(mine, identity_of(*own));
    STASIS_TRY(const uint32_t id, find_pids(*own, process.leader));
    if (id != 0) of_processes_[index].push_back(id);
  }
  if (process.zombie) return {};
  const uint64_t of_children = identities_[index].at(kPidsOfChildren);
  if (of_children == mine) return {};
  // The kernel shows it when its first process has been born.
  if (of_children == 0) {
    return Error{"save", fmt::format("task {} ({})", process.status.ns_tgid, process.status.name),
                 "it has made a pid namespace (unshare) in which no process has been born yet",
                 "try again when it has made a child", ErrorCode::kRefusedNow};
  }
  STASIS_TRY(Fd place, kernel::open_proc(process.pid, "ns/pid_for_children", O_RDONLY));
  STASIS_TRY(of_children_[index], find_pids(place, process.pid));
  return {};
}

// Those that have no living process: a process that would have its children there can have none any more.
void Namespaces::note_ended(const freeze::FrozenTree& tree) {
  for (auto& found : found_) {
    if (found->message.type() != CLONE_NEWPID) continue;
    found->message.set_ended(true);
    for (size_t i = 0; i < tree.processes().size(); ++i) {
      const auto& ids = of_processes_[i];
      if (!tree.processes()[i].zombie && std::find(ids.begin(), ids.end(), found->message.id()) != ids.end())
        found->message.set_ended(false);
    }
  }
}

// The clocks of the session are in a time namespace, too.
Result<void> Namespaces::observe_time(HostTid task, schema::Namespace& out) const {
  STASIS_TRY(Fd place, kernel::open_proc(task, "ns/time", O_RDONLY));
  STASIS_TRY(auto session, kernel::read_clock_offsets(reference_));
  return look_at_visitor(place, CLONE_NEWTIME, "time", [&](HostTid visitor) -> Result<void> {
    STASIS_TRY(auto offsets, kernel::read_clock_offsets(visitor));
    out.set_monotonic_offset_ns(offsets.monotonic_ns - session.monotonic_ns);
    out.set_boottime_offset_ns(offsets.boottime_ns - session.boottime_ns);
    return {};
  });
}

bool Namespaces::has_pids() const {
  return std::any_of(found_.begin(), found_.end(),
                     [](const auto& found) { return found->message.type() == CLONE_NEWPID; });
}

}  // namespace stasis::inspect

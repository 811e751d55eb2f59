#include "inspect/namespaces.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <sstream>

#include "inspect/mounts.h"
#include "kernel/mounts.h"
#include "kernel/proc.h"
#include "resource/socket/socket.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

namespace stasis::inspect {
namespace {

struct Type {
  uint64_t flag;
  const char* name;  // in /proc/PID/ns
};
constexpr Type kTypes[] = {
    {CLONE_NEWUTS, "uts"},       {CLONE_NEWIPC, "ipc"},   {CLONE_NEWNET, "net"},   {CLONE_NEWNS, "mnt"},
    {CLONE_NEWCGROUP, "cgroup"}, {CLONE_NEWUSER, "user"}, {CLONE_NEWTIME, "time"},
};

std::string shown(const freeze::FrozenProcess& process) {
  return fmt::format("task {} ({})", process.status.ns_tgid, process.status.name);
}

// 0: the kernel does not have this type.
uint64_t identity_of(HostTid task, const char* name) {
  auto link = kernel::read_proc_link(task, fmt::format("ns/{}", name));
  const size_t bracket = link.ok() ? link->find('[') : std::string::npos;
  return bracket == std::string::npos ? 0 : std::strtoull(link->c_str() + bracket + 1, nullptr, 10);
}

// In a process that has entered the namespace and ends.
Result<std::string> ask_inside(HostTid task, const Type& type, const std::function<std::string()>& ask) {
  STASIS_TRY(Fd place, kernel::open_proc(task, fmt::format("ns/{}", type.name), O_RDONLY));
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return errno_error("look into a namespace", type.name);
  Fd from(ends[0]), to(ends[1]);
  pid_t child = ::fork();
  if (child == 0) {
    if (::setns(place.get(), static_cast<int>(type.flag)) != 0) ::_exit(1);
    ::_exit(write_all(to.get(), ask()).ok() ? 0 : 1);
  }
  to.reset();
  if (child < 0) return errno_error("look into a namespace", type.name);
  auto answer = read_all(from.get());
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (status != 0 || !answer.ok())
    return Error{"look into a namespace", fmt::format("task {}", task), "it cannot be entered",
                 "take the checkpoint as root", ErrorCode::kRefused};
  return answer;
}

std::string host_and_domain() {
  utsname names = {};
  ::uname(&names);
  return std::string(names.nodename) + '\n' + names.domainname;
}

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
Result<void> look_at_visitor(const Fd& place, const Type& type,
                             const std::function<Result<void>(HostTid)>& look) {
  int entered[2], leave[2];
  if (::pipe2(entered, O_CLOEXEC) != 0) return errno_error("look at a namespace", type.name);
  Fd entered_from(entered[0]), entered_to(entered[1]);
  if (::pipe2(leave, O_CLOEXEC) != 0) return errno_error("look at a namespace", type.name);
  Fd leave_from(leave[0]), leave_to(leave[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    leave_to.reset();
    if (::setns(place.get(), static_cast<int>(type.flag)) != 0) ::_exit(1);
    ::prctl(PR_SET_DUMPABLE, 1);
    if (!write_all(entered_to.get(), "x").ok()) ::_exit(1);
    entered_to.reset();
    (void)read_all(leave_from.get()).ok();
    ::_exit(0);
  }
  if (child < 0) return errno_error("look at a namespace", type.name);
  entered_to.reset();
  auto arrived = read_all(entered_from.get());
  Result<void> looked;
  if (!arrived.ok() || *arrived != "x") {
    looked = Error{"save", fmt::format("a {} namespace", type.name), "it cannot be entered",
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
  return look_at_visitor(place, {CLONE_NEWUSER, "user"}, [&](HostTid visitor) -> Result<void> {
    STASIS_TRY(auto users, kernel::read_proc(visitor, "uid_map"));
    STASIS_TRY(auto groups, kernel::read_proc(visitor, "gid_map"));
    STASIS_TRY(auto denied, kernel::read_proc(visitor, "setgroups"));
    parse_ranges(users, *out.mutable_users());
    parse_ranges(groups, *out.mutable_groups());
    out.set_setgroups_denied(denied.starts_with("deny"));
    return {};
  });
}

// The clocks of the session are in a time namespace, too.
Result<void> observe_time(HostTid task, HostTid reference, schema::Namespace& out) {
  STASIS_TRY(Fd place, kernel::open_proc(task, "ns/time", O_RDONLY));
  STASIS_TRY(auto session, kernel::read_clock_offsets(reference));
  return look_at_visitor(place, {CLONE_NEWTIME, "time"}, [&](HostTid visitor) -> Result<void> {
    STASIS_TRY(auto offsets, kernel::read_clock_offsets(visitor));
    out.set_monotonic_offset_ns(offsets.monotonic_ns - session.monotonic_ns);
    out.set_boottime_offset_ns(offsets.boottime_ns - session.boottime_ns);
    return {};
  });
}

// In a user namespace ids are set for all threads at once.
Result<void> check_ids(const freeze::FrozenProcess& process) {
  for (const auto& thread : process.threads) {
    if (thread.status.uids == process.status.uids && thread.status.gids == process.status.gids &&
        thread.status.groups == process.status.groups)
      continue;
    return Error{"save", shown(process),
                 "it has a user namespace of its own, and threads with different ids in it",
                 "this is not supported", ErrorCode::kRefused};
  }
  return {};
}

// "1" or "0" for the loopback interface, and the names of all others.
std::string interfaces() {
  Fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request = {};
  std::strcpy(request.ifr_name, "lo");
  const bool up = fd && ::ioctl(fd.get(), SIOCGIFFLAGS, &request) == 0 && (request.ifr_flags & IFF_UP) != 0;
  std::string text = up ? "1" : "0";
  struct if_nameindex* all = ::if_nameindex();
  for (auto* one = all; one != nullptr && one->if_index != 0; ++one) {
    // Those that every namespace has, since a module is loaded.
    constexpr std::string_view kAlways[] = {"lo",      "sit0",    "tunl0",   "gre0",    "gretap0",
                                            "erspan0", "ip6tnl0", "ip6gre0", "ip_vti0", "ip6_vti0"};
    if (std::find(std::begin(kAlways), std::end(kAlways), one->if_name) == std::end(kAlways))
      text += fmt::format(" {}", one->if_name);
  }
  if (all != nullptr) ::if_freenameindex(all);
  return text;
}

Result<void> observe_network(HostTid task, schema::Namespace& out) {
  auto answer = ask_inside(task, kTypes[2], interfaces);
  if (!answer.ok()) return std::move(answer).error();
  const std::string& text = *answer;
  out.set_loopback_up(!text.empty() && text[0] == '1');
  if (text.size() <= 1) return {};
  return Error{"save", "a network namespace of the session",
               fmt::format("it has network interfaces ({}) besides loopback", text.substr(2)),
               "only loopback is supported inside a session; remove them before a checkpoint",
               ErrorCode::kRefused};
}

}  // namespace

const Namespaces::Found* Namespaces::find(uint64_t type, uint64_t identity) const {
  for (const auto& found : found_) {
    if (found->message.type() == type && found->identity == identity) return found.get();
  }
  return nullptr;
}

Result<void> Namespaces::collect(const freeze::FrozenTree& tree, const std::string& first_mounts) {
  reference_ = tree.surroundings();
  of_processes_.resize(tree.processes().size());
  of_children_.resize(tree.processes().size());
  for (size_t i = 0; i < tree.processes().size(); ++i) {
    const auto& process = tree.processes()[i];
    by_number_[process.status.ns_tgid.value] = i;
    if (!process.zombie) STASIS_CHECK(collect_process(i, process));
    STASIS_CHECK(collect_pids(i, process));
  }
  note_ended(tree);
  MountsBefore before;
  STASIS_TRY(before.outside, kernel::read_mounts(HostTid{::getpid()}));
  auto first = read_file(tree.scope().is_session() ? first_mounts : std::string());
  before.first = first.ok() ? kernel::parse_mounts(*first) : before.outside;
  STASIS_TRY(auto session, kernel::read_mounts(reference_));
  STASIS_CHECK(compare_mounts(before, session, OwnProc::kLeaveOut, session_));
  STASIS_CHECK(find_shown_pids(reference_, session_));
  for (auto& found : found_) STASIS_CHECK(observe(*found));
  return {};
}

Result<void> Namespaces::collect_process(size_t index, const freeze::FrozenProcess& process) {
  // Its own copy could not be made: the kernel shares no memory between two times.
  if (identity_of(process.pid, "time") != identity_of(process.pid, "time_for_children")) {
    return Error{
        "save", shown(process), "its children are born in another time namespace than its own (unshare)",
        "this is not supported; let it call exec(), by which it enters that itself", ErrorCode::kRefused};
  }
  for (const Type& type : kTypes) {
    const uint64_t session = session_identity(type.name), own = identity_of(process.pid, type.name);
    for (const auto& thread : process.threads) {
      if (thread.tid != process.pid && identity_of(thread.tid, type.name) != own)
        return Error{"save", shown(process),
                     fmt::format("its threads are in different namespaces ({})", type.name),
                     "this is not supported", ErrorCode::kRefused};
    }
    if (own == session || own == 0) continue;
    const Found* known = find(type.flag, own);
    STASIS_TRY(Fd place, kernel::open_proc(process.pid, fmt::format("ns/{}", type.name), O_RDONLY));
    if (type.flag == CLONE_NEWUSER) {
      STASIS_TRY(const uint32_t users, find_users(place));
      of_processes_[index].push_back(users);
      STASIS_CHECK(check_ids(process));
      continue;
    }
    if (known == nullptr) {
      STASIS_TRY(const uint32_t owner, find_owner(place));
      auto found = std::make_unique<Found>();
      found->message.set_id(static_cast<uint32_t>(found_.size() + 1));
      found->message.set_type(type.flag);
      found->message.set_owner(owner);
      found->identity = own;
      found->task = process.pid;
      found_.push_back(std::move(found));
      known = found_.back().get();
    }
    of_processes_[index].push_back(known->message.id());
  }
  return {};
}

namespace {

Result<uint64_t> identity_of(const Fd& place) {
  struct stat status = {};
  if (::fstat(place.get(), &status) != 0) return errno_error("look at a namespace", {});
  return status.st_ino;
}

}  // namespace

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

Result<void> Namespaces::collect_pids(size_t index, const freeze::FrozenProcess& process) {
  auto own = kernel::open_proc(process.leader, "ns/pid", O_RDONLY);
  if (!own.ok() && process.zombie) {
    // Where the kernel does not show that of a zombie: it is the father's, unless it has more numbers.
    return {};
  }
  if (!own.ok()) return std::move(own).error();
  STASIS_TRY(const uint32_t id, find_pids(*own, process.leader));
  if (id != 0) of_processes_[index].push_back(id);
  if (process.zombie) return {};
  const uint64_t mine = identity_of(process.pid, "pid"),
                 of_children = identity_of(process.pid, "pid_for_children");
  for (const auto& thread : process.threads) {
    if (thread.tid == process.pid || identity_of(thread.tid, "pid_for_children") == of_children) continue;
    return Error{"save", shown(process), "its threads make children in different pid namespaces",
                 "this is not supported", ErrorCode::kRefused};
  }
  if (of_children == mine) return {};
  // The kernel shows it when its first process has been born.
  if (of_children == 0) {
    return Error{"save", shown(process),
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

Result<void> Namespaces::observe(Found& found) {
  schema::Namespace& out = found.message;
  switch (out.type()) {
    case CLONE_NEWUTS: {
      STASIS_TRY(std::string names, ask_inside(found.task, kTypes[0], host_and_domain));
      const size_t end = names.find('\n');
      out.set_host_name(names.substr(0, end));
      out.set_domain_name(end == std::string::npos ? "" : names.substr(end + 1));
      return {};
    }
    case CLONE_NEWNET:
      return observe_network(found.task, out);
    case CLONE_NEWNS: {
      STASIS_TRY(std::string root, kernel::read_proc_link(found.task, "root"));
      if (root != "/") {
        return Error{"save", "a mount namespace of the session",
                     "no process sees all of it: they are in a chroot", "this is not supported yet",
                     ErrorCode::kRefused};
      }
      STASIS_TRY(auto session, kernel::read_mounts(reference_));
      STASIS_TRY(auto own, kernel::read_mounts(found.task));
      // Those show the processes of the session, and are made when it has some.
      MountsBefore before;
      STASIS_TRY(auto ours, kernel::read_mounts(HostTid{::getpid()}));
      for (const auto& mount : session) {
        const bool of_host = std::any_of(ours.begin(), ours.end(), [&](const auto& other) {
          return other.device == mount.device && other.point == mount.point;
        });
        if (mount.type != "proc" || of_host) before.first.push_back(mount);
      }
      before.outside = before.first;
      STASIS_CHECK(compare_mounts(before, own, OwnProc::kNone, out));
      return find_shown_pids(found.task, out);
    }
    case CLONE_NEWTIME:
      return observe_time(found.task, reference_, out);
    default:
      return {};
  }
}

// Each /proc shows one pid namespace, which is to be seen at its first process.
Result<void> Namespaces::find_shown_pids(HostTid task, schema::Namespace& mounts) const {
  for (auto& mount : *mounts.mutable_mounts()) {
    if (mount.method() != schema::Mount::LATER) continue;
    struct stat status = {};
    const std::string first = fmt::format("{}/root{}/1/ns/pid", task, mount.point());
    if (::fstatat(kernel::host_proc(), first.c_str(), &status, 0) != 0) {
      return Error{"save", fmt::format("the mount of {} at {}", mount.type(), mount.point()),
                   "the pid namespace that it shows has ended, or cannot be looked at",
                   "unmount it before a checkpoint", ErrorCode::kRefused};
    }
    if (const Found* found = find(CLONE_NEWPID, status.st_ino)) mount.set_pid_namespace(found->message.id());
  }
  return {};
}

Result<void> Namespaces::describe(size_t process, schema::Process& out) const {
  out.set_namespace_of_children(of_children_[process]);
  for (uint32_t id : of_processes_[process]) {
    out.add_namespaces(id);
    // setns() is only for those who have their directories for themselves.
    const uint64_t type = found_[id - 1]->message.type();
    if ((type == CLONE_NEWNS || type == CLONE_NEWUSER) && out.directories_of() != 0) {
      return Error{
          "save", fmt::format("task {}", out.pid()),
          "it is in a mount or user namespace of its own, and shares its directories with its parent",
          "this is not supported", ErrorCode::kRefused};
    }
  }
  return {};
}

bool Namespaces::has_pids() const {
  return std::any_of(found_.begin(), found_.end(),
                     [](const auto& found) { return found->message.type() == CLONE_NEWPID; });
}

bool Namespaces::has_own_ipc(const schema::Process& process) const {
  return std::any_of(process.namespaces().begin(), process.namespaces().end(),
                     [&](uint32_t id) { return found_[id - 1]->message.type() == CLONE_NEWIPC; });
}

std::vector<uint32_t> Namespaces::of(const resource::OpenFile& file) const {
  std::vector<uint32_t> ids;
  if (found_.empty() || file.owners.empty()) return ids;
  if (resource::is_socket(file)) {
    Fd network(::ioctl(file.duplicate.get(), SIOCGSKNS));
    struct stat status = {};
    if (network && ::fstat(network.get(), &status) == 0) {
      if (const Found* found = find(CLONE_NEWNET, status.st_ino)) ids.push_back(found->message.id());
    }
  }
  // Every owner sees the name of a file that it has opened; the first as well as any.
  auto owner = by_number_.find(file.pid.value);
  if (owner == by_number_.end()) return ids;
  for (uint32_t id : of_processes_[owner->second]) {
    if (found_[id - 1]->message.type() == CLONE_NEWNS) ids.push_back(id);
  }
  return ids;
}

Namespaces::InNetwork::~InNetwork() {
  if (before_) ::setns(before_.get(), CLONE_NEWNET);
}

Result<Namespaces::InNetwork> Namespaces::enter_network(const resource::OpenFile& file) const {
  InNetwork inside;
  if (found_.empty() || !resource::is_socket(file)) return inside;
  Fd network(::ioctl(file.duplicate.get(), SIOCGSKNS));
  struct stat status = {};
  if (!network || ::fstat(network.get(), &status) != 0 || find(CLONE_NEWNET, status.st_ino) == nullptr)
    return inside;
  STASIS_TRY(inside.before_, kernel::open_proc(HostTid{::getpid()}, "ns/net", O_RDONLY));
  if (::setns(network.get(), CLONE_NEWNET) != 0)
    return errno_error("look at", file.describe(), errno, "take the checkpoint as root");
  return inside;
}

Result<void> Namespaces::save(image::Writer& writer, schema::Manifest& manifest) {
  STASIS_CHECK(save_contents(reference_, writer, session_));
  *manifest.mutable_session_mounts() = session_;
  for (auto& found : found_) {
    if (found->message.type() == CLONE_NEWNS)
      STASIS_CHECK(save_contents(found->task, writer, found->message));
    *manifest.add_namespaces() = found->message;
  }
  return {};
}

}  // namespace stasis::inspect

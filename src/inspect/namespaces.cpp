#include "inspect/namespaces.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sockios.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <functional>

#include "base/parallel.h"
#include "inspect/control_groups.h"
#include "inspect/namespace_identity.h"
#include "kernel/ipc_settings.h"
#include "kernel/mounts.h"
#include "kernel/network.h"
#include "kernel/proc.h"
#include "resource/socket/socket.h"
#include "resource/tun.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

namespace stasis::inspect {
namespace {

struct Type {
  uint64_t flag;
  const char* name;  // in /proc/PID/ns
  bool of_threads;   // a thread can leave that of its process
};
constexpr Type kTypes[] = {
    {CLONE_NEWUTS, "uts", true}, {CLONE_NEWIPC, "ipc", true},       {CLONE_NEWNET, "net", true},
    {CLONE_NEWNS, "mnt", false}, {CLONE_NEWCGROUP, "cgroup", true}, {CLONE_NEWUSER, "user", false},
};

constexpr const char* kTimeOfChildren = "time_for_children";
constexpr const char* kShown[] = {"uts",  "ipc",  "net",           "mnt",          "cgroup",
                                  "user", "time", kTimeOfChildren, kPidsOfChildren};

std::string shown(const freeze::FrozenProcess& process) {
  return fmt::format("task {} ({})", process.status.ns_tgid, process.status.name);
}

const char* name_of(uint64_t type) {
  auto found = std::find_if(std::begin(kTypes), std::end(kTypes),
                            [type](const Type& one) { return one.flag == type; });
  return found == std::end(kTypes) ? "" : found->name;
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

Result<void> observe_roots_of_groups(HostTid task, HostTid surroundings, schema::Namespace& out) {
  STASIS_TRY(const std::string whole, kernel::read_proc(task, "cgroup"));
  auto shown = ask_inside(task, {CLONE_NEWCGROUP, "cgroup", true}, [&] {
    auto text = kernel::read_proc(task, "cgroup");
    return text.ok() ? *text : std::string();
  });
  // An ordinary user cannot enter one, nor choose groups.
  if (!shown.ok()) return {};
  STASIS_TRY(const auto roots, roots_of_groups(task, whole, *shown));
  // Those of the session are a matter of whoever starts it.
  auto outside = kernel::read_proc(surroundings, "cgroup");
  for (const std::string& root : roots) {
    if (own_groups(root + "\n", outside.ok() ? *outside : "").empty()) continue;
    out.add_control_group_roots(root);
  }
  return {};
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

std::string host_and_domain() {
  utsname names = {};
  ::uname(&names);
  return std::string(names.nodename) + '\n' + names.domainname;
}

bool is_unix(const resource::OpenFile& file) {
  return resource::is_socket(file) &&
         resource::socket_option(file.duplicate.get(), SOL_SOCKET, SO_DOMAIN) == AF_UNIX;
}

// Of internet sockets: unix sockets lead to others by files, or to the other end.
bool is_of_our_network(const resource::OpenFile& file) {
  if (!resource::is_socket(file) || is_unix(file)) return false;
  const uint64_t cookie = kernel::network_cookie(file.duplicate.get());
  return cookie != 0 && cookie == kernel::network_cookie();
}

// Whether the program may have mounted anything in the session's own namespace. Its /proc comes in any case.
bool differ(const MountsBefore& before, const std::vector<kernel::Mount>& now) {
  const auto like = [](const kernel::Mount& mount) {
    return [&mount](const kernel::Mount& other) {
      return other.point == mount.point && other.device == mount.device && other.root == mount.root &&
             other.options == mount.options && (other.shared == mount.shared || mount.shared == 0);
    };
  };
  int more = 0;
  for (const auto& mount : now) {
    const bool known = std::any_of(before.first.begin(), before.first.end(), like(mount)) ||
                       std::any_of(before.outside.begin(), before.outside.end(), like(mount));
    if (!known && (mount.type != "proc" || mount.point != "/proc" || more++ > 0)) return true;
  }
  return std::any_of(before.first.begin(), before.first.end(), [&](const kernel::Mount& mount) {
    return std::any_of(before.outside.begin(), before.outside.end(), like(mount)) &&
           std::none_of(now.begin(), now.end(), like(mount));
  });
}

}  // namespace

const Namespaces::Found* Namespaces::find(uint64_t type, uint64_t identity) const {
  for (const auto& found : found_) {
    if (found->message.type() == type && found->identity == identity) return found.get();
  }
  return nullptr;
}

Result<void> Namespaces::collect(const freeze::FrozenTree& tree, const std::string& first_mounts,
                                 bool has_network) {
  reference_ = tree.surroundings();
  of_processes_.resize(tree.processes().size());
  read_identities(tree);
  begin_with_threads(tree);
  begin_with_ipc(tree);
  of_children_.resize(tree.processes().size());
  for (size_t i = 0; i < tree.processes().size(); ++i) {
    const auto& process = tree.processes()[i];
    by_number_[process.status.ns_tgid.value] = i;
    if (!process.zombie) STASIS_CHECK(collect_process(i, process));
    STASIS_CHECK(collect_pids(i, process, tree.level()));
  }
  note_ended(tree);
  for (auto& found : found_) STASIS_CHECK(observe(*found));
  STASIS_CHECK(collect_mounts(tree, first_mounts));
  return begin_with_networks(has_network);
}

Result<void> Namespaces::collect_mounts(const freeze::FrozenTree& tree, const std::string& first_mounts) {
  MountsBefore before;
  STASIS_TRY(before.outside, kernel::read_mounts(HostTid{::getpid()}));
  auto first = read_file(tree.scope().is_session() ? first_mounts : std::string());
  before.first = first.ok() ? kernel::parse_mounts(*first) : before.outside;
  const bool has_own = std::any_of(found_.begin(), found_.end(),
                                   [](const auto& found) { return found->message.type() == CLONE_NEWNS; });
  STASIS_TRY(auto now, kernel::read_mounts(reference_));
  for (const auto* list : {&now, &before.outside}) {
    for (const auto& mount : *list) listed_.insert(mount.id);
  }
  const bool needed = has_own || differ(before, now);
  before_ = std::move(before);
  return needed ? look_at_mounts(tree) : Result<void>();
}

Result<void> Namespaces::find_unmounted(const freeze::FrozenTree& tree,
                                        const std::vector<std::unique_ptr<resource::OpenFile>>& files) {
  if (!mounts_.empty()) return {};
  // What the kernel has made without any mount has no name, either.
  constexpr std::string_view kMark = " (deleted)";
  for (const auto& file : files) {
    if (!file->link.starts_with('/') || file->link.ends_with(kMark)) continue;
    const std::string id = file->info("mnt_id");
    if (!id.empty() && !listed_.contains(std::atoi(id.c_str()))) return look_at_mounts(tree);
  }
  for (const auto& process : tree.processes()) {
    if (process.zombie) continue;
    const std::string directory = fmt::format("{}/cwd", process.pid);
    if (!listed_.contains(mount_of(kernel::host_proc(), directory.c_str()))) return look_at_mounts(tree);
  }
  return {};
}

Result<void> Namespaces::look_at_mounts(const freeze::FrozenTree& tree) {
  const auto own_proc = tree.scope().is_session() ? Mounts::OwnProc::kYes : Mounts::OwnProc::kNo;
  STASIS_CHECK(mounts_.observe_session(reference_, std::move(before_), own_proc));
  for (const auto& found : found_) {
    if (found->message.type() != CLONE_NEWNS) continue;
    std::vector<uint32_t> beside;
    for (const auto& other : found_) {
      const uint64_t type = other->message.type();
      const bool shown = type == CLONE_NEWNET || type == CLONE_NEWIPC || type == CLONE_NEWCGROUP;
      if (shown && identity_of(found->task, name_of(type)) == other->identity)
        beside.push_back(other->message.id());
    }
    STASIS_CHECK(
        mounts_.observe_own(found->message.id(), found->task, std::move(beside), found->message.owner()));
  }
  return mounts_.conclude([this](uint64_t identity) -> std::optional<uint32_t> {
    if (identity == session_identity("pid")) return 0;
    const Found* found = find(CLONE_NEWPID, identity);
    return found == nullptr ? std::nullopt : std::optional(found->message.id());
  });
}

// A name is a link of /proc each, which takes long when there are many.
void Namespaces::read_identities(const freeze::FrozenTree& tree) {
  const auto& processes = tree.processes();
  identities_.resize(processes.size());
  for_each_index(processes.size(), [&](size_t i) {
    if (processes[i].zombie) return;
    for (const char* name : kShown) identities_[i][name] = identity_of(processes[i].pid, name);
  });
}

// A thread cannot leave the user and time namespaces of its process, and the mount namespace only with a
// working directory of its own, which is refused.
void Namespaces::begin_with_threads(const freeze::FrozenTree& tree) {
  struct Thread {
    const freeze::FrozenProcess& process;
    HostTid tid;
    size_t index;  // of the process
    bool may_unshare;
  };
  std::vector<Thread> threads;
  for (size_t i = 0; i < tree.processes().size(); ++i) {
    const auto& process = tree.processes()[i];
    for (const auto& thread : process.threads) {
      constexpr uint64_t kMayUnshare = uint64_t{1} << CAP_SYS_ADMIN;
      const bool may_unshare = (thread.status.cap_permitted & kMayUnshare) != 0;
      if (thread.tid != process.pid) threads.push_back({process, thread.tid, i, may_unshare});
    }
  }
  const size_t count = threads.size();
  strays_.assign(count, {});
  threads_ = std::make_unique<ConcurrentWork>(count, [this, threads = std::move(threads)](size_t i) {
    const Thread& thread = threads[i];
    const auto compare = [&](const char* name) {
      if (identity_of(thread.tid, name) != identities_[thread.index].at(name))
        strays_[i] = Stray{&thread.process, name};
    };
    for (const Type& type : kTypes) {
      if (type.of_threads) compare(type.name);
    }
    if (thread.may_unshare) compare(kPidsOfChildren);
  });
}

Result<void> Namespaces::check_threads() {
  threads_->join();
  for (const auto& stray : strays_) {
    if (!stray) continue;
    return Error{"save", shown(*stray->process),
                 fmt::format("its threads are in different namespaces ({})", stray->type),
                 "this is not supported", ErrorCode::kRefused};
  }
  return {};
}

Result<void> Namespaces::collect_process(size_t index, const freeze::FrozenProcess& process) {
  STASIS_CHECK(collect_time(index, process));
  for (const Type& type : kTypes) {
    const uint64_t session = session_identity(type.name);
    const uint64_t own = identities_[index].at(type.name);
    if (own == session || own == 0) continue;
    if (type.flag == CLONE_NEWUSER) {
      STASIS_TRY(Fd place, kernel::open_proc(process.pid, "ns/user", O_RDONLY));
      STASIS_TRY(const uint32_t users, find_users(place));
      of_processes_[index].push_back(users);
      STASIS_CHECK(check_ids(process));
    } else {
      STASIS_CHECK(add(index, process.pid, type.flag, type.name, own));
    }
  }
  return {};
}

Result<void> Namespaces::add(size_t index, HostTid task, uint64_t type, const char* name, uint64_t identity) {
  const Found* known = find(type, identity);
  if (known == nullptr) {
    STASIS_TRY(Fd place, kernel::open_proc(task, fmt::format("ns/{}", name), O_RDONLY));
    STASIS_TRY(const uint32_t owner, find_owner(place));
    auto found = std::make_unique<Found>();
    found->message.set_id(static_cast<uint32_t>(found_.size() + 1));
    found->message.set_type(type);
    found->message.set_owner(owner);
    found->identity = identity;
    found->task = task;
    found_.push_back(std::move(found));
    known = found_.back().get();
  }
  of_processes_[index].push_back(known->message.id());
  return {};
}

// They are root's, and whoever else is in the session. It takes a new namespace to compare with, in which
// time the thread that makes it stands: another one than ours.
void Namespaces::begin_with_ipc(const freeze::FrozenTree& tree) {
  if (!tree.scope().is_session() || ::geteuid() != 0 ||
      identity_of(HostTid{::getpid()}, "user") != session_identity("user"))
    return;
  auto place = std::make_shared<Result<Fd>>(kernel::open_proc(reference_, "ns/ipc", O_RDONLY));
  if (!place->ok()) return;
  ipc_ = std::jthread([this, place] {
    if (::setns((*place)->get(), CLONE_NEWIPC) == 0) session_ipc_ = kernel::read_changed_ipc_settings();
  });
}

// That of a process can differ from the session's only together with that of its children.
Result<void> Namespaces::collect_time(size_t index, const freeze::FrozenProcess& process) {
  const uint64_t of_children = identities_[index].at(kTimeOfChildren);
  if (of_children == session_identity("time") || of_children == 0) return {};
  const uint64_t own = identities_[index].at("time");
  // Its own copy could not be made: the kernel shares no memory between two times.
  if (own != of_children) {
    return Error{
        "save", shown(process), "its children are born in another time namespace than its own (unshare)",
        "this is not supported; let it call exec(), by which it enters that itself", ErrorCode::kRefused};
  }
  return add(index, process.pid, CLONE_NEWTIME, "time", own);
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
    case CLONE_NEWTIME:
      return observe_time(found.task, out);
    case CLONE_NEWIPC: {
      auto settings = ask_inside(found.task, kTypes[1],
                                 [] { return kernel::read_changed_ipc_settings().SerializeAsString(); });
      // Only its owner can have changed them, and only who has its owner's rights can see that.
      if (settings.ok() && !out.mutable_ipc_settings()->ParseFromString(*settings)) out.clear_ipc_settings();
      return {};
    }
    case CLONE_NEWCGROUP:
      return observe_roots_of_groups(found.task, reference_, out);
    default:
      return {};
  }
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

bool Namespaces::has_own_ipc(const schema::Process& process) const {
  return std::any_of(process.namespaces().begin(), process.namespaces().end(),
                     [&](uint32_t id) { return found_[id - 1]->message.type() == CLONE_NEWIPC; });
}

std::vector<uint32_t> Namespaces::of(const resource::OpenFile& file) const {
  std::vector<uint32_t> ids;
  if (found_.empty() || file.owners.empty()) return ids;
  if (const Found* found = find(CLONE_NEWNET, network_of(file))) ids.push_back(found->message.id());
  if (const auto* place = place_of(file)) {
    if (place->of != 0) ids.push_back(place->of);
    return ids;
  }
  // Every owner sees the name of a file that it has opened; the first as well as any.
  auto owner = by_number_.find(file.pid.value);
  if (owner == by_number_.end()) return ids;
  for (uint32_t id : of_processes_[owner->second]) {
    if (found_[id - 1]->message.type() == CLONE_NEWNS) ids.push_back(id);
  }
  return ids;
}

Result<void> Namespaces::begin_with_networks(bool has_network) {
  auto add = [this](uint32_t id, HostTid task, uint64_t identity) -> Result<void> {
    NetworkPlace place;
    place.id = id;
    place.identity = identity;
    STASIS_TRY(place.network, kernel::open_proc(task, "ns/net", O_RDONLY));
    if (!kernel::has_administrator_rights()) {
      STASIS_TRY(place.user, kernel::open_proc(task, "ns/user", O_RDONLY));
    }
    networks_.push_back(std::move(place));
    return {};
  };
  if (has_network) STASIS_CHECK(add(0, reference_, identity_of(reference_, "net")));
  for (const auto& found : found_) {
    if (found->message.type() == CLONE_NEWNET)
      STASIS_CHECK(add(found->message.id(), found->task, found->identity));
  }
  for (const auto& place : networks_) {
    STASIS_TRY(NetworkObserver observer, NetworkObserver::begin(place, networks_));
    observers_.push_back(std::move(observer));
  }
  return {};
}

Result<void> Namespaces::finish() {
  STASIS_CHECK(check_threads());
  if (ipc_.joinable()) ipc_.join();
  for (size_t i = 0; i < observers_.size(); ++i) {
    const uint32_t id = networks_[i].id;
    STASIS_TRY(auto network, observers_[i].finish());
    *(id == 0 ? &session_network_ : found_[id - 1]->message.mutable_network()) = std::move(network);
  }
  observers_.clear();
  return {};
}

uint64_t Namespaces::network_of(const resource::OpenFile& file) const {
  if (!resource::is_socket(file) && !resource::is_tun(file)) return 0;
  Fd network(::ioctl(file.duplicate.get(), SIOCGSKNS));
  struct stat status = {};
  return network && ::fstat(network.get(), &status) == 0 ? status.st_ino : 0;
}

Result<kernel::LookingInto> Namespaces::look_into_network_of(const resource::OpenFile& file) const {
  const uint64_t identity = network_of(file);
  const bool has_network = !networks_.empty() && networks_.front().id == 0;
  if (has_network && is_of_our_network(file)) {
    return Error{"save", file.describe(), "it is a socket of the host's network, and the session has its own",
                 "a restart could not open it there; do not hand it to a session with --net=private",
                 ErrorCode::kRefused};
  }
  if (identity == 0) return kernel::LookingInto();
  auto place = std::find_if(networks_.begin(), networks_.end(),
                            [&](const NetworkPlace& candidate) { return candidate.identity == identity; });
  if (place == networks_.end()) {
    // Without a network of its own the session is in the host's; a unix socket may come from anywhere.
    if (identity == identity_of(HostTid{::getpid()}, "net") ||
        (!has_network && identity == identity_of(reference_, "net")) || is_unix(file))
      return kernel::LookingInto();
    return Error{"save", file.describe(),
                 "it belongs to a network namespace that no process of the session is in",
                 "close it, or keep a process in that network", ErrorCode::kRefused};
  }
  auto& helper = helpers_[identity];
  if (!helper) {
    STASIS_TRY(helper, kernel::NetworkHelper::start(place->network, place->user));
  }
  return kernel::LookingInto(helper.get());
}

uint32_t Namespaces::mounts_of(int pid) const {
  auto owner = by_number_.find(pid);
  if (owner == by_number_.end()) return 0;
  for (uint32_t id : of_processes_[owner->second]) {
    if (found_[id - 1]->message.type() == CLONE_NEWNS) return id;
  }
  return 0;
}

Result<void> Namespaces::locate(resource::OpenFile& file) {
  if (mounts_.empty() || !file.link.starts_with('/')) return {};
  STASIS_TRY(auto place, mounts_.locate(file, mounts_of(file.pid.value)));
  if (place) places_[&file] = std::move(*place);
  return {};
}

const Mounts::Place* Namespaces::place_of(const resource::OpenFile& file) const {
  auto found = places_.find(&file);
  return found == places_.end() ? nullptr : &found->second;
}

std::vector<std::string> Namespaces::mounted_at(const resource::OpenFile& file) const {
  const auto* place = place_of(file);
  return place != nullptr && place->visible ? mounts_.points_of(place->of, file.status.st_dev)
                                            : std::vector<std::string>();
}

bool Namespaces::is_found_by_name(const resource::OpenFile& file) const {
  const auto* place = place_of(file);
  return place == nullptr || (place->visible && place->of == mounts_of(file.pid.value));
}

bool Namespaces::is_top(const freeze::FrozenProcess& process, int directory) const {
  return mounts_.is_top(mounts_of(process.status.ns_tgid.value), directory);
}

bool Namespaces::leads_to(const freeze::FrozenProcess& process, const kernel::MapsEntry& entry,
                          struct stat& status) const {
  return mounts_.leads_to(mounts_of(process.status.ns_tgid.value), entry.name, entry.inode, status);
}

void Namespaces::describe_path(const freeze::FrozenProcess& process, schema::Mapping& mapping) {
  const bool named =
      mapping.kind() == schema::Mapping::PRIVATE_FILE || mapping.kind() == schema::Mapping::SHARED_FILE;
  if (mounts_.empty() || !named || mapping.path().empty()) return;
  const uint32_t of = mounts_of(process.status.ns_tgid.value);
  // A library is four or five mappings in each process.
  auto [path, is_new] = host_paths_.try_emplace({of, mapping.path()});
  if (is_new) path->second = mounts_.host_path(of, mapping.path());
  if (path->second != mapping.path()) mapping.set_host_path(path->second);
}

Result<void> Namespaces::save(image::Writer& writer, schema::Manifest& manifest) {
  STASIS_CHECK(mounts_.save(writer, manifest,
                            [this](uint32_t id) { return id == 0 ? &session_ : &found_[id - 1]->message; }));
  *manifest.mutable_session_mounts() = session_;
  if (!networks_.empty() && networks_.front().id == 0) *manifest.mutable_session_network() = session_network_;
  if (session_ipc_.settings_size() > 0) *manifest.mutable_ipc_settings() = session_ipc_;
  for (auto& found : found_) *manifest.add_namespaces() = found->message;
  return check_tun_devices(manifest);
}

}  // namespace stasis::inspect

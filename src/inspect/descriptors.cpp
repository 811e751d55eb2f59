#include "inspect/descriptors.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <set>
#include <span>

#include "base/parallel.h"
#include "inspect/namespaces.h"
#include "inspect/other_names.h"
#include "inspect/signal_owner.h"
#include "kernel/pid_namespace.h"
#include "kernel/proc.h"
#include "remote/borrowed_process.h"
#include "resource/file/locks.h"
#include "resource/registry.h"
#include "resource/reopen.h"
#include "resource/socket/queue.h"
#include "resource/socket/socket.h"
#include "resource/terminal/tty.h"

namespace stasis::inspect {

using resource::OpenFile;

namespace {

uint64_t slot_key(HostTid pid, int number) {
  return (static_cast<uint64_t>(pid.value) << 32) | static_cast<uint32_t>(number);
}

Result<Fd> open_pidfd(const freeze::FrozenProcess& process) {
  constexpr unsigned kThread = O_EXCL;  // PIDFD_THREAD, Linux 6.9
  int fd = static_cast<int>(
      ::syscall(SYS_pidfd_open, process.pid.value, process.pid == process.leader ? 0 : kThread));
  if (fd < 0) {
    Error error = errno_error("open a handle of", fmt::format("task {}", process.pid), errno);
    if (process.pid == process.leader) return error;
    error.hint = "its main thread has ended: that needs Linux 6.9";
    error.code = ErrorCode::kRefused;
    return error;
  }
  return Fd(fd);
}

// The terminal of a session may be open in nobody any more: its leader has it all the same. To be there after
// a restart it has to be opened for a moment; here, too, where the kernel then undoes, and at the end does
// again, what the last close of a slave does to the master. nullptr: there is none, or it is locked.
std::unique_ptr<OpenFile> open_closed_terminal(const freeze::FrozenProcess& leader,
                                               std::span<const std::unique_ptr<OpenFile>> files) {
  const bool leads = leader.status.ns_session == leader.status.ns_tgid;
  const uint64_t device = leads && !leader.zombie ? kernel::terminal_device(leader.stat.terminal) : 0;
  if (!resource::is_pty_slave(device)) return nullptr;
  const OpenFile* master = nullptr;
  for (const auto& file : files) {
    if (resource::is_master(*file)) {
      if (resource::tty_index(file->duplicate.get()) == minor(device)) master = file.get();
    } else if (resource::is_terminal(*file) && resource::tty_device(file->duplicate.get()) == device) {
      return nullptr;
    }
  }
  if (master == nullptr) return nullptr;
  auto file = std::make_unique<OpenFile>();
  file->task = leader.pid;
  file->pid = leader.status.ns_tgid;
  file->flags = O_RDWR;
  file->link = fmt::format("/dev/pts/{}", minor(device));
  file->duplicate = Fd(::ioctl(master->duplicate.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!file->duplicate || ::fstat(file->duplicate.get(), &file->status) != 0) return nullptr;
  return file;
}

}  // namespace

Result<void> DescriptorGraph::collect(const freeze::FrozenTree& tree) {
  slots_.resize(tree.processes().size());
  locks_.resize(tree.processes().size());
  hidden_.resize(tree.processes().size());
  if (tree.scope().is_session()) tasks_[tree.scope().init.value] = NsTid{1};
  for (const auto& process : tree.processes()) {
    tasks_[process.leader.value] = process.status.ns_tgid;
    for (const auto& thread : process.threads) tasks_[thread.tid.value] = thread.ns_tid;
    if (!process.zombie && process.status.levels.size() > tree.level() + 1) inner_.insert(process.pid.value);
  }
  STASIS_CHECK(collect_descriptors(tree.processes()));
  STASIS_CHECK(collect_hidden(tree));
  STASIS_CHECK(collect_in_flight());
  find_other_names();
  return {};
}

NsTid DescriptorGraph::session_task(HostTid task) const {
  auto found = tasks_.find(task.value);
  return found != tasks_.end() ? found->second : NsTid{0};
}

Result<void> DescriptorGraph::collect_hidden(const freeze::FrozenTree& tree) {
  if (namespaces_ != nullptr) STASIS_CHECK(namespaces_->find_unmounted(tree, files_));
  const bool has_mounts = namespaces_ != nullptr && namespaces_->has_mounts();
  const size_t open_files = files_.size();
  // From a directory more is to be seen of a mount that is nowhere than from a file on it.
  const auto locate = [&](bool directories) -> Result<void> {
    for (size_t i = 0; has_mounts && i < open_files; ++i) {
      if (S_ISDIR(files_[i]->status.st_mode) == directories) STASIS_CHECK(namespaces_->locate(*files_[i]));
    }
    return {};
  };
  for (const auto& process : tree.processes()) {
    if (auto terminal = open_closed_terminal(process, files_)) {
      STASIS_TRY([[maybe_unused]] uint32_t id, keep_hidden(std::move(terminal)));
    }
  }
  STASIS_CHECK(locate(true));
  for (size_t i = 0; i < tree.processes().size(); ++i) {
    const auto& process = tree.processes()[i];
    if (process.zombie) continue;
    STASIS_TRY(hidden_[i].working_directory, collect_hidden(process, "cwd", O_PATH | O_DIRECTORY));
    if (hidden_[i].working_directory != 0)
      STASIS_CHECK(check_working_directory(*files_[hidden_[i].working_directory - 1]));
    if (has_mounts) {
      STASIS_TRY(hidden_[i].root, collect_root(process));
    }
  }
  STASIS_CHECK(locate(false));
  for (size_t i = 0; i < tree.processes().size(); ++i) {
    const auto& process = tree.processes()[i];
    if (process.zombie) continue;
    STASIS_TRY(hidden_[i].executable, collect_hidden(process, "exe", O_RDONLY));
    if (has_mounts) STASIS_CHECK(collect_mapped(process));
  }
  return {};
}

// Where a process has ended a restart lets all be born that work there: in one place.
Result<void> DescriptorGraph::check_working_directory(const OpenFile& file) {
  struct statfs system = {};
  if (::fstatfs(file.duplicate.get(), &system) != 0 || system.f_type != PROC_SUPER_MAGIC) return {};
  const auto* place = namespaces_ != nullptr ? namespaces_->place_of(file) : nullptr;
  const bool first = directory_of_dead_.empty() || directory_of_dead_ == file.link;
  directory_of_dead_ = file.link;
  if (first && (place == nullptr || place->of == 0)) return {};
  return Error{"save", fmt::format("task {}", file.pid),
               fmt::format("its working directory is {}, of a process that has ended", file.link),
               "let it work elsewhere", ErrorCode::kRefused};
}

// What was removed has no name by which it could be found again.
Result<uint32_t> DescriptorGraph::collect_hidden(const freeze::FrozenProcess& process, const char* link,
                                                 int flags) {
  auto file = std::make_unique<OpenFile>();
  file->task = process.pid;
  file->pid = process.status.ns_tgid;
  file->flags = static_cast<uint32_t>(flags);
  STASIS_TRY(file->link, kernel::read_proc_link(process.pid, link));
  const bool has_mounts = namespaces_ != nullptr && namespaces_->has_mounts();
  if (!has_mounts && !file->link.ends_with(" (deleted)")) return 0;
  auto opened = kernel::open_proc(process.pid, link, flags);
  // A program that may be executed and not read is saved as memory alone.
  if (!opened.ok() && flags == O_RDONLY) return 0;
  STASIS_TRY(file->duplicate, std::move(opened));
  if (::fstat(file->duplicate.get(), &file->status) != 0)
    return errno_error("look at", fmt::format("the {} of task {}", link, file->pid));
  if (has_mounts) STASIS_CHECK(namespaces_->locate(*file));
  const auto state = resource::name_of(*file).state;
  const bool found = !has_mounts || namespaces_->is_found_by_name(*file);
  if (found && state != resource::Name::kDeleted) return 0;
  return keep_hidden(std::move(file));
}

Result<uint32_t> DescriptorGraph::keep_hidden(std::unique_ptr<OpenFile> file) {
  files_.push_back(std::move(file));
  files_.back()->id = static_cast<uint32_t>(files_.size());
  return files_.back()->id;
}

// Of most it is that of their mount namespace.
Result<uint32_t> DescriptorGraph::collect_root(const freeze::FrozenProcess& process) {
  STASIS_TRY(Fd root, kernel::open_proc(process.pid, "root", O_PATH | O_DIRECTORY));
  if (namespaces_->is_top(process, root.get())) return 0;
  return collect_hidden(process, "root", O_PATH | O_DIRECTORY);
}

// A program may have come from where nothing leads any more: a root directory that it has left.
Result<void> DescriptorGraph::collect_mapped(const freeze::FrozenProcess& process) {
  STASIS_TRY(auto maps, kernel::read_maps(process.pid));
  std::set<std::string> seen;
  for (const auto& entry : maps) {
    if (!entry.name.starts_with('/') || entry.inode == 0 || !seen.insert(entry.name).second) continue;
    struct stat status = {};
    if (namespaces_->leads_to(process, entry, status)) continue;
    auto file = std::make_unique<OpenFile>();
    file->task = process.pid;
    file->pid = process.status.ns_tgid;
    file->flags = O_RDONLY;
    file->link = entry.name;
    // Only root may. What cannot be found becomes memory.
    auto opened =
        kernel::open_proc(process.pid, fmt::format("map_files/{:x}-{:x}", entry.start, entry.end), O_RDONLY);
    if (!opened.ok()) continue;
    file->duplicate = std::move(opened).value();
    if (::fstat(file->duplicate.get(), &file->status) != 0 || !S_ISREG(file->status.st_mode) ||
        find_file(file->status.st_dev, file->status.st_ino) != nullptr)
      continue;
    STASIS_CHECK(namespaces_->locate(*file));
    if (namespaces_->place_of(*file) == nullptr ||
        resource::name_of(*file).state != resource::Name::kLeadsToFile)
      continue;
    STASIS_TRY([[maybe_unused]] uint32_t id, keep_hidden(std::move(file)));
  }
  return {};
}

void DescriptorGraph::find_other_names() {
  for (const auto& file : files_) {
    if (!S_ISREG(file->status.st_mode) || file->status.st_nlink == 0 || !file->link.ends_with(" (deleted)"))
      continue;
    if (resource::name_of(*file).state != resource::Name::kDeleted) continue;
    const auto points = namespaces_ != nullptr ? namespaces_->mounted_at(*file) : std::vector<std::string>();
    if (std::string name = find_other_name(*file, files_, points); !name.empty()) file->link = name;
  }
}

Result<void> DescriptorGraph::collect_in_flight() {
  // Grows on the way.
  for (size_t i = 0; i < files_.size(); ++i) {
    const OpenFile& file = *files_[i];
    if (!resource::is_socket(file) ||
        resource::socket_option(file.duplicate.get(), SOL_SOCKET, SO_DOMAIN) != AF_UNIX)
      continue;
    if (resource::socket_option(file.duplicate.get(), SOL_SOCKET, SO_ACCEPTCONN) == 1) continue;
    STASIS_TRY(auto queue, resource::peek_queue(file));
    for (const auto& queued : *queue) {
      for (const Fd& fd : queued.descriptors) {
        STASIS_TRY(Fd own, duplicate(fd.get()));
        STASIS_CHECK(add_in_flight(std::move(own)));
      }
    }
  }
  return {};
}

namespace {

// The facts that tell one description from another.
Result<void> describe_own(int fd, OpenFile& out) {
  const HostTid ourselves{::getpid()};
  out.task = ourselves;
  out.number = fd;
  STASIS_TRY(out.fdinfo, kernel::read_proc_record(ourselves, fmt::format("fdinfo/{}", fd)));
  int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fstat(fd, &out.status) != 0) return errno_error("look at", "a descriptor in flight");
  std::string shown = out.info("flags");
  uint32_t value = 0;
  std::from_chars(shown.data(), shown.data() + shown.size(), value, 8);
  out.flags = value & ~static_cast<uint32_t>(O_CLOEXEC);
  std::string position = out.info("pos");
  std::from_chars(position.data(), position.data() + position.size(), out.position);
  return {};
}

}  // namespace

Result<void> DescriptorGraph::add_in_flight(Fd fd) {
  auto candidate = std::make_unique<OpenFile>();
  STASIS_CHECK(describe_own(fd.get(), *candidate));
  STASIS_TRY(OpenFile * shared, same_description(*candidate));
  if (shared != nullptr) return {};
  STASIS_TRY(candidate->link, kernel::read_proc_link(candidate->task, fmt::format("fd/{}", fd.get())));
  candidate->duplicate = std::move(fd);
  files_.push_back(std::move(candidate));
  files_.back()->id = static_cast<uint32_t>(files_.size());
  return {};
}

const OpenFile* DescriptorGraph::description_of(int own) const {
  OpenFile candidate;
  if (!describe_own(own, candidate).ok()) return nullptr;
  auto place = find_place(candidate);
  return place.ok() ? place->found : nullptr;
}

NsTid DescriptorGraph::peer_process(const OpenFile& socket) const {
  if (auto found = peers_.find(socket.id); found != peers_.end()) return found->second;
  // In flight it has no owner who could be asked.
  return peer_by_our_number(socket);
}

NsTid DescriptorGraph::peer_by_our_number(const OpenFile& socket) const {
  ucred who = {};
  socklen_t length = sizeof who;
  if (::getsockopt(socket.duplicate.get(), SOL_SOCKET, SO_PEERCRED, &who, &length) != 0) return NsTid{0};
  return session_task(HostTid{who.pid});
}

void DescriptorGraph::set_foothold(const freeze::FrozenProcess& process, remote::Foothold& foothold) {
  processes_[process.pid.value] = std::make_unique<remote::BorrowedProcess<Process>>(
      process.pid, process.status.ns_tgid, remote::Batch(foothold.scratch()),
      [&foothold](remote::Batch& batch) { return foothold.run(batch); });
}

Result<Process*> DescriptorGraph::owner(const resource::OpenFile& file) {
  auto found = processes_.find(file.task.value);
  if (found == processes_.end()) return Observation::owner(file);
  return found->second.get();
}

Result<void> DescriptorGraph::ask_for_peers(HostTid process, remote::Foothold& foothold) {
  auto owned = sockets_.find(process.value);
  if (owned == sockets_.end()) return {};
  const auto& sockets = owned->second;
  const bool is_inner = inner_.contains(process.value);
  bool tells_inner = false;
  constexpr size_t kAtOnce = 256;
  for (size_t first = 0; first < sockets.size(); first += kAtOnce) {
    const size_t last = std::min(first + kAtOnce, sockets.size());
    remote::Batch batch(foothold.scratch());
    std::vector<uint64_t> answers;
    for (size_t i = first; i < last; ++i) {
      const uint64_t length = batch.put_object<socklen_t>(sizeof(ucred));
      answers.push_back(batch.put_object(ucred{}));
      batch.call(SYS_getsockopt, {static_cast<uint64_t>(sockets[i]->number), SOL_SOCKET, SO_PEERCRED,
                                  answers.back(), length});
    }
    STASIS_CHECK(foothold.run(batch));
    for (size_t i = first; i < last; ++i) {
      // In a pid namespace of its own it has another name for whoever lives. Only a name of the dead is
      // nobody's.
      const NsTid told{batch.output<ucred>(answers[i - first]).pid};
      const NsTid known = is_inner ? peer_by_our_number(*sockets[i]) : told;
      peers_[sockets[i]->id] = known;
      tells_inner = tells_inner || (is_inner && told.value > 0);
    }
  }
  if (tells_inner) {
    warn(fmt::format(
        "task {}: it is in a pid namespace of the program, where a restart cannot tell who is at the other "
        "end of its unix sockets (SO_PEERCRED shows 0)",
        session_task(process)));
  }
  return {};
}

// What the kernel tells of a descriptor, with a copy of it, before it is known whether others have it, too.
struct DescriptorGraph::Candidate {
  std::unique_ptr<OpenFile> file;
  bool close_on_exec = false;
};

Result<std::vector<DescriptorGraph::Candidate>> DescriptorGraph::open_descriptors(
    const freeze::FrozenProcess& process, const std::vector<int>& numbers) {
  std::vector<Candidate> candidates;
  if (numbers.empty()) return candidates;
  STASIS_TRY(Fd pidfd, open_pidfd(process));
  for (int number : numbers) {
    auto file = std::make_unique<OpenFile>();
    file->task = process.pid;
    file->pid = process.status.ns_tgid;
    file->number = number;
    STASIS_TRY(file->fdinfo, kernel::read_proc_record(process.pid, fmt::format("fdinfo/{}", number)));
    std::string flags = file->info("flags");
    uint32_t value = 0;
    std::from_chars(flags.data(), flags.data() + flags.size(), value, 8);
    file->flags = value & ~static_cast<uint32_t>(O_CLOEXEC);
    std::string position = file->info("pos");
    std::from_chars(position.data(), position.data() + position.size(), file->position);
    file->duplicate = Fd(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), number, 0)));
    if (!file->duplicate || ::fstat(file->duplicate.get(), &file->status) != 0)
      return errno_error("look at", fmt::format("descriptor {} of task {}", number, file->pid));
    candidates.push_back({std::move(file), (value & O_CLOEXEC) != 0});
  }
  return candidates;
}

// Copies of those that processes share are needed for a moment only, so a few processes at a time are looked
// at side by side: as many as there is room for.
Result<void> DescriptorGraph::collect_descriptors(const std::vector<freeze::FrozenProcess>& processes) {
  constexpr size_t kMostOpen = 1024;
  std::vector<std::vector<int>> numbers(processes.size());
  STASIS_CHECK(try_each_index(processes.size(), [&](size_t i) -> Result<void> {
    if (processes[i].zombie) return {};
    STASIS_TRY(numbers[i], kernel::list_numbers(fmt::format("{}/fd", processes[i].pid)));
    return {};
  }));
  for (size_t first = 0; first < processes.size();) {
    size_t count = 0;
    for (size_t open = 0; first + count < processes.size(); ++count) {
      open += numbers[first + count].size();
      if (count > 0 && open > kMostOpen) break;
    }
    std::vector<std::vector<Candidate>> candidates(count);
    STASIS_CHECK(try_each_index(count, [&](size_t i) -> Result<void> {
      STASIS_TRY(candidates[i], open_descriptors(processes[first + i], numbers[first + i]));
      return {};
    }));
    for (size_t i = 0; i < count; ++i, ++first)
      STASIS_CHECK(add_process(processes[first], std::move(candidates[i]), slots_[first], locks_[first]));
  }
  return {};
}

Result<void> DescriptorGraph::add_process(const freeze::FrozenProcess& process,
                                          std::vector<Candidate>&& candidates,
                                          std::vector<schema::DescriptorSlot>& slots,
                                          std::vector<schema::RecordLock>& locks) {
  for (auto& [candidate, close_on_exec] : candidates) {
    const int number = candidate->number;
    std::vector<schema::RecordLock> taken = resource::record_locks(*candidate);
    STASIS_TRY(OpenFile * shared, same_description(*candidate));
    if (shared == nullptr) {
      STASIS_TRY(candidate->link, kernel::read_proc_link(process.pid, fmt::format("fd/{}", number)));
      files_.push_back(std::move(candidate));
      shared = files_.back().get();
      shared->id = static_cast<uint32_t>(files_.size());
      if (S_ISSOCK(shared->status.st_mode) &&
          resource::socket_option(shared->duplicate.get(), SOL_SOCKET, SO_DOMAIN) == AF_UNIX)
        sockets_[process.pid.value].push_back(shared);
    }
    // fdinfo shows them at every number of the description by which they were taken.
    bool first_number = shared->owners.empty() || shared->owners.back().first != process.status.ns_tgid;
    if (first_number) locks.insert(locks.end(), taken.begin(), taken.end());
    shared->owners.emplace_back(process.status.ns_tgid, number);
    by_slot_[slot_key(process.pid, number)] = shared;
    schema::DescriptorSlot slot;
    slot.set_number(number);
    slot.set_description(shared->id);
    slot.set_close_on_exec(close_on_exec);
    slots.push_back(std::move(slot));
  }
  return {};
}

Result<DescriptorGraph::Place> DescriptorGraph::find_place(const OpenFile& candidate) const {
  std::string key = fmt::format("{}:{}:{}:{:o}", candidate.status.st_dev, candidate.status.st_ino,
                                candidate.position, candidate.flags);
  auto& bucket = buckets_[key];
  // kcmp() gives an order that holds while the tree is frozen, so a bucket of n is searched in log n steps:
  // anonymous inodes (eventfd, epoll, ...) all share one, and a bucket may be long.
  size_t low = 0;
  size_t high = bucket.size();
  while (low < high) {
    size_t middle = (low + high) / 2;
    const OpenFile& other = *bucket[middle];
    long order = ::syscall(SYS_kcmp, candidate.task.value, other.task.value, KCMP_FILE, candidate.number,
                           other.number);
    if (order == 0) return Place{&bucket, middle, bucket[middle]};
    if (order == 1) {
      high = middle;
    } else if (order == 2) {
      low = middle + 1;
    } else {
      return errno_error("compare descriptors", candidate.describe(), order < 0 ? errno : EINVAL);
    }
  }
  return Place{&bucket, low, nullptr};
}

Result<OpenFile*> DescriptorGraph::same_description(OpenFile& candidate) {
  STASIS_TRY(Place place, find_place(candidate));
  // The caller keeps the candidate, on the heap, exactly when we return nullptr.
  if (place.found == nullptr)
    place.bucket->insert(place.bucket->begin() + static_cast<ptrdiff_t>(place.index), &candidate);
  return place.found;
}

Result<void> DescriptorGraph::classify() {
  kinds_.clear();
  for (const auto& file : files_) {
    const resource::DescriptorKind* found = nullptr;
    for (const resource::DescriptorKind* kind : resource::descriptor_kinds()) {
      if (kind->recognises(*file, *this)) {
        found = kind;
        break;
      }
    }
    if (found == nullptr) {
      return Error{"save", file->describe(), "this kind of descriptor is not supported",
                   "docs/support.md lists what is", ErrorCode::kRefused};
    }
    if (found->info().support == resource::Support::kRefused) {
      // The kind itself says why, and what the user can do about it.
      if (auto refused = found->observe(*file, *this); !refused.ok()) return std::move(refused).error();
    }
    kinds_.push_back(found);
    if (!inner_.empty()) STASIS_CHECK(check_can_name(*file));
  }
  return {};
}

// What refers to a process was given to the owner by somebody who is further out, when that one is not in the
// owner's pid namespace. A restart lets the owner make it.
Result<void> DescriptorGraph::check_can_name(const OpenFile& file) const {
  if (!inner_.contains(file.task.value)) return {};
  struct statfs system = {};
  struct stat found = {};
  const std::string name = fmt::format("{}/root{}", file.task, file.link);
  if (::fstatfs(file.duplicate.get(), &system) == 0 && system.f_type == PROC_SUPER_MAGIC &&
      file.link.starts_with('/') &&
      (::fstatat(kernel::host_proc(), name.c_str(), &found, 0) != 0 || found.st_ino != file.status.st_ino)) {
    return Error{"save", file.describe(),
                 "its name does not lead to it: a process in its pid namespace that it belonged to is gone",
                 "close it", ErrorCode::kRefused};
  }
  f_owner_ex signalled = {};
  if (::fcntl(file.duplicate.get(), F_GETOWN_EX, &signalled) != 0) signalled.pid = 0;
  const int shown = file.link.find("pidfd") != std::string::npos ? std::atoi(file.info("Pid").c_str()) : 0;
  auto own = kernel::pid_namespace(file.task);
  for (int number : {shown, static_cast<int>(signalled.pid)}) {
    if (number <= 0 || !own || !tasks_.contains(number)) continue;
    if (kernel::PidNamespaceTree(*own).contains(HostTid{number}).value_or(true)) continue;
    return Error{"save", file.describe(),
                 fmt::format("it refers to task {}, which is outside of its owner's pid namespace",
                             session_task(HostTid{number})),
                 "this is not supported; close it", ErrorCode::kRefused};
  }
  return {};
}

Result<void> DescriptorGraph::observe(const freeze::FrozenTree& tree, image::Writer& writer,
                                      schema::Manifest& manifest) {
  writer_ = &writer;
  for (size_t i = 0; i < files_.size(); ++i) {
    const OpenFile& file = *files_[i];
    kernel::LookingInto inside;
    if (namespaces_ != nullptr) {
      STASIS_TRY(inside, namespaces_->look_into_network_of(file));
    }
    STASIS_TRY(std::string payload, kinds_[i]->observe(file, *this));
    auto* description = manifest.add_descriptions();
    description->set_id(file.id);
    description->set_kind(std::string(kinds_[i]->info().name));
    description->set_payload(std::move(payload));
    description->set_flags(file.flags);
    description->set_position(file.position);
    description->set_shown(file.link);
    if (namespaces_ != nullptr) {
      for (uint32_t id : namespaces_->of(file)) description->add_namespaces(id);
      if (const auto* place = namespaces_->place_of(file)) {
        description->set_mount(place->mount);
        description->set_beneath_mount(place->beneath);
        description->set_host_path(place->host_path);
      }
    }
    STASIS_CHECK(resource::observe_locks(file, *this, *description));
    if (!observe_signal_owner(file, tree, *description))
      warn(fmt::format("{}: it sends signals to a process outside the session; after a restart to nobody",
                       file.describe()));
  }
  writer_ = nullptr;
  return {};
}

bool DescriptorGraph::names(const freeze::FrozenProcess& process, const kernel::MapsEntry& entry,
                            struct stat& status) const {
  // Through the task's own root: a /proc that was opened before leads into it.
  if (namespaces_ != nullptr && namespaces_->has_mounts())
    return namespaces_->leads_to(process, entry, status);
  // All see the same mounts, so a name means the same for all with the same root directory.
  auto root = roots_.find(process.pid.value);
  if (root == roots_.end()) {
    auto link = kernel::read_proc_link(process.pid, "root");
    const bool known = link.ok() && link->starts_with('/') && !link->ends_with(" (deleted)");
    root = roots_.emplace(process.pid.value, known ? *link : fmt::format("of {}", process.pid)).first;
  }
  auto [found, is_new] = named_.try_emplace({root->second, entry.name});
  if (is_new) {
    const std::string path = fmt::format("{}/root{}", process.pid, entry.name);
    struct stat now = {};
    if (::fstatat(kernel::host_proc(), path.c_str(), &now, 0) == 0) found->second = now;
  }
  if (!found->second) return false;
  status = *found->second;
  // The device number that maps shows differs from stat's on file systems with subvolumes (Btrfs, overlayfs).
  return status.st_ino == entry.inode;
}

const OpenFile* DescriptorGraph::find_file(uint64_t device, uint64_t inode) const {
  for (const auto& file : files_) {
    if (file->status.st_ino == inode && file->status.st_dev == device) return file.get();
  }
  return nullptr;
}

const OpenFile* DescriptorGraph::find_terminal(uint64_t device) const {
  for (const auto& file : files_) {
    if (resource::is_terminal(*file) && !resource::is_master(*file) &&
        resource::tty_device(file->duplicate.get()) == device) {
      return file.get();
    }
  }
  return nullptr;
}

const OpenFile* DescriptorGraph::find(HostTid pid, int number) const {
  auto found = by_slot_.find(slot_key(pid, number));
  return found == by_slot_.end() ? nullptr : found->second;
}

std::optional<int> DescriptorGraph::session_stdio(const OpenFile& file) const {
  for (int which = 0; which < 3; ++which) {
    const SessionStdio& stdio = streams_.stdio[which];
    if (stdio.outside && stdio.device == file.status.st_dev && stdio.inode == file.status.st_ino)
      return which;
  }
  return std::nullopt;
}

Result<Fd> DescriptorGraph::create_file(const std::string& name) {
  if (writer_ == nullptr) return Error{"save", name, "contents are taken later", {}};
  return writer_->create_file(name);
}

}  // namespace stasis::inspect

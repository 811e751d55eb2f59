#include <sys/user.h>

#include "image/validate_internal.h"

namespace stasis::image::validation {

Result<void> check_control_groups(const google::protobuf::RepeatedPtrField<std::string>& lines,
                                  const std::string& where) {
  // One for each controller, of which the kernel has some fifteen, and named ones.
  constexpr int kHierarchiesLimit = 1024;
  if (lines.size() > kHierarchiesLimit) return bad(where, "it is in too many control groups");
  for (const std::string& line : lines) {
    if (!sane_text(line, kPathLimit) || line.find(":/") == std::string::npos)
      return bad(where, "a line about its control groups is none");
  }
  return {};
}

namespace {

constexpr int kSignals = 64;
constexpr size_t kSiginfoSize = 128;
// The kernel's NGROUPS_MAX.
constexpr int kGroupsLimit = 65536;
// Today's largest (with AMX) is 11 KiB; the legacy area and the header are always there.
constexpr size_t kXsaveMinimum = 576, kXsaveLimit = 1 << 20;

bool is_pid(int64_t pid) { return pid > 0 && pid < kPidEnd; }
bool is_pid_or_none(int64_t pid) { return pid >= 0 && pid < kPidEnd; }

Result<void> check_pending(const google::protobuf::RepeatedPtrField<schema::PendingSignal>& pending,
                           const std::string& where) {
  for (const auto& signal : pending) {
    if (signal.info().size() != kSiginfoSize) {
      return bad(where,
                 fmt::format("a pending signal has {} bytes, not {}", signal.info().size(), kSiginfoSize));
    }
  }
  return {};
}

Result<void> check_credentials(const schema::Credentials& credentials, const std::string& where) {
  // Real, effective, saved, file system: all or, as in a zombie, none.
  if (credentials.uids_size() != 4 && credentials.uids_size() != 0)
    return bad(where, "it has not four user ids");
  if (credentials.gids_size() != 4 && credentials.gids_size() != 0)
    return bad(where, "it has not four group ids");
  if (credentials.groups_size() > kGroupsLimit) return bad(where, "it is in too many groups");
  return {};
}

Result<void> check_thread(const schema::Thread& thread, bool alive, const std::string& where,
                          const Known& known) {
  if (!sane_text(thread.name(), 64)) return bad(where, "its name is too long or has a NUL in it");
  const size_t registers = thread.registers().size();
  if (registers != sizeof(user_regs_struct) && ((alive && !thread.ended()) || registers != 0)) {
    return bad(where,
               fmt::format("its registers have {} bytes, not {}", registers, sizeof(user_regs_struct)));
  }
  const size_t extended = thread.extended_state().size();
  if (extended != 0 && (extended < kXsaveMinimum || extended > kXsaveLimit)) {
    return bad(where, fmt::format("its extended registers have {} bytes", extended));
  }
  if (thread.affinity().size() > 8192) return bad(where, "its set of processors is too large");
  if (thread.parent_death_signal() > kSignals) return bad(where, "its parent-death signal is none");
  for (uint32_t filter : thread.filters()) {
    if (filter >= static_cast<uint32_t>(known.manifest->seccomp_filters_size()))
      return bad(where, fmt::format("it refers to seccomp filter {}, which does not exist", filter));
  }
  STASIS_CHECK(check_control_groups(thread.control_groups(), where));
  STASIS_CHECK(check_pending(thread.pending(), where));
  return check_credentials(thread.credentials(), where);
}

Result<void> check_descriptors(const schema::Process& process, const std::string& where, const Known& known) {
  std::unordered_set<int> numbers;
  for (const auto& slot : process.descriptors()) {
    // The kernel's limit on fs.nr_open is below 2^31; a table of that size is what a damaged number would ask
    // for.
    if (slot.number() < 0 || slot.number() >= (1 << 26))
      return bad(where, fmt::format("descriptor {} is none", slot.number()));
    if (!numbers.insert(slot.number()).second)
      return bad(where, fmt::format("descriptor {} is there twice", slot.number()));
    if (!known.descriptions.contains(slot.description())) {
      return bad(where, fmt::format("descriptor {} refers to description {}, which does not exist",
                                    slot.number(), slot.description()));
    }
  }
  return {};
}

Result<void> check_signals_and_timers(const schema::Process& process, const std::string& where) {
  std::unordered_set<uint32_t> signals;
  for (const auto& action : process.actions()) {
    if (action.signal() < 1 || action.signal() > kSignals)
      return bad(where, fmt::format("signal {} is none", action.signal()));
    if (!signals.insert(action.signal()).second) {
      return bad(where, fmt::format("signal {} has two actions", action.signal()));
    }
  }
  STASIS_CHECK(check_pending(process.shared_pending(), where));
  for (const auto& timer : process.interval_timers()) {
    if (timer.which() > 2 || timer.value_ns() < 0 || timer.interval_ns() < 0) {
      return bad(where, fmt::format("interval timer {} makes no sense", timer.which()));
    }
  }
  std::unordered_set<int> timers;
  for (const auto& timer : process.posix_timers()) {
    if (timer.id() < 0 || timer.left_ns() < 0 || timer.interval_ns() < 0 || timer.signal() < 0 ||
        timer.signal() > kSignals || !timers.insert(timer.id()).second) {
      return bad(where, fmt::format("POSIX timer {} makes no sense", timer.id()));
    }
  }
  if (process.exit_signal() < 0 || process.exit_signal() > kSignals)
    return bad(where, "its exit signal is none");
  if (process.stop_signal() < 0 || process.stop_signal() > kSignals)
    return bad(where, "its stop signal is none");
  return {};
}

Result<void> check_adjustments(const schema::Process& process, const std::string& where, const Known& known) {
  std::unordered_set<uint64_t> semaphores;
  for (const auto& adjustment : process.adjustments()) {
    auto set = known.semaphore_sets.find(adjustment.set());
    if (set == known.semaphore_sets.end() || adjustment.number() >= set->second) {
      return bad(where,
                 fmt::format("it has something to undo in semaphore {} of set {}, which does not exist",
                             adjustment.number(), adjustment.set()));
    }
    if (adjustment.value() < -32768 || adjustment.value() > 32767 || adjustment.value() == 0)
      return bad(where, fmt::format("{} is impossible to undo in a semaphore", adjustment.value()));
    if (!semaphores.insert(uint64_t{static_cast<uint32_t>(adjustment.set())} << 32 | adjustment.number())
             .second)
      return bad(where, "it has two notes for one semaphore");
  }
  return {};
}

// What a process shares is its parent's or a brother's, who lives, and it has the same.
Result<void> check_shared(const schema::Process& process, const std::string& where, const Known& known) {
  const int owner = std::max(process.descriptors_of(), process.directories_of());
  if (owner == 0) return {};
  for (int other : {process.descriptors_of(), process.directories_of()}) {
    if (other != 0 && (other != owner || other == process.pid()))
      return bad(where, fmt::format("it shares something of {} and of another", other));
  }
  bool exists = false;
  for (const auto& parent : known.manifest->processes()) {
    if (parent.pid() != owner) continue;
    exists = true;
    if (owner != process.parent() && parent.parent() != process.parent())
      return bad(where, fmt::format("it shares something of {}, which is not its parent or brother", owner));
    if (parent.state() == schema::Process::ZOMBIE || process.state() == schema::Process::ZOMBIE) break;
    bool same = parent.descriptors_size() == process.descriptors_size();
    for (int i = 0; same && i < process.descriptors_size(); ++i) {
      const auto& mine = process.descriptors(i);
      const auto& theirs = parent.descriptors(i);
      same = mine.number() == theirs.number() && mine.description() == theirs.description() &&
             mine.close_on_exec() == theirs.close_on_exec();
    }
    if (process.descriptors_of() != 0 && !same)
      return bad(where, "its descriptors are not those of the process with which it shares them");
    return {};
  }
  if (!exists)
    return bad(where, fmt::format("it shares something of {}, which is not its parent or brother", owner));
  return bad(where, "it shares something with a process that does not live");
}

Result<void> check_process(const schema::Process& process, const std::string& where, const Known& known) {
  if (!schema::Process::State_IsValid(process.state()))
    return bad(where, fmt::format("unknown state {}", process.state()));
  const bool alive = process.state() != schema::Process::ZOMBIE;
  if (!is_pid_or_none(process.group()) || !is_pid_or_none(process.session())) {
    return bad(where,
               fmt::format("its group {} or session {} is no pid", process.group(), process.session()));
  }
  if (!is_pid_or_none(process.foreground_group())) return bad(where, "its foreground group is no pid");
  if (!sane_text(process.comm(), 64)) return bad(where, "its name is too long or has a NUL in it");
  if (!sane_text(process.working_directory(), kPathLimit) || !sane_text(process.root(), kPathLimit)) {
    return bad(where, "its directory's path is too long or has a NUL in it");
  }
  if (process.umask() > 0777) return bad(where, fmt::format("umask {:o}", process.umask()));
  if (process.oom_score_adj() < -1000 || process.oom_score_adj() > 1000)
    return bad(where, "its OOM score is out of range");
  for (const auto& limit : process.limits()) {
    if (limit.resource() >= 64) return bad(where, fmt::format("unknown resource {}", limit.resource()));
  }
  if (alive && process.memory() >= static_cast<uint32_t>(known.manifest->memories_size())) {
    return bad(where, fmt::format("it refers to memory {}, which does not exist", process.memory()));
  }
  if (!known.description_or_none(process.controlling_terminal())) {
    return bad(where, fmt::format("its terminal is description {}, which does not exist",
                                  process.controlling_terminal()));
  }
  if (!known.description_or_none(process.working_directory_description()))
    return bad(where, "its working directory is a description that does not exist");
  if (!known.description_or_none(process.root_description()))
    return bad(where, "its root directory is a description that does not exist");
  STASIS_CHECK(check_control_groups(process.control_groups(), where));
  if (alive && process.threads_size() == 0) return bad(where, "it has no thread");
  if (process.threads_size() > 0 && process.threads(0).tid() != process.pid()) {
    return bad(where, fmt::format("its first thread is {}, not its leader", process.threads(0).tid()));
  }
  for (int i = 1; i < process.threads_size(); ++i) {
    if (process.threads(i).ended()) return bad(where, "a thread that is not its first has ended");
  }
  if (alive && process.threads_size() == 1 && process.threads(0).ended())
    return bad(where, "its only thread has ended");
  for (const auto& thread : process.threads()) {
    STASIS_CHECK(check_thread(thread, alive, fmt::format("{}: thread {}", where, thread.tid()), known));
  }
  STASIS_CHECK(check_descriptors(process, where, known));
  STASIS_CHECK(check_adjustments(process, where, known));
  STASIS_CHECK(check_shared(process, where, known));
  return check_signals_and_timers(process, where);
}

// Every process hangs on init (0 or 1) in the end; each is walked once.
Result<void> check_tree(const std::unordered_map<int, int>& parents) {
  std::unordered_set<int> rooted;
  for (const auto& [start, unused] : parents) {
    std::unordered_set<int> path;
    int pid = start;
    while (!rooted.contains(pid)) {
      if (!path.insert(pid).second) return bad(fmt::format("process {}", pid), "it is its own ancestor");
      const int parent = parents.at(pid);
      if (parent == 0 || parent == 1) break;
      if (!parents.contains(parent)) {
        return bad(fmt::format("process {}", pid), fmt::format("its parent {} does not exist", parent));
      }
      pid = parent;
    }
    rooted.insert(path.begin(), path.end());
  }
  return {};
}

}  // namespace

Result<void> check_processes(const Known& known) {
  const schema::Manifest& manifest = *known.manifest;
  for (const auto& filter : manifest.seccomp_filters()) {
    constexpr size_t kStep = 8, kMostSteps = 4096;  // struct sock_filter, BPF_MAXINSNS
    if (filter.code().empty() || filter.code().size() % kStep != 0 ||
        filter.code().size() > kStep * kMostSteps)
      return bad("", "a seccomp filter has an impossible size");
  }
  if (manifest.processes_size() == 0) return bad("", "there is no process in it");
  std::unordered_map<int, int> parents;
  std::unordered_set<int> tids;
  for (const auto& process : manifest.processes()) {
    const std::string where = fmt::format("process {}", process.pid());
    // 1 is the session's init, which is made anew.
    if (!is_pid(process.pid()) || process.pid() == 1) return bad(where, "this is no pid of a program");
    if (!parents.emplace(process.pid(), process.parent()).second) return bad(where, "it is there twice");
    if (process.threads_size() == 0 && !tids.insert(process.pid()).second)
      return bad(where, "its pid is used twice");
    for (const auto& thread : process.threads()) {
      if (!is_pid(thread.tid()) || thread.tid() == 1)
        return bad(where, fmt::format("{} is no thread id", thread.tid()));
      if (!tids.insert(thread.tid()).second)
        return bad(where, fmt::format("thread id {} is used twice", thread.tid()));
    }
    STASIS_CHECK(check_process(process, where, known));
  }
  return check_tree(parents);
}

}  // namespace stasis::image::validation

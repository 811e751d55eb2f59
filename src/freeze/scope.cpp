#include "freeze/scope.h"

#include <unistd.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <sstream>

#include "kernel/pid_namespace.h"
#include "kernel/proc.h"

namespace stasis::freeze {

namespace {

// Those of one pid namespace, and of those below it, among all of the host's.
class NamespaceFinder final : public ProcessFinder {
 public:
  explicit NamespaceFinder(HostTid init) : init_(init) {
    if (auto identity = kernel::pid_namespace(init)) namespaces_.emplace(*identity);
  }

  Result<std::vector<HostTid>> find() override {
    if (!namespaces_) {
      return Error{"find the session's processes",
                   fmt::format("init {}", init_),
                   "it is gone",
                   {},
                   ErrorCode::kNotFound};
    }
    STASIS_TRY(std::vector<int> pids, kernel::list_numbers(""));
    std::vector<HostTid> ours;
    for (int pid : pids) {
      HostTid task{pid};
      if (strangers_.contains(pid)) continue;
      if (members_.contains(pid) || is_member(task)) {
        members_.insert(pid);
        if (task != init_) ours.push_back(task);
      } else {
        strangers_.insert(pid);
      }
    }
    return ours;
  }

 private:
  bool is_member(HostTid task) {
    if (task == init_) return true;
    if (auto contained = namespaces_->contains(task)) return *contained;
    // A zombie has no namespaces any more, or we may not look: descent and depth decide.
    auto status = kernel::read_status(task);
    if (!status.ok() || status->state != 'Z' || status->namespace_depth < 2) return false;
    return members_.contains(status->parent.value) || status->parent == init_;
  }

  HostTid init_;
  std::optional<kernel::PidNamespaceTree> namespaces_;
  std::set<int> strangers_;
  std::set<int> members_;
};

// A process and its descendants.
class DescentFinder final : public ProcessFinder {
 public:
  explicit DescentFinder(HostTid root) : root_(root) {}

  Result<std::vector<HostTid>> find() override {
    if (found_.empty()) STASIS_CHECK(admit(root_));
    STASIS_TRY(std::vector<int> pids, kernel::list_numbers(""));
    std::map<int, int> parents;  // of those who are not known yet
    for (int pid : pids) {
      if (members_.contains(pid) || strangers_.contains(pid)) continue;
      auto stat = kernel::read_stat(HostTid{pid});
      if (stat.ok()) parents[pid] = stat->parent.value;
    }
    // Who has a parent of whom nothing is known, since it was born after its number had been passed, is
    // looked at again the next time.
    for (bool decided = true; decided;) {
      decided = false;
      for (auto entry = parents.begin(); entry != parents.end();) {
        const auto [pid, parent] = *entry;
        const bool is_member = members_.contains(parent);
        if (!is_member && parent != 0 && !strangers_.contains(parent)) {
          ++entry;
          continue;
        }
        if (is_member) {
          STASIS_CHECK(admit(HostTid{pid}));
        } else {
          strangers_.insert(pid);
        }
        entry = parents.erase(entry);
        decided = true;
      }
    }
    return found_;
  }

  // Where /proc hides other users' processes (hidepid), a child that has become another user is not listed.
  Result<void> check_complete() const override {
    for (HostTid member : found_) {
      auto tids = kernel::list_numbers(fmt::format("{}/task", member));
      if (!tids.ok()) continue;  // it has ended
      for (int tid : *tids) {
        auto text = kernel::read_proc(member, fmt::format("task/{}/children", tid));
        std::istringstream children(text.ok() ? *text : "");
        for (int child = 0; children >> child;) {
          if (members_.contains(child)) continue;
          return Error{"freeze", fmt::format("process {}", child),
                       fmt::format("it is a child of process {}, and this user may not see it", member),
                       "take the checkpoint as root", ErrorCode::kRefused};
        }
      }
    }
    return {};
  }

 private:
  Result<void> admit(HostTid task) {
    auto status = kernel::read_status(task);
    if (!status.ok()) {
      if (task != root_) return {};  // it has ended
      return Error{"freeze", fmt::format("process {}", task), "it is gone", {}, ErrorCode::kNotFound};
    }
    if (task.value == ::getpid()) {
      return Error{"freeze", fmt::format("process {} ({})", task, status->name),
                   fmt::format("this command descends from process {} and cannot save itself", root_),
                   "give it from another terminal, by a process that does not descend from the program",
                   ErrorCode::kRefused};
    }
    if (status->namespace_depth > 1) {
      return Error{
          "freeze", fmt::format("process {} ({})", task, status->name),
          fmt::format("it descends from process {} and has a pid namespace of its own (a session, or a "
                      "container)",
                      root_),
          "nested namespaces are not supported; a session is saved by its name, see `stasis ps`",
          ErrorCode::kRefused};
    }
    members_.insert(task.value);
    found_.push_back(task);
    return {};
  }

  HostTid root_;
  // Parents before children. Whoever loses its father while the tree is being stopped stays in it: it stands
  // still already.
  std::vector<HostTid> found_;
  std::set<int> members_;
  std::set<int> strangers_;
};

std::string describe(const FrozenProcess& process) {
  return fmt::format("task {} ({})", process.status.ns_tgid, process.status.name);
}

// What the kernel says of a session or group whose leader has no number in this pid namespace: of programs
// that were started from outside of the container that they are in.
constexpr NsTid kOutsideOfNamespace{0};

// They can be made again under a number only. Whoever is in such a group is in such a session.
void number_sessions_from_outside(std::vector<FrozenProcess>& processes) {
  std::set<int> used = {1};
  for (const FrozenProcess& process : processes) {
    used.insert(
        {process.status.ns_tgid.value, process.status.ns_session.value, process.status.ns_group.value});
    for (const FrozenThread& thread : process.threads) used.insert(thread.ns_tid.value);
  }
  if (!used.contains(kOutsideOfNamespace.value)) return;
  NsTid number{1};
  while (used.contains(number.value)) ++number.value;
  for (FrozenProcess& process : processes) {
    if (process.status.ns_session != kOutsideOfNamespace) continue;
    process.status.ns_session = number;
    if (process.status.ns_group == kOutsideOfNamespace) process.status.ns_group = number;
  }
}

}  // namespace

size_t Scope::level() const {
  if (!is_session()) return 0;
  auto status = kernel::read_status(init);
  return status.ok() && status->namespace_depth > 0 ? status->namespace_depth - 1 : 0;
}

std::unique_ptr<ProcessFinder> ProcessFinder::make(const Scope& scope) {
  if (scope.is_session()) return std::make_unique<NamespaceFinder>(scope.init);
  return std::make_unique<DescentFinder>(scope.root);
}

Result<std::vector<HostTid>> processes_of(const Scope& scope) { return ProcessFinder::make(scope)->find(); }

Result<std::vector<std::string>> settle_sessions(std::vector<FrozenProcess>& processes) {
  std::vector<std::string> warnings;
  if (processes.empty()) return warnings;
  const FrozenProcess& root = processes.front();
  const NsTid number = root.status.ns_tgid, session = root.status.ns_session, group = root.status.ns_group;
  if (session != number) {
    // Whoever leads a session leads the group of its own number. The root cannot have left one of that number
    // to others and lead it again.
    const bool taken = std::any_of(processes.begin(), processes.end(), [&](const FrozenProcess& process) {
      return process.status.ns_group == number && group != number;
    });
    if (taken) {
      return Error{"freeze", describe(root),
                   fmt::format("its process session ({}) is led from outside of the program, and the process "
                               "group that it has made for others is in the way of one of its own",
                               session),
                   "start the program by setsid(1), or by `stasis launch`", ErrorCode::kRefused};
    }
    for (FrozenProcess& process : processes) {
      if (process.status.ns_session != session) continue;
      process.status.ns_session = number;
      if (process.status.ns_group == group) process.status.ns_group = number;
    }
    warnings.push_back(
        fmt::format("{}: its process session is led by {}, outside of the program; after a restart it "
                    "leads one of its own",
                    describe(root),
                    session == kOutsideOfNamespace ? "a process of another pid namespace"
                                                   : fmt::format("process {}", session)));
  }
  number_sessions_from_outside(processes);
  // The root, or a father, has left for a session of its own.
  for (const FrozenProcess& process : processes) {
    const bool has_leader = std::any_of(processes.begin(), processes.end(), [&](const FrozenProcess& other) {
      return other.status.ns_tgid == process.status.ns_session;
    });
    if (has_leader || process.stat.terminal == 0) continue;
    warnings.push_back(fmt::format(
        "{}: its process session is led from outside of the program; after a restart it has no controlling "
        "terminal",
        describe(process)));
  }
  return warnings;
}

}  // namespace stasis::freeze

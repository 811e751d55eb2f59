#include "restore/topology.h"

#include <algorithm>
#include <set>

namespace stasis::restore {

namespace {

constexpr int kAnySession = 0;
constexpr int kInit = 1;

// Every process is born in the session of its maker, and only setsid() ever changes that. So a process is
// made
// - by its parent, when that is in the session already;
// - by its parent before that one calls setsid(), so that the parent, too, has to be born in this session;
// - by the leader of the session, through a helper that ends: the parent, which stands above the leader,
// adopts
//   it as init or a sub-reaper did when the real one lost its father.
class Planner {
 public:
  explicit Planner(const schema::Manifest& manifest) : manifest_(manifest) {}

  Result<std::vector<Birth>> plan(std::vector<size_t>& roots) {
    STASIS_CHECK(add_processes());
    size_t processes = births_.size();
    for (size_t i = 0; i < processes; ++i) {
      if (!births_[i].becomes_session_leader) STASIS_CHECK(require(i, sessions_[i]));
    }
    // Leaders of whose birth nobody asks anything may be born anywhere.
    for (size_t i = 0; i < processes; ++i) {
      if (required_[i] != kAnySession) continue;
      if (maker(births_[i]) == kInit) {
        roots.push_back(i);
      } else {
        births_[index_.at(maker(births_[i]))].children.push_back(i);
      }
    }
    STASIS_CHECK(place_adopted(roots));
    STASIS_CHECK(add_dead_group_leaders());
    STASIS_CHECK(check_all_are_born(roots));
    return std::move(births_);
  }

 private:
  Result<void> add_processes() {
    for (const auto& process : manifest_.processes()) {
      if (process.session() <= 0 || process.group() <= 0) {
        return Error{"plan the restart", fmt::format("task {}", process.pid()),
                     "it belongs to a session or group outside", "start it with `stasis launch`",
                     ErrorCode::kRefused};
      }
      Birth birth;
      birth.pid.value = process.pid();
      birth.parent.value = process.parent() <= kInit ? kInit : process.parent();
      const int shared = std::max(process.descriptors_of(), process.directories_of());
      birth.of_brother = shared != 0 && shared != process.parent();
      birth.process = &process;
      birth.becomes_session_leader = process.session() == process.pid();
      birth.group.value = process.group();
      append(birth, process.session());
    }
    for (const auto& birth : births_) {
      if (birth.parent.value != kInit && !index_.contains(birth.parent.value)) return no_order(birth);
      if (birth.of_brother && !index_.contains(maker(birth))) return no_order(birth);
    }
    return {};
  }

  static int maker(const Birth& birth) {
    if (!birth.of_brother) return birth.parent.value;
    return std::max(birth.process->descriptors_of(), birth.process->directories_of());
  }

  size_t append(const Birth& birth, int session) {
    index_[birth.pid.value] = births_.size();
    sessions_.push_back(session);
    required_.push_back(kAnySession);
    births_.push_back(birth);
    return births_.size() - 1;
  }

  // Finds a maker that gives this process its session at birth. Follows the parents as far as they have to be
  // born in that session, too.
  Result<void> require(size_t index, int session) {
    for (;;) {
      const Birth& birth = births_[index];
      if (required_[index] == session) return {};
      if (required_[index] != kAnySession) return no_order(birth);
      required_[index] = session;
      if (birth.of_brother && session != sessions_[index_.at(maker(birth))]) return no_order(birth);
      if (maker(birth) == kInit) {
        adopted_[session].push_back(index);
        return {};
      }
      size_t parent = index_.at(maker(birth));
      if (session == sessions_[parent]) {
        births_[parent].children.push_back(index);
        return {};
      }
      bool leader_is_below = index_.contains(session) && is_above(birth.parent.value, session);
      if (leader_is_below || !makes_before_setsid(parent, session)) {
        adopted_[session].push_back(index);
        return {};
      }
      births_[parent].early_children.push_back(index);
      index = parent;
    }
  }

  // Whether the parent has made a child that is in `session` before it became leader of its own, or adopted
  // it.
  bool makes_before_setsid(size_t parent, int session) const {
    const Birth& birth = births_[parent];
    bool possible =
        birth.becomes_session_leader && (required_[parent] == kAnySession || required_[parent] == session);
    if (!possible || index_.contains(session)) return possible;
    // Both would do when the leader of that session has ended. What is likely asks less of the others.
    return !birth.process->child_subreaper();
  }

  // True for the ancestors of a process, which do not include itself.
  bool is_above(int ancestor, int pid) const {
    while (pid != kInit) {
      pid = births_[index_.at(pid)].parent.value;
      if (pid == ancestor) return true;
    }
    return false;
  }

  Result<void> place_adopted(std::vector<size_t>& roots) {
    for (const auto& [session, adopted] : adopted_) {
      if (!index_.contains(session)) {
        // The leader has ended: one that is there for a moment stands below all that adopt from it.
        int lowest = kInit;
        for (size_t child : adopted) {
          int parent = births_[child].parent.value;
          if (lowest == kInit || (parent != kInit && is_above(lowest, parent))) lowest = parent;
        }
        Birth leader;
        leader.pid.value = session;
        leader.parent.value = lowest;
        leader.becomes_session_leader = true;
        leader.group = leader.pid;
        size_t index = append(leader, session);
        if (lowest == kInit) {
          roots.push_back(index);
        } else {
          births_[index_.at(lowest)].children.push_back(index);
        }
      }
      for (size_t child : adopted) {
        const Birth& birth = births_[child];
        if (birth.parent.value != kInit && !is_above(birth.parent.value, session)) return no_order(birth);
        births_[index_.at(session)].orphans.push_back(child);
      }
    }
    return {};
  }

  Result<void> add_dead_group_leaders() {
    for (const auto& process : manifest_.processes()) {
      if (index_.contains(process.group())) continue;
      auto session = index_.find(process.session());
      if (session == index_.end()) return no_order(births_[index_.at(process.pid())]);
      Birth leader;
      leader.pid.value = process.group();
      leader.parent.value = process.session();
      leader.group = leader.pid;
      size_t parent = session->second;
      size_t index = append(leader, process.session());
      births_[parent].children.push_back(index);
    }
    return {};
  }

  // A forged image could let a process wait for its own child.
  Result<void> check_all_are_born(const std::vector<size_t>& roots) const {
    std::vector<bool> born(births_.size());
    std::vector<size_t> next = roots;
    while (!next.empty()) {
      size_t index = next.back();
      next.pop_back();
      born[index] = true;
      const Birth& birth = births_[index];
      for (const auto* made : {&birth.early_children, &birth.children, &birth.orphans})
        next.insert(next.end(), made->begin(), made->end());
    }
    for (size_t i = 0; i < births_.size(); ++i) {
      if (!born[i]) return no_order(births_[i]);
    }
    return {};
  }

  static Error no_order(const Birth& birth) {
    return Error{"plan the restart",
                 fmt::format("task {}", birth.pid),
                 "it was adopted by a process of another session, and no order of births gives that",
                 {},
                 ErrorCode::kRefused};
  }

  const schema::Manifest& manifest_;
  std::vector<Birth> births_;
  std::vector<int> sessions_;  // in which each is in the end
  std::vector<int> required_;  // in which each has to be born
  std::map<int, size_t> index_;
  std::map<int, std::vector<size_t>> adopted_;  // by session
};

NsTid find_spare_number(const schema::Manifest& manifest) {
  std::set<int> used;
  for (const auto& process : manifest.processes()) {
    used.insert({process.pid(), process.group(), process.session()});
    for (const auto& thread : process.threads()) used.insert(thread.tid());
  }
  int number = kInit + 1;
  while (used.contains(number)) ++number;
  return NsTid{number};
}

}  // namespace

Result<Topology> Topology::plan(const schema::Manifest& manifest) {
  Topology topology;
  STASIS_TRY(topology.births_, Planner(manifest).plan(topology.roots_));
  topology.spare_number_ = find_spare_number(manifest);
  return topology;
}

}  // namespace stasis::restore

#include "restore/topology.h"

#include <algorithm>
#include <optional>
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
  Planner(const schema::Manifest& manifest, const Numbers& numbers)
      : manifest_(manifest), numbers_(numbers), next_spare_(numbers.spare(0).levels.front()) {
    for (const auto& process : manifest.processes()) {
      used_.insert({process.pid(), process.group(), process.session()});
      for (const auto& thread : process.threads()) used_.insert(thread.tid());
    }
  }

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
        add_root(roots, i);
      } else {
        births_[index_.at(maker(births_[i]))].children.push_back(i);
      }
    }
    STASIS_CHECK(place_adopted(roots));
    STASIS_CHECK(add_dead_group_leaders());
    add_ended_namespaces();
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
      birth.numbers = numbers_.find(process.pid());
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
        leader.numbers = numbers_.find(session);
        leader.becomes_session_leader = true;
        leader.group = leader.pid;
        size_t index = append(leader, session);
        if (lowest == kInit) {
          add_root(roots, index);
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
      leader.numbers = numbers_.find(process.group());
      leader.parent.value = process.session();
      leader.group = leader.pid;
      size_t parent = session->second;
      size_t index = append(leader, process.session());
      births_[parent].children.push_back(index);
    }
    return {};
  }

  // The session's init makes only what is in its own pid namespace; the others are made by somebody who
  // leaves them to it.
  void add_root(std::vector<size_t>& roots, size_t index) {
    if (births_[index].numbers.space == 0) {
      roots.push_back(index);
      return;
    }
    if (!stand_in_) {
      Birth stand_in;
      stand_in.pid.value = take_spare();
      stand_in.numbers = {{stand_in.pid.value}, 0};
      stand_in.parent.value = kInit;
      stand_in.becomes_session_leader = true;
      stand_in.group = stand_in.pid;
      stand_in_ = append(stand_in, stand_in.pid.value);
      roots.push_back(*stand_in_);
    }
    births_[*stand_in_].children.push_back(index);
  }

  // Whoever has made a pid namespace, and whose first child in it has ended, can make no child any more.
  void add_ended_namespaces() {
    std::set<uint32_t> done;
    for (const auto& process : manifest_.processes()) {
      const uint32_t space = process.namespace_of_children();
      if (space == 0 || numbers_.find(process.pid()).space != numbers_.parent(space)) continue;
      // Of one that has just ended the init may be a zombie.
      const bool has_init = std::any_of(births_.begin(), births_.end(), [&](const Birth& birth) {
        return birth.numbers.space == space && birth.is_init();
      });
      if (has_init || !done.insert(space).second) continue;
      Birth first;
      first.pid.value = take_spare();
      first.numbers = {std::vector<int>(numbers_.depth(space) + 1, first.pid.value), space};
      first.numbers.levels.back() = kInit;
      first.parent.value = process.pid();
      first.group = first.pid;
      const size_t index = append(first, process.session());
      births_[index_.at(process.pid())].children.push_back(index);
    }
  }

  int take_spare() {
    for (++next_spare_; used_.contains(next_spare_);) ++next_spare_;
    return next_spare_;
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
  const Numbers& numbers_;
  std::set<int> used_;
  int next_spare_;  // behind the one that helpers use
  std::optional<size_t> stand_in_;
  std::vector<Birth> births_;
  std::vector<int> sessions_;  // in which each is in the end
  std::vector<int> required_;  // in which each has to be born
  std::map<int, size_t> index_;
  std::map<int, std::vector<size_t>> adopted_;  // by session
};

}  // namespace

Result<Topology> Topology::plan(const schema::Manifest& manifest) {
  Topology topology;
  topology.numbers_ = Numbers(manifest);
  STASIS_TRY(topology.births_, Planner(manifest, topology.numbers_).plan(topology.roots_));
  return topology;
}

}  // namespace stasis::restore

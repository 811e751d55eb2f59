#include "restore/topology.h"

#include <algorithm>
#include <optional>
#include <set>
#include <tuple>

#include "restore/ancestry.h"

namespace stasis::restore {

namespace {

constexpr int kInit = 1;

class Planner {
 public:
  Planner(const schema::Manifest& manifest, const Numbers& numbers)
      : manifest_(manifest), numbers_(numbers), next_spare_(numbers.spare(0).levels.front()) {
    for (const auto& process : manifest.processes()) {
      used_.insert({process.pid(), process.group(), process.session()});
      for (const auto& thread : process.threads()) used_.insert(thread.tid());
      for (const auto* inner : {&process.inner_numbers(), &process.inner_groups(), &process.inner_sessions()})
        used_.insert(inner->begin(), inner->end());
      for (const auto& thread : process.threads())
        used_.insert(thread.inner_numbers().begin(), thread.inner_numbers().end());
    }
  }

  Result<void> plan() {
    STASIS_CHECK(add_processes());
    const size_t processes = births.size();
    add_ended_session_leaders();
    STASIS_TRY(const auto relatives, find_relatives(processes));
    const Ancestry ancestry = Ancestry::find(relatives);
    if (ancestry.stuck) return no_order(births[*ancestry.stuck]);
    for (size_t i = 0; i < relatives.size(); ++i) STASIS_CHECK(settle(i, ancestry.descents[i]));
    STASIS_CHECK(add_ended_group_leaders());
    add_ended_namespaces();
    find_endings();
    return {};
  }

  std::vector<Birth> births;
  std::vector<size_t> roots;
  std::vector<Ending> endings;

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
      const int shared = shares_with(process);
      birth.of_brother = shared != 0 && shared != process.parent();
      birth.process = &process;
      birth.becomes_session_leader = process.session() == process.pid();
      birth.group.value = process.group();
      append(birth);
    }
    return {};
  }

  static int shares_with(const schema::Process& process) {
    return std::max(process.descriptors_of(), process.directories_of());
  }

  size_t append(const Birth& birth) {
    index_[birth.pid.value] = births.size();
    births.push_back(birth);
    return births.size() - 1;
  }

  // One that is there for a moment.
  Birth temporary(int pid, const Numbers::Of& numbers, int maker) const {
    Birth birth;
    birth.pid.value = pid;
    birth.numbers = numbers;
    birth.parent.value = maker;
    return birth;
  }

  void add_ended_session_leaders() {
    for (const auto& process : manifest_.processes()) {
      if (index_.contains(process.session())) continue;
      Birth leader = temporary(process.session(), numbers_.find(process.session()), kInit);
      leader.becomes_session_leader = true;
      leader.group = leader.pid;
      append(leader);
    }
  }

  Result<std::vector<Relative>> find_relatives(size_t processes) const {
    std::vector<Relative> relatives;
    for (size_t i = 0; i < births.size(); ++i) {
      const Birth& birth = births[i];
      Relative one;
      one.leader = i;
      one.ended = i >= processes;
      if (!one.ended) {
        one.leader = index_.at(birth.process->session());
        one.sub_reaper = birth.process->child_subreaper();
        if (birth.parent.value != kInit) {
          STASIS_TRY(one.parent, find(birth.parent.value, birth));
        }
        if (birth.of_brother) {
          STASIS_TRY(one.brother, find(shares_with(*birth.process), birth));
          if (births[*one.brother].parent != birth.parent) return no_order(birth);
        }
      }
      relatives.push_back(one);
    }
    return relatives;
  }

  Result<size_t> find(int pid, const Birth& asks) const {
    auto found = index_.find(pid);
    if (found == index_.end()) return no_order(asks);
    return found->second;
  }

  // By its maker itself, or, if that is not the parent, by somebody whom it makes and who ends.
  Result<void> settle(size_t index, const Descent& descent) {
    if (!descent.maker) {
      add_root(index);
      return {};
    }
    const size_t maker = *descent.maker;
    const int parent = births[index].parent.value;
    if (births[index].process == nullptr) {
      births[index].parent = births[maker].pid;
    } else if (!births[index].of_brother && parent != births[maker].pid.value) {
      // Only who makes it can share with it.
      if (shares_with(*births[index].process) != 0) return no_order(births[index]);
      STASIS_TRY(const size_t father, father_for(maker, descent.early, parent));
      births[father].children.push_back(index);
      return {};
    }
    add_child(maker, descent.early, index);
    return {};
  }

  void add_child(size_t maker, bool early, size_t child) {
    (early ? births[maker].early_children : births[maker].children).push_back(child);
  }

  // One for all that the same parent adopts.
  Result<size_t> father_for(size_t maker, bool early, int adopter) {
    auto [known, is_new] = fathers_.try_emplace({maker, early, adopter});
    if (!is_new) return known->second;
    // Who is adopted by whom is a matter of one namespace.
    const uint32_t space = births[maker].numbers.space;
    const uint32_t wanted = adopter == kInit ? 0 : births[index_.at(adopter)].numbers.space;
    if (space != wanted) return no_order(births[maker]);
    const int pid = take_spare();
    const size_t father = append(
        temporary(pid, {std::vector<int>(numbers_.depth(space) + 1, pid), space}, births[maker].pid.value));
    add_child(maker, early, father);
    known->second = father;
    adopters_[father] = adopter;
    return father;
  }

  Result<void> add_ended_group_leaders() {
    for (const auto& process : manifest_.processes()) {
      if (index_.contains(process.group())) continue;
      Birth leader = temporary(process.group(), numbers_.find(process.group()), process.session());
      leader.group = leader.pid;
      add_child(index_.at(process.session()), false, append(leader));
    }
    return {};
  }

  // The session's init makes only what is in its own pid namespace; the others are made by somebody who
  // leaves them to it.
  void add_root(size_t index) {
    if (births[index].numbers.space == 0) {
      roots.push_back(index);
      return;
    }
    if (!stand_in_) {
      const int pid = take_spare();
      Birth stand_in = temporary(pid, {{pid}, 0}, kInit);
      stand_in.becomes_session_leader = true;
      stand_in.group = stand_in.pid;
      stand_in_ = append(stand_in);
      roots.push_back(*stand_in_);
    }
    births[*stand_in_].children.push_back(index);
  }

  // Whoever has made a pid namespace, and whose first child in it has ended, can make no child any more.
  void add_ended_namespaces() {
    std::set<uint32_t> done;
    for (const auto& process : manifest_.processes()) {
      const uint32_t space = process.namespace_of_children();
      if (space == 0 || numbers_.find(process.pid()).space != numbers_.parent(space)) continue;
      // Of one that has just ended the init may be a zombie.
      const bool has_init = std::any_of(births.begin(), births.end(), [&](const Birth& birth) {
        return birth.numbers.space == space && birth.is_init();
      });
      if (has_init || !done.insert(space).second) continue;
      const int pid = take_spare();
      Birth first = temporary(pid, {std::vector<int>(numbers_.depth(space) + 1, pid), space}, process.pid());
      first.numbers.levels.back() = kInit;
      first.group = first.pid;
      add_child(index_.at(process.pid()), false, append(first));
    }
  }

  int take_spare() {
    for (++next_spare_; used_.contains(next_spare_);) ++next_spare_;
    return next_spare_;
  }

  void find_endings() {
    std::vector<size_t> order = roots;
    for (size_t next = 0; next < order.size(); ++next) {
      const Birth& birth = births[order[next]];
      for (const auto* made : {&birth.early_children, &birth.children})
        order.insert(order.end(), made->begin(), made->end());
    }
    for (auto index = order.rbegin(); index != order.rend(); ++index) {
      if (births[*index].process != nullptr) continue;
      auto adopter = adopters_.find(*index);
      endings.push_back({*index, NsTid{adopter != adopters_.end() ? adopter->second : kInit}});
    }
  }

  static Error no_order(const Birth& birth) {
    return Error{"plan the restart",
                 fmt::format("task {}", birth.pid),
                 "no order of births gives it its session and its parent",
                 {},
                 ErrorCode::kRefused};
  }

  const schema::Manifest& manifest_;
  const Numbers& numbers_;
  std::set<int> used_;
  int next_spare_;  // behind the one that helpers use
  std::optional<size_t> stand_in_;
  std::map<int, size_t> index_;
  std::map<std::tuple<size_t, bool, int>, size_t> fathers_;
  std::map<size_t, int> adopters_;
};

}  // namespace

Result<Topology> Topology::plan(const schema::Manifest& manifest) {
  Topology topology;
  topology.numbers_ = Numbers(manifest);
  Planner planner(manifest, topology.numbers_);
  STASIS_CHECK(planner.plan());
  topology.births_ = std::move(planner.births);
  topology.roots_ = std::move(planner.roots);
  topology.endings_ = std::move(planner.endings);
  return topology;
}

Result<void> check_order_of_births(const schema::Manifest& manifest) {
  STASIS_CHECK(Topology::plan(manifest));
  return {};
}

}  // namespace stasis::restore

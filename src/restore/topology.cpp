#include "restore/topology.h"

#include <functional>
#include <set>

namespace stasis::restore {

namespace {

constexpr int kAnySession = 0;

class Planner {
 public:
  explicit Planner(const schema::Manifest& manifest) : manifest_(manifest) {}

  Result<std::vector<Birth>> plan(std::vector<size_t>& roots) {
    for (const auto& process : manifest_.processes()) add(process);
    STASIS_CHECK(add_dead_leaders());
    for (size_t i = 0; i < births_.size(); ++i) STASIS_CHECK(choose_maker(i, roots));
    return std::move(births_);
  }

 private:
  size_t add(const schema::Process& process) {
    Birth birth;
    birth.pid.value = process.pid();
    birth.parent.value = process.parent();
    birth.process = &process;
    birth.becomes_session_leader = process.session() == process.pid();
    birth.group.value = process.group();
    return append(birth, process.session());
  }

  size_t append(const Birth& birth, int session) {
    index_[birth.pid.value] = births_.size();
    sessions_.push_back(session);
    births_.push_back(birth);
    return births_.size() - 1;
  }

  // Sessions first, since the leader of a dead group has to live in one.
  Result<void> add_dead_leaders() {
    for (const auto& process : manifest_.processes()) {
      if (process.session() <= 0 || process.group() <= 0) {
        return Error{"plan the restart", fmt::format("task {}", process.pid()),
                     "it belongs to a session or group outside", "start it with `stasis launch`",
                     ErrorCode::kRefused};
      }
      if (!index_.contains(process.session())) {
        Birth leader;
        leader.pid.value = process.session();
        leader.parent.value = 1;
        leader.becomes_session_leader = true;
        leader.group = leader.pid;
        append(leader, process.session());
      }
    }
    for (const auto& process : manifest_.processes()) {
      if (index_.contains(process.group())) continue;
      Birth leader;
      leader.pid.value = process.group();
      leader.parent.value = process.session();
      leader.group = leader.pid;
      append(leader, process.session());
    }
    return {};
  }

  // The session in which a process has to be born; kAnySession for one that makes its own.
  int birth_session(size_t index, int depth = 0) const {
    const Birth& birth = births_[index];
    if (!birth.becomes_session_leader) return sessions_[index];
    // A leader whose children are in another session has made them before it called setsid().
    if (depth > 64) return kAnySession;
    for (size_t child = 0; child < births_.size(); ++child) {
      if (births_[child].parent != birth.pid) continue;
      int session = birth_session(child, depth + 1);
      if (session != kAnySession && session != birth.pid.value) return session;
    }
    return kAnySession;
  }

  Result<void> choose_maker(size_t index, std::vector<size_t>& roots) {
    const Birth& birth = births_[index];
    int session = birth_session(index);
    if (birth.parent.value <= 1) {
      if (session == kAnySession) {
        roots.push_back(index);
        return {};
      }
      auto leader = index_.find(session);
      if (leader == index_.end()) return no_order(birth);
      Birth& maker = births_[leader->second];
      // A temporary leader ends anyway, and that makes orphans of its children.
      (maker.process == nullptr ? maker.children : maker.orphans).push_back(index);
      return {};
    }
    auto parent = index_.find(birth.parent.value);
    if (parent == index_.end()) return no_order(birth);
    Birth& maker = births_[parent->second];
    if (session == kAnySession || session == sessions_[parent->second]) {
      maker.children.push_back(index);
    } else if (session == birth_session(parent->second)) {
      maker.early_children.push_back(index);
    } else {
      return no_order(birth);
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
  std::vector<int> sessions_;
  std::map<int, size_t> index_;
};

}  // namespace

Result<Topology> Topology::plan(const schema::Manifest& manifest) {
  Topology topology;
  STASIS_TRY(topology.births_, Planner(manifest).plan(topology.roots_));
  return topology;
}

}  // namespace stasis::restore

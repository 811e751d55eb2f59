// Shapes of process trees that the kernel can give, and the order of births that makes each of them again.
#include "restore/topology.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>

namespace stasis::restore {
namespace {

struct Wanted {
  int pid, parent, session, group;
  bool sub_reaper = false;
};

// Does what a restart does with the plan, by the kernel's rules, and compares.
class Topologies : public testing::Test {
 protected:
  void add(const Wanted& wanted) {
    auto* process = manifest.add_processes();
    process->set_pid(wanted.pid);
    process->set_parent(wanted.parent);
    process->set_session(wanted.session);
    process->set_group(wanted.group);
    process->set_child_subreaper(wanted.sub_reaper);
  }

  void expect_order() {
    auto topology = Topology::plan(manifest);
    ASSERT_TRUE(topology.ok()) << topology.error().message();
    const auto& births = topology->births();
    std::map<int, int> parents, sessions;
    std::function<void(size_t)> raise = [&](size_t index) {
      const Birth& birth = births[index];
      int pid = birth.pid.value;
      auto bear = [&](size_t child, int parent) {
        EXPECT_FALSE(parents.contains(births[child].pid.value))
            << births[child].pid.value << " is born twice";
        parents[births[child].pid.value] = births[child].of_brother ? parents.at(pid) : parent;
        sessions[births[child].pid.value] = sessions[pid];
      };
      for (size_t child : birth.early_children) bear(child, pid);
      for (size_t child : birth.early_children) raise(child);
      if (birth.becomes_session_leader) sessions[pid] = pid;
      for (size_t child : birth.children) bear(child, pid);
      for (size_t child : birth.children) raise(child);
    };
    for (size_t root : topology->roots()) {
      parents[births[root].pid.value] = 1;
      sessions[births[root].pid.value] = 1;
    }
    for (size_t root : topology->roots()) raise(root);
    const auto session_of = sessions;
    for (const Ending& ending : topology->endings()) {
      const int ended = births[ending.birth].pid.value;
      int above = parents.at(ended);
      while (above != ending.adopter.value && above > 1) above = parents.at(above);
      parents.erase(ended);
      for (auto& [pid, parent] : parents) {
        if (parent == ended) parent = above;
      }
    }
    for (const auto& process : manifest.processes()) {
      EXPECT_EQ(parents[process.pid()], process.parent()) << process.pid();
      EXPECT_EQ(sessions[process.pid()], process.session()) << process.pid();
      // The leader of its group is there, in the same session.
      EXPECT_EQ(session_of.at(process.group()), process.session()) << process.pid();
      EXPECT_NE(topology->numbers().spare(0).levels.front(), process.pid());
    }
  }

  schema::Manifest manifest;
};

// Who shares the descriptors of a brother is made by that one, under the parent of both (CLONE_PARENT).
TEST_F(Topologies, BrothersWithOneTable) {
  add({2, 1, 2, 2});
  add({3, 2, 2, 3});
  add({4, 2, 2, 3});
  manifest.mutable_processes(2)->set_descriptors_of(3);
  add({5, 1, 2, 2});
  add({6, 1, 2, 2});
  manifest.mutable_processes(4)->set_directories_of(5);
  expect_order();
  auto topology = Topology::plan(manifest);
  ASSERT_TRUE(topology.ok());
  EXPECT_EQ(topology->births()[topology->births()[1].children.at(0)].pid.value, 4);
}

TEST_F(Topologies, ParentsAndChildrenInOneSession) {
  add({2, 1, 2, 2});
  add({3, 2, 2, 3});
  add({4, 3, 2, 3});
  expect_order();
}

TEST_F(Topologies, DaemonWhoseLeaderHasEnded) {
  add({2, 1, 2, 2});
  add({4, 1, 3, 3});
  add({5, 4, 3, 3});
  expect_order();
}

TEST_F(Topologies, OrphanInTheSessionOfALivingOrDeadLeader) {
  add({2, 1, 2, 2});
  add({3, 2, 3, 3});
  add({4, 1, 3, 3});
  add({5, 1, 2, 2});
  expect_order();
}

TEST_F(Topologies, GroupWhoseLeaderHasEnded) {
  add({2, 1, 2, 2});
  add({5, 2, 2, 4});
  add({6, 5, 2, 4});
  expect_order();
}

TEST_F(Topologies, ChildrenMadeBeforeTheirParentCalledSetsid) {
  add({2, 1, 2, 2});
  add({3, 2, 3, 3});
  add({4, 3, 2, 2});
  add({5, 4, 5, 5});
  add({6, 5, 2, 2});
  expect_order();
}

TEST_F(Topologies, SubReaperAdoptsFromASessionBelow) {
  add({2, 1, 2, 2, true});
  add({3, 2, 3, 3});
  add({5, 2, 3, 3});
  add({6, 5, 3, 6});
  expect_order();
}

TEST_F(Topologies, SubReaperThatLeadsNothingAdopts) {
  add({2, 1, 2, 2});
  add({3, 2, 2, 2, true});
  add({4, 3, 4, 4});
  add({6, 3, 4, 4});
  expect_order();
}

TEST_F(Topologies, SubReaperAdoptsFromSessionsWhoseLeadersHaveEnded) {
  add({2, 1, 2, 2, true});
  add({4, 2, 3, 3});
  add({6, 2, 5, 5});
  add({7, 6, 5, 5});
  expect_order();
}

TEST_F(Topologies, SubReapersOfSeveralRanksAdoptFromOneSession) {
  add({2, 1, 2, 2, true});
  add({3, 2, 3, 3, true});
  add({4, 1, 9, 9});
  add({5, 2, 9, 9});
  add({6, 3, 9, 9});
  expect_order();
}

TEST_F(Topologies, OneThatWasAdoptedLeadsAndAdopts) {
  add({2, 1, 2, 2, true});
  add({3, 2, 3, 3});
  add({5, 2, 3, 3});
  add({6, 5, 6, 6, true});
  add({8, 6, 7, 7});
  expect_order();
}

// 3 was a sub-reaper when 4, the leader of a session below it, made 5, and none when 4 lost its own father.
TEST_F(Topologies, LeaderWhoWasAdoptedPastAnAncestor) {
  add({2, 1, 2, 2});
  add({3, 2, 3, 3});
  add({4, 2, 4, 4});
  add({5, 3, 4, 4});
  add({6, 3, 2, 2});
  expect_order();
}

// Each of two stood above the other's session.
TEST_F(Topologies, NoOrderIsAnError) {
  add({2, 1, 2, 2});
  add({3, 1, 3, 3});
  add({4, 2, 3, 3});
  add({5, 3, 2, 2});
  manifest.mutable_processes(1)->set_parent(4);
  manifest.mutable_processes(0)->set_parent(5);
  auto topology = Topology::plan(manifest);
  ASSERT_FALSE(topology.ok());
  EXPECT_EQ(topology.error().code, ErrorCode::kRefused);
}

// What the kernel does with processes that fork, call setsid(), become and cease to be sub-reapers, and end.
class History {
 public:
  explicit History(unsigned seed) : random_(seed) { tasks_[2] = {1, 2, 2, false}; }

  void act() {
    auto at = tasks_.begin();
    std::advance(at, pick(tasks_.size()));
    auto& [pid, task] = *at;
    switch (pick(8)) {
      case 0:
      case 1:
      case 2:
        if (tasks_.size() > 12) break;
        tasks_[next_] = {pid, task.session, task.group, false};
        ++next_;
        break;
      case 3:
        if (task.group != pid) task.session = task.group = pid;
        break;
      case 4:
        if (task.session != pid) task.group = pid;
        break;
      case 5:
        task.sub_reaper = !task.sub_reaper;
        break;
      default:
        if (tasks_.size() > 3) end(pid);
    }
  }

  struct Task {
    int parent, session, group;
    bool sub_reaper;
  };
  const std::map<int, Task>& tasks() const { return tasks_; }

 private:
  size_t pick(size_t below) { return random_() % below; }

  void end(int pid) {
    int adopter = tasks_.at(pid).parent;
    while (adopter != 1 && !tasks_.at(adopter).sub_reaper) adopter = tasks_.at(adopter).parent;
    tasks_.erase(pid);
    for (auto& [other, task] : tasks_) {
      if (task.parent == pid) task.parent = adopter;
    }
  }

  std::minstd_rand random_;
  std::map<int, Task> tasks_;
  int next_ = 3;
};

TEST_F(Topologies, WhateverHistoryGives) {
  for (unsigned seed = 1; seed <= 20'000 && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    History history(seed);
    for (int i = 0; i < 80; ++i) history.act();
    manifest.Clear();
    for (const auto& [pid, task] : history.tasks())
      add({pid, task.parent, task.session, task.group, task.sub_reaper});
    expect_order();
  }
}

// Nobody waits for an answer for ever.
TEST_F(Topologies, ManyAdopted) {
  add({2, 1, 2, 2, true});
  for (int i = 0; i < 2000; ++i) add({10 + 2 * i, 2, 11 + 2 * i, 11 + 2 * i});
  expect_order();
}

// Only a forged image has it: the process that waits for its own child to make it.
TEST_F(Topologies, ProcessesThatNeedEachOther) {
  add({2, 1, 3, 3});
  add({3, 2, 3, 3});
  auto topology = Topology::plan(manifest);
  ASSERT_FALSE(topology.ok());
}

TEST_F(Topologies, SpareNumberIsNobodys) {
  add({2, 1, 2, 2});
  add({3, 1, 4, 5});
  manifest.mutable_processes(0)->add_threads()->set_tid(2);
  manifest.mutable_processes(0)->add_threads()->set_tid(6);
  auto topology = Topology::plan(manifest);
  ASSERT_TRUE(topology.ok());
  EXPECT_EQ(topology->numbers().spare(0).levels.front(), 7);
}

}  // namespace
}  // namespace stasis::restore

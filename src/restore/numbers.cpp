#include "restore/numbers.h"

#include <sched.h>

#include <algorithm>
#include <set>

namespace stasis::restore {

Numbers::Numbers(const schema::Manifest& manifest) {
  std::set<int> used;
  for (const auto& one : manifest.namespaces()) {
    if (one.type() == CLONE_NEWPID) parents_[one.id()] = one.parent();
    if (one.type() == CLONE_NEWUSER) above_users_[one.id()] = one.parent();
    owners_[one.id()] = one.owner();
  }
  for (const auto& process : manifest.processes()) {
    used.insert({process.pid(), process.group(), process.session()});
    for (const auto& thread : process.threads()) used.insert(thread.tid());
    if (process.inner_numbers().empty()) continue;
    uint32_t space = 0;
    for (uint32_t id : process.namespaces()) {
      if (parents_.contains(id)) space = id;
    }
    for (const auto* numbers : {&process.inner_numbers(), &process.inner_groups(), &process.inner_sessions()})
      used.insert(numbers->begin(), numbers->end());
    add(process.pid(), process.inner_numbers(), space);
    for (const auto& thread : process.threads()) {
      used.insert(thread.inner_numbers().begin(), thread.inner_numbers().end());
      if (!thread.inner_numbers().empty()) add(thread.tid(), thread.inner_numbers(), space);
    }
  }
  // Whoever has ended is known as far as those see it who are in its group or session.
  for (const auto& process : manifest.processes()) {
    const Of own = find(process.pid());
    add(process.group(), process.inner_groups(), own.space);
    add(process.session(), process.inner_sessions(), own.space);
  }
  while (used.contains(spare_)) ++spare_;
}

void Numbers::add(int number, const google::protobuf::RepeatedField<int32_t>& inner, uint32_t space) {
  Of of;
  of.levels.push_back(number);
  for (int one : inner) {
    if (one != 0) of.levels.push_back(one);
  }
  if (of.levels.size() < 2) return;
  of.space = space;
  for (size_t depth = this->depth(space); depth + 1 > of.levels.size() && depth > 0; --depth)
    of.space = parent(of.space);
  Of& known = inner_[number];
  if (known.levels.size() < of.levels.size()) known = std::move(of);
}

Numbers::Of Numbers::find(int number) const {
  auto found = inner_.find(number);
  return found != inner_.end() ? found->second : Of{{number}, 0};
}

int Numbers::seen_from(uint32_t space, int number) const {
  if (space == 0 || number == 0) return number;
  const Of of = find(number);
  const size_t level = depth(space);
  return is_below(of.space, space) && level < of.levels.size() ? of.levels[level] : 0;
}

uint32_t Numbers::parent(uint32_t space) const {
  auto found = parents_.find(space);
  return found != parents_.end() ? found->second : 0;
}

uint32_t Numbers::owner(uint32_t space) const {
  auto found = owners_.find(space);
  return found != owners_.end() ? found->second : 0;
}

bool Numbers::rules(uint32_t users, uint32_t other) const {
  while (other != users && other != 0) {
    auto above = above_users_.find(other);
    other = above != above_users_.end() ? above->second : 0;
  }
  return other == users;
}

size_t Numbers::depth(uint32_t space) const {
  size_t depth = 0;
  for (; space != 0; space = parent(space)) ++depth;
  return depth;
}

bool Numbers::is_below(uint32_t space, uint32_t other) const {
  while (space != other && space != 0) space = parent(space);
  return space == other;
}

Numbers::Of Numbers::spare(uint32_t space) const {
  return {std::vector<int>(depth(space) + 1, spare_), space};
}

NsTid own_number(const schema::Process& process) {
  const auto& inner = process.inner_numbers();
  return NsTid{inner.empty() ? process.pid() : inner[inner.size() - 1]};
}

NsTid own_number(const schema::Thread& thread) {
  const auto& inner = thread.inner_numbers();
  return NsTid{inner.empty() ? thread.tid() : inner[inner.size() - 1]};
}

}  // namespace stasis::restore

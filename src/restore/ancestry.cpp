#include "restore/ancestry.h"

#include <algorithm>
#include <cstdint>
#include <utility>

namespace stasis::restore {

namespace {

// The kernel's rules:
// 1. A process is born in the session of its maker, and only its own setsid() changes that. So one that leads
//    no session was made by a member of it, or by somebody who was a member before setsid().
// 2. Whoever loses its father is adopted by an ancestor: its parent is always somebody from whom it descends.
//
// The reverse of 2 holds as well: whoever descends from its parent can be given to it by a father that is
// there for a moment only. If the lowest are given away first, all above them still stand where they were
// born. So what is looked for is a family tree in which everyone descends from its parent (2) and is made by
// somebody of its session (1). Each of these demands says that one stands above another. Those above anybody
// form a chain; where the demands leave it open who of two comes first, both ways are tried.
class Search {
 public:
  explicit Search(const std::vector<Relative>& relatives)
      : relatives_(relatives), count_(relatives.size()), above_(count_), born_(count_) {
    for (size_t i = 0; i < count_; ++i) {
      const Relative& one = relatives_[i];
      // A brother has the same parent.
      if (one.brother) {
        above_[i].push_back(*one.brother);
      } else if (one.parent) {
        above_[i].push_back(*one.parent);
      }
      if (one.leader == i) continue;
      born_[i] = one.leader;
      above_[i].push_back(one.leader);
    }
  }

  Ancestry run() {
    Ancestry found;
    if (!solve()) {
      found.stuck = stuck_;
      return found;
    }
    for (size_t i = 0; i < count_; ++i)
      found.descents.push_back(
          {maker_[i], maker_[i] && born_[i] && relatives_[*maker_[i]].leader != *born_[i]});
    return found;
  }

 private:
  // One of several ways to go on.
  struct Choice {
    size_t upper, lower;
    bool by_birth = false;  // `lower` is born in the session of `upper`
  };

  // Two tries per open question suffice for most trees; this bounds what a forged image can cost.
  static constexpr uint64_t kPatience = 50'000'000;
  // Each question is a call within that of the question before.
  static constexpr size_t kDeepest = 10'000;

  bool solve() {
    std::vector<Choice> choices;
    if (!stand(choices)) return false;
    if (choices.empty()) return true;
    if (questions_ == kDeepest) spent_ = kPatience;
    ++questions_;
    for (const Choice& choice : choices) {
      above_[choice.lower].push_back(choice.upper);
      if (choice.by_birth) born_[choice.lower] = choice.upper;
      if (solve()) return true;
      if (choice.by_birth) born_[choice.lower].reset();
      above_[choice.lower].pop_back();
    }
    --questions_;
    return false;
  }

  // Finds the maker of each, from the top down, until something is open. False for a contradiction.
  bool stand(std::vector<Choice>& choices) {
    spent_ += count_ + 1;
    if (spent_ > kPatience) return false;
    std::vector<std::vector<size_t>> below(count_);
    std::vector<size_t> missing(count_), next;
    for (size_t i = 0; i < count_; ++i) {
      missing[i] = above_[i].size();
      for (size_t upper : above_[i]) below[upper].push_back(i);
      if (missing[i] == 0) next.push_back(i);
    }
    maker_.assign(count_, std::nullopt);
    depth_.assign(count_, 0);
    for (size_t position = 0; position < next.size(); ++position) {
      const size_t one = next[position];
      if (!place(one, choices)) {
        stuck_ = one;
        return false;
      }
      if (!choices.empty()) return true;
      for (size_t lower : below[one]) {
        if (--missing[lower] == 0) next.push_back(lower);
      }
    }
    if (next.size() == count_) return true;
    // A ring: each of it would have to descend from itself.
    stuck_ = static_cast<size_t>(
        std::find_if(missing.begin(), missing.end(), [](size_t open) { return open != 0; }) -
        missing.begin());
    return false;
  }

  bool place(size_t one, std::vector<Choice>& choices) {
    const auto& above = above_[one];
    if (above.empty()) return true;
    const size_t lowest = *std::max_element(above.begin(), above.end(),
                                            [&](size_t a, size_t b) { return depth_[a] < depth_[b]; });
    for (size_t other : above) {
      if (is_at_or_above(other, lowest)) continue;
      order(one, lowest, other, choices);
      return !choices.empty();
    }
    // Everybody between the leader of the session and one who is born in it was in it at that time.
    if (born_[one] && !was_in(lowest, *born_[one])) {
      leave_session_to(*born_[one], lowest, choices);
      return !choices.empty();
    }
    maker_[one] = lowest;
    depth_[one] = depth_[lowest] + 1;
    return !relatives_[one].brother || *relatives_[one].brother == lowest;
  }

  bool is_at_or_above(size_t upper, size_t lower) {
    while (depth_[lower] > depth_[upper]) {
      lower = *maker_[lower];
      ++spent_;
    }
    return lower == upper;
  }

  bool was_in(size_t one, size_t leader) const {
    return relatives_[one].leader == leader || born_[one] == leader;
  }

  // Both stand above `one`, and neither above the other.
  void order(size_t one, size_t first, size_t second, std::vector<Choice>& choices) const {
    if (born_[one] && (first == *born_[one] || second == *born_[one])) {
      leave_session_to(*born_[one], first == *born_[one] ? second : first, choices);
      return;
    }
    choices = {{second, first}, {first, second}};
  }

  // `other` stands above somebody who is born in the session: above the leader, too, or, if it leads a
  // session now, as one who was born in this one.
  void leave_session_to(size_t leader, size_t other, std::vector<Choice>& choices) const {
    const Choice adopts = {other, leader}, left = {leader, other, true};
    const bool can_have_left = relatives_[other].leader == other && !born_[other] && other != leader;
    // If the leader has ended, both are as good. What is likely asks less of the others.
    const bool likely = !relatives_[leader].ended || !relatives_[other].sub_reaper;
    choices = {adopts};
    if (can_have_left) choices.insert(likely ? choices.begin() : choices.end(), left);
  }

  const std::vector<Relative>& relatives_;
  size_t count_;
  std::vector<std::vector<size_t>> above_;   // who has to stand above each
  std::vector<std::optional<size_t>> born_;  // the session in which each has to be born, by its leader
  std::vector<std::optional<size_t>> maker_;
  std::vector<size_t> depth_;
  uint64_t spent_ = 0;
  size_t questions_ = 0;  // that are open
  size_t stuck_ = 0;
};

}  // namespace

Ancestry Ancestry::find(const std::vector<Relative>& relatives) { return Search(relatives).run(); }

}  // namespace stasis::restore

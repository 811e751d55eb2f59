// The order in which a process tree is made, so that every process is born in the right session under the
// right parent.
#pragma once

#include <map>
#include <vector>

#include "restore/numbers.h"
#include "schema/manifest.pb.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::restore {

// One process to be made. Sessions and groups whose leader has ended need that leader for a moment (only it
// can make them); such a process is temporary and ends before the program runs.
struct Birth {
  NsTid pid;
  Numbers::Of numbers;
  NsTid parent;                              // 1: init
  const schema::Process* process = nullptr;  // nullptr: temporary
  bool of_brother =
      false;  // a brother makes it, with whom it shares something: under the parent that both have
  bool becomes_session_leader = false;
  NsTid group;  // to be joined; its leader exists by then
  bool is_init() const { return numbers.space != 0 && numbers.levels.back() == 1; }  // of its pid namespace
  // Children that must be born before this process calls setsid(): they stay in the session it was born in.
  std::vector<size_t> early_children;
  std::vector<size_t> children;
  // Children of others (init, or a process above this one) that must be born in the session of this one: made
  // by a helper of it that ends at once, whereupon their parent adopts them.
  std::vector<size_t> orphans;
};

class Topology {
 public:
  // kRefused when no order exists. The kernel gives such trees only when a sub-reaper that ended meanwhile
  // had its part in them.
  static Result<Topology> plan(const schema::Manifest& manifest);
  const Numbers& numbers() const { return numbers_; }

  const std::vector<Birth>& births() const { return births_; }
  // Those that init makes itself.
  const std::vector<size_t>& roots() const { return roots_; }

 private:
  std::vector<Birth> births_;
  std::vector<size_t> roots_;
  Numbers numbers_;
};

}  // namespace stasis::restore

// The order in which a process tree is made, so that every process is born in the right session under the
// right parent.
#pragma once

#include <map>
#include <vector>

#include "base/result.h"
#include "base/types.h"
#include "schema/manifest.pb.h"

namespace stasis::restore {

// One process to be made. Sessions and groups whose leader has ended need that leader for a moment (only it
// can make them); such a process is temporary and ends before the program runs.
struct Birth {
  NsTid pid;
  NsTid parent;                              // 1: init
  const schema::Process* process = nullptr;  // nullptr: temporary
  bool becomes_session_leader = false;
  NsTid group;  // to be joined; its leader exists by then
  // Children that must be born before this process calls setsid(): they stay in the session it was born in.
  std::vector<size_t> early_children;
  std::vector<size_t> children;
  // Children of init that must be born in the session of this process: made by a helper of it that ends at
  // once, which makes them orphans.
  std::vector<size_t> orphans;
};

class Topology {
 public:
  // kRefused when no order exists (adoptions by a sub-reaper across sessions).
  static Result<Topology> plan(const schema::Manifest& manifest);

  const std::vector<Birth>& births() const { return births_; }
  // Those that init makes itself.
  const std::vector<size_t>& roots() const { return roots_; }

 private:
  std::vector<Birth> births_;
  std::vector<size_t> roots_;
};

}  // namespace stasis::restore

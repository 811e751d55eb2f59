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
// can make them), and who is to be adopted needs a father who ends; such a process is temporary and ends
// before the program runs.
struct Birth {
  NsTid pid;
  Numbers::Of numbers;
  NsTid parent;                              // in the end; 1: init. Of one that is temporary: its maker.
  const schema::Process* process = nullptr;  // nullptr: temporary
  bool of_brother =
      false;  // a brother makes it, with whom it shares something: under the parent that both have
  bool becomes_session_leader = false;
  NsTid group;  // to be joined; its leader exists by then. 0: any
  bool is_init() const { return numbers.space != 0 && numbers.levels.back() == 1; }  // of its pid namespace
  // Children that must be born before this process calls setsid(): they stay in the session it was born in.
  std::vector<size_t> early_children;
  std::vector<size_t> children;
};

// The end of a temporary process.
struct Ending {
  size_t birth;
  NsTid adopter;  // of its children: an ancestor, which must be the nearest sub-reaper then; 1: init
};

class Topology {
 public:
  // kRefused when no order exists. The kernel makes no such trees; an image may have been forged.
  static Result<Topology> plan(const schema::Manifest& manifest);
  const Numbers& numbers() const { return numbers_; }

  const std::vector<Birth>& births() const { return births_; }
  // Those that init makes itself.
  const std::vector<size_t>& roots() const { return roots_; }
  // From below: whoever has lost nobody yet still stands where it was born.
  const std::vector<Ending>& endings() const { return endings_; }

 private:
  std::vector<Birth> births_;
  std::vector<size_t> roots_;
  std::vector<Ending> endings_;
  Numbers numbers_;
};

// Whether there is a plan.
Result<void> check_order_of_births(const schema::Manifest& manifest);

}  // namespace stasis::restore

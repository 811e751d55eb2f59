// From whom every process of a tree has to descend, so that each is born in its session and ends up under its
// parent.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

namespace stasis::restore {

// A process, or the leader of a session, who may have ended.
struct Relative {
  size_t leader;                 // of its session: an index
  std::optional<size_t> parent;  // none: init, or nobody asks because it has ended
  bool ended = false;
  // It shares something with this brother, who has to make it in its own parent's name (CLONE_PARENT).
  std::optional<size_t> brother;
  bool sub_reaper = false;  // adopts, rather than having made children before it called setsid()
};

// Where one is born.
struct Descent {
  std::optional<size_t> maker;  // none: init
  bool early = false;           // before the maker calls setsid()
};

struct Ancestry {
  std::vector<Descent> descents;  // of all, when `stuck` is empty
  std::optional<size_t> stuck;    // one for whom no place was found

  static Ancestry find(const std::vector<Relative>& relatives);
};

}  // namespace stasis::restore

// What this host can do, found by doing it: versions lie about distributions' patches, containers and
// security modules.
#pragma once

#include <string>
#include <vector>

namespace stasis::kernel {

enum class Ability {
  kOk,
  kPartial,  // works with the limits that `reason` names
  kMissing,
};

struct Finding {
  std::string name;        // stable: "exact pids"
  bool essential = false;  // nothing works without it
  Ability ability = Ability::kMissing;
  std::string reason;  // what was found
  std::string remedy;  // what to do about it; empty when all is well
};

// Tries everything, each in a child process that is thrown away. `store` is where checkpoints would be kept;
// it need not exist yet. Takes some 20 ms.
std::vector<Finding> probe_host(const std::string& store);

// Where $PATH has the program; empty: nowhere.
std::string find_program(const std::string& name);

}  // namespace stasis::kernel

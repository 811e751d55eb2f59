// In which control groups processes, threads and cgroup namespaces are: lines as in /proc/PID/cgroup, one for
// each hierarchy ("4:memory:/some/group"; of version 2 "0::/some/group").
#pragma once

#include <string>
#include <vector>

#include "freeze/frozen_tree.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::inspect {

// Those of `text` that are not in `common`.
std::vector<std::string> own_groups(const std::string& text, const std::string& common);

// Of the threads from the second on, those in which the first, with the groups `of_first`, is not. Each may
// be in groups of its own in the hierarchies of version 1, and in those of version 2 of a type of its own.
std::vector<std::vector<std::string>> groups_of_threads(const freeze::FrozenProcess& process,
                                                        const std::string& of_first);

// The groups that are the roots in the namespace of `task`. `whole`: where the task is; `shown`: as the
// namespace shows that. An Error refuses: it is outside of them.
Result<std::vector<std::string>> roots_of_groups(HostTid task, const std::string& whole,
                                                 const std::string& shown);

}  // namespace stasis::inspect

// All mounts of a namespace, also those that no process sees any more.
#pragma once

#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "kernel/mounts.h"
#include "stasis/fd.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::inspect {

class MountTree {
 public:
  // `task`: one that is in the namespace.
  // `kAll`: also what lies beneath the root directory, when others were mounted over that.
  enum class Depth { kTop, kAll };
  static Result<MountTree> open(HostTid task, Depth depth);

  // Parents before what is on them. What lies beneath the root directory has numbers below 0, which nobody
  // else knows; what lies beneath all belongs to the kernel and is not listed.
  const std::vector<kernel::Mount>& all() const { return mounts_; }
  const kernel::Mount* find(int id) const;
  // The root directory that setns(2) leads to.
  int top() const { return top_.get(); }

  // Opens the roots of these mounts as if nothing were mounted on them, and those of all others as they are
  // without these.
  Result<void> uncover(const std::set<int>& ids);
  // After that. -1: the kernel did not let us.
  int root_of(int id) const;

 private:
  void uncover(std::span<const kernel::Mount> mounts, const std::vector<kernel::Mount>& copied,
               const std::set<int>& ids);

  HostTid task_;
  std::vector<kernel::Mount> mounts_;
  std::vector<size_t> layers_;  // where in them what belongs to each root directory begins, the lowest first
  Fd top_;
  std::map<int, Fd> roots_;
};

// The id of the mount that a descriptor of our own is on; 0: unknown.
int mount_of(int fd, const char* path = "");

}  // namespace stasis::inspect

// Looks for a name of an inode of which the kernel tells none.
#pragma once

#include <sys/stat.h>

#include <deque>
#include <functional>
#include <set>
#include <string>

#include "stasis/types.h"

namespace stasis::resource {

// A search as a process sees the file system. It reads a limited number of entries, since the program stands
// still.
class FileSearch {
 public:
  // `is_it` decides among files with that inode number. `root`: our own descriptor of the directory from
  // which paths count; -1: that is the root directory of the process.
  FileSearch(HostTid task, uint64_t inode, std::function<bool(const struct stat&)> is_it, int root = -1);

  // The name in this directory; empty: it is not there, or the directory has been looked at before.
  std::string in(const std::string& directory);
  // In the directories below those that were looked at since the last call.
  std::string below();

 private:
  std::string look(const std::string& directory);

  std::string root_;
  uint64_t inode_;
  std::function<bool(const struct stat&)> is_it_;
  std::set<std::string> seen_;
  std::deque<std::string> next_;
  int left_ = 20'000;
};

std::string directory_of(const std::string& path);

}  // namespace stasis::resource

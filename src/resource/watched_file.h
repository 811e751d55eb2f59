// Finds the files that an inotify or fanotify instance watches: the kernel tells their inodes and not their
// paths.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "stasis/descriptor.h"

namespace stasis::resource {

struct WatchedFile {
  uint64_t inode = 0;
  uint64_t device = 0;  // as the kernel keeps it: major << 20 | minor
  std::vector<unsigned char> handle;
  int handle_type = 0;
};

// "... fhandle-bytes:8 fhandle-type:1 f_handle:2a000000..." of a line of fdinfo.
void read_handle(const std::string& line, WatchedFile& out);

// Places that programs watch: what they have open, where they are, and every directory on the way to there.
std::set<std::string> likely_paths(const OpenFile& file, const Observation& tree);

// The path as the owner of `file` names it: a likely one, or what the kernel knows (as root), or one below
// where the program has files open. Empty: not found.
std::string find_path(const OpenFile& file, const WatchedFile& watched, const std::set<std::string>& likely,
                      const Observation& tree);

// Whether what the path that was found leads to is a symbolic link, which is watched and not its target.
bool is_link_itself(const OpenFile& file, const WatchedFile& watched, const std::string& path);

// A file that was removed is watched for as long as somebody has it open. 0: nobody has.
uint32_t open_description(const WatchedFile& watched, const Observation& tree);

}  // namespace stasis::resource

// The mounts of a task's mount namespace, from /proc/PID/mountinfo (proc_pid_mountinfo(5)).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::kernel {

struct Mount {
  int id = 0, parent = 0;
  uint64_t device = 0;  // st_dev
  std::string root;     // the directory of the file system that is mounted
  std::string point;    // from the root directory of the task
  std::string options;  // of the mount: "rw,nosuid"
  std::string type, source;
  std::string below;           // the mount point, below the root of the parent; see link_mounts()
  std::string super_options;   // of the file system
  int shared = 0, master = 0;  // peer groups; 0: none
  bool unbindable = false;
};

// In the order in which they were made.
Result<std::vector<Mount>> read_mounts(HostTid task);
std::vector<Mount> parse_mounts(const std::string& text);

// A file in the directory of a session: what was mounted in it before the program began.
inline constexpr const char* kFirstMounts = "mounts";

// Sets `below`. False: they are not one tree, in which every mount but one has its parent.
bool link_mounts(std::vector<Mount>& mounts);
// The part of a path that is below a directory, without a slash before it; nothing when it is not below.
std::optional<std::string> path_below(const std::string& path, const std::string& directory);
// The path of what is below a directory.
std::string path_joined(const std::string& directory, const std::string& below);

// The options, which are separated by commas.
std::vector<std::string> mount_options(const std::string& options);
bool has_option(const std::string& options, std::string_view option);
// MOUNT_ATTR_* of mount_setattr(2) for the options of a mount.
uint64_t mount_attributes(const std::string& options);

}  // namespace stasis::kernel

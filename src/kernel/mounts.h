// The mounts of a task's mount namespace, from /proc/PID/mountinfo (proc_pid_mountinfo(5)).
#pragma once

#include <cstdint>
#include <string>
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
  std::string super_options;   // of the file system
  int shared = 0, master = 0;  // peer groups; 0: none
  bool unbindable = false;
};

// In the order in which they were made.
Result<std::vector<Mount>> read_mounts(HostTid task);
std::vector<Mount> parse_mounts(const std::string& text);

// A file in the directory of a session: what was mounted in it before the program began.
inline constexpr const char* kFirstMounts = "mounts";

// MS_* for the options of a mount.
unsigned long mount_flags(const std::string& options);

}  // namespace stasis::kernel

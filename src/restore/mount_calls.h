// The kernel's calls for mounts that have no place yet, and what is said of their failures.
#pragma once

#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "schema/namespaces.pb.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::restore {

inline constexpr const char* kMountStep = "restart: mount what the program had mounted";

// linux/mount.h clashes with the C library's header.
inline constexpr unsigned kClone = 1;                   // OPEN_TREE_CLONE
inline constexpr unsigned kFromFd = 0x4, kToFd = 0x40;  // MOVE_MOUNT_[FT]_EMPTY_PATH
inline constexpr unsigned kSetGroup = 0x100;            // MOVE_MOUNT_SET_GROUP, Linux 5.15
inline constexpr uint64_t kAllAttributes = 0x2000ff;    // MOUNT_ATTR_* that can be changed
inline constexpr uint64_t kAccessTimes = 0xf0;          // MOUNT_ATTR__ATIME, MOUNT_ATTR_NODIRATIME
inline constexpr uint64_t kNoSymlinks = 0x200000;       // MOUNT_ATTR_NOSYMFOLLOW, Linux 5.14
inline constexpr uint64_t kIsMountRoot = 0x2000;        // STATX_ATTR_MOUNT_ROOT
struct MountAttributes {                                // struct mount_attr
  uint64_t set = 0, clear = 0, propagation = 0, user = 0;
};

// ".." at the root directory stays there, but goes on to what is mounted on it.
inline constexpr const char* kOnRoot = "/..";

inline int set_mount(int mount, const MountAttributes& attributes) {
  return static_cast<int>(
      ::syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, &attributes, sizeof attributes));
}

inline int set_propagation(int mount, uint64_t propagation) {
  MountAttributes attributes;
  attributes.propagation = propagation;
  return set_mount(mount, attributes);
}

inline int move_mount(int from, int to) {
  return static_cast<int>(::syscall(SYS_move_mount, from, "", to, "", kFromFd | kToFd));
}

inline Fd clone_tree(int directory) {
  return Fd(static_cast<int>(::syscall(SYS_open_tree, directory, "", AT_EMPTY_PATH | O_CLOEXEC | kClone)));
}

// Nothing that is mounted on the way is followed.
inline Fd open_within(int directory, const std::string& path) {
  if (path.empty()) return Fd(::fcntl(directory, F_DUPFD_CLOEXEC, 3));
  open_how how = {};
  how.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS;
  return Fd(static_cast<int>(::syscall(SYS_openat2, directory, path.c_str(), &how, sizeof how)));
}

inline std::string shown(const schema::Mount& mount) {
  return fmt::format("{} ({}) at {}", mount.source(), mount.type(), mount.path());
}

inline std::string mount_remedy(int error) {
  return error == EPERM || error == EACCES ? "restart as root"
         : error == ENOENT                 ? "what is mounted there is needed on this host, too"
                                           : "";
}

inline Error cannot_mount(const schema::Mount& mount, int error = errno) {
  return errno_error(kMountStep, shown(mount), error, mount_remedy(error));
}

// Into a copy of the mount namespace in which we are. What happens in it does not show elsewhere.
inline Result<void> enter_copy_of_mounts() {
  if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return errno_error(kMountStep, "a mount namespace", errno, "restart as root");
  return {};
}

}  // namespace stasis::restore

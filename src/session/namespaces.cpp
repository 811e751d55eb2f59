#include "session/namespaces.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "stasis/fd.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

namespace stasis::session {
namespace {

Result<void> write_self(const std::string& name, const std::string& text) {
  STASIS_TRY(Fd file, open_file("/proc/self/" + name, O_WRONLY));
  if (::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return errno_error("write", "/proc/self/" + name);
  return {};
}

bool sysctl_is_zero(const char* path) {
  auto text = read_file(path);
  return text.ok() && !text->empty() && text->front() == '0';
}

bool sysctl_is_one(const char* path) {
  auto text = read_file(path);
  return text.ok() && !text->empty() && text->front() == '1';
}

// The kernel says only EPERM or ENOSPC; which of the switches is off has to be looked up.
std::string remedy(int error) {
  if (error == ENOSPC || sysctl_is_zero("/proc/sys/user/max_user_namespaces"))
    return "the limit of namespaces is reached: as root, sysctl -w user.max_user_namespaces=10000";
  if (sysctl_is_zero("/proc/sys/kernel/unprivileged_userns_clone"))
    return "unprivileged user namespaces are off: as root, sysctl -w kernel.unprivileged_userns_clone=1";
  if (sysctl_is_one("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"))
    return "AppArmor restricts user namespaces: as root, sysctl -w "
           "kernel.apparmor_restrict_unprivileged_userns=0";
  if (error == EINVAL) return "the kernel was built without one of the namespaces; 'stasis check' says which";
  if (error == EPERM)
    return "user namespaces are not permitted here (a container's seccomp filter, or a chroot?); see 'stasis "
           "check'";
  return {};
}

Error unsupported(Error error, std::string hint) {
  error.code = ErrorCode::kUnsupported;
  error.hint = std::move(hint);
  return error;
}

// Maps our own ids to themselves. setgroups must be denied first, or the kernel refuses the gid map.
Result<void> map_user(uid_t user, gid_t group) {
  STASIS_CHECK(write_self("setgroups", "deny"));
  STASIS_CHECK(write_self("uid_map", fmt::format("{0} {0} 1", user)));
  STASIS_CHECK(write_self("gid_map", fmt::format("{0} {0} 1", group)));
  return {};
}

}  // namespace

bool needs_user_namespace() {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {};
  if (::syscall(SYS_capget, &header, data) < 0) return true;
  return (data[0].effective & (1u << CAP_SYS_ADMIN)) == 0;
}

kernel::ClockOffsets offsets_for(int64_t monotonic_ns, int64_t boottime_ns) {
  return {monotonic_ns - clock_ns(CLOCK_MONOTONIC), boottime_ns - clock_ns(CLOCK_BOOTTIME)};
}

Result<void> enter_new_namespaces(const NamespaceOptions& options) {
  uid_t user = ::geteuid();
  gid_t group = ::getegid();
  int flags = CLONE_NEWNS | CLONE_NEWIPC;
  if (options.user) flags |= CLONE_NEWUSER;
  if (options.network) flags |= CLONE_NEWNET;
  // One call: the kernel makes the user namespace first and lets it own the others.
  if (::unshare(flags) < 0) {
    int error = errno;
    return unsupported(errno_error("create the session's namespaces", {}, error), remedy(error));
  }
  if (options.user) {
    if (auto mapped = map_user(user, group); !mapped.ok()) {
      int error = errno;
      return unsupported(std::move(mapped).error().within("map the user into the session"), remedy(error));
    }
  }
  // The session sees what is mounted later on the host; nothing of what is mounted in it gets out.
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) < 0)
    return unsupported(errno_error("separate the session's mounts", "/"), remedy(EPERM));
  return {};
}

Result<void> make_namespaces_of_children(const NamespaceOptions& options) {
  if (::unshare(CLONE_NEWPID | (options.clocks ? CLONE_NEWTIME : 0)) != 0) {
    int error = errno;
    return unsupported(errno_error("create the session's pid and time namespaces", {}, error), remedy(error));
  }
  if (!options.clocks) return {};
  // Only possible until the first process has entered the time namespace.
  auto written = write_self("timens_offsets", kernel::clock_offsets_text(*options.clocks));
  return written.ok() ? Result<void>() : std::move(written).error().within("set the clocks of the session");
}

Result<void> mount_proc() {
  if (::mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) < 0) {
    int error = errno;
    // mount_too_revealing(): a /proc with parts covered by other mounts cannot be had uncovered.
    std::string hint;
    if (error == EPERM || error == EACCES)
      hint =
          "parts of /proc are covered here, as in a container; docker run --security-opt "
          "systempaths=unconfined, "
          "or run stasis outside of the container";
    return unsupported(errno_error("mount the session's /proc", "/proc", error), std::move(hint));
  }
  return {};
}

}  // namespace stasis::session

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "kernel/network.h"
#include "kernel/probe_internal.h"
#include "stasis/fd.h"

namespace stasis::kernel::probing {
namespace {

bool put(const char* path, const std::string& text) {
  auto file = open_file(path, O_WRONLY);
  return file.ok() && write_all(file->get(), text).ok();
}

// The first line of a file of /proc/sys; empty when there is none.
std::string setting(const char* path) {
  auto text = read_file(path, 4096);
  if (!text.ok()) return {};
  return text->substr(0, text->find('\n'));
}

std::string user_namespace_remedy() {
  if (setting("/proc/sys/kernel/unprivileged_userns_clone") == "0") {
    return "as root: sysctl -w kernel.unprivileged_userns_clone=1 (and in /etc/sysctl.d)";
  }
  if (setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1") {
    return "as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile that "
           "allows userns";
  }
  if (setting("/proc/sys/user/max_user_namespaces") == "0") {
    return "as root: sysctl -w user.max_user_namespaces=10000";
  }
  return "in a container: allow unshare and clone with CLONE_NEWUSER in its seccomp profile; or run stasis "
         "as root";
}

// A program's first process in a new pid namespace is its init; the trial runs there.
Outcome in_new_pid_namespace(int more_namespaces, const std::function<Outcome()>& trial) {
  if (auto problem = enter_user_namespace(); !problem.empty())
    return lacking(problem, user_namespace_remedy());
  if (unshare(CLONE_NEWPID | CLONE_NEWNS | more_namespaces) != 0) {
    return lacking(failed("unshare"), geteuid() == 0
                                          ? "this root lacks CAP_SYS_ADMIN: start the container with it"
                                          : user_namespace_remedy());
  }
  return in_child(trial);
}

}  // namespace

std::string enter_user_namespace() {
  const uid_t user = geteuid();
  const gid_t group = getegid();
  if (user == 0) return {};
  if (unshare(CLONE_NEWUSER) != 0) return failed("unshare(CLONE_NEWUSER)");
  // Without this the kernel lets nobody unprivileged map a group: dropping a group could give access.
  put("/proc/self/setgroups", "deny");
  if (!put("/proc/self/uid_map", fmt::format("{} {} 1", user, user)))
    return failed("write /proc/self/uid_map");
  if (!put("/proc/self/gid_map", fmt::format("{} {} 1", group, group)))
    return failed("write /proc/self/gid_map");
  return {};
}

Outcome try_user_namespace() {
  if (geteuid() == 0) return works("not needed by root");
  if (auto problem = enter_user_namespace(); !problem.empty())
    return lacking(problem, user_namespace_remedy());
  // Some security modules let the namespace be made and take the capabilities in it away.
  if (unshare(CLONE_NEWNS) != 0) {
    return lacking(
        "a user namespace can be made but gives no capabilities: " + failed("unshare(CLONE_NEWNS)"),
        user_namespace_remedy());
  }
  return works("an ordinary user can make one");
}

Outcome try_exact_pids() {
  return in_new_pid_namespace(0, [] {
    // Above the default pid_max of small machines would fail for another reason.
    pid_t wanted = 4321;
    clone_args arguments = {};
    arguments.exit_signal = SIGCHLD;
    arguments.set_tid = reinterpret_cast<uint64_t>(&wanted);
    arguments.set_tid_size = 1;
    const long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid == 0) _exit(getpid() == wanted ? 0 : 1);
    if (pid < 0) {
      return lacking(failed("clone3 with set_tid"),
                     errno == ENOSYS ? "in a container: allow clone3 in its seccomp profile"
                                     : "Linux 5.5 or later is needed");
    }
    int status = 0;
    waitpid(static_cast<pid_t>(pid), &status, 0);
    if (pid != wanted || status != 0) return lacking("clone3 gave another pid than was asked for", "");
    return works("clone3 gives a process the pid that it had");
  });
}

Outcome try_mount_proc() {
  return in_new_pid_namespace(0, [] {
    if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return lacking(failed("mount"), "");
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0) {
      return lacking(
          failed("mount /proc"),
          "something is mounted over a part of /proc, as containers do: start the container with an unmasked "
          "/proc (podman: --security-opt unmask=ALL; docker: --security-opt systempaths=unconfined)");
    }
    char self[16] = {};
    if (readlink("/proc/self", self, sizeof self - 1) < 0 || std::strcmp(self, "1") != 0) {
      return lacking("the new /proc does not show the new pid namespace", "");
    }
    return works("a session sees its own pids in /proc");
  });
}

Outcome try_time_namespace() {
  const char* remedy =
      "Linux 5.6 or later with CONFIG_TIME_NS; without it CLOCK_MONOTONIC jumps at a restart after a reboot";
  if (auto problem = enter_user_namespace(); !problem.empty())
    return lacking(problem, user_namespace_remedy());
  if (unshare(CLONE_NEWTIME) != 0) return lacking(failed("unshare(CLONE_NEWTIME)"), remedy);
  timespec before;
  clock_gettime(CLOCK_MONOTONIC, &before);
  if (!put("/proc/self/timens_offsets", "monotonic 100000 0\nboottime 100000 0")) {
    return lacking(failed("write /proc/self/timens_offsets"), remedy);
  }
  // The offsets are for the children of whoever wrote them.
  return in_child([before] {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec - before.tv_sec < 100000) return lacking("the clock's offset has no effect", "");
    return works("clocks go on where they stopped");
  });
}

// The latest of what a restart needs to put mounts together, and it fails as it should.
Outcome try_mounts() {
  constexpr unsigned kSetGroup = 0x100, kEmptyPaths = 0x44;  // MOVE_MOUNT_SET_GROUP, _F_ and _T_EMPTY_PATH
  if (auto problem = enter_user_namespace(); !problem.empty())
    return lacking(problem, user_namespace_remedy());
  if (unshare(CLONE_NEWNS) != 0) return lacking(failed("unshare(CLONE_NEWNS)"), user_namespace_remedy());
  if (syscall(SYS_move_mount, -1, "", -1, "", kSetGroup | kEmptyPaths) == 0 || errno != EBADF) {
    return lacking(failed("move_mount(MOVE_MOUNT_SET_GROUP)"),
                   "Linux 5.15 or later; without it a session in which a program has mounted something is "
                   "not restarted");
  }
  return works("what programs have mounted is mounted again");
}

Outcome try_network_namespace() {
  const char* remedy =
      "launch --net=private needs Linux with CONFIG_NET_NS, and user.max_net_namespaces above 0";
  if (auto problem = enter_user_namespace(); !problem.empty())
    return lacking(problem, user_namespace_remedy());
  if (unshare(CLONE_NEWNET) != 0) return lacking(failed("unshare(CLONE_NEWNET)"), remedy);
  if (auto raised = raise_loopback(); !raised.ok()) return lacking(raised.error().message(), remedy);
  return open_file("/dev/net/tun", O_RDWR).ok()
             ? works("a session can have a network of its own, with tun and tap devices")
             : partly("a session can have a network of its own, but this user may not open /dev/net/tun",
                      "as root: modprobe tun; chmod 666 /dev/net/tun");
}

}  // namespace stasis::kernel::probing

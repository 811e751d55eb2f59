#include "inspect/message_queues.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "kernel/proc.h"
#include "resource/mqueue.h"

namespace stasis::inspect {

namespace {

// linux/mount.h, which clashes with the C library's.
constexpr unsigned kCloseOnExec = 1;    // FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC
constexpr unsigned kCreateCommand = 6;  // FSCONFIG_CMD_CREATE

// In a process that shares our descriptors. The file system of message queues shows those of the IPC
// namespace of whoever makes an instance of it.
int enter_and_open(HostTid init, bool other_user) {
  Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, init.value, 0)));
  const int kinds = CLONE_NEWIPC | CLONE_NEWNS | (other_user ? CLONE_NEWUSER : 0);
  if (!pidfd || ::setns(pidfd.get(), kinds) != 0) return -errno;
  Fd context(static_cast<int>(::syscall(SYS_fsopen, "mqueue", kCloseOnExec)));
  if (!context) return -errno;
  if (::syscall(SYS_fsconfig, context.get(), kCreateCommand, nullptr, nullptr, 0) != 0) return -errno;
  Fd mount(static_cast<int>(::syscall(SYS_fsmount, context.get(), kCloseOnExec, 0)));
  if (!mount) return -errno;
  const int directory = ::openat(mount.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return directory >= 0 ? directory : -errno;
}

// Of our own IPC namespace, without the right to mount anything.
Result<Fd> open_own_queues() {
  constexpr long kMessageQueues = 0x19800202;  // MQUEUE_MAGIC
  auto directory = open_file("/dev/mqueue", O_RDONLY | O_DIRECTORY);
  struct statfs fs = {};
  if (!directory.ok() || ::fstatfs(directory->get(), &fs) != 0 || fs.f_type != kMessageQueues) return Fd();
  return directory;
}

}  // namespace

Result<Fd> open_message_queues(const freeze::Scope& scope) {
  if (!scope.is_session()) return open_own_queues();
  const HostTid init = scope.init;
  STASIS_TRY(auto ours, kernel::read_proc_link(HostTid{::getpid()}, "ns/user"));
  STASIS_TRY(auto theirs, kernel::read_proc_link(init, "ns/user"));
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return errno_error("look for message queues", {});
  Fd from(ends[0]), to(ends[1]);
  const long pid = ::syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, nullptr, nullptr, 0);
  if (pid < 0) return errno_error("look for message queues", {});
  if (pid == 0) {
    const int answer = enter_and_open(init, ours != theirs);
    ::_exit(::write(to.get(), &answer, sizeof answer) == sizeof answer ? 0 : 1);
  }
  int status = 0;
  while (::waitpid(static_cast<pid_t>(pid), &status, 0) < 0 && errno == EINTR) {
  }
  to.reset();
  int answer = -EIO;
  if (::read(from.get(), &answer, sizeof answer) != sizeof answer) answer = -EIO;
  if (answer == -ENODEV || answer == -ENOSYS) return Fd();
  if (answer < 0) return errno_error("look for message queues", {}, -answer);
  return Fd(answer);
}

Result<void> save_message_queues(const freeze::FrozenTree& tree, const Fd& directory,
                                 const DescriptorGraph& files, schema::Manifest& manifest) {
  if (!directory) return {};
  const auto users = freeze::users_of(tree);
  Fd own(::openat(directory.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  DIR* list = own ? ::fdopendir(own.get()) : nullptr;
  if (list == nullptr) return errno_error("look for message queues", {});
  own.release();
  Result<void> result;
  while (const dirent* entry = result.ok() ? ::readdir(list) : nullptr) {
    if (entry->d_name[0] == '.' && entry->d_type == DT_DIR) continue;
    struct stat status = {};
    if (::fstatat(::dirfd(list), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISREG(status.st_mode))
      continue;
    if (!tree.scope().is_session() && !users.contains(status.st_uid)) continue;
    if (files.find_file(status.st_dev, status.st_ino) != nullptr) continue;
    auto* queue = manifest.add_message_queues();
    queue->set_name(entry->d_name);
    Fd file(::openat(::dirfd(list), entry->d_name, O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    result = file ? resource::read_queue(file.get(), *queue) : errno_error("open", {});
    if (!result.ok()) {
      result = Error{"save", fmt::format("message queue /{}", queue->name()),
                     "it cannot be read: " + result.error().cause,
                     "checkpoint it as root, or remove the queue", ErrorCode::kRefused};
    }
  }
  ::closedir(list);
  return result;
}

}  // namespace stasis::inspect

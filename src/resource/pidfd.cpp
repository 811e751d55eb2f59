#include "resource/pidfd.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>

#include "resource/payload.h"
#include "resource/refusal.h"
#include "resource/reopen.h"
#include "schema/kinds/pidfd.pb.h"

namespace stasis::resource {
namespace {

// PIDFD_NONBLOCK and PIDFD_THREAD, as pidfd_open() takes and F_GETFL shows them.
constexpr uint32_t kFlags = O_NONBLOCK | O_EXCL;

// struct pidfd_info of linux/pidfd.h as it is since Linux 6.15; headers of 2022 have none.
struct PidfdInfo {
  uint64_t mask;
  uint64_t cgroup;
  uint32_t pid, tgid, parent;
  uint32_t ids[8];
  int32_t exit_code;
};
constexpr uint64_t kExit = 1 << 3;  // PIDFD_INFO_EXIT
constexpr unsigned long kGetInfo = _IOWR(0xff, 11, PidfdInfo);

int exit_status(int fd) {
  PidfdInfo info = {};
  info.mask = kExit;
  return ioctl(fd, kGetInfo, &info) == 0 && (info.mask & kExit) != 0 ? info.exit_code : 0;
}

[[noreturn]] void end_like(int status) {
  if (WIFSIGNALED(status)) {
    signal(WTERMSIG(status), SIG_DFL);
    kill(getpid(), WTERMSIG(status));
  }
  _exit(WEXITSTATUS(status));
}

uint64_t argument(int64_t value) { return static_cast<uint64_t>(value); }

// A handle of the dead: which record, and by which number of ours.
struct Dead {
  Record record;
  int fd = -1;
};

// All handles of one process have one inode, so all are made while one child of ours lives.
Result<void> make_dead(const std::vector<Dead>& handles, int status) {
  // It waits until nobody holds the other end.
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return cannot_make(handles.front().record, "pipe2");
  Fd from(ends[0]), to(ends[1]);
  const pid_t pid = fork();
  if (pid < 0) return cannot_make(handles.front().record, "fork");
  if (pid == 0) {
    to.reset();
    char byte = 0;
    while (read(from.get(), &byte, 1) < 0 && errno == EINTR) {
    }
    end_like(status);
  }
  Result<void> result;
  for (const Dead& handle : handles) {
    Fd fd(static_cast<int>(syscall(SYS_pidfd_open, pid, handle.record.flags & kFlags)));
    if (!fd || dup3(fd.get(), handle.fd, O_CLOEXEC) < 0) result = cannot_make(handle.record, "pidfd_open");
  }
  to.reset();
  while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
  return result;
}

}  // namespace

KindInfo PidfdKind::info() const {
  return {"pidfd", "Processes", "pidfd: of processes and threads that live, that are zombies, that are gone",
          Support::kPartial, "one of a process outside the session is refused"};
}

bool PidfdKind::recognises(const OpenFile& file, const Observation&) const {
  return file.link == "anon_inode:[pidfd]" || file.link.starts_with("pidfd:");
}

Result<std::string> PidfdKind::observe(const OpenFile& file, Observation& tree) const {
  schema::Pidfd message;
  const std::string shown = file.info("Pid");
  if (shown.empty()) return refusal(file, "the kernel does not show of which process it is");
  message.set_inode(file.status.st_ino);
  if (const int pid = atoi(shown.c_str()); pid >= 0) {
    message.set_pid(tree.session_task(HostTid{pid}).value);
    if (message.pid() == 0)
      return refusal(file, "it is of a process outside the session", "launch that one in the session, too");
  } else {
    message.set_exit_status(exit_status(file.duplicate.get()));
  }
  return pack(message);
}

Result<Fd> PidfdKind::make(const Record& record, Making&) const {
  STASIS_TRY([[maybe_unused]] auto message, unpack<schema::Pidfd>(record));
  // The process does not exist yet, and neither does one that has ended.
  return open_file("/dev/null", O_RDONLY);
}

// By a helper, since a child of ours could be taken for the session's init. The first of all handles of one
// process makes the others, too.
Result<void> PidfdKind::settle(const Record& record, int, Making& context, Round round) const {
  STASIS_TRY(auto message, unpack<schema::Pidfd>(record));
  if (round != Round::kListen || message.pid() != 0) return {};
  std::vector<Dead> handles;
  for (const Record& other : context.records()) {
    if (other.kind != record.kind) continue;
    STASIS_TRY(auto theirs, unpack<schema::Pidfd>(other));
    if (theirs.pid() != 0 || theirs.inode() != message.inode()) continue;
    STASIS_TRY(int number, context.description(other.id));
    handles.push_back({other, number});
  }
  if (handles.front().record.id != record.id) return {};
  context.as(
      {NsTid{0}, geteuid(), getegid()},
      [handles = std::move(handles), status = message.exit_status()] { return make_dead(handles, status); });
  return {};
}

Result<void> PidfdKind::finish(const Record& record, Finishing& owner) const {
  STASIS_TRY(auto message, unpack<schema::Pidfd>(record));
  if (message.pid() == 0) return {};
  const NsTid number = owner.as_seen(NsTid{message.pid()});
  STASIS_TRY(int64_t opened,
             owner.call(SYS_pidfd_open, std::array{argument(number.value), uint64_t{record.flags & kFlags}}));
  if (opened < 0) return cannot_make(record, "pidfd_open", static_cast<int>(-opened));
  return put_in_place(record, opened, owner);
}

std::string PidfdKind::summary(const Record& record) const {
  auto message = unpack<schema::Pidfd>(record);
  if (!message.ok()) return {};
  return message->pid() != 0 ? fmt::format("task {}", message->pid()) : "of a task that has ended";
}

}  // namespace stasis::resource

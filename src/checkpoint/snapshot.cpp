#include "checkpoint/snapshot.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <deque>
#include <utility>

#include "base/clock.h"
#include "kernel/affinity.h"
#include "kernel/proc.h"

namespace stasis::checkpoint {

using remote::Batch;
using remote::Stop;
using remote::Tracee;

constexpr const char* kNoRoomHint = "free some space, or choose another --store";

SnapshotChild::SnapshotChild(HostTid pid, const remote::Foothold& foothold)
    : pid_(pid),
      executor_(foothold.executor()),
      context_(foothold.context()),
      affinity_(foothold.affinity()) {}

// The forks of many processes at once.
class SnapshotChild::Forks {
 public:
  explicit Forks(std::span<remote::Foothold* const> footholds) {
    for (remote::Foothold* foothold : footholds) forks_.emplace_back(*foothold);
  }

  Result<std::vector<std::unique_ptr<SnapshotChild>>> run() {
    for (Fork& fork : forks_) start(fork);
    // Each helper stops first; then come, in any order, the first stop of the child, and the helper's end
    // followed by the leader's report. The helper's exit status says whether there is a child to wait for.
    // All are waited for, also when one of them fails: what runs cannot be let go.
    while (!std::all_of(forks_.begin(), forks_.end(), [](const Fork& fork) { return fork.is_settled(); })) {
      int status = 0;
      pid_t pid = ::waitpid(-1, &status, __WALL);
      if (pid < 0 && errno == EINTR) continue;
      if (pid < 0) return errno_error("fork", {});
      handle(remote::decode_stop(pid, status));
    }
    std::vector<std::unique_ptr<SnapshotChild>> children;
    for (Fork& fork : forks_) {
      STASIS_CHECK(complete(fork));
      children.push_back(std::move(fork.child));
    }
    return children;
  }

 private:
  struct Fork {
    explicit Fork(remote::Foothold& process) : foothold(process), batch(process.scratch()) {}
    HostTid leader() const { return foothold.leader().tid(); }
    // Of a process whose main thread has ended it is another one through which we work.
    bool works_for(HostTid process) const {
      auto status = kernel::read_status(leader());
      return status.ok() && status->tgid == process;
    }
    bool is_settled() const { return !failure.ok() || (leader_reported && !(expects_child && !child)); }
    Error error(std::string cause, std::string hint) const {
      return Error{"fork", fmt::format("task {}", leader()), std::move(cause), std::move(hint)};
    }

    remote::Foothold& foothold;
    Batch batch;
    size_t cloned = 0;
    HostTid helper;
    std::unique_ptr<SnapshotChild> child;
    bool leader_reported = false;
    bool expects_child = false;
    Result<void> failure;
  };

  // The helper shares the memory and has no exit signal; in the stub it closes its copy of the descriptors,
  // forks the snapshot child, and leaves. Both are traced from birth. Then the leader reaps it, so that
  // nothing is left of it.
  static void start(Fork& fork) {
    fork.cloned = fork.batch.call(SYS_clone, {CLONE_VM | CLONE_PTRACE, 0, 0, 0, 0});
    fork.batch.call_with_last(SYS_wait4, {0, __WALL, 0});
    fork.failure = fork.foothold.start(fork.batch);
  }

  template <typename Predicate>
  Fork* find(Predicate&& predicate) {
    auto found = std::find_if(forks_.begin(), forks_.end(), predicate);
    return found == forks_.end() ? nullptr : &*found;
  }

  void handle(const Stop& stop) {
    if (Fork* fork = find([&](const Fork& one) { return one.leader() == stop.task; })) {
      auto reported = fork->foothold.advance(stop);
      if (reported.ok()) {
        fork->leader_reported = *reported;
      } else {
        fork->failure = std::move(reported).error();
      }
    } else if (stop.kind == Stop::Kind::kExited) {
      handle_end(stop);
    } else if (stop.kind == Stop::Kind::kInterrupt) {
      handle_birth(stop.task);
    } else {
      (void)Tracee(stop.task).resume(stop.kind == Stop::Kind::kSignal ? stop.signal : 0).ok();
    }
  }

  void handle_end(const Stop& stop) {
    if (Fork* fork = find([&](const Fork& one) { return one.helper == stop.task; })) {
      if (stop.status != 0) fork->expects_child = false;
    } else if (Fork* process =
                   find([&](const Fork& one) { return one.child && one.child->pid_ == stop.task; })) {
      process->failure = process->error("the copy of the process was killed", "try again");
    }
  }

  void handle_birth(HostTid task) {
    // From now on they die with us; before, they leave by themselves (see stub.S).
    // What they inherited of a filter stays suspended, where we may.
    if (!Tracee(task).set_options(PTRACE_O_EXITKILL | remote::kSuspendSeccomp).ok())
      (void)Tracee(task).set_options(PTRACE_O_EXITKILL).ok();
    auto stat = kernel::read_stat(task);
    const HostTid father = stat.ok() ? stat->parent : HostTid();
    // In the memory of a copy is the stub of the process, with its number.
    auto is_copy = [&](const Fork& one) {
      return one.foothold.executor().is_installed_for(task, one.leader());
    };
    auto expects_helper = [](const Fork& one) { return one.helper.value == 0; };
    auto is_child = [&](const Fork& one) { return one.expects_child && !one.child && is_copy(one); };
    // Nearly always the numbers tell: to ask the kernel about each process takes long when there are
    // hundreds. Only the first process of a pid namespace may have adopted the child of another one.
    Fork* fork = find([&](const Fork& one) {
      return one.leader() == father && expects_helper(one) &&
             (one.foothold.context().tgid.value != 1 || is_copy(one));
    });
    if (fork == nullptr) {
      Fork* child_of = find([&](const Fork& one) { return one.helper == father && is_child(one); });
      // Its father may be gone already.
      if (child_of == nullptr) child_of = find(is_child);
      if (child_of != nullptr) {
        child_of->child.reset(new SnapshotChild(task, child_of->foothold));
        return;
      }
      fork = find([&](const Fork& one) { return expects_helper(one) && one.works_for(father); });
    }
    if (fork != nullptr) {
      fork->helper = task;
      fork->expects_child = true;
      (void)Tracee(task).resume().ok();
    } else {
      ::kill(task.value, SIGKILL);  // a copy whose process has failed meanwhile
    }
  }

  static Result<void> complete(Fork& fork) {
    STASIS_CHECK(std::move(fork.failure));
    STASIS_CHECK(fork.foothold.executor().fetch(fork.leader(), fork.batch));
    if (int64_t result = fork.batch.result(fork.cloned); result < 0) {
      return errno_error("fork", fmt::format("task {}", fork.leader()), static_cast<int>(-result),
                         "a checkpoint needs room for one more process and a copy of what changes meanwhile");
    }
    if (!fork.child) {
      return fork.error("no memory for a copy of the process, or no room for a process",
                        "see ulimit -u, the pids cgroup, and vm.overcommit_memory");
    }
    return {};
  }

  std::deque<Fork> forks_;
};

Result<std::vector<std::unique_ptr<SnapshotChild>>> SnapshotChild::fork(
    std::span<remote::Foothold* const> footholds) {
  return Forks(footholds).run();
}

// In the copy of the memory that the child has, the stub still reports as the leader. That can wait until the
// program goes on.
Result<void> SnapshotChild::take_over() {
  STASIS_TRY(auto status, kernel::read_status(pid_));
  context_.tgid = status.ns_tgid;
  context_.tid = status.ns_tid;
  return executor_.install(pid_, context_, {.unmap_scratch = false});
}

void SnapshotChild::leave_processor() const { kernel::set_affinity(pid_, affinity_); }

SnapshotChild::~SnapshotChild() {
  ::kill(pid_.value, SIGKILL);
  int status = 0;
  while (::waitpid(pid_.value, &status, __WALL) > 0 && !WIFEXITED(status) && !WIFSIGNALED(status)) {
  }
}

Result<void> SnapshotChild::run(Batch& batch) {
  if (!std::exchange(is_ours_, true)) STASIS_CHECK(take_over());
  return executor_.run(Tracee(pid_), context_, batch);
}

Result<int> SnapshotChild::pass(int fd) {
  // The child makes a socket pair, we borrow one end of it (pidfd_getfd) and send the descriptor to the
  // other: no names, no file system, whatever namespaces the child is in.
  Batch pair = batch();
  uint64_t ends = pair.reserve(2 * sizeof(int));
  size_t made = pair.call(SYS_socketpair, {AF_UNIX, SOCK_DGRAM, 0, ends});
  STASIS_CHECK(run(pair));
  if (pair.result(made) < 0) {
    return errno_error("pass a descriptor", fmt::format("task {}", pid_),
                       static_cast<int>(-pair.result(made)));
  }
  int theirs = pair.output<int>(ends);
  int ours = pair.output<int>(ends + sizeof(int));
  Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid_.value, 0)));
  Fd sender(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), ours, 0)));
  if (!sender) return errno_error("pass a descriptor", fmt::format("task {}", pid_));

  char byte = 0;
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  if (::sendmsg(sender.get(), &message, 0) != 1)
    return errno_error("pass a descriptor", fmt::format("task {}", pid_));

  Batch receive = batch();
  uint64_t byte_address = receive.reserve(1);
  iovec remote_data{reinterpret_cast<void*>(byte_address), 1};
  uint64_t vector_address = receive.put_object(remote_data);
  uint64_t control_address = receive.reserve(sizeof control);
  msghdr remote_message = {};
  remote_message.msg_iov = reinterpret_cast<iovec*>(vector_address);
  remote_message.msg_iovlen = 1;
  remote_message.msg_control = reinterpret_cast<void*>(control_address);
  remote_message.msg_controllen = sizeof control;
  uint64_t message_address = receive.put_object(remote_message);
  size_t received = receive.call(SYS_recvmsg, {static_cast<uint64_t>(theirs), message_address, 0});
  receive.call(SYS_close, {static_cast<uint64_t>(theirs)});
  receive.call(SYS_close, {static_cast<uint64_t>(ours)});
  STASIS_CHECK(run(receive));
  if (receive.result(received) < 0) {
    return errno_error("pass a descriptor", fmt::format("task {}", pid_),
                       static_cast<int>(-receive.result(received)));
  }
  return receive.output<int>(control_address + CMSG_LEN(0));
}

Result<void> SnapshotChild::write_for_it(int fd, const Run& piece) const {
  std::string buffer;
  for (uint64_t done = 0; done < piece.size; done += buffer.size()) {
    buffer.resize(std::min<uint64_t>(piece.size - done, 1 << 20));
    STASIS_CHECK(remote::read_memory(pid_, RemotePtr{piece.address + done}, buffer));
    auto written = pwrite_all(fd, buffer, static_cast<off_t>(piece.offset + done));
    if (!written.ok()) {
      Error error = std::move(written).error();
      error.hint = kNoRoomHint;
      return error;
    }
  }
  return {};
}

Result<void> SnapshotChild::open_pipe() {
  // What an ordinary user may have; a pipe of another size works as well.
  constexpr uint64_t kWanted = 1 << 20;
  Batch open = batch();
  uint64_t ends = open.reserve(2 * sizeof(int));
  size_t made = open.call(SYS_pipe2, {ends, O_CLOEXEC});
  STASIS_CHECK(run(open));
  if (open.result(made) < 0) return {};
  pipe_.read_end = static_cast<uint64_t>(open.output<int>(ends));
  pipe_.write_end = static_cast<uint64_t>(open.output<int>(ends + sizeof(int)));
  Batch size = batch();
  size.call(SYS_fcntl, {pipe_.write_end, F_SETPIPE_SZ, kWanted});
  size_t asked = size.call(SYS_fcntl, {pipe_.write_end, F_GETPIPE_SZ});
  STASIS_CHECK(run(size));
  if (size.result(asked) >= static_cast<int64_t>(kPageSize))
    pipe_.capacity = page_down(static_cast<uint64_t>(size.result(asked)));
  return {};
}

// Fills the pipe with references to the pages of the pieces, and lets the file have them.
void SnapshotChild::add_load(Batch& batch, int number, Load& load) const {
  std::string vectors;
  for (const Run& piece : load.pieces) {
    iovec vector{reinterpret_cast<void*>(piece.address), piece.size};
    vectors.append(reinterpret_cast<const char*>(&vector), sizeof vector);
  }
  uint64_t address = batch.put(vectors);
  // It must not wait for room: there is nobody else to make any.
  load.first_call =
      batch.call(SYS_vmsplice, {pipe_.write_end, address, load.pieces.size(), SPLICE_F_NONBLOCK});
  for (const Run& piece : load.pieces) {
    uint64_t offset = batch.put_object<int64_t>(static_cast<int64_t>(piece.offset));
    batch.call(SYS_splice, {pipe_.read_end, 0, static_cast<uint64_t>(number), offset, piece.size, 0});
  }
}

bool SnapshotChild::is_done(const Batch& batch, const Load& load) {
  int64_t total = 0;
  for (size_t i = 0; i < load.pieces.size(); ++i) {
    auto size = static_cast<int64_t>(load.pieces[i].size);
    if (batch.result(load.first_call + 1 + i) != size) return false;
    total += size;
  }
  return batch.result(load.first_call) == total;
}

Result<void> SnapshotChild::write(int number, int fd, const std::vector<Run>& runs,
                                  const std::function<void(const Run&)>& written) {
  // A step is what the child does between two looks of ours: long enough to cost nothing, short enough for a
  // progress bar.
  constexpr uint64_t kStep = 32 << 20;
  constexpr size_t kMostPieces = 64;
  if (pipe_.capacity == 0) STASIS_CHECK(open_pipe());
  const uint64_t most = pipe_.capacity != 0 ? pipe_.capacity : kStep;
  size_t next = 0;
  uint64_t done_of_next = 0;
  while (next < runs.size()) {
    Batch step = batch();
    std::vector<Load> loads;
    uint64_t bytes = 0;
    while (next < runs.size() && step.fits(kMostPieces + 1, kMostPieces * 48) && bytes < kStep) {
      Load load;
      uint64_t room = most;
      while (next < runs.size() && room > 0 && load.pieces.size() < kMostPieces) {
        const Run& run = runs[next];
        Run piece{run.address + done_of_next, std::min(run.size - done_of_next, room),
                  run.offset + done_of_next};
        load.pieces.push_back(piece);
        room -= piece.size;
        done_of_next += piece.size;
        if (done_of_next == run.size) {
          ++next;
          done_of_next = 0;
        }
      }
      bytes += most - room;
      if (pipe_.capacity != 0) add_load(step, number, load);
      loads.push_back(std::move(load));
    }
    bool piped = pipe_.capacity != 0;
    if (piped) STASIS_CHECK(run(step));
    for (const Load& load : loads) {
      // What is left in the pipe after a failure goes to wherever the next load belongs, and is replaced with
      // it.
      piped = piped && is_done(step, load);
      for (const Run& piece : load.pieces) {
        if (!piped) STASIS_CHECK(write_for_it(fd, piece));
        written(piece);
      }
    }
    if (!piped) pipe_.capacity = 0;
  }
  return {};
}

}  // namespace stasis::checkpoint

#include "restore/skeleton.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <csignal>
#include <cstring>
#include <set>

#include "kernel/proc.h"
#include "remote/rseq.h"

namespace stasis::restore {

using remote::Batch;

Skeleton::Skeleton(HostTid pid, NsTid number, NsTid own, const WorkArea& area)
    : task_(pid), number_(number), executor_(area.executor()) {
  context_.tgid = own;
  context_.tid = own;
  context_.report_signal = SIGURG;
}

Skeleton Skeleton::thread(HostTid tid, NsTid number, NsTid own) const {
  Skeleton other = *this;
  other.task_ = remote::Tracee(tid);
  other.number_ = number;
  other.context_.tid = own;
  return other;
}

Result<void> Skeleton::prepare() {
  const Installed wanted{context_.tid, context_.report_signal};
  if (*installed_ == wanted) return {};
  STASIS_TRY(context_.registers, task_.registers());
  context_.mask = ~uint64_t{0};
  STASIS_CHECK(executor_.install(pid(), context_, {.unmap_scratch = false}));
  *installed_ = wanted;
  return {};
}

Result<void> Skeleton::run(Batch& batch) { return executor_.run(task_, context_, batch); }

Result<void> Skeleton::run_checked(Batch& batch, const std::string& step,
                                   const std::function<bool(size_t, int)>& tolerate) {
  STASIS_CHECK(run(batch));
  return check_batch(batch, ns_pid(), step, tolerate);
}

Result<void> Skeleton::strip(const WorkArea& area) {
  Batch batch = this->batch();
  // The C library of ours has registered an area for restartable sequences; the kernel writes to it on every
  // return to the program, and would kill the task once the area is gone.
  const auto told = remote::registered_rseq(pid());
  const auto rseq = told ? *told : remote::rseq_of_our_library(context_.registers.fs_base);
  if (rseq.address != 0) {
    constexpr uint64_t kUnregister = 1;
    batch.call(SYS_rseq, {rseq.address, rseq.size, kUnregister, rseq.signature});
  }
  uint64_t parking = area.parking();
  for (const auto& entry : area.kernel_mappings()) {
    uint64_t size = entry.end - entry.start;
    batch.call(SYS_mremap,
               {entry.start, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, parking, area.guard_pass()});
    parking += size;
  }
  constexpr uint64_t kTop = (uint64_t{1} << 47) - kPageSize;
  batch.call(SYS_munmap, {0, area.start()});
  batch.call(SYS_munmap, {area.end(), kTop - area.end()});
  return run_checked(batch, "empty the new process");
}

Result<void> check_batch(const Batch& batch, NsTid task, const std::string& step,
                         const std::function<bool(size_t, int)>& tolerate) {
  for (size_t i = 0; i < batch.size(); ++i) {
    int64_t result = batch.result(i);
    if (result >= 0 || result < -4095) continue;
    int error = static_cast<int>(-result);
    if (tolerate && tolerate(i, error)) continue;
    return errno_error(fmt::format("restart: {} of task {}", step, task),
                       fmt::format("system call {}", batch.number(i)), error);
  }
  return {};
}

Result<std::map<int, HostTid>> await_births(const kernel::PidNamespace& session,
                                            const std::vector<NsTid>& expected) {
  std::set<int> stopped;
  while (stopped.size() < expected.size()) {
    int status = 0;
    pid_t pid = ::waitpid(-1, &status, __WALL);
    if (pid < 0 && errno == EINTR) continue;
    if (pid < 0) return errno_error("restart: wait for new tasks", {});
    if (remote::decode_stop(pid, status).kind == remote::Stop::Kind::kExited)
      continue;  // a temporary process
    stopped.insert(pid);
  }
  std::map<int, HostTid> born;
  for (NsTid number : expected) {
    HostTid host = session.host_number(number);
    if (stopped.erase(host.value) != 0) born[number.value] = host;
  }
  for (int pid : stopped) {
    STASIS_TRY(NsTid number, session.number_of(HostTid{pid}));
    born[number.value] = HostTid{pid};
  }
  for (NsTid number : expected) {
    if (!born.contains(number.value))
      return Error{"restart", fmt::format("task {}", number), "it has another number than asked for", {}};
  }
  return born;
}

}  // namespace stasis::restore

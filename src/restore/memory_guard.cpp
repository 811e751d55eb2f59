#include "restore/memory_guard.h"

#include <fcntl.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <map>

#include "remote/foothold.h"

namespace stasis::restore {

using remote::Stop;
using remote::Tracee;

namespace {

constexpr unsigned kWaitKillable = 1u << 5;  // SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, Linux 5.19
constexpr int kRestartNoIntr = 513;          // ERESTARTNOINTR: the kernel makes the call again
constexpr size_t kFilterRanges = 128;

// Giving back single pages splits mappings, of which a process may have 65,530. After so many splits whole
// blocks are converted, with what is in them.
constexpr uint64_t kManySplits = 4096;
constexpr uint64_t kBlock = 2 << 20;

constexpr uint64_t page_down(uint64_t address) { return address & ~(kPageSize - 1); }
constexpr uint64_t page_up(uint64_t address) { return page_down(address + kPageSize - 1); }

int install_filter(const std::vector<sock_filter>& code) {
  std::vector<sock_filter> copy = code;
  sock_fprog program = {static_cast<unsigned short>(copy.size()), copy.data()};
  long listener = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                            SECCOMP_FILTER_FLAG_NEW_LISTENER | kWaitKillable, &program);
  // Without the flag a signal may interrupt the call, which then fails with EINTR in a program that has asked
  // for that; older kernels have nothing better.
  if (listener < 0 && errno == EINVAL) {
    listener = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
  }
  return static_cast<int>(listener);
}

bool is_zero(std::string_view page) {
  return page[0] == 0 && std::memcmp(page.data(), page.data() + 1, page.size() - 1) == 0;
}

// What giving memory back comes to for who reads it, though nothing is given back.
Result<void> write_zeros(HostTid tid, std::span<const AddressRange> ranges) {
  STASIS_TRY(Fd memory, kernel::open_proc(tid, "mem", O_RDWR));
  std::string zeros(kBlock, '\0');
  for (const auto& range : ranges) {
    for (uint64_t at = range.start; at < range.end; at += kBlock) {
      std::string_view piece = std::string_view(zeros).substr(0, std::min(kBlock, range.end - at));
      STASIS_CHECK(pwrite_all(memory.get(), piece, static_cast<off_t>(at)));
    }
  }
  return {};
}

// Whether a pidfd of a task means its own process; others cannot be made to give memory back.
bool means_itself(HostTid tid, uint64_t pidfd) {
  auto number = static_cast<int32_t>(pidfd);
  constexpr int32_t kSelfThread = -10000, kSelfProcess = -20000;  // PIDFD_SELF_*, Linux 6.14
  if (number == kSelfThread || number == kSelfProcess) return true;
  auto status = kernel::read_status(tid);
  auto info = kernel::read_proc(tid, fmt::format("fdinfo/{}", number));
  return status.ok() && info.ok() &&
         info->find(fmt::format("\nPid:\t{}\n", status->tgid)) != std::string::npos;
}

}  // namespace

bool can_guard_memory() {
  uint32_t action = SECCOMP_RET_USER_NOTIF;
  if (::syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) != 0) return false;
  // Only below other filters there may be a listener already, and only trying tells.
  auto self = kernel::read_status(HostTid{::getpid()});
  if (self.ok() && self->seccomp_filters == 0) return true;
  pid_t trial = ::fork();
  if (trial < 0) return false;
  if (trial == 0) {
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);  // the real one has the right to do without
    ::_exit(install_filter({BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)}) >= 0 ? 0 : 1);
  }
  int status = 0;
  while (::waitpid(trial, &status, 0) < 0 && errno == EINTR) {
  }
  return status == 0;
}

Result<std::unique_ptr<MemoryGuard>> MemoryGuard::install(GuardPlan plan) {
  plan.ranges = coarsened(std::move(plan.ranges), kFilterRanges);
  // Our own realloc() must never wait for an answer of ours.
  ::mallopt(M_MMAP_MAX, 0);
  Fd listener(install_filter(guard_filter(plan.ranges, plan.pass)));
  if (!listener) {
    return errno_error("restart: guard mapped memory", "seccomp", errno,
                       "restart with --memory=eager, which needs no guard");
  }
  return std::unique_ptr<MemoryGuard>(new MemoryGuard(std::move(plan), std::move(listener)));
}

// The thread that made the call, stopped, and when content has to be kept all others of its process, too:
// none may write to memory that is being copied.
class MemoryGuard::Visit {
 public:
  Visit(HostTid tid, const std::function<void(pid_t, int)>& ended) : tid_(tid), ended_(ended) {}
  ~Visit() {
    if (entered_) {
      (void)task().set_signal_mask(context_.mask).ok();
      (void)task().set_registers(context_.registers).ok();
      (void)executor_.erase(tid_, remote::stub_size()).ok();
    }
    for (const auto& [tid, signal] : stopped_) Tracee(HostTid{tid}).detach(signal);
  }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;

  // Takes hold of the thread; it cannot stop before its call is answered.
  Result<void> take() {
    STASIS_CHECK(task().seize());
    return task().interrupt();
  }
  Result<void> await() { return await(tid_); }

  Result<void> stop_others() {
    STASIS_TRY(auto status, kernel::read_status(tid_));
    bool found = true;
    while (found) {
      found = false;
      STASIS_TRY(auto tids, kernel::list_numbers(fmt::format("{}/task", status.tgid)));
      for (int tid : tids) {
        if (stopped_.contains(tid)) continue;
        Tracee other(HostTid{tid});
        if (auto seized = other.seize(); !seized.ok()) {
          auto now = kernel::read_status(other.tid());
          if (!now.ok() || now->state == 'Z' || now->state == 'X') continue;
          return seized;
        }
        (void)other.interrupt().ok();
        if (await(other.tid()).ok()) found = true;
      }
    }
    return {};
  }

  // Puts the stub into the process.
  Result<void> enter() {
    STASIS_TRY(auto status, kernel::read_status(tid_));
    STASIS_TRY(context_.registers, task().registers());
    STASIS_TRY(context_.mask, task().signal_mask());
    context_.tgid = status.ns_tgid;
    context_.tid = status.ns_tid;
    context_.report_signal =
        remote::choose_report_signal(status.ignored, status.caught, status.pending | status.shared_pending);
    // Normally the vDSO; reading all mappings takes long where pages were given back one by one.
    uint64_t vdso = kernel::auxiliary_value(tid_, AT_SYSINFO_EHDR);
    STASIS_TRY(auto maps, kernel::mappings_between(tid_, vdso, vdso + 1));
    if (vdso == 0 || maps.empty()) {
      STASIS_TRY(maps, kernel::read_maps(tid_));
    }
    STASIS_TRY(RemotePtr cave, remote::find_cave(tid_, maps, remote::stub_size()));
    executor_ = remote::Executor(cave, {});
    entered_ = true;
    return {};
  }

  // The call is not made again but has this result.
  void conclude(int64_t result) {
    if (!entered_) {
      auto registers = task().registers();
      if (!registers.ok()) return;
      context_.registers = *registers;
    }
    context_.registers.rax = static_cast<uint64_t>(result);
    context_.registers.orig_rax = ~uint64_t{0};
    if (!entered_) (void)task().set_registers(context_.registers).ok();
  }

  Result<int64_t> call(long number, std::initializer_list<uint64_t> arguments) {
    return executor_.run_single(task(), context_, {.unmap_scratch = false}, number, arguments);
  }

  // Anonymous memory instead of [start, end), which is part of `mapping`.
  Result<void> replace(const kernel::MapsEntry& mapping, const GuardedPages& pages, uint64_t start,
                       uint64_t end) {
    uint64_t flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    if (pages.no_reserve) flags |= MAP_NORESERVE;
    STASIS_TRY(int64_t result, call(SYS_mmap, {start, end - start, static_cast<uint64_t>(mapping.protection),
                                               flags, ~uint64_t{0}, 0}));
    if (static_cast<uint64_t>(result) != start) {
      return errno_error("guard memory", fmt::format("task {} at {:#x}", tid_, start),
                         static_cast<int>(-result));
    }
    for (uint64_t advice : pages.advice) STASIS_CHECK(call(SYS_madvise, {start, end - start, advice}));
    if (pages.lock_flags != 0) {
      STASIS_CHECK(call(SYS_mlock2, {start, end - start, pages.lock_flags == 2 ? uint64_t{1} : uint64_t{0}}));
    }
    return {};
  }

  // The same, and what it shows stays. All threads are stopped.
  Result<void> replace_keeping(const kernel::MapsEntry& mapping, const GuardedPages& pages, uint64_t start,
                               uint64_t end) {
    STASIS_TRY(Fd memory, kernel::open_proc(tid_, "mem", O_RDWR));
    std::string content;
    for (uint64_t at = start; at < end; at += kBlock) {
      uint64_t size = std::min(kBlock, end - at);
      content.resize(size);
      STASIS_CHECK(pread_all(memory.get(), content, static_cast<off_t>(at)));
      STASIS_CHECK(replace(mapping, pages, at, at + size));
      for (uint64_t page = 0; page < size; page += kPageSize) {
        std::string_view bytes = std::string_view(content).substr(page, kPageSize);
        if (is_zero(bytes)) continue;
        STASIS_CHECK(pwrite_all(memory.get(), bytes, static_cast<off_t>(at + page)));
      }
    }
    return {};
  }

 private:
  Tracee task() const { return Tracee(tid_); }

  Result<void> await(HostTid tid) {
    STASIS_TRY(auto stop, Tracee(tid).wait());
    if (stop->kind == Stop::Kind::kExited) {
      ended_(tid.value, stop->status);
      return Error{"guard memory", fmt::format("task {}", tid), "it ended", {}, ErrorCode::kTaskGone};
    }
    stopped_[tid.value] = stop->kind == Stop::Kind::kSignal ? stop->signal : 0;
    return {};
  }

  HostTid tid_;
  const std::function<void(pid_t, int)>& ended_;
  std::map<int, int> stopped_;  // and the signal that each was about to get
  bool entered_ = false;
  remote::TaskContext context_ = {};
  remote::Executor executor_;
};

bool MemoryGuard::respond(uint64_t id, int error, uint32_t flags) const {
  seccomp_notif_resp response = {};
  response.id = id;
  response.error = -error;
  response.flags = flags;
  return ::ioctl(listener_.get(), SECCOMP_IOCTL_NOTIF_SEND, &response) == 0;
}

const GuardedPages* MemoryGuard::find(const kernel::MapsEntry& mapping) const {
  for (const auto& pages : plan_.pages) {
    if (pages.inode == mapping.inode && mapping.offset >= pages.offset &&
        mapping.offset < pages.offset + pages.size)
      return &pages;
  }
  return nullptr;
}

Result<std::vector<kernel::MapsEntry>> MemoryGuard::guarded_mappings(HostTid tid,
                                                                     const AddressRange& range) const {
  STASIS_TRY(auto entries, kernel::mappings_between(tid, range.start, range.end));
  std::erase_if(
      entries, [&](const auto& entry) { return entry.shared || entry.inode == 0 || find(entry) == nullptr; });
  return entries;
}

bool MemoryGuard::has_guarded(HostTid tid, const AddressRange& range) const {
  // A task of which this cannot be read has been killed.
  auto mappings = guarded_mappings(tid, range);
  return mappings.ok() && !mappings->empty();
}

MemoryGuard::Answer MemoryGuard::convert(const Call& call, std::span<const AddressRange> ranges,
                                         bool keep_content, const std::function<void(pid_t, int)>& ended) {
  bool any = false;
  for (const auto& range : ranges) any = any || has_guarded(call.tid, range);
  if (!any) return Answer::kContinue;

  Visit visit(call.tid, ended);
  if (!visit.take().ok()) {
    // Somebody else traces it: a checkpoint that begins this moment, or a debugger. Zeros can be written
    // without its help; that they are the program's own pages then costs memory only. Where content has to be
    // kept nothing can be done, and nothing is wrong until more memory than this is given back.
    if (keep_content) return Answer::kContinue;
    respond(call.id, write_zeros(call.tid, ranges).ok() ? 0 : ENOMEM, 0);
    return Answer::kAnswered;
  }
  // The thread finds its interruption on the way back to the program and stops; when it goes on, the kernel
  // makes the call again, and this time there is nothing left to convert.
  respond(call.id, kRestartNoIntr, 0);
  auto work = [&]() -> Result<void> {
    STASIS_CHECK(visit.await());
    bool blockwise = !keep_content && splits_ >= kManySplits;
    if (keep_content || blockwise) STASIS_CHECK(visit.stop_others());
    STASIS_CHECK(visit.enter());
    for (const auto& range : ranges) {
      STASIS_TRY(auto mappings, guarded_mappings(call.tid, range));
      for (const auto& mapping : mappings) {
        uint64_t start = std::max(mapping.start, range.start);
        uint64_t end = std::min(mapping.end, range.end);
        const GuardedPages& pages = *find(mapping);
        if (blockwise) {
          start = std::max(mapping.start, start & ~(kBlock - 1));
          end = std::min(mapping.end, (end + kBlock - 1) & ~(kBlock - 1));
        }
        if (keep_content || blockwise) {
          STASIS_CHECK(visit.replace_keeping(mapping, pages, start, end));
        } else {
          STASIS_CHECK(visit.replace(mapping, pages, start, end));
          ++splits_;
        }
      }
    }
    return {};
  };
  auto worked = work();
  // A thread that died meanwhile needs nothing. Otherwise the call must not be made on what was not
  // converted.
  if (!worked.ok() && worked.error().code != ErrorCode::kTaskGone) {
    bool zeroed = !keep_content && write_zeros(call.tid, ranges).ok();
    visit.conclude(zeroed ? 0 : -ENOMEM);
  }
  return Answer::kAnswered;
}

MemoryGuard::Answer MemoryGuard::handle(const Call& call, const std::function<void(pid_t, int)>& ended) {
  const auto& argument = call.arguments;
  switch (call.number) {
    case SYS_madvise: {
      AddressRange range{argument[0], page_up(argument[0] + argument[1])};
      if (argument[0] % kPageSize != 0 || range.end <= range.start) return Answer::kContinue;  // it will fail
      if (argument[2] == MADV_REMOVE) {
        // For memory without a file it is an error; for one with a file it could be another.
        if (!has_guarded(call.tid, range)) return Answer::kContinue;
        respond(call.id, EINVAL, 0);
        return Answer::kAnswered;
      }
      return convert(call, {&range, 1}, argument[2] == MADV_WIPEONFORK, ended);
    }
    case SYS_mremap: {
      AddressRange range{argument[0], page_up(argument[0] + argument[1])};
      bool moves = (argument[3] & ~uint64_t{MREMAP_MAYMOVE}) != 0;
      bool shrinks = argument[2] <= argument[1] && !moves;
      if (shrinks || range.end <= range.start) return Answer::kContinue;
      return convert(call, {&range, 1}, true, ended);
    }
    case SYS_process_madvise: {
      constexpr uint64_t kMostRanges = 1024;  // UIO_MAXIOV
      std::vector<iovec> vector(std::min(argument[2], kMostRanges));
      if (vector.empty() || !is_guarded_advice(argument[3])) return Answer::kContinue;
      if (!means_itself(call.tid, argument[0])) return Answer::kContinue;
      auto read =
          remote::read_memory(call.tid, RemotePtr{argument[1]},
                              {reinterpret_cast<char*>(vector.data()), vector.size() * sizeof(iovec)});
      if (!read.ok()) return Answer::kContinue;
      std::vector<AddressRange> ranges;
      for (const auto& entry : vector) {
        auto start = reinterpret_cast<uint64_t>(entry.iov_base);
        ranges.push_back({start, page_up(start + entry.iov_len)});
      }
      return convert(call, ranges, argument[3] == MADV_WIPEONFORK, ended);
    }
    default:
      return Answer::kContinue;
  }
}

void MemoryGuard::serve(const std::function<void(pid_t, int)>& ended) {
  seccomp_notif notification = {};
  if (::ioctl(listener_.get(), SECCOMP_IOCTL_NOTIF_RECV, &notification) != 0) return;  // it was interrupted
  Call call;
  call.tid = HostTid{static_cast<pid_t>(notification.pid)};
  call.id = notification.id;
  call.number = notification.data.nr;
  std::copy(std::begin(notification.data.args), std::end(notification.data.args), call.arguments);
  if (handle(call, ended) == Answer::kContinue) respond(call.id, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
}

}  // namespace stasis::restore

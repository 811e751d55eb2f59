// Tasks that were stopped are stopped again, by the same signal, and their parents know of it what they knew.
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include "restore/restart_from_image.h"
#include "restore/tasks.h"

namespace stasis::restore {

using remote::Batch;
using remote::Stop;

namespace {

bool has_continued(const schema::Process& process) {
  return process.state() == schema::Process::RUNNING && WIFCONTINUED(process.exit_status());
}

// Lets a task take the signal; true when that has stopped it. It executes nothing in between.
Result<bool> stop_by(const remote::Tracee& task, HostTid process, int signal) {
  STASIS_CHECK(task.set_signal_mask(~(uint64_t{1} << (signal - 1))));
  if (::syscall(SYS_tgkill, process.value, task.tid().value, signal) != 0)
    return errno_error("restart: stop", fmt::format("task {}", task.tid()));
  STASIS_CHECK(task.resume());
  for (;;) {
    STASIS_TRY(auto stop, task.wait());
    switch (stop->kind) {
      case Stop::Kind::kExited:
        return Error{"restart: stop", fmt::format("task {}", task.tid()), "it ended", {}};
      case Stop::Kind::kGroup:
        return true;
      case Stop::Kind::kInterrupt:
        return false;
      default:
        break;
    }
    // The kernel drops all but SIGSTOP in a group that is an orphan: then this makes the task stop for us.
    STASIS_CHECK(task.interrupt());
    STASIS_CHECK(task.resume(stop->kind == Stop::Kind::kSignal && stop->signal == signal ? signal : 0));
  }
}

}  // namespace

// A task under ptrace goes on executing for its tracer when job control has stopped it, and is stopped when
// it is let go.
Result<void> TaskBuilder::stop() {
  const bool stopped = process_.state() == schema::Process::STOPPED;
  if (!stopped && !has_continued(process_)) return {};
  const int signal = stopped && process_.stop_signal() != 0 ? process_.stop_signal() : SIGSTOP;
  // Where it reports it stands on its way back to the program, as signals are taken. That the signal has its
  // default action is sure: otherwise it would not have stopped the program.
  STASIS_CHECK(skeleton_.prepare());
  Batch batch = skeleton_.batch();
  batch.call(SYS_getpid, {});
  STASIS_CHECK(skeleton_.run_checked(batch, "stop"));
  STASIS_TRY(bool done, stop_by(skeleton_.task(), skeleton_.pid(), signal));
  if (!done) {
    STASIS_TRY(done, stop_by(skeleton_.task(), skeleton_.pid(), SIGSTOP));
  }
  if (!done) return Error{"restart: stop", name(), fmt::format("signal {} does not stop it", signal), {}};
  // It has stopped when all threads have.
  for (size_t i = 1; i < threads_.size(); ++i) {
    remote::Tracee task = threads_[i].skeleton.task();
    STASIS_CHECK(task.resume());
    STASIS_TRY(auto stop, task.wait());
    if (stop->kind != Stop::Kind::kGroup)
      return Error{
          "restart: stop", name(), fmt::format("thread {} does not stop", threads_[i].record->tid()), {}};
  }
  return {};
}

// When nothing is executed any more: a signal that a stopped task already had to take once more, and never
// will.
void TaskBuilder::send_stops_again() const {
  const auto has_stop = [](const auto& pending) {
    return std::any_of(pending.begin(), pending.end(), [](const schema::PendingSignal& signal) {
      int number = 0;
      if (signal.info().size() >= sizeof number) std::memcpy(&number, signal.info().data(), sizeof number);
      return number == SIGSTOP;
    });
  };
  if (process_.state() != schema::Process::STOPPED) return;
  const pid_t process = skeleton_.pid().value;
  if (has_stop(process_.shared_pending())) ::kill(process, SIGSTOP);
  for (const auto& thread : threads_) {
    if (!thread.record->ended() && has_stop(thread.record->pending()))
      ::syscall(SYS_tgkill, process, thread.skeleton.pid().value, SIGSTOP);
  }
}

// Of what a parent has been told it is told again, and waits for it at once.
Result<void> RestartFromImage::tell_parents() {
  for (const auto& process : manifest().processes()) {
    const bool continued = has_continued(process);
    if (process.state() != schema::Process::STOPPED && !continued) continue;
    auto parent = skeletons_.find(process.parent());
    if (parent != skeletons_.end() && !WIFSTOPPED(process.exit_status())) {
      STASIS_CHECK(parent->second.prepare());
      Batch batch = parent->second.batch();
      const auto number = static_cast<uint64_t>(seen_by(parent->second, process.pid()));
      batch.call(SYS_wait4, {number, 0, WUNTRACED | WNOHANG | uint64_t{__WALL}, 0});
      STASIS_CHECK(parent->second.run_checked(batch, "take note of a stopped child"));
    }
    if (!continued) continue;
    Skeleton& task = skeletons_.at(process.pid());
    if (::kill(task.pid().value, SIGCONT) != 0) return errno_error("restart: continue", {});
    // What is pending comes later.
    STASIS_CHECK(task.prepare());
    Batch batch = task.batch();
    const uint64_t set = batch.put_object(uint64_t{1} << (SIGCONT - 1));
    batch.call(SYS_rt_sigtimedwait, {set, 0, batch.put_object(timespec{}), 8});
    STASIS_CHECK(task.run(batch));
  }
  return {};
}

}  // namespace stasis::restore

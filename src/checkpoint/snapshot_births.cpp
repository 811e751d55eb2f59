// What a process lays down around the fork of its copy: else the program would see that, or it could not be
// made.
#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <utility>

#include "checkpoint/process_saver.h"

namespace stasis::checkpoint {

using remote::Batch;

Result<void> ProcessSaver::suspend_reaping(const schema::Process& process) {
  if (!process.child_subreaper()) return {};
  STASIS_CHECK(foothold_->arm_undo({{{SYS_prctl, PR_SET_CHILD_SUBREAPER, 1}}}));
  reaping_suspended_ = true;
  Batch batch(foothold_->scratch());
  batch.call(SYS_prctl, {PR_SET_CHILD_SUBREAPER, 0});
  return foothold_->run(batch);
}

Result<void> ProcessSaver::resume_reaping() {
  if (!reaping_suspended_) return {};
  reaping_suspended_ = false;
  Batch batch(foothold_->scratch());
  batch.call(SYS_prctl, {PR_SET_CHILD_SUBREAPER, 1});
  STASIS_CHECK(foothold_->run(batch));
  return foothold_->disarm_undo();
}

Result<void> ProcessSaver::leave_ended_namespace() {
  static constexpr char kPath[] = "/proc/thread-self/ns/pid_for_children";
  Batch look(foothold_->scratch());
  look.call(SYS_openat,
            {static_cast<uint64_t>(AT_FDCWD), look.put({kPath, sizeof kPath}), O_RDONLY | O_CLOEXEC});
  look.call(SYS_pidfd_open, {static_cast<uint64_t>(contexts_.front().tgid.value), 0});
  STASIS_CHECK(foothold_->run(look));
  const int64_t kept = look.result(0), own = look.result(1);
  Batch go(foothold_->scratch());
  if (kept >= 0 && own >= 0) {
    STASIS_CHECK(foothold_->arm_undo({{SYS_setns, static_cast<uint64_t>(kept), CLONE_NEWPID},
                                      {SYS_close, static_cast<uint64_t>(kept)},
                                      {SYS_close, static_cast<uint64_t>(own)}}));
    ended_namespace_ = static_cast<uint64_t>(kept);
    go.call(SYS_setns, {static_cast<uint64_t>(own), CLONE_NEWPID});
  }
  if (own >= 0) go.call(SYS_close, {static_cast<uint64_t>(own)});
  if (kept >= 0 && own < 0) go.call(SYS_close, {static_cast<uint64_t>(kept)});
  STASIS_CHECK(foothold_->run(go));
  if (ended_namespace_ != 0 && go.result(0) == 0) return {};
  return Error{
      "save",
      describe(),
      "the pid namespace that it has made for its children (unshare) has ended, so that it cannot fork, "
      "and it has not the right to leave it",
      {},
      ErrorCode::kRefused};
}

Result<void> ProcessSaver::return_to_ended_namespace() {
  if (ended_namespace_ == 0) return {};
  const uint64_t kept = std::exchange(ended_namespace_, 0);
  Batch batch(foothold_->scratch());
  batch.call(SYS_setns, {kept, CLONE_NEWPID});
  batch.call(SYS_close, {kept});
  STASIS_CHECK(foothold_->run(batch));
  return foothold_->disarm_undo();
}

}  // namespace stasis::checkpoint

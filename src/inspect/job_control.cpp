#include "inspect/job_control.h"

#include <sys/syscall.h>
#include <sys/wait.h>

#include <csignal>
#include <utility>
#include <vector>

namespace stasis::inspect {

Result<void> observe_news(const freeze::FrozenTree& tree, const freeze::FrozenProcess& parent,
                          remote::Batch batch, const std::function<Result<void>(remote::Batch&)>& run,
                          schema::Manifest& manifest) {
  constexpr uint64_t kWaitOptions = WSTOPPED | WCONTINUED | WNOHANG | WNOWAIT | __WALL;
  std::vector<std::pair<size_t, uint64_t>> asked;  // a process and the address of what is told of it
  const auto ask = [&]() -> Result<void> {
    if (asked.empty()) return {};
    STASIS_CHECK(run(batch));
    for (size_t i = 0; i < asked.size(); ++i) {
      const auto info = batch.output<siginfo_t>(asked[i].second);
      if (batch.result(i) != 0 || info.si_pid == 0) continue;
      schema::Process& child = *manifest.mutable_processes(static_cast<int>(asked[i].first));
      if (info.si_code == CLD_STOPPED) child.set_exit_status(W_STOPCODE(info.si_status));
      if (info.si_code == CLD_CONTINUED) child.set_exit_status(__W_CONTINUED);
    }
    asked.clear();
    batch.clear();
    return {};
  };
  const size_t level = parent.status.levels.size() - 1;
  for (size_t i = 0; i < tree.processes().size(); ++i) {
    const auto& child = tree.processes()[i];
    if (child.zombie || child.stat.parent != parent.leader || child.status.levels.size() <= level) continue;
    if (!batch.fits(1, sizeof(siginfo_t) + 16)) STASIS_CHECK(ask());
    const uint64_t info = batch.put_object(siginfo_t{});
    const auto number = static_cast<uint64_t>(child.status.levels[level].tgid.value);
    batch.call(SYS_waitid, {P_PID, number, info, kWaitOptions, 0});
    asked.emplace_back(i, info);
  }
  return ask();
}

}  // namespace stasis::inspect

#include "restore/actors.h"

#include <fcntl.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <set>

#include "restore/clone.h"
#include "stasis/fd.h"

namespace stasis::restore {

namespace {

// Only root has other ids than its own to choose from; for others this fails or changes nothing.
void take_ids(const resource::Actor& actor) {
  if (actor.group == ::getegid() && actor.user == ::geteuid()) return;
  ::prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP);
  ::syscall(SYS_setresgid, -1, actor.group, -1);
  ::syscall(SYS_setresuid, -1, actor.user, -1);
}

// `shared`: CLONE_*.
Result<void> perform_as(NsTid number, NsTid nobody, std::span<const Deed> deeds, uint64_t shared) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return errno_error("restart: make descriptors", {});
  Fd from(ends[0]), to(ends[1]);
  CloneRequest request;
  request.flags = shared;
  request.set_tid = reinterpret_cast<uint64_t>(&number.value);
  request.set_tid_size = 1;
  long pid = ::syscall(SYS_clone3, &request, sizeof request);
  // Who is gone may have had a number that is beyond the limit here.
  if (pid < 0 && errno == EINVAL && number != nobody) return perform_as(nobody, nobody, deeds, shared);
  if (pid < 0) return errno_error("restart: make descriptors", fmt::format("task {}", number));
  if (pid == 0) {
    take_ids(deeds.front().actor);
    Result<void> done;
    for (const auto& deed : deeds) {
      if (done.ok()) done = deed.act();
    }
    // The table is init's: nothing is closed by the end of this process.
    if (!done.ok()) (void)write_all(to.get(), packed(done.error())).ok();
    ::_exit(0);
  }
  int status = 0;
  while (::waitpid(static_cast<pid_t>(pid), &status, __WALL) < 0 && errno == EINTR) {
  }
  to.reset();
  STASIS_TRY(std::string text, read_all(from.get()));
  if (!text.empty()) return unpacked(text);
  if (status != 0) {
    return Error{"restart: make descriptors", fmt::format("task {}", number), "a helper was killed",
                 "try again"};
  }
  return {};
}

}  // namespace

Result<void> perform(const std::vector<Deed>& deeds, NsTid nobody) {
  for (size_t first = 0, next = 0; first < deeds.size(); first = next) {
    const auto& actor = deeds[first].actor;
    while (next < deeds.size() && deeds[next].actor == actor) ++next;
    STASIS_CHECK(perform_as(actor.pid.value > 1 ? actor.pid : nobody, nobody,
                            std::span(deeds).subspan(first, next - first), CLONE_FILES));
  }
  return {};
}

Result<void> enter_directory_of(NsTid dead, const std::string& path) {
  const Deed deed{{dead, ::geteuid(), ::getegid()}, [&]() -> Result<void> {
                    if (::chdir(path.c_str()) == 0) return {};
                    return errno_error("restart: enter the directory of a process that has ended", path);
                  }};
  return perform_as(dead, dead, std::span(&deed, 1), CLONE_FILES | CLONE_FS);
}

NsTid unused_number(const schema::Manifest& manifest) {
  std::set<int> used;
  for (const auto& process : manifest.processes()) {
    used.insert({process.pid(), process.group(), process.session()});
    for (const auto& thread : process.threads()) used.insert(thread.tid());
  }
  int number = 32'767;  // below the smallest limit that is usual
  while (used.contains(number)) --number;
  return NsTid{number};
}

}  // namespace stasis::restore

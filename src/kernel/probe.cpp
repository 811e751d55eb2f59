#include "kernel/probe.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "kernel/probe_internal.h"
#include "stasis/fd.h"

namespace stasis::kernel {
namespace probing {

Outcome works(std::string reason) { return {Ability::kOk, std::move(reason), ""}; }
Outcome partly(std::string reason, std::string remedy) {
  return {Ability::kPartial, std::move(reason), std::move(remedy)};
}
Outcome lacking(std::string reason, std::string remedy) {
  return {Ability::kMissing, std::move(reason), std::move(remedy)};
}
std::string failed(const char* call) { return fmt::format("{}: {}", call, std::strerror(errno)); }

Outcome in_child(const std::function<Outcome()>& trial) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return lacking(failed("pipe"), "");
  Fd reader(ends[0]), writer(ends[1]);
  const pid_t child = fork();
  if (child < 0) return lacking(failed("fork"), "allow this user more processes (ulimit -u)");
  if (child == 0) {
    // A process group of its own: what the trial leaves behind is found and killed with it.
    setpgid(0, 0);
    const Outcome outcome = trial();
    const std::string text =
        fmt::format("{}{}\n{}", static_cast<int>(outcome.ability), outcome.reason, outcome.remedy);
    _exit(write_all(writer.get(), text).ok() ? 0 : 1);
  }
  writer.reset();
  std::string text;
  for (;;) {
    pollfd ready = {reader.get(), POLLIN, 0};
    const int events = poll(&ready, 1, 10'000);
    if (events < 0 && errno == EINTR) continue;
    if (events <= 0) break;
    char buffer[512];
    const ssize_t count = read(reader.get(), buffer, sizeof buffer);
    if (count <= 0) break;
    text.append(buffer, static_cast<size_t>(count));
  }
  kill(-child, SIGKILL);
  kill(child, SIGKILL);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  const size_t line = text.find('\n');
  if (text.empty() || line == std::string::npos) {
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
      return lacking("a seccomp filter killed the trial", "");
    return lacking("the trial did not come to an end", "");
  }
  return {static_cast<Ability>(text[0] - '0'), text.substr(1, line - 1), text.substr(line + 1)};
}

namespace {

Outcome look_at_kernel() {
  utsname name;
  if (uname(&name) != 0) return lacking(failed("uname"), "");
  const std::string what = fmt::format("{} {} {}", name.sysname, name.release, name.machine);
  if (std::strcmp(name.machine, "x86_64") != 0) return lacking(what, "stasis runs on x86-64");
  return works(what);
}

}  // namespace
}  // namespace probing

std::vector<Finding> probe_host(const std::string& store) {
  using namespace probing;
  enum Weight { kEssential, kOptional };
  struct Probe {
    const char* name;
    Weight weight;
    std::function<Outcome()> trial;
  };
  const Probe probes[] = {
      {"kernel", kEssential, look_at_kernel},
      {"user namespace", kEssential, try_user_namespace},
      {"exact pids", kEssential, try_exact_pids},
      {"proc in a session", kEssential, try_mount_proc},
      {"time namespace", kOptional, try_time_namespace},
      {"network namespace", kOptional, try_network_namespace},
      {"mounts of programs", kOptional, try_mounts},
      {"trace a session", kEssential, try_trace_session},
      {"trace other programs", kOptional, try_trace_stranger},
      {"kcmp", kEssential, try_kcmp},
      {"pidfd_getfd", kEssential, try_pidfd_getfd},
      {"rseq registration", kOptional, try_rseq_configuration},
      {"POSIX timers", kOptional, try_posix_timers},
      {"memory layout", kEssential, try_mm_map},
      {"page scan", kOptional, try_pagemap_scan},
      {"write tracking", kOptional, try_write_tracking},
      {"seccomp notification", kOptional, try_seccomp_notification},
      {"display", kOptional, try_display},
      {"store", kEssential, [&] { return try_store(store); }},
      {"reflinks", kOptional, [&] { return try_reflink(store); }},
  };
  std::vector<Finding> findings;
  for (const auto& probe : probes) {
    Outcome outcome = in_child(probe.trial);
    findings.push_back({probe.name, probe.weight == kEssential, outcome.ability, std::move(outcome.reason),
                        std::move(outcome.remedy)});
  }
  return findings;
}

}  // namespace stasis::kernel

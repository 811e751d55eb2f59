#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "kernel/probe_internal.h"
#include "stasis/fd.h"

namespace stasis::kernel {

std::string find_program(const std::string& name) {
  const char* variable = std::getenv("PATH");
  std::string_view path = variable != nullptr ? variable : "/usr/local/bin:/usr/bin:/bin";
  while (!path.empty()) {
    const size_t end = std::min(path.find(':'), path.size());
    std::string candidate = fmt::format("{}/{}", path.substr(0, end), name);
    struct stat status;
    if (::access(candidate.c_str(), X_OK) == 0 && ::stat(candidate.c_str(), &status) == 0 &&
        S_ISREG(status.st_mode))
      return candidate;
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return {};
}

namespace probing {

namespace {

// What it says of its options, on whichever stream.
std::string usage_of(const std::string& server) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) return {};
  Fd from(ends[0]), to(ends[1]);
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::dup2(to.get(), 1);
    ::dup2(to.get(), 2);
    ::execl(server.c_str(), "Xvfb", "-help", nullptr);
    ::_exit(127);
  }
  to.reset();
  auto said = read_all(from.get());
  if (pid > 0) ::waitpid(pid, nullptr, 0);
  return said.ok() ? *said : std::string();
}

}  // namespace

Outcome try_display() {
  constexpr const char* kInstall = "apt-get install xvfb (for 'launch --display')";
  const std::string server = find_program("Xvfb");
  if (server.empty()) return lacking("there is no Xvfb", kInstall);
  const std::string usage = usage_of(server);
  for (const char* option : {"-displayfd", "-shmem", "-noreset"}) {
    if (usage.find(option) == std::string::npos)
      return lacking(fmt::format("{} does not run here, or does not know {}", server, option), kInstall);
  }
  return works(server);
}

}  // namespace probing

}  // namespace stasis::kernel

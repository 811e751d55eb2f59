#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "base/result.h"
#include "kernel/probe_internal.h"

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

Outcome try_display() {
  constexpr const char* kInstall = "apt-get install xvfb (for 'launch --display')";
  const std::string server = find_program("Xvfb");
  if (server.empty()) return lacking("there is no Xvfb", kInstall);
  const pid_t pid = ::fork();
  if (pid < 0) return lacking(failed("fork"), {});
  if (pid == 0) {
    const int null = ::open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; ++fd) ::dup2(null, fd);
    ::execl(server.c_str(), "Xvfb", "-version", nullptr);
    ::_exit(127);
  }
  int status = 0;
  if (::waitpid(pid, &status, 0) != pid || status != 0)
    return lacking(fmt::format("{} cannot be executed, or lacks a library", server), kInstall);
  return works(server);
}

}  // namespace probing

}  // namespace stasis::kernel

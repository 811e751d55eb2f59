#include "restore/last_number.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <utility>

#include "restore/clone.h"

namespace stasis::restore {
namespace {

constexpr const char* kFile = "/proc/sys/kernel/ns_last_pid";
constexpr const char* kStep = "restart: choose the number of a task";

[[noreturn]] void serve(int requests, int answers) {
  const int file = ::open(kFile, O_WRONLY | O_CLOEXEC);
  int next = 0;
  while (::read(requests, &next, sizeof next) == sizeof next) {
    const std::string text = std::to_string(next - 1);
    int error = 0;
    if (file < 0 || ::pwrite(file, text.data(), text.size(), 0) < 0) error = errno;
    if (::write(answers, &error, sizeof error) != sizeof error) break;
  }
  ::_exit(0);
}

}  // namespace

Result<LastNumber> LastNumber::start(NsTid own) {
  int requests[2], answers[2];
  if (::pipe2(requests, O_CLOEXEC) != 0) return errno_error(kStep, {});
  Fd requests_from(requests[0]), requests_to(requests[1]);
  if (::pipe2(answers, O_CLOEXEC) != 0) return errno_error(kStep, {});
  Fd answers_from(answers[0]), answers_to(answers[1]);
  CloneRequest request;
  int32_t number = own.value;
  request.set_tid = reinterpret_cast<uint64_t>(&number);
  request.set_tid_size = 1;
  const long pid = ::syscall(SYS_clone3, &request, sizeof request);
  if (pid < 0) return errno_error(kStep, fmt::format("helper {}", own));
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::close(requests_to.release());
    serve(requests_from.get(), answers_to.get());
  }
  return LastNumber(static_cast<pid_t>(pid), std::move(requests_to), std::move(answers_from));
}

LastNumber::~LastNumber() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, __WALL) < 0 && errno == EINTR) {
  }
}

Result<void> LastNumber::set_next(int number) const {
  int error = EPIPE;
  if (::write(requests_.get(), &number, sizeof number) != sizeof number ||
      ::read(answers_.get(), &error, sizeof error) != sizeof error)
    return errno_error(kStep, fmt::format("task {}", number));
  if (error != 0) return errno_error(kStep, fmt::format("{} for task {}", kFile, number), error);
  return {};
}

}  // namespace stasis::restore

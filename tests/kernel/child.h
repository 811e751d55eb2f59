// A child process of a test of the kernel, and a way to tell it to go on.
#pragma once

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

namespace beliefs {

// Runs a function in a child, which is killed and reaped at the end.
class Child {
 public:
  explicit Child(const std::function<void()>& run) {
    if (pipe(go_) != 0 || pipe(answer_) != 0) _exit(2);
    pid_ = fork();
    if (pid_ == 0) {
      current_ = this;
      run();
      _exit(0);
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    kill(pid_, SIGKILL);
    while (waitpid(pid_, nullptr, __WALL) > 0 || errno == EINTR) errno = 0;
    for (int fd : {go_[0], go_[1], answer_[0], answer_[1]}) close(fd);
  }

  pid_t pid() const { return pid_; }
  // Parent: the child returns from await().
  void go() {
    char byte = 'g';
    [[maybe_unused]] ssize_t n = write(go_[1], &byte, 1);
  }
  // Parent: the next number that the child told, or -1 after a second.
  long told();

  // Child:
  static void await() {
    char byte;
    while (read(current_->go_[0], &byte, 1) != 1) {
    }
  }
  static void tell(long value) {
    [[maybe_unused]] ssize_t n = write(current_->answer_[1], &value, sizeof value);
  }

 private:
  inline static Child* current_ = nullptr;
  pid_t pid_ = -1;
  int go_[2], answer_[2];
};

[[noreturn]] inline void sleep_for_ever() {
  for (;;) pause();
}

}  // namespace beliefs

#include <poll.h>

inline long beliefs::Child::told() {
  pollfd entry = {answer_[0], POLLIN, 0};
  long value = -1;
  if (poll(&entry, 1, 1000) != 1 || read(answer_[0], &value, sizeof value) != sizeof value) return -1;
  return value;
}

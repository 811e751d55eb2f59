#include "session/terminal.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace stasis::session {

Result<TerminalPair> make_terminal() {
  TerminalPair pair;
  int number = 0, unlocked = 0;
  STASIS_TRY(pair.master, open_file("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK));
  if (::ioctl(pair.master.get(), TIOCSPTLCK, &unlocked) < 0 ||
      ::ioctl(pair.master.get(), TIOCGPTN, &number) < 0)
    return errno_error("create a terminal", "/dev/ptmx");
  pair.slave_path = fmt::format("/dev/pts/{}", number);
  STASIS_TRY(pair.slave, open_file(pair.slave_path, O_RDWR | O_NOCTTY));
  struct stat status;
  if (::fstat(pair.slave.get(), &status) < 0) return errno_error("examine", pair.slave_path);
  pair.device = status.st_rdev;
  struct winsize size = {.ws_row = 24, .ws_col = 80, .ws_xpixel = 0, .ws_ypixel = 0};
  ::ioctl(pair.master.get(), TIOCSWINSZ, &size);
  return pair;
}

UserTerminal UserTerminal::find() {
  UserTerminal user;
  bool terminal[3];
  for (int fd = 0; fd < 3; ++fd) {
    terminal[fd] = ::isatty(fd) == 1;
    if (terminal[fd] && user.control < 0) user.control = fd;
  }
  user.output = terminal[1] ? 1 : (terminal[2] ? 2 : (terminal[0] ? 0 : -1));
  // In "producer | program", the program may still ask the terminal, as less does; with its output in a pipe
  // too, it is a filter, and the keys are for somebody else.
  if (terminal[0])
    user.input = 0;
  else if (terminal[1])
    user.input = 1;
  return user;
}

void copy_terminal_settings(int from, int to) {
  struct termios attributes;
  if (::tcgetattr(from, &attributes) == 0) ::tcsetattr(to, TCSANOW, &attributes);
  struct winsize size;
  if (::ioctl(from, TIOCGWINSZ, &size) == 0 && size.ws_row > 0) ::ioctl(to, TIOCSWINSZ, &size);
}

bool RawMode::enter() {
  if (active_) return true;
  if (control_ < 0 || ::tcgetpgrp(control_) != ::getpgrp() || ::tcgetattr(control_, &saved_) < 0)
    return false;
  struct termios raw = saved_;
  ::cfmakeraw(&raw);
  active_ = ::tcsetattr(control_, TCSADRAIN, &raw) == 0;
  return active_;
}

void RawMode::restore() {
  if (!active_) return;
  active_ = false;
  // From the background this would stop us by SIGTTOU, which our caller has blocked.
  ::tcsetattr(control_, TCSADRAIN, &saved_);
}

Relay::Relay(int master, UserTerminal user, std::optional<char> detach_key)
    : master_(master),
      user_(user),
      detach_key_(detach_key),
      input_open_(user.input >= 0),
      input_is_terminal_(user.input >= 0 && ::isatty(user.input) == 1),
      output_open_(user.output >= 0) {}

void Relay::resize() const {
  struct winsize size;
  if (user_.control >= 0 && ::ioctl(user_.control, TIOCGWINSZ, &size) == 0 && size.ws_row > 0)
    ::ioctl(master_, TIOCSWINSZ, &size);
}

void Relay::resize_and_redraw() const {
  // The kernel sends SIGWINCH only for a change, so make one on the way.
  struct winsize size;
  if (::ioctl(master_, TIOCGWINSZ, &size) == 0) {
    size.ws_row = static_cast<unsigned short>(size.ws_row > 1 ? size.ws_row - 1 : 2);
    ::ioctl(master_, TIOCSWINSZ, &size);
  }
  resize();
}

void Relay::prepare(std::array<pollfd, kEntries>& entries) const {
  entries[0] = {
      .fd = input_open_ && listening_ && keys_.empty() ? user_.input : -1, .events = POLLIN, .revents = 0};
  entries[1] = {.fd = master_, .events = POLLIN, .revents = 0};
  if (!keys_.empty()) entries[1].events |= POLLOUT;
}

Relay::Event Relay::handle(const std::array<pollfd, kEntries>& entries) {
  Event event = Event::kNone;
  if (entries[1].revents & (POLLIN | POLLHUP | POLLERR)) event = move_output();
  if (event == Event::kNone && entries[0].fd >= 0 && entries[0].revents != 0) event = read_keys();
  if (!keys_.empty()) {
    ssize_t taken = ::write(master_, keys_.data(), keys_.size());
    if (taken > 0) keys_.erase(0, static_cast<size_t>(taken));
    if (taken < 0 && errno != EAGAIN && errno != EINTR) keys_.clear();
  }
  return event;
}

Relay::Event Relay::move_output() {
  std::array<char, 4096> buffer;
  ssize_t size = ::read(master_, buffer.data(), buffer.size());
  if (size < 0) return errno == EAGAIN || errno == EINTR ? Event::kNone : Event::kMasterGone;
  if (size == 0) return Event::kMasterGone;
  if (!output_open_) return Event::kNone;
  if (!write_all(user_.output, {buffer.data(), static_cast<size_t>(size)}).ok()) {
    output_open_ = false;
    return Event::kUserGone;
  }
  return Event::kNone;
}

Relay::Event Relay::read_keys() {
  std::array<char, 4096> buffer;
  ssize_t size = ::read(user_.input, buffer.data(), buffer.size());
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return Event::kNone;
  if (size <= 0) {
    input_open_ = false;
    // The end of a file or pipe is no hang-up: the program goes on, as with its input at /dev/null.
    return input_is_terminal_ || size < 0 ? Event::kUserGone : Event::kNone;
  }
  std::string_view keys(buffer.data(), static_cast<size_t>(size));
  if (detach_key_) {
    if (size_t at = keys.find(*detach_key_); at != std::string_view::npos) {
      keys_ += keys.substr(0, at);
      return Event::kDetach;
    }
  }
  keys_ += keys;
  return Event::kNone;
}

void Relay::drain() {
  // A read of a non-blocking master first takes over what is still queued in the kernel, so EAGAIN means:
  // that was all. Bounded, since other processes may write for ever.
  for (int reads = 0; output_open_ && reads < 4096; ++reads) {
    std::array<char, 4096> buffer;
    ssize_t size = ::read(master_, buffer.data(), buffer.size());
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0 || !write_all(user_.output, {buffer.data(), static_cast<size_t>(size)}).ok()) return;
  }
}

}  // namespace stasis::session

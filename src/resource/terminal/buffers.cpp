#include "resource/terminal/buffers.h"

#include <fcntl.h>
#include <linux/tty.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <bitset>
#include <csignal>
#include <ctime>
#include <vector>

#include "stasis/fd.h"

namespace stasis::resource {
namespace {

// What the line discipline holds; the rest waits before it.
constexpr int kDiscipline = 4095;

bool is_ready(int fd, short events) {
  pollfd state = {fd, events, 0};
  return ::poll(&state, 1, 0) > 0 && (state.revents & events) != 0;
}

int readable(int fd) {
  int count = 0;
  return ::ioctl(fd, TIOCINQ, &count) == 0 ? count : -1;
}

void nap() {
  timespec moment{0, 200'000};
  ::nanosleep(&moment, nullptr);
}

// What is written arrives by a work queue of the kernel's.
template <typename Condition>
bool await(Condition arrived) {
  constexpr int kLooks = 5'000;
  for (int i = 0; i < kLooks; ++i) {
    if (arrived()) return true;
    nap();
  }
  return false;
}

bool ends_line(const termios2& attributes, char last) {
  auto byte = static_cast<unsigned char>(last);
  return last == '\n' || (byte != 0 && (byte == attributes.c_cc[VEOL] || byte == attributes.c_cc[VEOL2]));
}

// Attributes under which bytes go through as they are.
struct Plain {
  termios2 raw, canonical;
  // Characters that are not in the input, with these meanings in canonical mode. stop is 0 for a master in
  // packet mode, which is told of a change of flow control.
  unsigned char literal = 0, end_of_file = 0, stop = 0, start = 0;

  Plain(const termios2& now, const schema::TerminalInput& input, bool packet) : raw(now), canonical(now) {
    std::bitset<256> used;
    for (const auto& line : input.lines()) {
      for (unsigned char byte : line) used.set(byte);
    }
    for (unsigned char byte : input.rest()) used.set(byte);
    for (unsigned char keep : {VSTART, VSTOP, VEOL, VEOL2}) used.set(now.c_cc[keep]);
    int unused = 1;
    auto take = [&] {
      while (unused < 255 && (used.test(static_cast<size_t>(unused)) || unused == '\n')) ++unused;
      return static_cast<unsigned char>(unused++);
    };
    literal = take();
    end_of_file = take();
    if (!packet) {
      stop = take();
      start = take();
    }
    raw.c_iflag &= IXON | IUTF8;
    auto in_rest = [&](unsigned char byte) {
      return input.rest().find(static_cast<char>(byte)) != std::string::npos;
    };
    if ((now.c_lflag & ICANON) == 0 && (in_rest(now.c_cc[VSTART]) || in_rest(now.c_cc[VSTOP])))
      raw.c_iflag &= ~static_cast<tcflag_t>(IXON);
    raw.c_oflag &= ~static_cast<tcflag_t>(OPOST);
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | ECHOE | ECHOK | ECHONL | ECHOCTL | ECHOPRT |
                                          ECHOKE | ISIG | IEXTEN | XCASE);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    canonical = raw;
    canonical.c_lflag |= ICANON | IEXTEN;
    for (int i = 0; i < static_cast<int>(sizeof canonical.c_cc); ++i) {
      if (i != VSTART && i != VSTOP && i != VEOL && i != VEOL2) canonical.c_cc[i] = 0;
    }
    canonical.c_cc[VLNEXT] = literal;
    canonical.c_cc[VEOF] = end_of_file;
    if (stop != 0) {
      canonical.c_iflag |= IXON;
      canonical.c_cc[VSTOP] = stop;
      canonical.c_cc[VSTART] = start;
    }
  }

  // What has to be typed so that these bytes are in the line, and end none.
  std::string typed(std::string_view bytes) const {
    std::string text;
    for (char c : bytes) {
      auto byte = static_cast<unsigned char>(c);
      bool special =
          ends_line(canonical, c) || ((canonical.c_iflag & IXON) != 0 && byte != 0 &&
                                      (byte == canonical.c_cc[VSTART] || byte == canonical.c_cc[VSTOP]));
      if (special) text += static_cast<char>(literal);
      text += c;
    }
    return text;
  }
};

bool write_away(int fd, std::string_view bytes) {
  for (int i = 0; !bytes.empty() && i < 1'000; ++i) {
    ssize_t count = ::write(fd, bytes.data(), bytes.size());
    if (count < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (count > 0) bytes.remove_prefix(static_cast<size_t>(count));
    if (!bytes.empty()) nap();
  }
  return bytes.empty();
}

bool type_raw(int master, int slave, const std::string& bytes) {
  if (bytes.empty()) return true;
  const int expected = std::min(static_cast<int>(bytes.size()), kDiscipline);
  return write_away(master, bytes) && await([&] { return readable(slave) >= expected; });
}

bool type_lines(int master, int slave, const Plain& plain, const schema::TerminalInput& input) {
  std::string text;
  int expected = 0;
  for (const auto& line : input.lines()) {
    std::string_view body = line;
    std::string end(1, static_cast<char>(plain.end_of_file));
    if (!line.empty() && ends_line(plain.canonical, line.back())) {
      body.remove_suffix(1);
      end = line.back();
    }
    text += plain.typed(body) + end;
    expected += static_cast<int>(line.size());
  }
  if (!text.empty()) {
    expected = std::min(expected, kDiscipline - 1 - static_cast<int>(input.lines_size()));
    if (!write_away(master, text)) return false;
    if (!await([&] { return is_ready(slave, POLLIN) && readable(slave) >= expected; })) return false;
  }
  if (input.rest().empty()) return true;
  // Nobody sees when half a line has arrived, but all see that output is stopped.
  text = plain.typed(input.rest());
  if (plain.stop != 0) text += static_cast<char>(plain.stop);
  if (!write_away(master, text)) return false;
  if (plain.stop == 0) {
    for (int i = 0; i < 100; ++i) nap();
    return true;
  }
  const std::string start(1, static_cast<char>(plain.start));
  return await([&] { return !is_ready(slave, POLLOUT); }) && write_away(master, start) &&
         await([&] { return is_ready(slave, POLLOUT); });
}

bool set_attributes(int slave, const termios2& attributes) {
  return ::ioctl(slave, TCSETS2, &attributes) == 0;
}

// So that a write which does not fit fails instead of waiting for ever. The flag is the program's.
class NotBlocking {
 public:
  explicit NotBlocking(int fd) : fd_(fd), flags_(::fcntl(fd, F_GETFL)) {
    ::fcntl(fd_, F_SETFL, flags_ | O_NONBLOCK);
  }
  ~NotBlocking() { ::fcntl(fd_, F_SETFL, flags_); }
  NotBlocking(const NotBlocking&) = delete;
  NotBlocking& operator=(const NotBlocking&) = delete;

 private:
  int fd_;
  int flags_;
};

bool is_in_packet_mode(int master) {
  int packet = 0;
  return ::ioctl(master, TIOCGPKT, &packet) == 0 && packet != 0;
}

bool fill(int master, int slave, const termios2& now, const TerminalBuffers& content) {
  NotBlocking writing(master);
  const Plain plain(now, content.input, is_in_packet_mode(master));
  // Turning canonical mode on or off changes what the buffer means, so they come while it is empty.
  const bool canonical = (now.c_lflag & ICANON) != 0;
  bool done = set_attributes(slave, canonical ? plain.canonical : plain.raw);
  if (done && !content.output.empty()) {
    const int expected = std::min(static_cast<int>(content.output.size()), kDiscipline);
    done = write_away(slave, content.output) && await([&] { return readable(master) >= expected; });
  }
  if (done) {
    done = canonical ? type_lines(master, slave, plain, content.input)
                     : type_raw(master, slave, content.input.rest());
  }
  return set_attributes(slave, now) && done;
}

std::string read_rest(int slave) {
  std::string rest;
  std::vector<char> buffer(kMostBuffered);
  for (;;) {
    if (!is_ready(slave, POLLIN)) return rest;
    ssize_t count = ::read(slave, buffer.data(), buffer.size());
    if (count <= 0) return rest;
    rest.append(buffer.data(), static_cast<size_t>(count));
  }
}

void read_lines(int slave, schema::TerminalInput& input) {
  std::vector<char> buffer(kMostBuffered);
  while (is_ready(slave, POLLIN)) {
    ssize_t count = ::read(slave, buffer.data(), buffer.size());
    if (count < 0) return;
    input.add_lines(buffer.data(), static_cast<size_t>(count));
  }
}

// The descriptor is the program's, and may block: exactly what is there.
std::string read_output(int master, bool packet) {
  std::string output;
  std::vector<char> buffer(kMostBuffered);
  while (is_ready(master, POLLIN)) {
    int count = readable(master);
    if (count <= 0) break;
    size_t wanted = std::min(static_cast<size_t>(count) + (packet ? 1 : 0), buffer.size());
    ssize_t got = ::read(master, buffer.data(), wanted);
    if (got <= 0) break;
    const int skip = packet ? 1 : 0;  // says that data follow
    output.append(buffer.data() + skip, static_cast<size_t>(got - skip));
  }
  return output;
}

bool can_be_put_back(int master, int slave, const termios2& now) {
  int discipline = 0;
  if (::ioctl(slave, TIOCGETD, &discipline) != 0 || discipline != N_TTY) return false;
  if ((now.c_lflag & EXTPROC) != 0) return false;
  // A status of packet mode comes before the data, and could not be given back.
  return is_ready(slave, POLLOUT) && !is_ready(master, POLLPRI);
}

// In the process that goes on when we are killed.
std::optional<TerminalBuffers> take_and_put_back(int master, int slave, const termios2& now) {
  TerminalBuffers content;
  const bool packet = is_in_packet_mode(master);
  if ((now.c_lflag & ICANON) != 0) read_lines(slave, content.input);
  const Plain plain(now, content.input, packet);
  if (!set_attributes(slave, plain.raw)) return std::nullopt;
  content.input.set_rest(read_rest(slave));
  content.output = read_output(master, packet);
  if (!fill(master, slave, now, content)) return std::nullopt;
  return content;
}

}  // namespace

std::optional<TerminalBuffers> look_into_buffers(int master) {
  Fd slave(::ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  termios2 now = {};
  if (!slave || ::ioctl(slave.get(), TCGETS2, &now) != 0) return std::nullopt;
  // Only half a line does not show.
  if ((now.c_lflag & ICANON) == 0 && readable(master) == 0 && !is_ready(slave.get(), POLLIN) &&
      readable(slave.get()) == 0)
    return TerminalBuffers();
  if (!can_be_put_back(master, slave.get(), now)) return std::nullopt;
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return std::nullopt;
  Fd from(ends[0]), to(ends[1]);
  sigset_t all, before;
  ::sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, &before);
  pid_t child = ::fork();
  if (child == 0) {
    ::setsid();
    auto content = take_and_put_back(master, slave.get(), now);
    if (!content) ::_exit(1);
    schema::Pty message;
    *message.mutable_input() = std::move(content->input);
    message.set_output(std::move(content->output));
    ::_exit(write_all(to.get(), message.SerializeAsString()).ok() ? 0 : 1);
  }
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
  to.reset();
  if (child < 0) return std::nullopt;
  auto bytes = read_all(from.get());
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  schema::Pty message;
  if (status != 0 || !bytes.ok() || !message.ParseFromString(*bytes)) return std::nullopt;
  return TerminalBuffers{std::move(*message.mutable_input()), std::move(*message.mutable_output())};
}

Result<void> fill_buffers(int master, int slave, const TerminalBuffers& content) {
  termios2 now = {};
  if (::ioctl(slave, TCGETS2, &now) != 0 || !fill(master, slave, now, content))
    return errno_error("restore what was typed", "terminal");
  return {};
}

}  // namespace stasis::resource

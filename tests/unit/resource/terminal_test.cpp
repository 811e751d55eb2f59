// Pseudo-terminals and the session's own terminal.
#include <sys/ioctl.h>
#include <termios.h>

#include "tests/unit/resource/fakes.h"

namespace stasis::resource {
namespace {

class Terminals : public ResourceTest {
 protected:
  struct Pty {
    Pty() : master(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)) {
      unlockpt(master.get());
      slave.reset(open(ptsname(master.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
    }
    Fd master, slave;
  };
  static std::string read_soon(int fd) {
    pollfd state = {fd, POLLIN, 0};
    poll(&state, 1, 1000);
    return read_now(fd);
  }
};

TEST_F(Terminals, AttributesSizeAndModes) {
  Pty pty;
  termios attributes = {};
  tcgetattr(pty.slave.get(), &attributes);
  cfmakeraw(&attributes);
  attributes.c_cc[VMIN] = 3;
  ASSERT_EQ(tcsetattr(pty.slave.get(), TCSANOW, &attributes), 0);
  winsize window = {33, 121, 0, 0};
  ASSERT_EQ(ioctl(pty.master.get(), TIOCSWINSZ, &window), 0);
  int on = 1;
  ASSERT_EQ(ioctl(pty.master.get(), TIOCPKT, &on), 0);
  Fd second = open_file(ptsname(pty.master.get()), O_WRONLY | O_NONBLOCK | O_NOCTTY).value();
  std::string name = ptsname(pty.master.get());
  tree.add({pty.slave.get()});
  tree.add({pty.master.get()});
  tree.add({second.get()});
  auto records = tree.observe();
  ASSERT_OK(records);
  pty.master.reset();
  pty.slave.reset();
  second.reset();
  tree.end_program();
  FakeMaking later(image, std::move(*records));
  ASSERT_OK(later.run());
  termios restored = {};
  ASSERT_EQ(tcgetattr(later[1], &restored), 0);
  EXPECT_EQ(restored.c_lflag, attributes.c_lflag);
  EXPECT_EQ(restored.c_cc[VMIN], 3);
  winsize size = {};
  ASSERT_EQ(ioctl(later[1], TIOCGWINSZ, &size), 0);
  EXPECT_EQ(size.ws_row, 33);
  EXPECT_EQ(size.ws_col, 121);
  EXPECT_EQ(ptsname(later[2]), name) << "the number was free";
  ASSERT_EQ(write(later[3], "out", 3), 3);
  EXPECT_EQ(read_soon(later[2]), std::string("\0out", 4)) << "packet mode puts a byte in front";
}

TEST_F(Terminals, TakenNumberAndHangup) {
  Pty pty, closed;
  closed.slave.reset();
  tree.add({pty.slave.get()});
  tree.add({pty.master.get()});
  tree.add({closed.master.get()});
  round_trip();
  ASSERT_EQ(write((*made)[2], "typed\n", 6), 6);
  EXPECT_EQ(read_soon((*made)[1]), "typed\n");
  EXPECT_EQ(read_soon((*made)[3]), fmt::format("({})", strerror(EIO)));
  Pty orphan;
  orphan.master.reset();
  tree.add({orphan.slave.get()});
  auto records = tree.observe();
  ASSERT_OK(records);
  FakeMaking later(image, {records->back()});
  ASSERT_OK(later.run());
  EXPECT_EQ(read_soon(later[4]), "");
}

TEST_F(Terminals, OutsideTerminalIsRefused) {
  Pty pty;
  EXPECT_NE(refusal_of(pty.slave.get()).find("outside the session"), std::string::npos);
}

TEST_F(Terminals, SessionTerminalIsReplaced) {
  Pty before, after;
  struct stat status = {};
  fstat(before.slave.get(), &status);
  tree.terminal = status.st_rdev;
  tree.add({before.slave.get()});
  terminal_path = ptsname(after.master.get());
  round_trip();
  EXPECT_EQ(ttyname((*made)[1]), terminal_path);
  terminal_path.clear();
  round_trip();
  EXPECT_EQ(write((*made)[1], "x", 1), 1);
  EXPECT_FALSE(isatty((*made)[1]));
}

}  // namespace
}  // namespace stasis::resource

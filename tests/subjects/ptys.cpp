// Pseudo terminals whose both ends are in the tree: modes, size, what is typed and not yet read, and job
// control.
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "subject.h"

namespace {

struct Terminal {
  int master, slave;
};
Terminal make_terminal(const winsize* size = nullptr) {
  Terminal t;
  t.master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (t.master < 0 || grantpt(t.master) != 0 || unlockpt(t.master) != 0) SKIP("no pseudo terminals here");
  t.slave = open(ptsname(t.master), O_RDWR | O_NOCTTY);
  MUST(t.slave >= 0);
  if (size != nullptr) MUST(ioctl(t.master, TIOCSWINSZ, size) == 0);
  return t;
}
void raw(int fd) {
  termios modes;
  MUST(tcgetattr(fd, &modes) == 0);
  cfmakeraw(&modes);
  MUST(tcsetattr(fd, TCSANOW, &modes) == 0);
}
void expect(int fd, const char* text) {
  char back[256] = {};
  size_t have = 0, wanted = strlen(text);
  int flags = fcntl(fd, F_GETFL);
  fcntl(fd, F_SETFL, flags | O_NONBLOCK);
  for (int i = 0; i < 400 && have < wanted; ++i) {
    ssize_t n = read(fd, back + have, sizeof back - 1 - have);
    if (n > 0) have += n;
    if (have < wanted) subject::pass(5);
  }
  fcntl(fd, F_SETFL, flags);
  if (strcmp(back, text) != 0) subject::say("got \"%s\", expected \"%s\"", back, text);
  CHECK_EQ(strcmp(back, text), 0);
}
void type(int fd, const char* text) {
  CHECK_EQ(write(fd, text, strlen(text)), static_cast<ssize_t>(strlen(text)));
}

}  // namespace

CASE(both_ends) {
  Terminal t = make_terminal();
  raw(t.slave);
  subject::hold();
  type(t.master, "down");
  expect(t.slave, "down");
  type(t.slave, "up");
  expect(t.master, "up");
}

CASE(modes_and_size) {
  winsize size = {33, 101, 5, 6}, size_now = {};
  Terminal t = make_terminal(&size);
  termios modes, now;
  MUST(tcgetattr(t.slave, &modes) == 0);
  modes.c_lflag &= ~(ECHO | ISIG);
  modes.c_iflag |= IXANY;
  modes.c_cc[VINTR] = 7;
  modes.c_cc[VMIN] = 3;
  cfsetspeed(&modes, B19200);
  MUST(tcsetattr(t.slave, TCSANOW, &modes) == 0 && tcgetattr(t.slave, &modes) == 0);
  subject::hold();
  CHECK_EQ(tcgetattr(t.slave, &now), 0);
  CHECK_EQ(now.c_lflag, modes.c_lflag);
  CHECK_EQ(now.c_iflag, modes.c_iflag);
  CHECK_EQ(now.c_oflag, modes.c_oflag);
  CHECK_EQ(now.c_cflag, modes.c_cflag);
  CHECK_EQ(memcmp(now.c_cc, modes.c_cc, sizeof now.c_cc), 0);
  CHECK_EQ(ioctl(t.slave, TIOCGWINSZ, &size_now), 0);
  CHECK_EQ(memcmp(&size, &size_now, sizeof size), 0);
}

CASE(typed_ahead) {
  Terminal t = make_terminal();
  raw(t.slave);
  type(t.master, "not read yet");
  type(t.slave, "not shown yet");
  subject::hold();
  expect(t.slave, "not read yet");
  expect(t.master, "not shown yet");
}

CASE(whole_and_half_line) {
  Terminal t = make_terminal();
  termios modes;
  MUST(tcgetattr(t.slave, &modes) == 0);
  modes.c_lflag &= ~ECHO;
  MUST(tcsetattr(t.slave, TCSANOW, &modes) == 0);
  type(t.master, "a whole line\nhalf a l");
  subject::pass(20);
  subject::hold();
  char back[64] = {};
  CHECK_EQ(read(t.slave, back, sizeof back), 13);
  CHECK_EQ(strcmp(back, "a whole line\n"), 0);
  type(t.master, "ine\n");
  memset(back, 0, sizeof back);
  CHECK_EQ(read(t.slave, back, sizeof back), 12);
  CHECK_EQ(strcmp(back, "half a line\n"), 0);
}

void set_modes(int fd, tcflag_t clear, tcflag_t set) {
  termios modes;
  MUST(tcgetattr(fd, &modes) == 0);
  modes.c_lflag = (modes.c_lflag & ~clear) | set;
  MUST(tcsetattr(fd, TCSANOW, &modes) == 0);
}
void expect_line(int fd, const char* text, size_t size) {
  char back[8192] = {};
  CHECK_EQ(read(fd, back, sizeof back), static_cast<ssize_t>(size));
  if (memcmp(back, text, size) != 0) subject::say("got \"%s\", expected \"%s\"", back, text);
  CHECK_EQ(memcmp(back, text, size), 0);
}

// Characters that mean something when they are typed, lines that were not ended by Enter, and the echo.
CASE(lines_of_every_sort) {
  Terminal t = make_terminal();
  termios modes;
  MUST(tcgetattr(t.slave, &modes) == 0);
  modes.c_cc[VEOL] = ';';
  modes.c_lflag |= ECHO | ICANON | ISIG | IEXTEN;
  modes.c_iflag |= IXON | ICRNL;
  MUST(tcsetattr(t.slave, TCSANOW, &modes) == 0);
  // ^V makes the next one literal: ^C, ^S, a newline inside a line, ^D.
  type(t.master, "one\r");
  type(t.master, "t\026\003w\026\023o;");
  type(t.master, "th\026\nree\004");  // ended by ^D, without a newline
  type(t.master, "\004");             // end of file
  type(t.master, "f\026\004our\n");
  type(t.master, "wrong\025ri");  // ^U takes the line back
  char echo[512] = {};
  for (size_t have = 0; have < 2 || strcmp(echo + have - 2, "ri") != 0;) {
    ssize_t n = read(t.master, echo + have, sizeof echo - 1 - have);
    MUST(n > 0);
    have += static_cast<size_t>(n);
  }
  subject::hold();
  expect_line(t.slave, "one\n", 4);
  expect_line(t.slave, "t\003w\023o;", 6);
  expect_line(t.slave, "th\nree", 6);
  expect_line(t.slave, "", 0);
  expect_line(t.slave, "f\004our\n", 6);
  // The half line can still be edited, and is echoed once.
  type(t.master, "x\177ght\n");
  expect_line(t.slave, "right\n", 6);
  expect(t.master, "x\b \bght\r\n");
}

CASE(half_line_alone_and_output) {
  Terminal t = make_terminal();
  set_modes(t.slave, ECHO, ICANON);
  type(t.master, "half");
  type(t.slave, "shown\n");
  subject::pass(20);
  int on = 1;
  MUST(ioctl(t.master, TIOCPKT, &on) == 0);
  subject::hold();
  int unread = -1;
  CHECK_EQ(ioctl(t.slave, FIONREAD, &unread), 0);
  CHECK_EQ(unread, 0);
  char back[32] = {};
  CHECK_EQ(read(t.master, back, sizeof back), 8);
  CHECK_EQ(back[0], TIOCPKT_DATA);
  CHECK_EQ(strcmp(back + 1, "shown\r\n"), 0);
  type(t.master, " whole\n");
  expect_line(t.slave, "half whole\n", 11);
}

// More than the line discipline has room for: the rest waits before it.
CASE(much_typed_and_written) {
  Terminal t = make_terminal();
  raw(t.slave);
  static char text[9'000], back[9'000];
  for (size_t i = 0; i < sizeof text; ++i) text[i] = static_cast<char>(i % 251);
  for (int from : {t.master, t.slave}) MUST(write(from, text, sizeof text) == sizeof text);
  subject::pass(20);
  subject::hold();
  for (int to : {t.slave, t.master}) {
    size_t have = 0;
    while (have < sizeof back) {
      ssize_t n = read(to, back + have, sizeof back - have);
      if (n <= 0) break;
      have += static_cast<size_t>(n);
    }
    CHECK_EQ(have, sizeof text);
    CHECK_EQ(memcmp(text, back, sizeof text), 0);
  }
}

// Somebody waits for a line of which the first half is there.
CASE(reader_of_half_a_line) {
  Terminal t = make_terminal();
  set_modes(t.slave, ECHO, ICANON);
  type(t.master, "abc");
  pid_t reader = subject::child([=] { expect_line(t.slave, "abcdef\n", 7); });
  subject::await_asleep(reader);
  subject::hold();
  subject::await_asleep(reader);
  type(t.master, "def\n");
  JOIN(reader);
}

CASE(name_stays) {
  Terminal t = make_terminal();
  char before[64], now[64];
  MUST(ptsname_r(t.master, before, sizeof before) == 0);
  subject::hold();
  // The number may be taken by somebody else on the host; that it then differs is in docs/support.md. That
  // the name which the kernel gives leads to the other end is not negotiable.
  CHECK_EQ(ptsname_r(t.master, now, sizeof now), 0);
  int again = open(now, O_RDWR | O_NOCTTY);
  CHECK(again >= 0);
  raw(t.slave);
  type(again, "x");
  expect(t.master, "x");
}

CASE(slave_closed) {
  Terminal t = make_terminal();
  close(t.slave);
  subject::hold();
  char byte;
  CHECK_EQ(read(t.master, &byte, 1), -1);
  CHECK_EQ(errno, EIO);
  int again = open(ptsname(t.master), O_RDWR | O_NOCTTY);
  CHECK(again >= 0);
}

CASE(master_closed) {
  Terminal t = make_terminal();
  close(t.master);
  subject::hold();
  char byte;
  CHECK_EQ(read(t.slave, &byte, 1), 0);
  CHECK_EQ(write(t.slave, "x", 1), -1);
  CHECK_EQ(errno, EIO);
}

// What a shell is: leader of a session with the terminal as its controlling one, and a job in the foreground.
CASE(controlling_terminal) {
  Terminal t = make_terminal();
  pid_t shell = subject::child([=] {
    MUST(setsid() == getpid());
    MUST(ioctl(t.slave, TIOCSCTTY, 0) == 0);
    signal(SIGTTOU, SIG_IGN);
    pid_t job = subject::child([=] {
      MUST(setpgid(0, 0) == 0);
      MUST(tcsetpgrp(t.slave, getpid()) == 0);
      subject::mark("job");
      static volatile sig_atomic_t interrupted;
      signal(SIGINT, [](int) { interrupted = 1; });
      subject::mark("job");
      subject::await("typed");
      for (int i = 0; i < 500 && interrupted == 0; ++i) subject::pass(5);
      CHECK_EQ(interrupted, 1);
      int tty = open("/dev/tty", O_RDWR);
      CHECK(tty >= 0);
    });
    subject::await("job");
    subject::await("go");
    CHECK_EQ(tcgetpgrp(t.slave), job);
    CHECK_EQ(tcgetsid(t.slave), getpid());
    CHECK(open("/dev/tty", O_RDWR) >= 0);
    subject::mark("shell-checked");
    JOIN(job);
    CHECK_EQ(tcsetpgrp(t.slave, getpgrp()), 0);
  });
  subject::await("job");
  subject::hold();
  subject::await("shell-checked");
  type(t.master, "\003");  // the terminal makes SIGINT of it, for the group in the foreground
  subject::mark("typed");
  JOIN(shell);
}

// Each process of a session has its terminal, or not: one was born before the leader took it, one has let go
// of it.
CASE(not_everybody_has_the_terminal) {
  Terminal t = make_terminal();
  pid_t shell = subject::child([=] {
    MUST(setsid() == getpid());
    auto member = [=](const char* name, int has_it) {
      return subject::child([=] {
        subject::await("taken");
        if (has_it < 0) MUST(ioctl(t.slave, TIOCNOTTY) == 0);
        subject::mark(name);
        subject::await("go");
        int tty = open("/dev/tty", O_RDWR);
        CHECK_EQ(tty >= 0, has_it > 0);
      });
    };
    pid_t early = member("early", 0);
    MUST(ioctl(t.slave, TIOCSCTTY, 0) == 0);
    subject::mark("taken");
    pid_t free = member("free", -1), bound = member("bound", 1);
    for (const char* name : {"early", "free", "bound"}) subject::await(name);
    subject::mark("all");
    JOIN(early);
    JOIN(free);
    JOIN(bound);
  });
  subject::await("all");
  subject::hold();
  JOIN(shell);
}

CASE(size_change_is_announced) {
  Terminal t = make_terminal();
  pid_t pid = subject::child([=] {
    MUST(setsid() == getpid() && ioctl(t.slave, TIOCSCTTY, 0) == 0);
    static volatile sig_atomic_t changed;
    signal(SIGWINCH, [](int) { changed = 1; });
    subject::mark("born");
    while (changed == 0) subject::pass(2);
    winsize now = {};
    CHECK_EQ(ioctl(t.slave, TIOCGWINSZ, &now), 0);
    CHECK_EQ(now.ws_col, 77);
  });
  subject::await("born");
  subject::hold();
  winsize size = {22, 77, 0, 0};
  CHECK_EQ(ioctl(t.master, TIOCSWINSZ, &size), 0);
  JOIN(pid);
}

CASE(reader_blocked_at_the_slave) {
  Terminal t = make_terminal();
  pid_t pid = subject::child([=] {
    close(t.master);
    subject::mark("born");
    char line[32] = {};
    CHECK_EQ(read(t.slave, line, sizeof line), 6);
    CHECK_EQ(strcmp(line, "hello\n"), 0);
  });
  subject::await("born");
  subject::await_asleep(pid);
  subject::hold();
  type(t.master, "hello\n");
  JOIN(pid);
}

CASE(packet_mode_and_lock) {
  int master = posix_openpt(O_RDWR | O_NOCTTY), on = 1, value = 0;
  MUST(master >= 0 && ioctl(master, TIOCPKT, &on) == 0);  // and the slave still locked
  subject::hold();
  CHECK_EQ(ioctl(master, TIOCGPKT, &value), 0);
  CHECK_EQ(value, 1);
  CHECK_EQ(ioctl(master, TIOCGPTLCK, &value), 0);
  CHECK_EQ(value, 1);
}

// A slave belongs to whoever opened the master, until that is changed.
CASE(owner_and_mode) {
  Terminal t = make_terminal();
  const bool root = geteuid() == 0;
  if (root) MUST(fchown(t.slave, 13, 44) == 0);
  MUST(fchmod(t.slave, 0640) == 0);
  struct stat before = {}, after = {};
  MUST(fstat(t.slave, &before) == 0);
  subject::hold();
  CHECK_EQ(fstat(t.slave, &after), 0);
  CHECK_EQ(after.st_uid, before.st_uid);
  CHECK_EQ(after.st_gid, before.st_gid);
  CHECK_EQ(after.st_mode, before.st_mode);
}

// The leader of a session has its terminal also when nobody has that open.
CASE(terminal_that_only_the_session_has) {
  Terminal t = make_terminal();
  pid_t pid = subject::child([=] {
    MUST(setsid() == getpid());
    MUST(ioctl(t.slave, TIOCSCTTY, 0) == 0);
    raw(t.slave);
    signal(SIGHUP, SIG_IGN);
    close(t.slave);
    subject::mark("alone");
    subject::await("go");
    char back[8];
    errno = 0;
    fcntl(t.master, F_SETFL, O_RDWR | O_NONBLOCK);
    CHECK_EQ(read(t.master, back, sizeof back), -1);
    CHECK_EQ(errno, EIO);  // no slave is there
    int terminal = open("/dev/tty", O_RDWR);
    CHECK(terminal >= 0);
    type(t.master, "keys");
    expect(terminal, "keys");
  });
  close(t.slave);
  subject::await("alone");
  subject::hold();
  JOIN(pid);
}

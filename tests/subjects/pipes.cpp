// Pipes and FIFOs: content, ends, flags, and who waits at them.
#include <sys/ioctl.h>

#include "subject.h"

namespace {
struct Ends {
  int in, out;
};
Ends make_pipe(int flags = 0) {
  int fds[2];
  MUST(pipe2(fds, flags) == 0);
  return {fds[0], fds[1]};
}
}  // namespace

CASE(with_content) {
  Ends p = make_pipe();
  static uint8_t data[10000], back[10001];
  subject::fill(data, sizeof data, 1);
  MUST(write(p.out, data, sizeof data) == sizeof data);
  subject::hold();
  int available = 0;
  CHECK_EQ(ioctl(p.in, FIONREAD, &available), 0);
  CHECK_EQ(available, static_cast<int>(sizeof data));
  CHECK_EQ(read(p.in, back, sizeof back), static_cast<ssize_t>(sizeof data));
  CHECK_EQ(memcmp(data, back, sizeof data), 0);
  CHECK_EQ(write(p.out, "x", 1), 1);
  CHECK_EQ(read(p.in, back, 10), 1);
}

CASE(empty) {
  Ends p = make_pipe(O_NONBLOCK);
  subject::hold();
  char byte;
  CHECK_EQ(read(p.in, &byte, 1), -1);
  CHECK_EQ(errno, EAGAIN);
  CHECK_EQ(write(p.out, "a", 1), 1);
  CHECK_EQ(read(p.in, &byte, 1), 1);
}

CASE(full) {
  Ends p = make_pipe(O_NONBLOCK);
  static uint8_t data[65536], back[65536];
  subject::fill(data, sizeof data, 2);
  MUST(write(p.out, data, sizeof data) == sizeof data);
  MUST(write(p.out, "y", 1) == -1);
  subject::hold();
  CHECK_EQ(write(p.out, "y", 1), -1);
  CHECK_EQ(errno, EAGAIN);
  CHECK_EQ(read(p.in, back, sizeof back), static_cast<ssize_t>(sizeof back));
  CHECK_EQ(subject::differs(back, sizeof back, 2), -1);
}

CASE(size_changed) {
  Ends p = make_pipe();
  MUST(fcntl(p.in, F_SETPIPE_SZ, 262144) == 262144);
  static uint8_t data[200000], back[200000];
  subject::fill(data, sizeof data, 3);
  MUST(write(p.out, data, sizeof data) == sizeof data);
  Ends small = make_pipe();
  MUST(fcntl(small.in, F_SETPIPE_SZ, 4096) == 4096);
  subject::hold();
  CHECK_EQ(fcntl(p.out, F_GETPIPE_SZ), 262144);
  CHECK_EQ(fcntl(small.out, F_GETPIPE_SZ), 4096);
  size_t have = 0;
  while (have < sizeof back) {
    ssize_t n = read(p.in, back + have, sizeof back - have);
    if (n <= 0) break;
    have += n;
  }
  CHECK_EQ(have, sizeof back);
  CHECK_EQ(subject::differs(back, sizeof back, 3), -1);
}

CASE(packets) {
  Ends p = make_pipe(O_DIRECT);
  for (const char* packet : {"one", "three", "a longer packet"}) {
    MUST(write(p.out, packet, strlen(packet)) == static_cast<ssize_t>(strlen(packet)));
  }
  subject::hold();
  char back[4096];
  for (const char* packet : {"one", "three", "a longer packet"}) {
    ssize_t n = read(p.in, back, sizeof back);
    CHECK_EQ(n, static_cast<ssize_t>(strlen(packet)));
    CHECK_EQ(memcmp(back, packet, strlen(packet)), 0);
  }
  CHECK_EQ(write(p.out, "ab", 2), 2);
  CHECK_EQ(write(p.out, "cd", 2), 2);
  CHECK_EQ(read(p.in, back, sizeof back), 2);
}

CASE(writer_closed) {
  Ends p = make_pipe();
  MUST(write(p.out, "rest", 4) == 4);
  close(p.out);
  subject::hold();
  char back[16];
  CHECK_EQ(read(p.in, back, sizeof back), 4);
  CHECK_EQ(read(p.in, back, sizeof back), 0);
}

CASE(reader_closed) {
  Ends p = make_pipe();
  close(p.in);
  signal(SIGPIPE, SIG_IGN);
  subject::hold();
  CHECK_EQ(write(p.out, "x", 1), -1);
  CHECK_EQ(errno, EPIPE);
}

CASE(between_processes) {
  Ends down = make_pipe(), up = make_pipe();
  pid_t pid = subject::child([=] {
    close(down.out);
    close(up.in);
    subject::mark("born");
    uint8_t byte;
    while (read(down.in, &byte, 1) == 1) {
      byte ^= 0xff;
      MUST(write(up.out, &byte, 1) == 1);
    }
  });
  close(down.in);
  close(up.out);
  subject::await("born");
  subject::await_asleep(pid);
  subject::hold();
  for (int i = 0; i < 256; ++i) {
    uint8_t byte = i, back = 0;
    CHECK_EQ(write(down.out, &byte, 1), 1);
    CHECK_EQ(read(up.in, &back, 1), 1);
    CHECK_EQ(back, static_cast<uint8_t>(~byte));
  }
  close(down.out);
  uint8_t byte;
  CHECK_EQ(read(up.in, &byte, 1), 0);
  JOIN(pid);
}

CASE(writer_blocked_on_full) {
  Ends p = make_pipe();
  static uint8_t data[200000], back[200000];
  subject::fill(data, sizeof data, 4);
  pid_t pid = subject::child([=] {
    close(p.in);
    subject::mark("born");
    // A write that has transferred something returns it when its task is stopped, by whomever: SIGSTOP does
    // the same.
    for (size_t sent = 0; sent < sizeof data;) {
      ssize_t n = write(p.out, data + sent, sizeof data - sent);
      CHECK(n > 0);
      if (n <= 0) break;
      sent += n;
    }
  });
  close(p.out);
  subject::await("born");
  subject::await_asleep(pid);
  subject::hold();
  size_t have = 0;
  ssize_t n;
  while ((n = read(p.in, back + have, sizeof back - have)) > 0) have += n;
  CHECK_EQ(have, sizeof back);
  CHECK_EQ(subject::differs(back, sizeof back, 4), -1);
  JOIN(pid);
}

CASE(flags_are_of_the_description) {
  Ends p = make_pipe(O_CLOEXEC);
  int copy = dup(p.in);
  MUST(fcntl(copy, F_SETFL, O_NONBLOCK) == 0);
  subject::hold();
  CHECK_EQ(fcntl(p.in, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
  CHECK_EQ(fcntl(p.out, F_GETFL) & O_NONBLOCK, 0);
  CHECK_EQ(fcntl(p.in, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(fcntl(copy, F_GETFD), 0);
  CHECK_EQ(fcntl(copy, F_SETFL, 0), 0);
  CHECK_EQ(fcntl(p.in, F_GETFL) & O_NONBLOCK, 0);
}

CASE(many_shared) {
  Ends pipes[20];
  for (auto& p : pipes) p = make_pipe();
  pid_t pids[3];
  for (int c = 0; c < 3; ++c) {
    pids[c] = subject::child([&, c] {
      char name[8];
      snprintf(name, sizeof name, "c%d", c);
      subject::mark(name);
      subject::await("go");
      for (int i = c; i < 20; i += 3) {
        char byte = static_cast<char>('a' + i);
        CHECK_EQ(write(pipes[i].out, &byte, 1), 1);
      }
    });
  }
  for (const char* name : {"c0", "c1", "c2"}) subject::await(name);
  subject::hold();
  for (int i = 0; i < 20; ++i) {
    char byte = 0;
    CHECK_EQ(read(pipes[i].in, &byte, 1), 1);
    CHECK_EQ(byte, 'a' + i);
  }
  for (pid_t pid : pids) JOIN(pid);
}

// An end opened again by way of /proc is another open file description of the same pipe.
CASE(reopened) {
  Ends p = make_pipe();
  char name[64];
  snprintf(name, sizeof name, "/proc/self/fd/%d", p.in);
  int second = open(name, O_RDONLY | O_NONBLOCK);
  MUST(second >= 0);
  MUST(write(p.out, "abc", 3) == 3);
  subject::hold();
  CHECK_EQ(fcntl(second, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
  CHECK_EQ(fcntl(p.in, F_GETFL) & O_NONBLOCK, 0);
  char byte;
  CHECK_EQ(read(second, &byte, 1), 1);
  CHECK_EQ(byte, 'a');
  CHECK_EQ(read(p.in, &byte, 1), 1);
  CHECK_EQ(byte, 'b');
}

CASE(fifo) {
  MUST(mkfifo(subject::path("fifo"), 0600) == 0);
  int both = open(subject::path("fifo"), O_RDWR | O_NONBLOCK);
  MUST(both >= 0 && write(both, "content", 7) == 7);
  int in = open(subject::path("fifo"), O_RDONLY | O_NONBLOCK), out = open(subject::path("fifo"), O_WRONLY);
  MUST(in >= 0 && out >= 0);
  subject::hold();
  char back[16] = {};
  CHECK_EQ(read(in, back, 3), 3);
  CHECK_EQ(memcmp(back, "con", 3), 0);
  CHECK_EQ(read(both, back, sizeof back), 4);
  CHECK_EQ(write(out, "z", 1), 1);
  // Somebody who opens the name now must meet the same pipe.
  int late = open(subject::path("fifo"), O_RDONLY | O_NONBLOCK);
  CHECK_EQ(read(late, back, sizeof back), 1);
  CHECK_EQ(back[0], 'z');
}

CASE(spliced_pages) {
  int file = open(subject::path("file"), O_CREAT | O_RDWR, 0600);
  static uint8_t data[8192], back[8192];
  subject::fill(data, sizeof data, 6);
  MUST(write(file, data, sizeof data) == sizeof data && lseek(file, 0, SEEK_SET) == 0);
  Ends p = make_pipe();
  MUST(splice(file, nullptr, p.out, nullptr, sizeof data, 0) == sizeof data);
  subject::hold();
  CHECK_EQ(read(p.in, back, sizeof back), static_cast<ssize_t>(sizeof back));
  CHECK_EQ(subject::differs(back, sizeof back, 6), -1);
}

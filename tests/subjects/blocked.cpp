// System calls that wait without an end of their own: a checkpoint must not make any of them return, and each
// must return after it for its own reason.
#include <linux/futex.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "subject.h"

namespace {

// Runs `wait` in a child, holds when it sleeps, then lets `release` end the wait. In a child and not a
// thread: then the waiter is alone in its process, and its exit status is its verdict.
template <typename Wait, typename Release>
void waits(Wait wait, Release release) {
  pid_t pid = subject::child([&] {
    subject::mark("waiting");
    wait();
    // Returning before the release is what goes wrong when a call is interrupted.
    CHECK(subject::marked("released"));
  });
  subject::await("waiting");
  subject::await_asleep(pid);
  subject::hold();
  subject::pass(30);
  subject::mark("released");
  release(pid);
  JOIN(pid);
}

struct Pair {
  int a, b;
};
Pair pipe_pair() {
  int fds[2];
  MUST(pipe(fds) == 0);
  return {fds[0], fds[1]};
}
Pair socket_pair(int type) {
  int fds[2];
  MUST(socketpair(AF_UNIX, type, 0, fds) == 0);
  return {fds[0], fds[1]};
}
void put(int fd) { CHECK_EQ(write(fd, "x", 1), 1); }

}  // namespace

CASE(read_of_a_pipe) {
  Pair p = pipe_pair();
  char byte = 0;
  waits(
      [&] {
        CHECK_EQ(read(p.a, &byte, 1), 1);
        CHECK_EQ(byte, 'x');
      },
      [&](pid_t) { put(p.b); });
}
CASE(readv_of_a_socket) {
  Pair p = socket_pair(SOCK_STREAM);
  char bytes[2];
  iovec parts[2] = {{bytes, 1}, {bytes + 1, 1}};
  waits([&] { CHECK_EQ(readv(p.a, parts, 2), 1); }, [&](pid_t) { put(p.b); });
}
CASE(recv_of_a_socket) {
  Pair p = socket_pair(SOCK_DGRAM);
  char bytes[8];
  waits([&] { CHECK_EQ(recv(p.a, bytes, 8, 0), 3); }, [&](pid_t) { CHECK_EQ(send(p.b, "abc", 3, 0), 3); });
}
CASE(recv_of_all) {
  Pair p = socket_pair(SOCK_STREAM);
  char bytes[8];
  MUST(write(p.b, "four", 4) == 4);
  // Half of it has arrived already and sits in the caller's buffer, in the middle of the call. Linux gives a
  // task that is stopped, by whomever, what has arrived; nothing may be lost or come twice.
  waits(
      [&] {
        size_t have = 0;
        while (have < 8) {
          ssize_t n = recv(p.a, bytes + have, 8 - have, MSG_WAITALL);
          CHECK(n > 0);
          if (n <= 0) break;
          have += n;
        }
        CHECK_EQ(memcmp(bytes, "fourmore", 8), 0);
      },
      [&](pid_t) { CHECK_EQ(write(p.b, "more", 4), 4); });
}
CASE(accept_of_a_connection) {
  int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  snprintf(address.sun_path, sizeof address.sun_path, "%s/sock", subject::g_dir);
  MUST(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
       listen(listener, 4) == 0);
  waits([&] { CHECK(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC) >= 0); },
        [&](pid_t) {
          int client = socket(AF_UNIX, SOCK_STREAM, 0);
          CHECK_EQ(connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
        });
}
CASE(waitpid_of_a_child) {
  waits(
      [&] {
        pid_t pid = subject::child([] {
          subject::await("released");
          _exit(4);
        });
        int status = 0;
        CHECK_EQ(waitpid(-1, &status, 0), pid);
        CHECK_EQ(WEXITSTATUS(status), 4);
      },
      [](pid_t) {});
}
CASE(waitid_of_a_child) {
  waits(
      [&] {
        pid_t pid = subject::child([] { subject::await("released"); });
        siginfo_t info = {};
        CHECK_EQ(waitid(P_PID, pid, &info, WEXITED | WNOWAIT), 0);
        CHECK_EQ(info.si_pid, pid);
        JOIN(pid);
      },
      [](pid_t) {});
}
CASE(pause_until_a_signal) {
  waits(
      [&] {
        signal(SIGUSR1, [](int) {});
        CHECK_EQ(pause(), -1);
        CHECK_EQ(errno, EINTR);
      },
      [](pid_t pid) { CHECK_EQ(kill(pid, SIGUSR1), 0); });
}
CASE(flock_of_a_file) {
  int mine = open(subject::path("file"), O_RDWR | O_CREAT, 0600);
  MUST(flock(mine, LOCK_EX) == 0);
  waits(
      [&] {
        int other = open(subject::path("file"), O_RDWR);
        CHECK_EQ(flock(other, LOCK_EX), 0);
      },
      [&](pid_t) { CHECK_EQ(flock(mine, LOCK_UN), 0); });
}
CASE(fcntl_lock_of_a_file) {
  int mine = open(subject::path("file"), O_RDWR | O_CREAT, 0600);
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_len = 100;
  MUST(fcntl(mine, F_SETLK, &lock) == 0);
  waits(
      [&] {
        struct flock wanted = {};
        wanted.l_type = F_WRLCK;
        wanted.l_start = 50;
        wanted.l_len = 100;
        CHECK_EQ(fcntl(mine, F_SETLKW, &wanted), 0);
      },
      [&](pid_t) {
        lock.l_type = F_UNLCK;
        CHECK_EQ(fcntl(mine, F_SETLK, &lock), 0);
      });
}
CASE(poll_for_ever) {
  Pair p = pipe_pair();
  waits(
      [&] {
        pollfd entry = {p.a, POLLIN, 0};
        CHECK_EQ(poll(&entry, 1, -1), 1);
        CHECK_EQ(entry.revents, POLLIN);
      },
      [&](pid_t) { put(p.b); });
}
CASE(select_for_ever) {
  Pair p = pipe_pair();
  waits(
      [&] {
        fd_set set;
        FD_ZERO(&set);
        FD_SET(p.a, &set);
        CHECK_EQ(select(p.a + 1, &set, nullptr, nullptr, nullptr), 1);
        CHECK(FD_ISSET(p.a, &set));
      },
      [&](pid_t) { put(p.b); });
}
CASE(ppoll_with_a_mask) {
  Pair p = pipe_pair();
  waits(
      [&] {
        sigset_t mask, own, now;
        signal(SIGUSR1, [](int) {});
        sigemptyset(&own);
        sigaddset(&own, SIGUSR2);
        sigprocmask(SIG_SETMASK, &own, nullptr);
        sigemptyset(&mask);
        sigaddset(&mask, SIGUSR1);
        pollfd entry = {p.a, POLLIN, 0};
        CHECK_EQ(ppoll(&entry, 1, nullptr, &mask), 1);
        // While it waits the kernel has the temporary mask in place; the task's own must be the one that
        // returns.
        sigprocmask(SIG_BLOCK, nullptr, &now);
        CHECK_EQ(sigismember(&now, SIGUSR2), 1);
        CHECK_EQ(sigismember(&now, SIGUSR1), 0);
      },
      [&](pid_t pid) {
        CHECK_EQ(kill(pid, SIGUSR1), 0);  // blocked by the temporary mask; EINTR if that were lost
        subject::pass(20);
        put(p.b);
        subject::pass(20);
      });
}
CASE(pselect_lets_a_signal_in) {
  waits(
      [&] {
        signal(SIGUSR1, [](int) {});
        sigset_t own, open_mask;
        sigemptyset(&own);
        sigemptyset(&open_mask);
        sigaddset(&own, SIGUSR1);
        sigprocmask(SIG_SETMASK, &own, nullptr);
        CHECK_EQ(pselect(0, nullptr, nullptr, nullptr, nullptr, &open_mask), -1);
        CHECK_EQ(errno, EINTR);
      },
      [](pid_t pid) { CHECK_EQ(kill(pid, SIGUSR1), 0); });
}
CASE(epoll_wait_for_ever) {
  Pair p = pipe_pair();
  int epoll = epoll_create1(0);
  epoll_event event = {EPOLLIN, {.u64 = 0x123456789abcdef0}};
  MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, p.a, &event) == 0);
  waits(
      [&] {
        epoll_event got[4];
        CHECK_EQ(epoll_wait(epoll, got, 4, -1), 1);
        CHECK_EQ(static_cast<uint64_t>(got[0].data.u64), 0x123456789abcdef0u);
      },
      [&](pid_t) { put(p.b); });
}
CASE(epoll_pwait_with_a_mask) {
  Pair p = pipe_pair();
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event = {EPOLLIN, {.u64 = 5}};
  MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, p.a, &event) == 0);
  waits(
      [&] {
        sigset_t mask;
        sigemptyset(&mask);
        sigaddset(&mask, SIGUSR1);
        epoll_event got;
        CHECK_EQ(epoll_pwait(epoll, &got, 1, -1, &mask), 1);
      },
      [&](pid_t) { put(p.b); });
}
CASE(read_of_an_eventfd) {
  int fd = eventfd(0, 0);
  waits([&] { CHECK_EQ(subject::read_u64(fd), 3u); },
        [&](pid_t) {
          uint64_t three = 3;
          CHECK_EQ(write(fd, &three, 8), 8);
        });
}
CASE(futex_wait_for_ever) {
  auto* word = reinterpret_cast<int*>(subject::map(4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS));
  waits([&] { CHECK_EQ(syscall(SYS_futex, word, FUTEX_WAIT, 0, nullptr), 0); },
        [&](pid_t) {
          *word = 1;
          CHECK_EQ(syscall(SYS_futex, word, FUTEX_WAKE, 1), 1);
        });
}
CASE(futex_wait_bitset) {
  auto* word = reinterpret_cast<int*>(subject::map(4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS));
  waits([&] { CHECK_EQ(syscall(SYS_futex, word, FUTEX_WAIT_BITSET, 0, nullptr, nullptr, 2), 0); },
        [&](pid_t) {
          CHECK_EQ(syscall(SYS_futex, word, FUTEX_WAKE_BITSET, 1, nullptr, nullptr, 1), 0);
          CHECK_EQ(syscall(SYS_futex, word, FUTEX_WAKE_BITSET, 1, nullptr, nullptr, 2), 1);
        });
}
CASE(open_of_a_fifo) {
  MUST(mkfifo(subject::path("fifo"), 0600) == 0);
  waits([&] { CHECK(open(subject::path("fifo"), O_RDONLY) >= 0); },
        [&](pid_t) { CHECK(open(subject::path("fifo"), O_WRONLY) >= 0); });
}
CASE(write_to_a_full_socket) {
  Pair p = socket_pair(SOCK_STREAM);
  static char block[1 << 20];
  waits(
      [&] {
        // As with a pipe, a stop ends a write that has transferred something.
        for (size_t sent = 0; sent < sizeof block;) {
          ssize_t n = write(p.a, block + sent, sizeof block - sent);
          CHECK(n > 0);
          if (n <= 0) break;
          sent += n;
        }
      },
      [&](pid_t) {
        static char back[65536];
        size_t have = 0;
        while (have < sizeof block) {
          ssize_t n = read(p.b, back, sizeof back);
          if (n <= 0) break;
          have += n;
        }
        CHECK_EQ(have, sizeof block);
      });
}
CASE(semaphore_operation) {
  int id = semget(IPC_PRIVATE, 1, IPC_CREAT | 0600);
  MUST(id >= 0);
  waits(
      [&] {
        sembuf down = {0, -1, 0};
        CHECK_EQ(semop(id, &down, 1), 0);
      },
      [&](pid_t) {
        sembuf up = {0, 1, 0};
        CHECK_EQ(semop(id, &up, 1), 0);
      });
  semctl(id, 0, IPC_RMID);
}
CASE(message_queue) {
  int id = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
  MUST(id >= 0);
  waits(
      [&] {
        struct {
          long type;
          char text[8];
        } message;
        CHECK_EQ(msgrcv(id, &message, sizeof message.text, 0, 0), 2);
      },
      [&](pid_t) {
        struct {
          long type;
          char text[8];
        } message = {1, "x"};
        CHECK_EQ(msgsnd(id, &message, 2, 0), 0);
      });
  msgctl(id, IPC_RMID, nullptr);
}

// A checkpoint that is refused has stopped the program all the same, and must not be noticed either.
CASE_WITH(refused_while_waiting, subject::kMayRefuse) {
  int unsupported = open("/proc/self/ns/net", O_RDONLY);
  MUST(unsupported >= 0);
  Pair p = pipe_pair();
  int set = epoll_create1(0);
  epoll_event event = {};
  event.events = EPOLLIN;
  MUST(epoll_ctl(set, EPOLL_CTL_ADD, p.a, &event) == 0);
  waits([&] { CHECK_EQ(epoll_wait(set, &event, 1, -1), 1); }, [&](pid_t) { put(p.b); });
}

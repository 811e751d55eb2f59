// Unix sockets: pairs, names, content on the way, halves that are shut.
#include "unix_sockets.h"

#include <stddef.h>
#include <sys/ioctl.h>

CASE(stream_pair_with_content) {
  Pair p = make_pair(SOCK_STREAM);
  MUST(write(p.a, "towards b", 9) == 9 && write(p.b, "towards a", 9) == 9);
  subject::hold();
  expect(p.b, "towards b");
  expect(p.a, "towards a");
  both_ways(p.a, p.b);
}
CASE(stream_pair_with_much_content) {
  Pair p = make_pair(SOCK_STREAM);
  static uint8_t data[150000], back[150000];
  subject::fill(data, sizeof data, 1);
  int flags = fcntl(p.a, F_GETFL);
  fcntl(p.a, F_SETFL, flags | O_NONBLOCK);
  size_t sent = 0;
  while (sent < sizeof data) {
    ssize_t n = write(p.a, data + sent, sizeof data - sent < 5000 ? sizeof data - sent : 5000);
    if (n <= 0) break;
    sent += n;
  }
  MUST(sent > 50000);
  subject::hold();
  CHECK_EQ(fcntl(p.a, F_GETFL), flags | O_NONBLOCK);
  size_t have = 0;
  while (have < sent) {
    ssize_t n = recv(p.b, back + have, sent - have, MSG_DONTWAIT);
    if (n <= 0) break;
    have += n;
  }
  CHECK_EQ(have, sent);
  CHECK_EQ(memcmp(data, back, sent), 0);
}
CASE(datagram_pair) {
  Pair p = make_pair(SOCK_DGRAM);
  for (const char* text : {"one", "two two", "3"}) MUST(send(p.a, text, strlen(text), 0) > 0);
  subject::hold();
  for (const char* text : {"one", "two two", "3"}) expect(p.b, text);
  both_ways(p.a, p.b);
}
CASE(sequenced_pair) {
  Pair p = make_pair(SOCK_SEQPACKET);
  for (const char* text : {"first", "second message"}) MUST(send(p.b, text, strlen(text), 0) > 0);
  subject::hold();
  expect(p.a, "first");
  expect(p.a, "second message");
  both_ways(p.a, p.b);
}
CASE(empty_datagram) {
  Pair p = make_pair(SOCK_DGRAM);
  MUST(send(p.a, "", 0, 0) == 0 && send(p.a, "x", 1, 0) == 1);
  subject::hold();
  char byte;
  CHECK_EQ(recv(p.b, &byte, 1, MSG_DONTWAIT), 0);
  CHECK_EQ(recv(p.b, &byte, 1, MSG_DONTWAIT), 1);
}
CASE(between_processes) {
  Pair p = make_pair(SOCK_STREAM);
  pid_t pid = subject::child([=] {
    close(p.a);
    subject::mark("born");
    char byte;
    while (read(p.b, &byte, 1) == 1) {
      ++byte;
      MUST(write(p.b, &byte, 1) == 1);
    }
  });
  close(p.b);
  subject::await("born");
  subject::await_asleep(pid);
  subject::hold();
  for (char c = 'a'; c < 'z'; ++c) {
    char back = 0;
    CHECK_EQ(write(p.a, &c, 1), 1);
    CHECK_EQ(read(p.a, &back, 1), 1);
    CHECK_EQ(back, c + 1);
  }
  close(p.a);
  JOIN(pid);
}
CASE(halves_shut) {
  Pair write_shut = make_pair(SOCK_STREAM), read_shut = make_pair(SOCK_STREAM);
  MUST(write(write_shut.a, "last", 4) == 4);
  MUST(shutdown(write_shut.a, SHUT_WR) == 0 && shutdown(read_shut.a, SHUT_RD) == 0);
  subject::hold();
  char back[8];
  CHECK_EQ(recv(write_shut.b, back, 8, MSG_DONTWAIT), 4);
  CHECK_EQ(recv(write_shut.b, back, 8, MSG_DONTWAIT), 0);
  CHECK_EQ(send(write_shut.a, "x", 1, MSG_NOSIGNAL), -1);
  CHECK_EQ(send(write_shut.b, "y", 1, MSG_NOSIGNAL), 1);
  CHECK_EQ(recv(write_shut.a, back, 8, MSG_DONTWAIT), 1);
  CHECK_EQ(recv(read_shut.a, back, 8, MSG_DONTWAIT), 0);
  CHECK_EQ(send(read_shut.b, "x", 1, MSG_NOSIGNAL), -1);
}
CASE(peer_gone) {
  Pair p = make_pair(SOCK_STREAM);
  MUST(write(p.b, "farewell", 8) == 8);
  close(p.b);
  subject::hold();
  expect(p.a, "farewell");
  char byte;
  CHECK_EQ(recv(p.a, &byte, 1, MSG_DONTWAIT), 0);
  CHECK_EQ(send(p.a, "x", 1, MSG_NOSIGNAL), -1);
  CHECK_EQ(errno, EPIPE);
}
CASE(options) {
  Pair p = make_pair(SOCK_STREAM);
  int on = 1, size = 65536, value = 0;
  socklen_t length = sizeof value;
  timeval timeout = {7, 500000}, now = {};
  MUST(setsockopt(p.a, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0);
  MUST(setsockopt(p.a, SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0);
  MUST(setsockopt(p.a, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) == 0);
  int buffer = 0;
  MUST(getsockopt(p.a, SOL_SOCKET, SO_SNDBUF, &buffer, &length) == 0);
  subject::hold();
  length = sizeof value;
  CHECK_EQ(getsockopt(p.a, SOL_SOCKET, SO_PASSCRED, &value, &length), 0);
  CHECK_EQ(value, 1);
  CHECK_EQ(getsockopt(p.a, SOL_SOCKET, SO_SNDBUF, &value, &length), 0);
  CHECK_EQ(value, buffer);
  length = sizeof now;
  CHECK_EQ(getsockopt(p.a, SOL_SOCKET, SO_RCVTIMEO, &now, &length), 0);
  CHECK_EQ(now.tv_sec, 7);
}
ucred peer_of(int fd) {
  ucred who = {};
  socklen_t length = sizeof who;
  CHECK_EQ(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length), 0);
  return who;
}
CASE(peer_credentials) {
  Pair p = make_pair(SOCK_STREAM);
  ucred before = peer_of(p.a);
  MUST(before.pid == getpid());
  subject::hold();
  ucred after = peer_of(p.a);
  CHECK_EQ(after.pid, before.pid);
  CHECK_EQ(after.uid, before.uid);
  CHECK_EQ(after.gid, before.gid);
  CHECK_EQ(peer_of(p.b).pid, before.pid);
  both_ways(p.a, p.b);
}
// A server that was started by somebody who is gone, and clients of other processes and, as root, of other
// users.
CASE(credentials_of_client_and_server) {
  int listener = bound(SOCK_STREAM, "sock");
  MUST(chmod(subject::path("sock"), 0777) == 0);
  sockaddr_un address = named("sock");
  pid_t starter = subject::child([=] { MUST(listen(listener, 8) == 0); });
  JOIN(starter);
  pid_t children[2];
  int servers[2];
  for (int i = 0; i < 2; ++i) {
    children[i] = subject::child([=] {
      int client = socket(AF_UNIX, SOCK_STREAM, 0);
      if (i == 1 && getuid() == 0) MUST(setresgid(-1, 4321, -1) == 0 && setresuid(-1, 1234, -1) == 0);
      MUST(connect(client, plain(address), sizeof address) == 0);
      if (i == 1 && getuid() == 0) MUST(setresuid(-1, 0, -1) == 0 && setresgid(-1, 0, -1) == 0);
      subject::await("go");
      CHECK_EQ(peer_of(client).pid, starter);
      CHECK_EQ(peer_of(client).uid, getuid());
      char byte = 0;
      CHECK_EQ(read(client, &byte, 1), 1);
    });
    servers[i] = accept(listener, nullptr, nullptr);
    MUST(servers[i] >= 0);
  }
  int pair = make_pair(SOCK_SEQPACKET).a, closed = make_pair(SOCK_STREAM).a;
  MUST(write(pair, "x", 1) == 1);
  subject::hold();
  for (int i = 0; i < 2; ++i) {
    ucred client = peer_of(servers[i]);
    CHECK_EQ(client.pid, children[i]);
    CHECK_EQ(client.uid, i == 1 && getuid() == 0 ? 1234u : getuid());
    CHECK_EQ(client.gid, i == 1 && getuid() == 0 ? 4321u : getgid());
    CHECK_EQ(write(servers[i], "y", 1), 1);
    JOIN(children[i]);
  }
  CHECK_EQ(peer_of(pair).pid, getpid());
  CHECK_EQ(peer_of(closed).pid, getpid());
  // Who connects from now on sees the one who once called listen().
  int client = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK_EQ(connect(client, plain(address), sizeof address), 0);
  CHECK_EQ(peer_of(client).pid, starter);
  int server = accept(listener, nullptr, nullptr);
  CHECK_EQ(peer_of(server).pid, getpid());
}
CASE(listening) {
  int listener = bound(SOCK_STREAM, "sock");
  MUST(listen(listener, 8) == 0);
  sockaddr_un address = named("sock");
  subject::hold();
  int client = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK_EQ(connect(client, plain(address), sizeof address), 0);
  int server = accept(listener, nullptr, nullptr);
  CHECK(server >= 0);
  both_ways(client, server);
  sockaddr_un now = {};
  socklen_t length = sizeof now;
  CHECK_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&now), &length), 0);
  CHECK_EQ(strcmp(now.sun_path, address.sun_path), 0);
}
// Connections that wait to be accepted, in their order, from several processes.
void with_backlog(bool with_data) {
  int listener = bound(SOCK_STREAM, "sock");
  MUST(listen(listener, 8) == 0 && fcntl(listener, F_SETFL, O_NONBLOCK) == 0);
  sockaddr_un address = named("sock");
  pid_t children[4];
  int waiting[4];
  for (int i = 0; i < 4; ++i) {
    waiting[i] = socket(AF_UNIX, SOCK_STREAM, 0);
    children[i] = 0;
    char hello = static_cast<char>('0' + i);
    auto begin = [=] {
      MUST(connect(waiting[i], plain(address), sizeof address) == 0);
      if (with_data) MUST(write(waiting[i], &hello, 1) == 1);
    };
    if (i == 1) {
      close(waiting[i]);
      children[i] = subject::child([=] {
        int mine = socket(AF_UNIX, SOCK_STREAM, 0);
        MUST(mine == waiting[i]);
        begin();
        subject::mark("connected");
        subject::await("go");
        char byte = 0;
        CHECK_EQ(read(mine, &byte, 1), 1);
        CHECK_EQ(byte, 'a');
        CHECK_EQ(write(mine, "b", 1), 1);
      });
      subject::await("connected");
      waiting[i] = dup(0);  // the number stays taken
    } else {
      begin();
    }
  }
  MUST(shutdown(waiting[3], SHUT_WR) == 0);
  subject::hold();
  for (int i = 0; i < 4; ++i) {
    int server = accept(listener, nullptr, nullptr);
    CHECK(server >= 0);
    if (server < 0) return;
    char hello = 0;
    CHECK_EQ(recv(server, &hello, 1, MSG_DONTWAIT), with_data ? 1 : i == 3 ? 0 : -1);
    if (with_data) CHECK_EQ(hello, '0' + i);
    CHECK_EQ(peer_of(server).pid, children[i] != 0 ? children[i] : getpid());
    if (children[i] != 0) {
      char byte = 0;
      fcntl(server, F_SETFL, 0);
      CHECK_EQ(write(server, "a", 1), 1);
      CHECK_EQ(read(server, &byte, 1), 1);
      JOIN(children[i]);
    } else if (i != 3) {
      both_ways(server, waiting[i]);
    }
  }
  CHECK_EQ(accept(listener, nullptr, nullptr), -1);
  CHECK_EQ(errno, EAGAIN);
}
CASE(listening_with_backlog) { with_backlog(false); }
// What came by such a connection can be read by nobody yet, so that a checkpoint has to be refused.
CASE_WITH(backlog_with_data, subject::kMayRefuse) { with_backlog(true); }
CASE_WITH(backlog_of_one_who_left, subject::kMayRefuse) {
  int listener = bound(SOCK_STREAM, "sock");
  MUST(listen(listener, 8) == 0);
  sockaddr_un address = named("sock");
  int client = socket(AF_UNIX, SOCK_STREAM, 0);
  MUST(connect(client, plain(address), sizeof address) == 0 && write(client, "farewell", 8) == 8);
  close(client);
  subject::hold();
  int server = accept(listener, nullptr, nullptr);
  expect(server, "farewell");
}
CASE(connected_by_name) {
  int listener = bound(SOCK_STREAM, "sock");
  sockaddr_un address = named("sock");
  MUST(listen(listener, 8) == 0);
  int client = socket(AF_UNIX, SOCK_STREAM, 0);
  MUST(connect(client, plain(address), sizeof address) == 0);
  int server = accept(listener, nullptr, nullptr);
  MUST(server >= 0 && write(server, "hello", 5) == 5);
  subject::hold();
  expect(client, "hello");
  both_ways(client, server);
  sockaddr_un now = {};
  socklen_t length = sizeof now;
  CHECK_EQ(getsockname(server, reinterpret_cast<sockaddr*>(&now), &length), 0);
  CHECK_EQ(strcmp(now.sun_path, address.sun_path), 0);
  length = sizeof now;
  CHECK_EQ(getpeername(client, reinterpret_cast<sockaddr*>(&now), &length), 0);
  CHECK_EQ(strcmp(now.sun_path, address.sun_path), 0);
}
CASE(connected_and_listener_closed) {
  int listener = bound(SOCK_STREAM, "sock");
  sockaddr_un address = named("sock");
  MUST(listen(listener, 8) == 0);
  int client = socket(AF_UNIX, SOCK_STREAM, 0);
  MUST(connect(client, plain(address), sizeof address) == 0);
  int server = accept(listener, nullptr, nullptr);
  close(listener);
  unlink(address.sun_path);
  subject::hold();
  both_ways(client, server);
  CHECK_EQ(access(address.sun_path, F_OK), -1);
}
CASE(abstract_name) {
  int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  int n = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "stasis-subject-%s",
                   strrchr(subject::g_dir, '-') != nullptr ? strrchr(subject::g_dir, '-') : "");
  socklen_t length = offsetof(sockaddr_un, sun_path) + 1 + n;
  MUST(bind(listener, plain(address), length) == 0 && listen(listener, 4) == 0);
  subject::hold();
  int client = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK_EQ(connect(client, plain(address), length), 0);
  CHECK(accept(listener, nullptr, nullptr) >= 0);
}
CASE(bound_datagram) {
  int server = bound(SOCK_DGRAM, "sock"), client = bound(SOCK_DGRAM, "client");
  sockaddr_un address = named("sock"), from = {};
  MUST(connect(client, plain(address), sizeof address) == 0);
  MUST(send(client, "queued", 6, 0) == 6);
  subject::hold();
  char back[16] = {};
  socklen_t length = sizeof from;
  CHECK_EQ(recvfrom(server, back, 16, MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&from), &length), 6);
  CHECK_EQ(strcmp(back, "queued"), 0);
  CHECK_EQ(send(client, "later", 5, 0), 5);
  length = sizeof from;
  CHECK_EQ(recvfrom(server, back, 16, MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&from), &length), 5);
  CHECK_EQ(strcmp(from.sun_path, named("client").sun_path), 0);
}
// A server whose file was removed: it still has its name, and who knows it still reaches it.
CASE(names_that_were_removed) {
  int server = bound(SOCK_DGRAM, "ghost"), client = socket(AF_UNIX, SOCK_DGRAM, 0),
      listener = bound(SOCK_STREAM, "listener");
  sockaddr_un address = named("ghost"), listens = named("listener");
  MUST(connect(client, plain(address), sizeof address) == 0 && pass(client, "early", {}));
  MUST(listen(listener, 4) == 0);
  int waiting = socket(AF_UNIX, SOCK_STREAM, 0);
  MUST(connect(waiting, plain(listens), sizeof listens) == 0);
  MUST(unlink(address.sun_path) == 0 && unlink(listens.sun_path) == 0);
  int second = bound(SOCK_DGRAM, "ghost");
  MUST(mkdir(subject::path("directory"), 0700) == 0);
  int deep = bound(SOCK_DGRAM, "directory/deep");
  MUST(unlink(named("directory/deep").sun_path) == 0 && rmdir(subject::path("directory")) == 0);
  subject::hold();
  expect(server, "early");
  CHECK(pass(client, "late", {}));
  expect(server, "late");
  CHECK(pass(client, "to the new one", {}, &address));
  expect(second, "to the new one");
  sockaddr_un now = {};
  socklen_t length = sizeof now;
  CHECK_EQ(getsockname(server, reinterpret_cast<sockaddr*>(&now), &length), 0);
  CHECK_EQ(strcmp(now.sun_path, address.sun_path), 0);
  length = sizeof now;
  CHECK_EQ(getsockname(deep, reinterpret_cast<sockaddr*>(&now), &length), 0);
  CHECK_EQ(strcmp(now.sun_path, named("directory/deep").sun_path), 0);
  CHECK_EQ(access(subject::path("directory"), F_OK), -1);
  CHECK_EQ(access(listens.sun_path, F_OK), -1);
  fcntl(listener, F_SETFL, O_NONBLOCK);
  int accepted = accept(listener, nullptr, nullptr);
  CHECK(accepted >= 0);
  both_ways(accepted, waiting);
}
CASE(relative_name) {
  MUST(mkdir(subject::path("place"), 0700) == 0 && chdir(subject::path("place")) == 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  strcpy(address.sun_path, "here");
  int listener = socket(AF_UNIX, SOCK_STREAM, 0), ghost = socket(AF_UNIX, SOCK_STREAM, 0);
  MUST(bind(listener, plain(address), sizeof address) == 0 && listen(listener, 4) == 0);
  strcpy(address.sun_path, "removed");
  MUST(bind(ghost, plain(address), sizeof address) == 0 && unlink("removed") == 0);
  subject::hold();
  sockaddr_un now = {};
  socklen_t length = sizeof now;
  CHECK_EQ(getsockname(ghost, reinterpret_cast<sockaddr*>(&now), &length), 0);
  CHECK_EQ(strcmp(now.sun_path, "removed"), 0);
  strcpy(address.sun_path, "here");
  int client = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK_EQ(connect(client, plain(address), sizeof address), 0);
  both_ways(client, accept(listener, nullptr, nullptr));
}
// Both ends of a connection have names, and its listener and its file are gone or not.
CASE(names_of_both_ends) {
  sockaddr_un address = named("sock");
  int listener = bound(SOCK_STREAM, "sock"), clients[2], servers[2];
  MUST(listen(listener, 4) == 0);
  for (int i = 0; i < 2; ++i) {
    clients[i] = bound(SOCK_STREAM, i == 0 ? "first" : "second");
    MUST(connect(clients[i], plain(address), sizeof address) == 0);
    servers[i] = accept(listener, nullptr, nullptr);
    MUST(servers[i] >= 0 && pass(clients[i], "x", {}));
  }
  pid_t server_pid = peer_of(clients[0]).pid;
  close(listener);
  subject::hold();
  for (int i = 0; i < 2; ++i) {
    sockaddr_un now = {};
    socklen_t length = sizeof now;
    CHECK_EQ(getpeername(servers[i], reinterpret_cast<sockaddr*>(&now), &length), 0);
    CHECK_EQ(strcmp(now.sun_path, named(i == 0 ? "first" : "second").sun_path), 0);
    length = sizeof now;
    CHECK_EQ(getpeername(clients[i], reinterpret_cast<sockaddr*>(&now), &length), 0);
    CHECK_EQ(strcmp(now.sun_path, address.sun_path), 0);
    CHECK_EQ(peer_of(clients[i]).pid, server_pid);
    expect(servers[i], "x");
    both_ways(clients[i], servers[i]);
  }
  CHECK_EQ(access(address.sun_path, F_OK), 0);
}
CASE(unconnected) {
  int stream = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0),
      datagram = socket(AF_UNIX, SOCK_DGRAM, 0);
  MUST(stream >= 0 && datagram >= 0);
  subject::hold();
  char byte;
  CHECK_EQ(recv(datagram, &byte, 1, MSG_DONTWAIT), -1);
  CHECK_EQ(errno, EAGAIN);
  sockaddr_un address = named("nobody");
  CHECK_EQ(connect(stream, plain(address), sizeof address), -1);
  CHECK_EQ(errno, ENOENT);
  CHECK_EQ(fcntl(stream, F_GETFD), FD_CLOEXEC);
}

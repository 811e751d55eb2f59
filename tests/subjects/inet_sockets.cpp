// TCP and UDP, inside the tree and towards the outside. Everything on the loopback address.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include "subject.h"

namespace {

sockaddr_in loopback(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}
sockaddr* plain(sockaddr_in& address) { return reinterpret_cast<sockaddr*>(&address); }
uint16_t port_of(int fd) {
  sockaddr_in address = {};
  socklen_t length = sizeof address;
  MUST(getsockname(fd, plain(address), &length) == 0);
  return ntohs(address.sin_port);
}
int listening(int backlog = 8) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  sockaddr_in address = loopback(0);
  MUST(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
  MUST(bind(fd, plain(address), sizeof address) == 0 && listen(fd, backlog) == 0);
  return fd;
}
int connected_to(uint16_t port) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = loopback(port);
  CHECK_EQ(connect(fd, plain(address), sizeof address), 0);
  return fd;
}
bool readable(int fd, int ms = 2000) {
  pollfd entry = {fd, POLLIN, 0};
  return poll(&entry, 1, ms) == 1;
}
void say_and_hear(int a, int b, const char* text) {
  char back[64] = {};
  CHECK_EQ(send(a, text, strlen(text), MSG_NOSIGNAL), static_cast<ssize_t>(strlen(text)));
  CHECK(readable(b));
  CHECK_EQ(recv(b, back, sizeof back, MSG_DONTWAIT), static_cast<ssize_t>(strlen(text)));
  CHECK_EQ(strcmp(back, text), 0);
}

}  // namespace

CASE(listens) {
  int listener = listening();
  uint16_t port = port_of(listener);
  int value = 1;
  MUST(setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value) == 0);
  subject::hold();
  CHECK_EQ(port_of(listener), port);
  int client = connected_to(port);
  int server = accept(listener, nullptr, nullptr);
  CHECK(server >= 0);
  say_and_hear(client, server, "there");
  say_and_hear(server, client, "and back");
  socklen_t length = sizeof value;
  CHECK_EQ(getsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &value, &length), 0);
  CHECK_EQ(value, 1);
  value = 0;
  CHECK_EQ(getsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &value, &length), 0);
  CHECK(value != 0);
}

CASE(listens_on_ipv6) {
  int listener = socket(AF_INET6, SOCK_STREAM, 0);
  sockaddr_in6 address = {};
  address.sin6_family = AF_INET6;
  address.sin6_addr = in6addr_loopback;
  if (listener < 0 || bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    SKIP("no IPv6 here");
  MUST(listen(listener, 4) == 0);
  socklen_t length = sizeof address;
  MUST(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  subject::hold();
  int client = socket(AF_INET6, SOCK_STREAM, 0);
  CHECK_EQ(connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  CHECK(accept(listener, nullptr, nullptr) >= 0);
}

CASE(accept_waits) {
  int listener = listening();
  uint16_t port = port_of(listener);
  pid_t pid = subject::child([=] {
    subject::mark("waiting");
    int server = accept(listener, nullptr, nullptr);
    CHECK(server >= 0);
    CHECK(subject::told_to_go());
    CHECK_EQ(send(server, "hi", 2, 0), 2);
  });
  subject::await("waiting");
  subject::await_asleep(pid);
  subject::hold();
  int client = connected_to(port);
  char back[4];
  CHECK(readable(client));
  CHECK_EQ(recv(client, back, 4, 0), 2);
  JOIN(pid);
}

CASE(connection_inside) {
  int listener = listening();
  int client = connected_to(port_of(listener)), server = accept(listener, nullptr, nullptr);
  MUST(server >= 0);
  uint16_t server_port = port_of(server);
  subject::hold();
  say_and_hear(client, server, "one way");
  say_and_hear(server, client, "the other");
  CHECK_EQ(port_of(server), server_port);
  // The client's port was chosen by the kernel and may be another; then both ends must say so.
  sockaddr_in peer = {};
  socklen_t length = sizeof peer;
  CHECK_EQ(getpeername(server, plain(peer), &length), 0);
  CHECK_EQ(ntohs(peer.sin_port), port_of(client));
  close(client);
  CHECK(readable(server));
  char byte;
  CHECK_EQ(recv(server, &byte, 1, MSG_DONTWAIT), 0);
}

CASE(connection_inside_with_content) {
  int listener = listening();
  int client = connected_to(port_of(listener)), server = accept(listener, nullptr, nullptr);
  static uint8_t data[30000], back[30000];
  subject::fill(data, sizeof data, 1);
  MUST(server >= 0 && send(client, data, sizeof data, 0) == sizeof data);
  MUST(send(server, "reply", 5, 0) == 5);
  subject::hold();
  size_t have = 0;
  while (have < sizeof back && readable(server)) {
    ssize_t n = recv(server, back + have, sizeof back - have, 0);
    if (n <= 0) break;
    have += n;
  }
  CHECK_EQ(have, sizeof back);
  CHECK_EQ(subject::differs(back, sizeof back, 1), -1);
  char reply[8] = {};
  CHECK_EQ(recv(client, reply, 8, MSG_DONTWAIT), 5);
  CHECK_EQ(strcmp(reply, "reply"), 0);
  say_and_hear(client, server, "more");
  say_and_hear(server, client, "and more");
}

CASE(connection_between_processes) {
  int listener = listening();
  uint16_t port = port_of(listener);
  pid_t pid = subject::child([=] {
    int server = accept(listener, nullptr, nullptr);
    subject::mark("accepted");
    char byte;
    while (recv(server, &byte, 1, 0) == 1) {
      ++byte;
      MUST(send(server, &byte, 1, 0) == 1);
    }
  });
  int client = connected_to(port);
  subject::await("accepted");
  subject::await_asleep(pid);
  subject::hold();
  for (char c = 'a'; c < 'z'; ++c) {
    char back = 0;
    CHECK_EQ(send(client, &c, 1, MSG_NOSIGNAL), 1);
    CHECK(readable(client));
    CHECK_EQ(recv(client, &back, 1, MSG_DONTWAIT), 1);
    CHECK_EQ(back, c + 1);
  }
  close(client);
  JOIN(pid);
}

CASE(connection_inside_half_closed) {
  int listener = listening();
  int client = connected_to(port_of(listener)), server = accept(listener, nullptr, nullptr);
  MUST(server >= 0 && send(client, "last", 4, 0) == 4 && shutdown(client, SHUT_WR) == 0);
  subject::hold();
  char back[8];
  CHECK(readable(server));
  CHECK_EQ(recv(server, back, 8, 0), 4);
  CHECK_EQ(recv(server, back, 8, 0), 0);
  say_and_hear(server, client, "still open this way");
}

// The client of before is not in the tree. After a restart the program sees it closed, as if the peer had
// died; while the program merely goes on, the connection must live. The "outside" is a process that left the
// session's tree is not to be had from inside, so the runner's own listener is it: $SUBJECT_PEER_PORT, when
// it offers one.
CASE_WITH(connection_to_outside, subject::kOneRun | subject::kBusy) {
  const char* port = getenv("SUBJECT_PEER_PORT");
  if (port == nullptr) SKIP("nobody outside to speak with");
  int fd = connected_to(static_cast<uint16_t>(atoi(port)));
  MUST(send(fd, "hello", 5, 0) == 5);
  char back[8] = {};
  MUST(recv(fd, back, 5, MSG_WAITALL) == 5 && strcmp(back, "hello") == 0);
  subject::hold();
  CHECK_EQ(fcntl(fd, F_GETFD), 0);
  if (subject::marked("restarted")) {
    // The number is still a socket; it says end of file or reset, and never blocks.
    CHECK(readable(fd));
    CHECK(recv(fd, back, 5, MSG_DONTWAIT) <= 0);
    // As with a peer that died: the first byte may still be taken, and then it is said.
    bool failed = false;
    for (int i = 0; i < 200 && !failed; ++i) {
      failed = send(fd, "x", 1, MSG_NOSIGNAL) == -1;
      subject::pass(2);
    }
    CHECK(failed);
  } else {
    CHECK_EQ(send(fd, "again", 5, MSG_NOSIGNAL), 5);
    CHECK_EQ(recv(fd, back, 5, MSG_WAITALL), 5);
  }
}

CASE(udp_bound) {
  int server = socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in address = loopback(0);
  MUST(bind(server, plain(address), sizeof address) == 0);
  uint16_t port = port_of(server);
  int client = socket(AF_INET, SOCK_DGRAM, 0);
  address = loopback(port);
  MUST(connect(client, plain(address), sizeof address) == 0);
  subject::hold();
  CHECK_EQ(port_of(server), port);
  CHECK_EQ(send(client, "datagram", 8, 0), 8);
  CHECK(readable(server));
  char back[16];
  sockaddr_in from = {};
  socklen_t length = sizeof from;
  CHECK_EQ(recvfrom(server, back, 16, 0, plain(from), &length), 8);
  CHECK_EQ(ntohs(from.sin_port), port_of(client));
}

CASE_WITH(udp_with_content, subject::kMayRefuse) {
  int server = socket(AF_INET, SOCK_DGRAM, 0), client = socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in address = loopback(0);
  MUST(bind(server, plain(address), sizeof address) == 0);
  address = loopback(port_of(server));
  MUST(sendto(client, "queued", 6, 0, plain(address), sizeof address) == 6);
  subject::hold();
  char back[16] = {};
  // UDP promises nothing, so a lost datagram is no fault; a wrong one is.
  ssize_t n = recv(server, back, 16, MSG_DONTWAIT);
  CHECK(n == -1 || (n == 6 && strcmp(back, "queued") == 0));
}

CASE(not_yet_connected) {
  int plain_socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0),
      only_bound = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = loopback(0);
  MUST(plain_socket >= 0 && bind(only_bound, plain(address), sizeof address) == 0);
  uint16_t port = port_of(only_bound);
  subject::hold();
  CHECK_EQ(port_of(only_bound), port);
  CHECK_EQ(listen(only_bound, 4), 0);
  address = loopback(port);
  int result = connect(plain_socket, plain(address), sizeof address);
  CHECK(result == 0 || errno == EINPROGRESS);
  CHECK(readable(only_bound));
}

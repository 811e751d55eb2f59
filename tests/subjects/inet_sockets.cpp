// TCP and UDP, inside the tree and towards the outside. Everything on the loopback address.
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/icmp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include "connected.h"
#include "subject.h"

namespace {

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

// --- connections that nobody has accepted yet

CASE(backlog_of_ours) {
  int listener = listening();
  fcntl(listener, F_SETFL, O_NONBLOCK);
  uint16_t port = port_of(listener);
  int accepted_client = connected_to(port), accepted = accept(listener, nullptr, nullptr);
  MUST(accepted >= 0);
  int clients[3];
  for (int& client : clients) {
    client = connected_to(port);
    subject::pass(5);
  }
  MUST(shutdown(clients[1], SHUT_WR) == 0);
  subject::hold();
  say_and_hear(accepted_client, accepted, "accepted before");
  for (int i = 0; i < 3; ++i) {
    CHECK(readable(listener));
    sockaddr_in from = {};
    socklen_t length = sizeof from;
    int server = accept(listener, plain(from), &length);
    CHECK(server >= 0);
    CHECK_EQ(ntohs(from.sin_port), port_of(clients[i]));
    say_and_hear(server, clients[i], "to the client");
    if (i != 1) say_and_hear(clients[i], server, "to the server");
    char byte;
    if (i == 1) CHECK_EQ(recv(server, &byte, 1, 0), 0);
  }
  CHECK_EQ(accept(listener, nullptr, nullptr), -1);
}

// The sender fills both queues until nothing goes any more.
// What a checkpoint moves on to the reader lets the sender go on, too.
static void blocked_sender(int size) {
  int listener = listening();
  if (size > 0) MUST(setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) == 0);
  int client = connected_to(port_of(listener)), server = accept(listener, nullptr, nullptr);
  MUST(server >= 0 && fcntl(client, F_SETFL, O_NONBLOCK) == 0);
  int given = 0;
  socklen_t given_size = sizeof given;
  MUST(getsockopt(server, SOL_SOCKET, SO_RCVBUF, &given, &given_size) == 0);
  static uint64_t words[1 << 13];
  uint64_t next = 0;
  size_t sent = 0;
  for (int idle = 0; idle < 20;) {
    for (uint64_t& word : words) word = next++;
    size_t here = 0;
    while (here < sizeof words && idle < 20) {
      ssize_t n = send(client, reinterpret_cast<char*>(words) + here, sizeof words - here, MSG_NOSIGNAL);
      if (n > 0) {
        here += n;
        idle = 0;
      } else {
        ++idle;
        subject::pass(5);
      }
    }
    sent += here;
  }
  pid_t pid = subject::child([=] {
    // Blocked in the middle of it.
    fcntl(client, F_SETFL, 0);
    static char more[100000];
    size_t done = 0;
    while (done < sizeof more) {
      ssize_t n = send(client, more + done, sizeof more - done, MSG_NOSIGNAL);
      CHECK(n > 0);
      if (n <= 0) break;
      done += n;
    }
  });
  subject::await_asleep(pid);
  subject::hold();
  size_t have = 0;
  uint64_t expected = 0;
  while (have < sent && readable(server)) {
    size_t want = sent - have < sizeof words ? sent - have : sizeof words;
    ssize_t n = recv(server, words, want, MSG_WAITALL);
    if (n <= 0) break;
    for (size_t i = 0; i + 8 <= static_cast<size_t>(n); i += 8) {
      if (words[i / 8] != expected) {
        CHECK_EQ(words[i / 8], expected);
        return;
      }
      ++expected;
    }
    have += n;
  }
  CHECK_EQ(have, sent);
  size_t rest = 0;
  while (rest < 100000 && readable(server)) {
    ssize_t n = recv(server, words, sizeof words, 0);
    if (n <= 0) break;
    rest += n;
  }
  CHECK_EQ(rest, 100000u);
  if (size > 0) {
    int now = 0;
    socklen_t length = sizeof now;
    CHECK_EQ(getsockopt(server, SOL_SOCKET, SO_RCVBUF, &now, &length), 0);
    CHECK_EQ(now, given);
  }
  JOIN(pid);
}
CASE_WITH(sender_blocked, subject::kBusy) { blocked_sender(0); }
CASE_WITH(sender_blocked_with_small_buffer, subject::kBusy) { blocked_sender(20000); }
// As large as anybody may make it: there is no more room for what the sender still has.
CASE_WITH(sender_blocked_with_largest_buffer, subject::kBusy) { blocked_sender(1 << 30); }

CASE(half_closed_by_both_and_one) {
  int listener = listening();
  int client[3], server[3];
  for (int i = 0; i < 3; ++i) {
    client[i] = connected_to(port_of(listener));
    server[i] = accept(listener, nullptr, nullptr);
    MUST(server[i] >= 0 && send(client[i], "c", 1, 0) == 1 && send(server[i], "s", 1, 0) == 1);
  }
  MUST(shutdown(client[0], SHUT_WR) == 0 && shutdown(server[0], SHUT_WR) == 0);
  MUST(shutdown(server[1], SHUT_WR) == 0);
  close(client[2]);
  subject::hold();
  char byte;
  for (int i = 0; i < 3; ++i) {
    CHECK(readable(server[i]));
    if (i < 2) CHECK_EQ(recv(server[i], &byte, 1, MSG_DONTWAIT), 1);
    if (i < 2) CHECK_EQ(recv(client[i], &byte, 1, MSG_DONTWAIT), 1);
  }
  CHECK_EQ(recv(server[0], &byte, 1, MSG_DONTWAIT), 0);
  CHECK_EQ(recv(client[0], &byte, 1, MSG_DONTWAIT), 0);
  CHECK_EQ(recv(client[1], &byte, 1, MSG_DONTWAIT), 0);
  say_and_hear(client[1], server[1], "still open this way");
}

CASE(tcp_options) {
  int listener = listening();
  struct {
    int level, name, value;
  } const wanted[] = {{SOL_SOCKET, SO_KEEPALIVE, 1},
                      {IPPROTO_TCP, TCP_KEEPIDLE, 77},
                      {IPPROTO_TCP, TCP_KEEPINTVL, 11},
                      {IPPROTO_TCP, TCP_KEEPCNT, 3},
                      {IPPROTO_TCP, TCP_NODELAY, 1},
                      {IPPROTO_TCP, TCP_SYNCNT, 4},
                      {IPPROTO_TCP, TCP_LINGER2, 9},
                      {IPPROTO_TCP, TCP_USER_TIMEOUT, 12345},
                      {SOL_SOCKET, SO_OOBINLINE, 1},
                      {SOL_SOCKET, SO_RCVLOWAT, 5},
                      {IPPROTO_IP, IP_TTL, 33},
                      {IPPROTO_IP, IP_TOS, 0x10},
                      {IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 1},
                      {SOL_SOCKET, SO_PRIORITY, 3}};
  int size = 30000;
  int client = connected_to(port_of(listener)), server = accept(listener, nullptr, nullptr);
  int segment = 900, unconnected = socket(AF_INET, SOCK_STREAM, 0);
  MUST(setsockopt(unconnected, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment) == 0);
  for (int fd : {client, server, listener}) {
    for (const auto& option : wanted)
      MUST(setsockopt(fd, option.level, option.name, &option.value, sizeof(int)) == 0);
    MUST(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0);
    MUST(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) == 0);
  }
  subject::hold();
  for (int fd : {client, server, listener}) {
    for (const auto& option : wanted) {
      int now = -1;
      socklen_t length = sizeof now;
      CHECK_EQ(getsockopt(fd, option.level, option.name, &now, &length), 0);
      if (now != option.value) subject::say("option %d of level %d", option.name, option.level);
      CHECK_EQ(now, option.value);
    }
    for (int name : {SO_SNDBUF, SO_RCVBUF}) {
      int now = -1;
      socklen_t length = sizeof now;
      CHECK_EQ(getsockopt(fd, SOL_SOCKET, name, &now, &length), 0);
      CHECK_EQ(now, 2 * size);
    }
  }
  socklen_t length = sizeof segment;
  CHECK_EQ(getsockopt(unconnected, IPPROTO_TCP, TCP_MAXSEG, &segment, &length), 0);
  CHECK_EQ(segment, 900);
}

// A filter that lets only some datagrams in; those before it stay.
CASE(filtered) {
  int server = socket(AF_INET, SOCK_DGRAM, 0), client = socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in address = loopback(0);
  MUST(bind(server, plain(address), sizeof address) == 0);
  address = loopback(port_of(server));
  MUST(sendto(client, "no", 2, 0, plain(address), sizeof address) == 2);
  // Accept when the first byte of the payload is 'y'.
  sock_filter code[] = {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 8), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'y', 0, 1),
                        BPF_STMT(BPF_RET | BPF_K, 0xffff), BPF_STMT(BPF_RET | BPF_K, 0)};
  sock_fprog program = {4, code};
  MUST(setsockopt(server, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0);
  subject::hold();
  char back[8] = {};
  CHECK_EQ(recv(server, back, 8, MSG_DONTWAIT), 2);
  CHECK_EQ(sendto(client, "no", 2, 0, plain(address), sizeof address), 2);
  CHECK_EQ(sendto(client, "yes", 3, 0, plain(address), sizeof address), 3);
  CHECK(readable(server));
  CHECK_EQ(recv(server, back, 8, MSG_DONTWAIT), 3);
  CHECK_EQ(recv(server, back, 8, MSG_DONTWAIT), -1);
}

CASE(udp_queue_with_senders) {
  int server = socket(AF_INET, SOCK_DGRAM, 0), one = socket(AF_INET, SOCK_DGRAM, 0),
      gone = socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in address = loopback(0), any = {};
  any.sin_family = AF_INET;
  MUST(bind(server, plain(any), sizeof any) == 0 && bind(gone, plain(address), sizeof address) == 0);
  address = loopback(port_of(server));
  uint16_t gone_port = port_of(gone);
  MUST(sendto(one, "first", 5, 0, plain(address), sizeof address) == 5);
  MUST(sendto(gone, "second", 6, 0, plain(address), sizeof address) == 6);
  MUST(sendto(one, "", 0, 0, plain(address), sizeof address) == 0);
  close(gone);
  int connected = socket(AF_INET, SOCK_DGRAM, 0);
  MUST(connect(connected, plain(address), sizeof address) == 0 && shutdown(connected, SHUT_WR) == 0);
  subject::hold();
  char back[16] = {};
  sockaddr_in from = {};
  socklen_t length = sizeof from;
  CHECK_EQ(recvfrom(server, back, 16, MSG_DONTWAIT, plain(from), &length), 5);
  CHECK_EQ(memcmp(back, "first", 5), 0);
  CHECK_EQ(ntohs(from.sin_port), port_of(one));
  CHECK_EQ(recvfrom(server, back, 16, MSG_DONTWAIT, plain(from), &length), 6);
  CHECK_EQ(memcmp(back, "second", 6), 0);
  CHECK_EQ(ntohs(from.sin_port), gone_port);
  CHECK_EQ(recvfrom(server, back, 16, MSG_DONTWAIT, plain(from), &length), 0);
  CHECK_EQ(send(connected, "x", 1, MSG_NOSIGNAL), -1);
}

CASE(udp_lite) {
  int server = socket(AF_INET, SOCK_DGRAM, 136), client = socket(AF_INET, SOCK_DGRAM, 136);
  if (server < 0) SKIP("no UDP-Lite here");
  int coverage = 20, now = 0;
  MUST(setsockopt(client, 136, 10, &coverage, sizeof coverage) == 0);
  sockaddr_in address = loopback(0);
  MUST(bind(server, plain(address), sizeof address) == 0);
  address = loopback(port_of(server));
  MUST(sendto(client, "queued", 6, 0, plain(address), sizeof address) == 6);
  subject::hold();
  char back[16];
  CHECK_EQ(recv(server, back, 16, MSG_DONTWAIT), 6);
  socklen_t length = sizeof now;
  CHECK_EQ(getsockopt(client, 136, 10, &now, &length), 0);
  CHECK_EQ(now, coverage);
}

CASE(multicast_groups) {
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  ip_mreqn request = {};
  request.imr_multiaddr.s_addr = inet_addr("239.1.2.3");
  request.imr_ifindex = 1;  // lo
  MUST(setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &request, sizeof request) == 0);
  int fd6 = socket(AF_INET6, SOCK_DGRAM, 0);
  ipv6_mreq request6 = {};
  inet_pton(AF_INET6, "ff15::1234", &request6.ipv6mr_multiaddr);
  request6.ipv6mr_interface = 1;
  bool six = fd6 >= 0 && setsockopt(fd6, IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, &request6, sizeof request6) == 0;
  subject::hold();
  CHECK_EQ(setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &request, sizeof request), -1);
  CHECK_EQ(errno, EADDRINUSE);
  CHECK_EQ(setsockopt(fd, IPPROTO_IP, IP_DROP_MEMBERSHIP, &request, sizeof request), 0);
  if (six) CHECK_EQ(setsockopt(fd6, IPPROTO_IPV6, IPV6_DROP_MEMBERSHIP, &request6, sizeof request6), 0);
}

CASE(ping_socket) {
  int fd = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
  if (fd < 0) SKIP("net.ipv4.ping_group_range does not allow it");
  sockaddr_in address = loopback(4711);
  MUST(bind(fd, plain(address), sizeof address) == 0);
  subject::hold();
  CHECK_EQ(port_of(fd), 4711);
  icmphdr echo = {};
  echo.type = ICMP_ECHO;
  address = loopback(0);
  CHECK_EQ(sendto(fd, &echo, sizeof echo, 0, plain(address), sizeof address),
           static_cast<ssize_t>(sizeof echo));
  CHECK(readable(fd));
}

// The kernel answers nobody there: whoever connects waits.
CASE_WITH(connecting, subject::kBusy) {
  int listener = listening(0);
  uint16_t port = port_of(listener);
  int filling[2];
  for (int& fd : filling) {
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    sockaddr_in address = loopback(port);
    connect(fd, plain(address), sizeof address);
  }
  subject::hold();
  pollfd entry = {filling[1], POLLOUT, 0};
  CHECK_EQ(poll(&entry, 1, 0), 0);
  CHECK(accept(listener, nullptr, nullptr) >= 0);
  CHECK_EQ(poll(&entry, 1, 20000), 1);
  int error = -1;
  socklen_t length = sizeof error;
  CHECK_EQ(getsockopt(filling[1], SOL_SOCKET, SO_ERROR, &error, &length), 0);
  CHECK_EQ(error, 0);
}

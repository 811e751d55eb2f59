// TCP connections in states other than the plain one, and what sockets of one port share.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include "connected.h"
#include "subject.h"

namespace {

constexpr int kBufferLock = 72;  // SO_BUF_LOCK, newer than the C library's headers

struct Address {
  sockaddr_storage bytes = {};
  socklen_t length = sizeof bytes;
  sockaddr* plain() { return reinterpret_cast<sockaddr*>(&bytes); }
};

Address any(int family, bool loopback) {
  Address address;
  address.bytes.ss_family = static_cast<sa_family_t>(family);
  if (family == AF_INET6) {
    auto* in6 = reinterpret_cast<sockaddr_in6*>(&address.bytes);
    if (loopback) in6->sin6_addr = in6addr_loopback;
    address.length = sizeof *in6;
  } else {
    auto* in = reinterpret_cast<sockaddr_in*>(&address.bytes);
    if (loopback) in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.length = sizeof *in;
  }
  return address;
}

Address name_of(int fd) {
  Address address;
  MUST(getsockname(fd, address.plain(), &address.length) == 0);
  return address;
}
// Also of a connection that has ended, of which getpeername() says that it is none.
Address peer_of(int fd) {
  Address address = name_of(fd);
  MUST(getsockopt(fd, SOL_SOCKET, SO_PEERNAME, &address.bytes, &address.length) == 0);
  return address;
}
bool same(const Address& one, const Address& other) {
  return one.length == other.length && memcmp(&one.bytes, &other.bytes, one.length) == 0;
}

int option(int fd, int level, int name) {
  int value = -1;
  socklen_t length = sizeof value;
  CHECK_EQ(getsockopt(fd, level, name, &value, &length), 0);
  return value;
}
void set(int fd, int level, int name, int value) {
  MUST(setsockopt(fd, level, name, &value, sizeof value) == 0);
}
int state_of_connection(int fd) {
  tcp_info info = {};
  socklen_t length = sizeof info;
  MUST(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0);
  return info.tcpi_state;
}

struct Connection {
  int listener, server, client;
};

Connection connected(int family, bool only_this_family = true) {
  Connection all;
  all.listener = socket(family, SOCK_STREAM, 0);
  if (all.listener < 0) SKIP("no IPv6 here");
  // As servers do: else what is left of an old connection (TIME_WAIT) would keep the port for a minute.
  set(all.listener, SOL_SOCKET, SO_REUSEADDR, 1);
  if (family == AF_INET6) set(all.listener, IPPROTO_IPV6, IPV6_V6ONLY, only_this_family ? 1 : 0);
  Address here = any(family, false), there = any(family, true);
  MUST(bind(all.listener, here.plain(), here.length) == 0 && listen(all.listener, 4) == 0);
  here = name_of(all.listener);
  // The port is at the same place in both.
  reinterpret_cast<sockaddr_in*>(&there.bytes)->sin_port =
      reinterpret_cast<sockaddr_in*>(&here.bytes)->sin_port;
  all.client = socket(family, SOCK_STREAM, 0);
  if (connect(all.client, there.plain(), there.length) != 0) SKIP("no such loopback address here");
  all.server = accept(all.listener, nullptr, nullptr);
  MUST(all.server >= 0);
  return all;
}

void check_ended(int fd) {
  char byte;
  CHECK_EQ(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
  CHECK_EQ(send(fd, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT), -1);
  CHECK_EQ(errno, EPIPE);
  pollfd entry = {fd, POLLIN, 0};
  CHECK_EQ(poll(&entry, 1, 0), 1);
  CHECK((entry.revents & POLLHUP) != 0);
  CHECK_EQ(state_of_connection(fd), TCP_CLOSE);
}

void await_state(int fd, int state) {
  for (int i = 0; i < 2000 && state_of_connection(fd) != state; ++i) subject::pass(1);
  MUST(state_of_connection(fd) == state);
}

// The listener may be there still, or not, and may have been for both families.
void ipv6_connection(bool only_this_family, bool keep_listener) {
  Connection all = connected(AF_INET6, only_this_family);
  if (!keep_listener) close(all.listener);
  int before[2] = {option(all.server, IPPROTO_IPV6, IPV6_V6ONLY),
                   option(all.client, IPPROTO_IPV6, IPV6_V6ONLY)};
  Address server = name_of(all.server);
  subject::hold();
  CHECK_EQ(option(all.server, IPPROTO_IPV6, IPV6_V6ONLY), before[0]);
  CHECK_EQ(option(all.client, IPPROTO_IPV6, IPV6_V6ONLY), before[1]);
  CHECK(same(name_of(all.server), server));
  CHECK(same(peer_of(all.client), server));
  say_and_hear(all.client, all.server, "one way");
  say_and_hear(all.server, all.client, "the other");
}

}  // namespace

CASE(ipv6_connection_of_both_families) { ipv6_connection(false, true); }
CASE(ipv6_connection_without_listener) { ipv6_connection(false, false); }
CASE(ipv6_only_connection_without_listener) { ipv6_connection(true, false); }

CASE(ipv6_connection_closed_by_peer) {
  Connection all = connected(AF_INET6);
  set(all.server, SOL_SOCKET, SO_SNDBUF, 30000);
  set(all.server, SOL_SOCKET, SO_RCVBUF, 40000);
  set(all.server, IPPROTO_IPV6, IPV6_FREEBIND, 1);
  MUST(send(all.client, "end", 3, 0) == 3);
  close(all.client);
  await_state(all.server, TCP_CLOSE_WAIT);
  subject::hold();
  CHECK_EQ(option(all.server, IPPROTO_IPV6, IPV6_V6ONLY), 1);
  CHECK_EQ(option(all.server, SOL_SOCKET, SO_SNDBUF), 60000);
  CHECK_EQ(option(all.server, SOL_SOCKET, SO_RCVBUF), 80000);
  CHECK_EQ(option(all.server, IPPROTO_IPV6, IPV6_FREEBIND), 1);
  char back[4] = {};
  CHECK_EQ(recv(all.server, back, 4, MSG_DONTWAIT), 3);
  CHECK_EQ(recv(all.server, back, 4, MSG_DONTWAIT), 0);
}

// Both ends have sent all that they had to.
CASE(ended_altogether) {
  Connection all[2] = {connected(AF_INET), connected(AF_INET)};
  Address server[2], client[2];
  for (int i = 0; i < 2; ++i) {
    MUST(send(all[i].client, "c", 1, 0) == 1 && send(all[i].server, "s", 1, 0) == 1);
    int first = i == 0 ? all[i].client : all[i].server, second = i == 0 ? all[i].server : all[i].client;
    MUST(shutdown(first, SHUT_WR) == 0);
    await_state(second, TCP_CLOSE_WAIT);
    MUST(shutdown(second, SHUT_WR) == 0);
    await_state(first, TCP_CLOSE);
    await_state(second, TCP_CLOSE);
    server[i] = name_of(all[i].server);
    client[i] = name_of(all[i].client);
  }
  close(all[1].listener);
  // Of Linux 6.3: without it a client whose port is in TIME_WAIT gets another one.
  int range = 0;
  socklen_t length = sizeof range;
  const bool keeps_port = getsockopt(all[0].client, IPPROTO_IP, 51, &range, &length) == 0;
  subject::hold();
  for (int i = 0; i < 2; ++i) {
    char byte = 0;
    CHECK_EQ(recv(all[i].server, &byte, 1, MSG_DONTWAIT), 1);
    CHECK_EQ(byte, 'c');
    CHECK_EQ(recv(all[i].client, &byte, 1, MSG_DONTWAIT), 1);
    CHECK_EQ(byte, 's');
    check_ended(all[i].server);
    check_ended(all[i].client);
    CHECK(same(name_of(all[i].server), server[i]));
    CHECK(same(peer_of(all[i].client), server[i]));
    CHECK(same(peer_of(all[i].server), name_of(all[i].client)));
    if (keeps_port) CHECK(same(name_of(all[i].client), client[i]));
  }
}

// Of which nobody has the other end any more.
CASE(ended_alone) {
  Connection all = connected(AF_INET);
  MUST(send(all.client, "c", 1, 0) == 1);
  MUST(shutdown(all.server, SHUT_WR) == 0);
  close(all.client);
  await_state(all.server, TCP_CLOSE);
  subject::hold();
  char byte = 0;
  CHECK_EQ(recv(all.server, &byte, 1, MSG_DONTWAIT), 1);
  check_ended(all.server);
}

// Shut down without having been anything: it is at its end and not unconnected when one reads.
CASE(shut_down_unconnected) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  MUST(shutdown(fd, SHUT_RD) == -1 && errno == ENOTCONN);
  char byte;
  MUST(recv(fd, &byte, 1, MSG_DONTWAIT) == 0);
  subject::hold();
  CHECK_EQ(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
}

// The second one takes SO_REUSEPORT back, which does not part them; connections of either are there.
CASE(shared_port) {
  int listener[2];
  Address here = any(AF_INET, true);
  for (int i = 0; i < 2; ++i) {
    listener[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    set(listener[i], SOL_SOCKET, SO_REUSEPORT, 1);
    MUST(bind(listener[i], here.plain(), here.length) == 0 && listen(listener[i], 16) == 0);
    here = name_of(listener[0]);
  }
  int client[6], server[6];
  for (int i = 0; i < 6; ++i) {
    client[i] = socket(AF_INET, SOCK_STREAM, 0);
    MUST(connect(client[i], here.plain(), here.length) == 0);
    server[i] = -1;
    while (server[i] < 0) {
      server[i] = accept(listener[0], nullptr, nullptr);
      if (server[i] < 0) server[i] = accept(listener[1], nullptr, nullptr);
    }
  }
  set(listener[1], SOL_SOCKET, SO_REUSEPORT, 0);
  subject::hold();
  CHECK_EQ(option(listener[0], SOL_SOCKET, SO_REUSEPORT), 1);
  CHECK_EQ(option(listener[1], SOL_SOCKET, SO_REUSEPORT), 0);
  for (int i = 0; i < 6; ++i) {
    CHECK_EQ(option(server[i], SOL_SOCKET, SO_REUSEPORT), 1);
    say_and_hear(client[i], server[i], "hello");
    say_and_hear(server[i], client[i], "hello");
  }
  // Both are there for new ones: each closes for itself.
  for (int i = 0; i < 2; ++i) {
    CHECK(same(name_of(listener[i]), here));
    CHECK_EQ(option(listener[i], SOL_SOCKET, SO_ACCEPTCONN), 1);
  }
}

// Which sizes are the program's own, though it has not set one.
CASE(buffer_lock) {
  int fds[4];
  for (int i = 0; i < 4; ++i) {
    fds[i] = socket(AF_INET, i % 2 == 0 ? SOCK_STREAM : SOCK_DGRAM, 0);
    if (setsockopt(fds[i], SOL_SOCKET, kBufferLock, &i, sizeof i) != 0) SKIP("the kernel is older than 5.14");
  }
  subject::hold();
  for (int i = 0; i < 4; ++i) CHECK_EQ(option(fds[i], SOL_SOCKET, kBufferLock), i);
}

// An address that the host does not have, and the option that let it be bound taken back.
CASE(foreign_address) {
  int fds[4];
  Address names[4];
  for (int i = 0; i < 4; ++i) {
    const int family = i < 2 ? AF_INET : AF_INET6;
    Address address = any(family, false);
    if (family == AF_INET) {
      MUST(inet_pton(AF_INET, "192.0.2.77", &reinterpret_cast<sockaddr_in*>(&address.bytes)->sin_addr) == 1);
    } else {
      MUST(inet_pton(AF_INET6, "2001:db8::77", &reinterpret_cast<sockaddr_in6*>(&address.bytes)->sin6_addr) ==
           1);
    }
    const int level = family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
    const int name = family == AF_INET ? IP_FREEBIND : IPV6_FREEBIND;
    fds[i] = socket(family, i % 2 == 0 ? SOCK_STREAM : SOCK_DGRAM, 0);
    if (fds[i] < 0) SKIP("no IPv6 here");
    set(fds[i], level, name, 1);
    if (bind(fds[i], address.plain(), address.length) != 0) SKIP("no IPv6 here");
    if (i == 0) MUST(listen(fds[i], 2) == 0);
    set(fds[i], level, name, 0);
    names[i] = name_of(fds[i]);
  }
  subject::hold();
  for (int i = 0; i < 4; ++i) {
    CHECK(same(name_of(fds[i]), names[i]));
    CHECK_EQ(option(fds[i], i < 2 ? IPPROTO_IP : IPPROTO_IPV6, i < 2 ? IP_FREEBIND : IPV6_FREEBIND), 0);
  }
}

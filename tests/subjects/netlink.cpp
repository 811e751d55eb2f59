// Netlink sockets: bound to groups, with filters and options, connected, shared; and what waits in them.
#include <linux/filter.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <net/if.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "subject.h"

namespace {

sockaddr_nl address_of(uint32_t port, uint32_t groups = 0) {
  sockaddr_nl address = {};
  address.nl_family = AF_NETLINK;
  address.nl_pid = port;
  address.nl_groups = groups;
  return address;
}
sockaddr* plain(sockaddr_nl& address) { return reinterpret_cast<sockaddr*>(&address); }

int unbound(int protocol, int type = SOCK_RAW) {
  int fd = socket(AF_NETLINK, type | SOCK_CLOEXEC, protocol);
  MUST(fd >= 0);
  return fd;
}
int bound(int protocol, uint32_t groups = 0, int type = SOCK_RAW) {
  int fd = unbound(protocol, type);
  // The kernel would take our pid, which in a session is a small number that other sessions of this host
  // have, too: whoever comes back second has to take another.
  uint32_t port = 0;
  MUST(getrandom(&port, sizeof port, 0) == sizeof port);
  sockaddr_nl address = address_of(port | 0x40000000, groups);
  MUST(bind(fd, plain(address), sizeof address) == 0);
  return fd;
}
sockaddr_nl name_of(int fd) {
  sockaddr_nl address = {};
  socklen_t length = sizeof address;
  MUST(getsockname(fd, plain(address), &length) == 0);
  return address;
}
sockaddr_nl peer_of(int fd) {
  sockaddr_nl address = {};
  socklen_t length = sizeof address;
  MUST(getpeername(fd, plain(address), &length) == 0);
  return address;
}
int option(int fd, int level, int name) {
  int value = -1;
  socklen_t length = sizeof value;
  getsockopt(fd, level, name, &value, &length);
  return value;
}
bool set(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value) == 0;
}
bool readable(int fd, int ms = 2000) {
  pollfd entry = {fd, POLLIN, 0};
  return poll(&entry, 1, ms) == 1;
}

struct Memberships {
  uint32_t words[64] = {};
  bool operator==(const Memberships& other) const { return memcmp(words, other.words, sizeof words) == 0; }
};
Memberships memberships_of(int fd) {
  Memberships result;
  socklen_t length = sizeof result.words;
  MUST(getsockopt(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, result.words, &length) == 0);
  return result;
}

template <typename Body>
bool ask(int fd, uint16_t type, uint16_t flags, uint32_t sequence, const Body& body) {
  struct {
    nlmsghdr header;
    Body body;
  } question = {};
  question.header = {NLMSG_LENGTH(sizeof body), type, static_cast<uint16_t>(NLM_F_REQUEST | flags), sequence,
                     0};
  question.body = body;
  sockaddr_nl kernel = address_of(0);
  return sendto(fd, &question, question.header.nlmsg_len, 0, plain(kernel), sizeof kernel) ==
         static_cast<ssize_t>(question.header.nlmsg_len);
}

bool ask_for_links(int fd, uint32_t sequence) {
  ifinfomsg body = {};
  body.ifi_family = AF_UNSPEC;
  return ask(fd, RTM_GETLINK, NLM_F_DUMP, sequence, body);
}

// Reads a dump to its end: how many messages it had; -1 when it is not the answer to the question.
int read_dump(int fd, uint32_t sequence) {
  alignas(nlmsghdr) static char buffer[32768];
  uint32_t port = name_of(fd).nl_pid;
  for (int count = 0;;) {
    if (!readable(fd)) return -1;
    ssize_t n = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n <= 0) return -1;
    auto length = static_cast<unsigned>(n);
    for (auto* header = reinterpret_cast<nlmsghdr*>(buffer); NLMSG_OK(header, length);
         header = NLMSG_NEXT(header, length)) {
      if (header->nlmsg_seq != sequence || header->nlmsg_pid != port) return -1;
      if (header->nlmsg_type == NLMSG_DONE) return count;
      if (header->nlmsg_type == NLMSG_ERROR) return -1;
      ++count;
    }
  }
}

// At least the loopback interface is there.
void check_links(int fd, uint32_t sequence) {
  CHECK(ask_for_links(fd, sequence));
  CHECK_BETWEEN(read_dump(fd, sequence), 1, 100000);
}

// Lets through what has this byte (or word) at this place.
struct Filter {
  sock_filter code[4];
  explicit Filter(uint32_t place, uint32_t byte, uint16_t size = BPF_B)
      : code{{static_cast<uint16_t>(BPF_LD | size | BPF_ABS), 0, 0, place},
             {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, byte},
             {BPF_RET | BPF_K, 0, 0, 0xffffffff},
             {BPF_RET | BPF_K, 0, 0, 0}} {}
  bool attach(int fd) {
    sock_fprog program = {4, code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0;
  }
  bool is_attached(int fd) const {
    sock_filter is[8] = {};
    socklen_t count = 8;
    return getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, is, &count) == 0 && count == 4 &&
           memcmp(is, code, sizeof code) == 0;
  }
};

bool send_to(int fd, uint32_t port, const char* text, uint32_t groups = 0) {
  sockaddr_nl to = address_of(port, groups);
  return sendto(fd, text, strlen(text), 0, plain(to), sizeof to) == static_cast<ssize_t>(strlen(text));
}
// The text and the sender of the next message.
struct Heard {
  char text[64] = {};
  sockaddr_nl from = {};
  explicit Heard(int fd, int flags = MSG_DONTWAIT) {
    socklen_t length = sizeof from;
    if (recvfrom(fd, text, sizeof text - 1, flags, plain(from), &length) < 0) {
      snprintf(text, sizeof text, "(%s)", strerror(errno));
    }
  }
  bool is(const char* wanted) const {
    if (strcmp(text, wanted) == 0) return true;
    subject::say("heard \"%s\", not \"%s\"", text, wanted);
    return false;
  }
};

}  // namespace

CASE(route_with_groups) {
  int fd = bound(NETLINK_ROUTE, RTMGRP_LINK | RTMGRP_IPV4_IFADDR);
  MUST(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
  sockaddr_nl name = name_of(fd);
  Memberships groups = memberships_of(fd);
  check_links(fd, 1);
  subject::hold();
  CHECK_EQ(option(fd, SOL_SOCKET, SO_TYPE), SOCK_RAW);
  CHECK_EQ(option(fd, SOL_SOCKET, SO_PROTOCOL), NETLINK_ROUTE);
  CHECK_EQ(name_of(fd).nl_pid, name.nl_pid);
  CHECK_EQ(name_of(fd).nl_groups, static_cast<uint32_t>(RTMGRP_LINK | RTMGRP_IPV4_IFADDR));
  CHECK(memberships_of(fd) == groups);
  CHECK_EQ(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
  check_links(fd, 2);
}

// Port ids that the kernel did not choose, and the ones that it chose when that of the process was taken.
CASE(several_ports) {
  int first = bound(NETLINK_ROUTE), second = bound(NETLINK_ROUTE), own = unbound(NETLINK_ROUTE, SOCK_DGRAM);
  sockaddr_nl wish =
      address_of(0x7a000000u + static_cast<uint32_t>(subject::nanoseconds(CLOCK_MONOTONIC) & 0xffffff));
  MUST(bind(own, plain(wish), sizeof wish) == 0);
  uint32_t ports[] = {name_of(first).nl_pid, name_of(second).nl_pid};
  subject::hold();
  CHECK_EQ(name_of(first).nl_pid, ports[0]);
  CHECK_EQ(name_of(second).nl_pid, ports[1]);
  CHECK_EQ(name_of(own).nl_pid, wish.nl_pid);
  CHECK_EQ(option(own, SOL_SOCKET, SO_TYPE), SOCK_DGRAM);
  for (int fd : {first, second, own}) check_links(fd, 5);
}

// A copy that runs beside has the port id.
CASE(private_route_beside_another) {
  int fd = bound(NETLINK_ROUTE, RTMGRP_LINK);
  subject::hold();
  CHECK(name_of(fd).nl_pid != 0);
  CHECK_EQ(name_of(fd).nl_groups, static_cast<uint32_t>(RTMGRP_LINK));
  check_links(fd, 3);
}

// As libudev makes it.
CASE(uevents_with_filter) {
  int fd = bound(NETLINK_KOBJECT_UEVENT, 2);
  Filter filter(8, 0xfe);
  MUST(filter.attach(fd));
  MUST(set(fd, SOL_SOCKET, SO_PASSCRED, 1) && set(fd, SOL_SOCKET, SO_RCVBUF, 70000));
  int size = option(fd, SOL_SOCKET, SO_RCVBUF);
  uint32_t port = name_of(fd).nl_pid;
  subject::hold();
  CHECK(filter.is_attached(fd));
  CHECK_EQ(option(fd, SOL_SOCKET, SO_PASSCRED), 1);
  CHECK_EQ(option(fd, SOL_SOCKET, SO_RCVBUF), size);
  CHECK_EQ(option(fd, SOL_SOCKET, SO_LOCK_FILTER), 0);
  CHECK_EQ(option(fd, SOL_SOCKET, SO_PROTOCOL), NETLINK_KOBJECT_UEVENT);
  CHECK_EQ(name_of(fd).nl_groups, 2u);
  CHECK_EQ(name_of(fd).nl_pid, port);
}

CASE(filter_that_is_locked) {
  int from = bound(NETLINK_USERSOCK), to = bound(NETLINK_USERSOCK);
  Filter filter(0, 'y');
  MUST(filter.attach(to) && set(to, SOL_SOCKET, SO_LOCK_FILTER, 1));
  subject::hold();
  CHECK(send_to(from, name_of(to).nl_pid, "no"));
  CHECK(send_to(from, name_of(to).nl_pid, "yes"));
  CHECK(Heard(to).is("yes"));
  CHECK_EQ(option(to, SOL_SOCKET, SO_LOCK_FILTER), 1);
  CHECK(!Filter(0, 'z').attach(to));
}

CASE(memberships_above_32) {
  int fd = bound(NETLINK_ROUTE), waiting = unbound(NETLINK_ROUTE);
  for (int group : {RTNLGRP_LINK, RTNLGRP_NEXTHOP, RTNLGRP_BRVLAN}) {
    if (!set(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)) SKIP("the kernel does not have the group");
  }
  MUST(set(waiting, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, RTNLGRP_BRVLAN));
  Memberships groups = memberships_of(fd), waiting_groups = memberships_of(waiting);
  MUST(groups.words[1] == 1u << (RTNLGRP_BRVLAN - 33));
  subject::hold();
  CHECK(memberships_of(fd) == groups);
  CHECK(memberships_of(waiting) == waiting_groups);
  CHECK_EQ(name_of(waiting).nl_pid, 0u);
  check_links(fd, 4);
}

CASE(options_of_netlink) {
  int fd = unbound(NETLINK_GENERIC, SOCK_DGRAM), plain_one = unbound(NETLINK_GENERIC);
  const int names[] = {NETLINK_PKTINFO, NETLINK_BROADCAST_ERROR, NETLINK_NO_ENOBUFS,
                       NETLINK_CAP_ACK, NETLINK_EXT_ACK,         NETLINK_GET_STRICT_CHK};
  for (int name : names) MUST(set(fd, SOL_NETLINK, name, 1));
  bool all = set(fd, SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 1);  // of root
  subject::hold();
  for (int name : names) {
    CHECK_EQ(option(fd, SOL_NETLINK, name), 1);
    CHECK_EQ(option(plain_one, SOL_NETLINK, name), 0);
  }
  CHECK_EQ(option(fd, SOL_NETLINK, NETLINK_LISTEN_ALL_NSID), all ? 1 : 0);
  CHECK_EQ(name_of(fd).nl_pid, 0u);
}

CASE(connected) {
  int server = bound(NETLINK_USERSOCK), client = bound(NETLINK_USERSOCK);
  sockaddr_nl to = name_of(server);
  MUST(connect(client, plain(to), sizeof to) == 0);
  uint32_t port = name_of(client).nl_pid;
  subject::hold();
  CHECK_EQ(peer_of(client).nl_pid, to.nl_pid);
  CHECK_EQ(peer_of(server).nl_pid, 0u);
  CHECK_EQ(send(client, "hello", 5, 0), 5);
  Heard heard(server);
  CHECK(heard.is("hello"));
  CHECK_EQ(heard.from.nl_pid, port);
  CHECK(send_to(server, port, "back"));
  CHECK(Heard(client).is("back"));
}

CASE(shared_by_two_processes) {
  int fd = bound(NETLINK_ROUTE), answers[2];
  uint32_t port = name_of(fd).nl_pid;
  MUST(pipe(answers) == 0);
  pid_t pid = subject::child([&] {
    close(answers[1]);
    char byte;
    CHECK_EQ(read(answers[0], &byte, 1), 1);
    CHECK_EQ(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    CHECK_EQ(name_of(fd).nl_pid, port);
    CHECK_BETWEEN(read_dump(fd, 6), 1, 100000);
  });
  subject::await_asleep(pid);
  subject::hold();
  // Asked here and answered there: it is one description.
  CHECK_EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
  CHECK(ask_for_links(fd, 6));
  CHECK_EQ(write(answers[1], "x", 1), 1);
  JOIN(pid);
}

CASE(other_protocols_answer) {
  int generic = bound(NETLINK_GENERIC), diag = bound(NETLINK_SOCK_DIAG);
  subject::hold();
  genlmsghdr families = {CTRL_CMD_GETFAMILY, 1, 0};
  CHECK(ask(generic, GENL_ID_CTRL, NLM_F_DUMP, 7, families));
  CHECK_BETWEEN(read_dump(generic, 7), 1, 100000);
  unix_diag_req sockets = {};
  sockets.sdiag_family = AF_UNIX;
  sockets.udiag_states = ~0u;
  CHECK(ask(diag, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, 8, sockets));
  CHECK_BETWEEN(read_dump(diag, 8), 0, 1000000);
}

CASE(waits_for_a_message) {
  int from = bound(NETLINK_USERSOCK), to = bound(NETLINK_USERSOCK);
  pid_t pid = subject::child([&] { CHECK(Heard(to, 0).is("at last")); });
  subject::await_asleep(pid);
  subject::hold();
  CHECK(send_to(from, name_of(to).nl_pid, "at last"));
  JOIN(pid);
}

// A checkpoint must not lose answers, nor an error.
CASE_WITH(unread_answers, subject::kMayRefuse) {
  int fd = bound(NETLINK_ROUTE);
  MUST(ask_for_links(fd, 9));
  subject::hold();
  CHECK_BETWEEN(read_dump(fd, 9), 1, 100000);
  check_links(fd, 10);
}
CASE_WITH(unread_message, subject::kMayRefuse) {
  int from = bound(NETLINK_USERSOCK), to = bound(NETLINK_USERSOCK);
  MUST(send_to(from, name_of(to).nl_pid, "unread"));
  subject::hold();
  CHECK(Heard(to).is("unread"));
}

// Sending to a group is for root. The whole host hears it: the filter keeps out what another run of this
// sends.
CASE(unread_events) {
  int from = bound(NETLINK_USERSOCK), to = unbound(NETLINK_USERSOCK);
  auto run = static_cast<uint32_t>(subject::nanoseconds(CLOCK_MONOTONIC));
  char event[16], next[16];
  for (uint32_t place = 0; place < 4; ++place)
    event[place] = static_cast<char>('a' + (run >> 4 * place & 15));
  memcpy(next, event, 4);
  snprintf(event + 4, sizeof event - 4, " event");
  snprintf(next + 4, sizeof next - 4, " next");
  uint32_t word;
  memcpy(&word, event, sizeof word);
  Filter filter(0, __builtin_bswap32(word), BPF_W);
  sockaddr_nl group = address_of(0, 1u << 6);
  MUST(filter.attach(to));
  if (bind(to, plain(group), sizeof group) != 0) SKIP("only root may join the group");
  if (!send_to(from, 0, event, 1u << 6)) MUST(errno == ECONNREFUSED);
  MUST(readable(to, 0));
  subject::hold();
  if (!subject::marked("restarted")) {
    Heard heard(to);
    CHECK(heard.is(event));
    CHECK_EQ(heard.from.nl_groups, 1u << 6);
  }
  CHECK(!readable(to, 0));
  send_to(from, 0, next, 1u << 6);
  CHECK(Heard(to).is(next));
}

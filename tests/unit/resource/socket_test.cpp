// Unix sockets, TCP, UDP, netlink.
#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "tests/unit/resource/fakes.h"

namespace stasis::resource {
namespace {

void put(int fd, std::string_view text) {
  ASSERT_EQ(send(fd, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL), ssize_t(text.size()));
}

int option(int fd, int level, int name) {
  int value = -1;
  socklen_t length = sizeof value;
  getsockopt(fd, level, name, &value, &length);
  return value;
}

void set_option(int fd, int level, int name, int value) {
  ASSERT_EQ(setsockopt(fd, level, name, &value, sizeof value), 0);
}

struct Pair {
  explicit Pair(int type = SOCK_STREAM) {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends), 0);
    one.reset(ends[0]);
    other.reset(ends[1]);
  }
  Fd one, other;
};

class Unix : public ResourceTest {
 protected:
  void SetUp() override { signal(SIGPIPE, SIG_IGN); }
  Fd bound(const std::string& path, int type = SOCK_STREAM) {
    Fd fd(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    sockaddr_un address = name(path);
    EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), length(path)), 0) << strerror(errno);
    return fd;
  }
  int connect_by(int fd, const std::string& path) {
    sockaddr_un address = name(path);
    return connect(fd, reinterpret_cast<sockaddr*>(&address), length(path));
  }
  static sockaddr_un name(const std::string& path) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, path.data(), path.size());
    return address;
  }
  static socklen_t length(const std::string& path) {
    return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (path[0] == 0 ? 0 : 1));
  }
  TemporaryDirectory directory;
};

TEST_F(Unix, StreamPairWithContentInBothDirections) {
  Pair pair;
  put(pair.one.get(), "to other ");
  put(pair.one.get(), "in two pieces");
  std::string big(100'000, 'b');
  put(pair.other.get(), big);
  ASSERT_EQ(fcntl(pair.one.get(), F_SETFL, O_RDWR | O_NONBLOCK), 0);
  set_option(pair.one.get(), SOL_SOCKET, SO_PASSCRED, 1);
  set_option(pair.other.get(), SOL_SOCKET, SO_SNDBUF, 50'000);
  int size = option(pair.other.get(), SOL_SOCKET, SO_SNDBUF);
  tree.add({pair.one.get()});
  tree.add({pair.other.get()});
  round_trip();
  EXPECT_EQ(read_now((*made)[2]), "to other in two pieces");
  EXPECT_EQ(read_now((*made)[1]), big);
  EXPECT_NE(fcntl((*made)[1], F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(fcntl((*made)[2], F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(option((*made)[1], SOL_SOCKET, SO_PASSCRED), 1);
  EXPECT_EQ(option((*made)[2], SOL_SOCKET, SO_SNDBUF), size);
  put((*made)[1], "still connected");
  EXPECT_EQ(read_now((*made)[2]), "still connected");
  EXPECT_EQ(read_now(pair.other.get()), "to other in two pieces") << "the original was disturbed";
  EXPECT_EQ(option(pair.other.get(), SOL_SOCKET, SO_PEEK_OFF), -1);
}

TEST_F(Unix, ShutDownDirections) {
  Pair pair;
  put(pair.one.get(), "the end");
  shutdown(pair.one.get(), SHUT_WR);
  tree.add({pair.one.get()});
  tree.add({pair.other.get()});
  round_trip();
  EXPECT_EQ(read_now((*made)[2]), "the end");
  EXPECT_EQ(read_now((*made)[2]), "");
  EXPECT_EQ(send((*made)[1], "x", 1, MSG_NOSIGNAL), -1);
  put((*made)[2], "the other direction");
  EXPECT_EQ(read_now((*made)[1]), "the other direction");
}

TEST_F(Unix, PeerClosed) {
  Pair pair, reset;
  put(pair.other.get(), "farewell");
  pair.other.reset();
  put(reset.one.get(), "never read");
  reset.other.reset();
  tree.add({pair.one.get()});
  tree.add({reset.one.get()});
  round_trip();
  EXPECT_EQ(read_now((*made)[1]), "farewell");
  EXPECT_EQ(read_now((*made)[1]), "");
  EXPECT_EQ(option((*made)[2], SOL_SOCKET, SO_ERROR), ECONNRESET);
  EXPECT_TRUE(tree.warnings.empty());
}

TEST_F(Unix, PeerOutsideTheSession) {
  Pair pair;
  put(pair.other.get(), "received before");
  tree.add({pair.one.get()});
  round_trip();
  EXPECT_EQ(tree.warnings.size(), 1u);
  EXPECT_EQ(read_now((*made)[1]), "received before");
  EXPECT_EQ(read_now((*made)[1]), "");
  EXPECT_EQ(send((*made)[1], "x", 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPIPE);
}

TEST_F(Unix, PacketsAndDatagramsKeepTheirBoundaries) {
  Pair packets(SOCK_SEQPACKET), datagrams(SOCK_DGRAM);
  for (Pair* pair : {&packets, &datagrams}) {
    put(pair->one.get(), "first");
    put(pair->one.get(), "second");
    tree.add({pair->one.get()});
    tree.add({pair->other.get()});
  }
  round_trip();
  for (uint32_t id : {2u, 4u}) {
    EXPECT_EQ(read_now((*made)[id]), "first");
    EXPECT_EQ(read_now((*made)[id]), "second");
    EXPECT_EQ(read_now((*made)[id]), "(nothing)");
  }
  EXPECT_EQ(read_now(packets.other.get()), "first") << "the original was disturbed";
  EXPECT_EQ(read_now(datagrams.other.get()), "first") << "the original was disturbed";
}

TEST_F(Unix, DescriptorsInFlightOfSomethingUnknownAreRefused) {
  Pair pair;
  int fd = STDERR_FILENO;
  char byte = 'x';
  iovec vector = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr message = {nullptr, 0, &vector, 1, control, sizeof control, 0};
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  *header = {CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS};
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
  ASSERT_EQ(sendmsg(pair.one.get(), &message, 0), 1);
  tree.add({pair.one.get()});
  auto before = std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  EXPECT_NE(refusal_of(pair.other.get()).find("in flight"), std::string::npos);
  auto after = std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  // The one that refusal_of() added, and the one that was in flight, which the queue that was looked at
  // holds.
  EXPECT_EQ(before + 2, after) << "a descriptor leaked";
}

TEST_F(Unix, ListenerWithConnectionsAndNames) {
  std::string path = directory / "socket";
  Fd listener = bound(path);
  ASSERT_EQ(listen(listener.get(), 7), 0);
  chmod(path.c_str(), 0640);
  Fd client(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(connect_by(client.get(), path), 0);
  Fd server(accept(listener.get(), nullptr, nullptr));
  put(client.get(), "request");
  tree.add({client.get()});
  tree.add({server.get()});
  tree.add({listener.get()});
  auto records = tree.observe();
  ASSERT_OK(records);
  {
    FakeMaking busy(image, *records);
    auto result = busy.run();
    ASSERT_FALSE(result.ok()) << "took a name that is in use";
    EXPECT_EQ(result.error().code, ErrorCode::kBusy);
  }
  listener.reset();
  client.reset();
  server.reset();
  tree.end_program();
  FakeMaking later(image, std::move(*records));
  ASSERT_OK(later.run());
  EXPECT_EQ(read_now(later[2]), "request");
  sockaddr_un peer = {};
  socklen_t size = sizeof peer;
  ASSERT_EQ(getpeername(later[1], reinterpret_cast<sockaddr*>(&peer), &size), 0);
  EXPECT_EQ(peer.sun_path, path);
  struct stat status = {};
  ASSERT_EQ(stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0640u);
  Fd another(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  EXPECT_EQ(connect_by(another.get(), path), 0);
}

TEST_F(Unix, AbstractListenerAndRelativePath) {
  std::string hidden = std::string("\0stasis-test-", 13) + std::to_string(getpid());
  std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(directory.path());
  Fd abstract = bound(hidden), relative = bound("relative");
  listen(abstract.get(), 1);
  listen(relative.get(), 1);
  tree.add({abstract.get()});
  tree.add({relative.get()});
  auto records = tree.observe();
  std::filesystem::current_path(before);
  ASSERT_OK(records);
  abstract.reset();
  relative.reset();
  tree.end_program();
  FakeMaking later(image, std::move(*records));
  ASSERT_OK(later.run());
  for (const std::string& path : {hidden, directory / "relative"}) {
    Fd client(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    EXPECT_EQ(connect_by(client.get(), path), 0);
  }
  EXPECT_EQ(std::filesystem::current_path(), before);
}

TEST_F(Unix, DatagramServerAndClients) {
  std::string path = directory / "log";
  Fd server = bound(path, SOCK_DGRAM), client(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(connect_by(client.get(), path), 0);
  put(client.get(), "one");
  put(client.get(), "two");
  tree.add({client.get()});
  tree.add({server.get()});
  auto records = tree.observe();
  ASSERT_OK(records);
  server.reset();
  client.reset();
  tree.end_program();
  FakeMaking later(image, std::move(*records));
  ASSERT_OK(later.run());
  put(later[1], "three");
  EXPECT_EQ(read_now(later[2]), "one");
  EXPECT_EQ(read_now(later[2]), "two");
  EXPECT_EQ(read_now(later[2]), "three");
}

class Inet : public ResourceTest {
 protected:
  void SetUp() override { signal(SIGPIPE, SIG_IGN); }
  static sockaddr_in local(int fd) {
    sockaddr_in address = {};
    socklen_t length = sizeof address;
    getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
    return address;
  }
  static Fd listener(int type = SOCK_STREAM) {
    Fd fd(socket(AF_INET, type | SOCK_CLOEXEC, 0));
    sockaddr_in address = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}, {}};
    EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_TRUE(type != SOCK_STREAM || listen(fd.get(), 9) == 0);
    return fd;
  }
  static Fd client_of(int listening) {
    Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = local(listening);
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    return fd;
  }
  static Fd accept_from(int listening) { return Fd(accept4(listening, nullptr, nullptr, SOCK_CLOEXEC)); }
  static std::string read_soon(int fd) {
    pollfd state = {fd, POLLIN, 0};
    poll(&state, 1, 1000);
    return read_now(fd);
  }
};

TEST_F(Inet, ListenerKeepsPortBacklogAndOptions) {
  Fd fd = listener();
  set_option(fd.get(), IPPROTO_TCP, TCP_DEFER_ACCEPT, 3);
  set_option(fd.get(), SOL_SOCKET, SO_KEEPALIVE, 1);
  ASSERT_EQ(fcntl(fd.get(), F_SETFL, O_RDWR | O_NONBLOCK), 0);
  in_port_t port = local(fd.get()).sin_port;
  int deferred = option(fd.get(), IPPROTO_TCP, TCP_DEFER_ACCEPT);
  tree.add({fd.get()});
  auto records = tree.observe();
  ASSERT_OK(records);
  EXPECT_NE(find_descriptor_kind("tcp")->summary((*records)[0]).find("backlog 9"), std::string::npos);
  {
    FakeMaking busy(image, *records);
    auto result = busy.run();
    ASSERT_FALSE(result.ok());
    EXPECT_NE(result.error().hint.find(fmt::format("process {}", getpid())), std::string::npos)
        << result.error().message();
  }
  fd.reset();
  tree.end_program();
  FakeMaking later(image, std::move(*records));
  ASSERT_OK(later.run());
  EXPECT_EQ(local(later[1]).sin_port, port);
  EXPECT_EQ(option(later[1], IPPROTO_TCP, TCP_DEFER_ACCEPT), deferred);
  EXPECT_EQ(option(later[1], SOL_SOCKET, SO_KEEPALIVE), 1);
  EXPECT_EQ(option(later[1], SOL_SOCKET, SO_REUSEADDR), 0);
  EXPECT_NE(fcntl(later[1], F_GETFL) & O_NONBLOCK, 0);
}

TEST_F(Inet, ConnectionInsideTheSession) {
  Fd listening = listener(), client = client_of(listening.get()), server = accept_from(listening.get());
  set_option(client.get(), IPPROTO_TCP, TCP_NODELAY, 1);
  std::string text(50'000, 'q');
  put(client.get(), text);
  put(server.get(), "answer");
  shutdown(server.get(), SHUT_WR);
  in_port_t port = local(client.get()).sin_port;
  tree.add({client.get()});
  tree.add({server.get()});
  tree.add({listening.get()});
  auto records = tree.observe();
  ASSERT_OK(records);
  EXPECT_TRUE(tree.warnings.empty()) << tree.warnings[0];
  EXPECT_EQ(read_now(server.get()), text) << "the original was disturbed";
  client.reset();
  server.reset();
  listening.reset();
  tree.end_program();
  FakeMaking later(image, std::move(*records));
  ASSERT_OK(later.run());
  EXPECT_EQ(read_soon(later[2]), text);
  EXPECT_EQ(read_soon(later[1]), "answer");
  EXPECT_EQ(read_soon(later[1]), "");
  EXPECT_EQ(local(later[1]).sin_port, port);
  EXPECT_EQ(local(later[2]).sin_port, local(later[3]).sin_port);
  EXPECT_EQ(option(later[1], IPPROTO_TCP, TCP_NODELAY), 1);
  EXPECT_EQ(option(later[2], IPPROTO_TCP, TCP_NODELAY), 0);
  put(later[1], "goes on");
  EXPECT_EQ(read_soon(later[2]), "goes on");
  Fd newcomer = client_of(later[3]);
  EXPECT_TRUE(accept_from(later[3]));
}

TEST_F(Inet, ConnectionWithoutItsListener) {
  Fd listening = listener(), client = client_of(listening.get()), server = accept_from(listening.get());
  listening.reset();
  put(server.get(), "hello");
  tree.add({server.get()});
  tree.add({client.get()});
  auto records = tree.observe();
  ASSERT_OK(records);
  client.reset();
  server.reset();
  tree.end_program();
  FakeMaking later(image, std::move(*records));
  ASSERT_OK(later.run());
  EXPECT_EQ(read_soon(later[2]), "hello");
}

TEST_F(Inet, ConnectionToTheOutsideIsClosedByItsPeer) {
  Fd listening = listener(), client = client_of(listening.get()), server = accept_from(listening.get());
  put(server.get(), "received before");
  tree.add({client.get()});
  round_trip();
  ASSERT_EQ(tree.warnings.size(), 1u);
  EXPECT_EQ(read_soon((*made)[1]), "received before");
  EXPECT_EQ(read_soon((*made)[1]), "");
  EXPECT_EQ(option((*made)[1], SOL_SOCKET, SO_PROTOCOL), IPPROTO_TCP);
}

TEST_F(Inet, UnconnectedAndBoundAndVersionSix) {
  Fd plain(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)), six(socket(AF_INET6, SOCK_STREAM, 0));
  set_option(plain.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  set_option(six.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
  sockaddr_in6 address = {};
  address.sin6_family = AF_INET6;
  address.sin6_addr = in6addr_loopback;
  if (bind(six.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0)
    GTEST_SKIP() << "no IPv6 here";
  tree.add({plain.get()});
  tree.add({six.get()});
  auto records = tree.observe();
  ASSERT_OK(records);
  six.reset();
  tree.end_program();
  FakeMaking later(image, std::move(*records));
  ASSERT_OK(later.run());
  EXPECT_EQ(option(later[1], SOL_SOCKET, SO_REUSEADDR), 1);
  EXPECT_EQ(option(later[2], IPPROTO_IPV6, IPV6_V6ONLY), 1);
  EXPECT_EQ(listen(later[2], 1), 0);
}

TEST_F(Inet, Udp) {
  Fd server = listener(SOCK_DGRAM), client(socket(AF_INET, SOCK_DGRAM, 0));
  sockaddr_in address = local(server.get());
  ASSERT_EQ(connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  tree.add({server.get()});
  tree.add({client.get()});
  auto records = tree.observe();
  ASSERT_OK(records);
  server.reset();
  client.reset();
  tree.end_program();
  FakeMaking later(image, std::move(*records));
  ASSERT_OK(later.run());
  put(later[2], "ping");
  EXPECT_EQ(read_soon(later[1]), "ping");
}

class Netlink : public ResourceTest {
 protected:
  Fd bound(uint32_t groups = 0) {
    Fd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    sockaddr_nl address = {};
    address.nl_family = AF_NETLINK;
    address.nl_groups = groups;
    EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    return fd;
  }
  static sockaddr_nl name(int fd) {
    sockaddr_nl address = {};
    socklen_t length = sizeof address;
    EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length), 0);
    return address;
  }
  // Each is answered by one acknowledgement.
  static void ask(int fd) {
    nlmsghdr question = {sizeof question, NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, 1, 0};
    EXPECT_EQ(send(fd, &question, sizeof question, 0), ssize_t(sizeof question));
  }
  ErrorCode code_of(int fd) {
    tree.add({fd});
    auto observed = tree.observe();
    EXPECT_FALSE(observed.ok());
    return observed.ok() ? ErrorCode::kFailed : observed.error().code;
  }
};

TEST_F(Netlink, PortIdThatIsTakenBecomesAnother) {
  Fd fd = bound(RTMGRP_LINK);
  tree.add({fd.get()});
  round_trip();
  EXPECT_NE(name((*made)[1]).nl_pid, 0u);
  EXPECT_NE(name((*made)[1]).nl_pid, name(fd.get()).nl_pid);
  EXPECT_EQ(name((*made)[1]).nl_groups, uint32_t{RTMGRP_LINK});
}

TEST_F(Netlink, AnswerInTheQueueRefusesForNowAndStays) {
  Fd fd = bound(RTMGRP_LINK);
  ask(fd.get());
  EXPECT_EQ(code_of(fd.get()), ErrorCode::kRefusedNow);
  EXPECT_EQ(read_now(fd.get()).size(), NLMSG_LENGTH(sizeof(nlmsgerr)));
}

TEST_F(Netlink, ErrorThatWaitsRefusesForNowAndStays) {
  Fd fd = bound();
  set_option(fd.get(), SOL_SOCKET, SO_RCVBUF, 1);
  for (int count = 0; count < 100; ++count) ask(fd.get());
  EXPECT_EQ(code_of(fd.get()), ErrorCode::kRefusedNow);
  char byte;
  EXPECT_EQ(recv(fd.get(), &byte, 1, MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, ENOBUFS);
}

}  // namespace
}  // namespace stasis::resource

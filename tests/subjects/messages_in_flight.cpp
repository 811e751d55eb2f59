// What is on the way in unix sockets beside bytes: descriptors, credentials, names of senders.
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "unix_sockets.h"

CASE(descriptor_in_flight) {
  Pair p = make_pair(SOCK_STREAM);
  int file = open(subject::path("file"), O_RDWR | O_CREAT, 0600);
  MUST(file >= 0 && write(file, "passed on", 9) == 9);
  MUST(pass(p.a, "f", {file}));
  close(file);
  subject::hold();
  Received got = receive(p.b);
  CHECK_EQ(got.count, 1);
  char back[16] = {};
  CHECK_EQ(lseek(got.fds[0], 0, SEEK_CUR), 9);
  CHECK_EQ(pread(got.fds[0], back, 16, 0), 9);
  CHECK_EQ(strcmp(back, "passed on"), 0);
}
// Nobody has the set, nor one of the files that it watches; the numbers by which they were added count.
CASE(epoll_set_in_flight) {
  Pair p = make_pair(SOCK_STREAM);
  int ends[2];
  const int set = epoll_create1(0), counter = eventfd(0, EFD_NONBLOCK);
  MUST(set >= 0 && counter >= 0 && pipe(ends) == 0);
  auto watch = [&](int fd, uint64_t data) {
    epoll_event event = {EPOLLIN, {.u64 = data}};
    MUST(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
  };
  watch(counter, 0x1234567890);
  watch(ends[0], 77);
  MUST(pass(p.a, "set", {set, ends[0]}));
  close(set);
  close(ends[0]);
  subject::hold();
  Received got = receive(p.b);
  CHECK_EQ(got.count, 2);
  const int received = got.fds[0];
  epoll_event event = {};
  CHECK_EQ(epoll_wait(received, &event, 1, 0), 0);
  CHECK_EQ(write(ends[1], "x", 1), 1);
  CHECK_EQ(epoll_wait(received, &event, 1, 0), 1);
  CHECK_EQ(event.data.u64, 77u);
  char byte = 0;
  CHECK_EQ(read(got.fds[1], &byte, 1), 1);
  const uint64_t one = 1;
  CHECK_EQ(write(counter, &one, sizeof one), 8);
  CHECK_EQ(epoll_wait(received, &event, 1, 0), 1);
  CHECK_EQ(event.data.u64, 0x1234567890u);
  CHECK_EQ(epoll_ctl(received, EPOLL_CTL_DEL, counter, nullptr), 0);
  CHECK_EQ(epoll_wait(received, &event, 1, 0), 0);
}
// The descriptors come with the very byte with which they were sent, and what is still open is the same one.
CASE(descriptors_between_bytes) {
  Pair p = make_pair(SOCK_STREAM);
  int ends[2];
  MUST(pipe(ends) == 0 && write(ends[1], "in the pipe", 11) == 11);
  MUST(pass(p.a, "before", {}) && pass(p.a, "with", {ends[0], ends[1]}) && pass(p.a, "after", {}) &&
       pass(p.a, "again", {ends[0]}));
  close(ends[0]);
  subject::hold();
  Received got = receive(p.b, 6);
  expect_text(got, "before");
  CHECK_EQ(got.count, 0);
  got = receive(p.b, 4);
  expect_text(got, "with");
  CHECK_EQ(got.count, 2);
  char back[16] = {};
  CHECK_EQ(write(ends[1], "!", 1), 1);
  CHECK_EQ(read(got.fds[0], back, 16), 12);
  CHECK_EQ(strcmp(back, "in the pipe!"), 0);
  CHECK_EQ(write(got.fds[1], "x", 1), 1);
  got = receive(p.b, 5);
  expect_text(got, "after");
  CHECK_EQ(got.count, 0);
  got = receive(p.b);
  expect_text(got, "again");
  CHECK_EQ(got.count, 1);
  CHECK_EQ(read(got.fds[0], back, 16), 1);
}
CASE(descriptors_in_datagrams) {
  Pair datagrams = make_pair(SOCK_DGRAM), packets = make_pair(SOCK_SEQPACKET);
  int file = open(subject::path("file"), O_RDWR | O_CREAT, 0600);
  for (Pair p : {datagrams, packets}) {
    MUST(pass(p.a, "one", {file}) && pass(p.a, "two", {}) && pass(p.a, "three", {file, file}));
    close(p.a);
  }
  subject::hold();
  for (Pair p : {datagrams, packets}) {
    Received got = receive(p.b);
    expect_text(got, "one");
    CHECK_EQ(got.count, 1);
    CHECK_EQ(write(got.fds[0], "x", 1), 1);
    got = receive(p.b);
    expect_text(got, "two");
    CHECK_EQ(got.count, 0);
    got = receive(p.b);
    expect_text(got, "three");
    CHECK_EQ(got.count, 2);
  }
  CHECK_EQ(lseek(file, 0, SEEK_CUR), 2);
}
// Sockets on their way, with something on its way in them; one of them to itself.
CASE(sockets_in_flight) {
  Pair outer = make_pair(SOCK_STREAM), inner = make_pair(SOCK_STREAM), own = make_pair(SOCK_STREAM);
  int ends[2];
  MUST(pipe(ends) == 0);
  MUST(pass(inner.a, "inner", {ends[1]}) && pass(outer.a, "outer", {inner.b}));
  MUST(pass(own.a, "itself", {own.b}));
  close(inner.b);
  close(ends[1]);
  subject::hold();
  Received got = receive(outer.b);
  expect_text(got, "outer");
  CHECK_EQ(got.count, 1);
  CHECK_EQ(write(inner.a, "more", 4), 4);
  Received second = receive(got.fds[0], 5);
  expect_text(second, "inner");
  CHECK_EQ(second.count, 1);
  CHECK_EQ(write(second.fds[0], "z", 1), 1);
  char byte = 0;
  CHECK_EQ(read(ends[0], &byte, 1), 1);
  expect(got.fds[0], "more");
  got = receive(own.b);
  CHECK_EQ(got.count, 1);
  CHECK_EQ(write(own.a, "loop", 4), 4);
  expect(got.fds[0], "loop");
}
CASE(credentials_in_flight) {
  Pair stream = make_pair(SOCK_STREAM), datagrams = make_pair(SOCK_DGRAM);
  int on = 1;
  for (int fd : {stream.b, datagrams.b}) MUST(setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0);
  MUST(pass(stream.a, "mine", {}) && pass(datagrams.a, "mine", {}));
  pid_t pid = subject::child([=] {
    const bool root = geteuid() == 0;
    if (root) MUST(setresgid(4321, -1, -1) == 0 && setresuid(1234, -1, -1) == 0);
    MUST(pass(stream.a, "child", {0}) && pass(datagrams.a, "child", {}));
    if (root) MUST(setresuid(0, -1, -1) == 0);
    subject::mark("sent");
    subject::await("go");
  });
  subject::await("sent");
  subject::hold();
  for (int fd : {stream.b, datagrams.b}) {
    Received got = receive(fd);
    expect_text(got, "mine");
    CHECK_EQ(got.who.pid, getpid());
    CHECK_EQ(got.who.uid, getuid());
    got = receive(fd);
    expect_text(got, "child");
    CHECK_EQ(got.who.pid, pid);
    CHECK_EQ(got.who.uid, getuid() == 0 ? 1234 : getuid());
    CHECK_EQ(got.who.gid, getuid() == 0 ? 4321 : getgid());
  }
  JOIN(pid);
}
// Datagrams of several senders, one of which has gone and one of which has no name.
CASE(datagrams_with_senders) {
  int server = bound(SOCK_DGRAM, "server"), there = bound(SOCK_DGRAM, "there"),
      gone = bound(SOCK_DGRAM, "gone"), nameless = socket(AF_UNIX, SOCK_DGRAM, 0);
  sockaddr_un to = named("server");
  for (int fd : {there, gone, nameless})
    MUST(pass(fd, fd == there ? "there" : fd == gone ? "gone" : "nameless", {}, &to));
  close(gone);
  subject::hold();
  Received got = receive(server);
  expect_text(got, "there");
  CHECK_EQ(strcmp(got.from.sun_path, named("there").sun_path), 0);
  got = receive(server);
  expect_text(got, "gone");
  CHECK_EQ(strcmp(got.from.sun_path, named("gone").sun_path), 0);
  got = receive(server);
  expect_text(got, "nameless");
  CHECK_EQ(got.from.sun_family, 0);
  CHECK(pass(there, "later", {}, &to));
  expect(server, "later");
}

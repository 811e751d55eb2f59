// What several subjects do with unix sockets.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>
#include <initializer_list>

#include "subject.h"

struct Pair {
  int a, b;
};
inline Pair make_pair(int type) {
  int fds[2];
  MUST(socketpair(AF_UNIX, type, 0, fds) == 0);
  return {fds[0], fds[1]};
}
inline sockaddr_un named(const char* name) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", subject::g_dir, name);
  return address;
}
inline const sockaddr* plain(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

inline int bound(int type, const char* name) {
  int fd = socket(AF_UNIX, type, 0);
  sockaddr_un address = named(name);
  MUST(fd >= 0 && bind(fd, plain(address), sizeof address) == 0);
  return fd;
}
inline void both_ways(int a, int b) {
  char back[4] = {};
  CHECK_EQ(send(a, "ab", 2, MSG_NOSIGNAL), 2);
  CHECK_EQ(recv(b, back, 4, MSG_DONTWAIT), 2);
  CHECK_EQ(send(b, "cd", 2, MSG_NOSIGNAL), 2);
  CHECK_EQ(recv(a, back, 4, MSG_DONTWAIT), 2);
  CHECK_EQ(memcmp(back, "cd", 2), 0);
}
inline void expect(int fd, const char* text) {
  char back[256] = {};
  CHECK_EQ(recv(fd, back, sizeof back, MSG_DONTWAIT), static_cast<ssize_t>(strlen(text)));
  if (strcmp(back, text) != 0) subject::say("got \"%s\", expected \"%s\"", back, text);
  CHECK_EQ(strcmp(back, text), 0);
}

// One message with descriptors, and, as sent by the caller, credentials where the receiver wants them.
inline bool pass(int to, const char* text, std::initializer_list<int> fds,
                 const sockaddr_un* address = nullptr) {
  char control[256] = {};
  iovec part = {const_cast<char*>(text), strlen(text)};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (address) {
    message.msg_name = const_cast<sockaddr_un*>(address);
    message.msg_namelen = sizeof *address;
  }
  if (fds.size() > 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    memcpy(CMSG_DATA(header), fds.begin(), fds.size() * sizeof(int));
  }
  return sendmsg(to, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(strlen(text));
}

struct Received {
  char text[64];
  int fds[8];
  int count;
  ucred who;
  sockaddr_un from;
};
inline Received receive(int fd, size_t size = 63) {
  Received got = {};
  char control[256] = {};
  iovec part = {got.text, size};
  msghdr message = {};
  message.msg_name = &got.from;
  message.msg_namelen = sizeof got.from;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  CHECK(recvmsg(fd, &message, MSG_DONTWAIT) > 0);
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_type == SCM_CREDENTIALS) memcpy(&got.who, CMSG_DATA(header), sizeof got.who);
    if (header->cmsg_type != SCM_RIGHTS) continue;
    got.count = static_cast<int>((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(got.fds, CMSG_DATA(header), got.count * sizeof(int));
  }
  return got;
}
inline void expect_text(const Received& got, const char* text) {
  if (strcmp(got.text, text) != 0) subject::say("got \"%s\", expected \"%s\"", got.text, text);
  CHECK_EQ(strcmp(got.text, text), 0);
}

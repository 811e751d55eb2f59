// What several subjects do with two ends of a connection.
#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstring>

#include "subject.h"

inline sockaddr_in loopback(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}
inline sockaddr* plain(sockaddr_in& address) { return reinterpret_cast<sockaddr*>(&address); }

inline bool readable(int fd, int ms = 2000) {
  pollfd entry = {fd, POLLIN, 0};
  return poll(&entry, 1, ms) == 1;
}

inline void say_and_hear(int a, int b, const char* text) {
  char back[64] = {};
  CHECK_EQ(send(a, text, strlen(text), MSG_NOSIGNAL), static_cast<ssize_t>(strlen(text)));
  CHECK(readable(b));
  CHECK_EQ(recv(b, back, sizeof back, MSG_DONTWAIT), static_cast<ssize_t>(strlen(text)));
  CHECK_EQ(strcmp(back, text), 0);
}

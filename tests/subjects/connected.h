// What several subjects do with two ends of a connection.
#pragma once

#include <poll.h>
#include <sys/socket.h>

#include <cstring>

#include "subject.h"

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

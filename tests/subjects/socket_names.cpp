// Names of unix sockets: whose their files are, and who else has the name.
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "subject.h"

namespace {

const sockaddr* plain(const sockaddr_un& address) { return reinterpret_cast<const sockaddr*>(&address); }

sockaddr_un named(const char* name) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", subject::g_dir, name);
  return address;
}

// An abstract name that no other run has.
struct Abstract {
  explicit Abstract(char last) {
    address.sun_family = AF_UNIX;
    const int count =
        snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "%s %c", subject::g_dir, last);
    length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path)) + 1 + static_cast<socklen_t>(count);
  }
  bool is_of(int fd) const {
    sockaddr_un now = {};
    socklen_t its = sizeof now;
    return getsockname(fd, reinterpret_cast<sockaddr*>(&now), &its) == 0 && its == length &&
           memcmp(now.sun_path, address.sun_path, length - offsetof(sockaddr_un, sun_path)) == 0;
  }
  sockaddr_un address = {};
  socklen_t length = 0;
};

void give(int to, int fd) {
  char byte = 'x';
  iovec vector = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr message = {};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fd);
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
  MUST(sendmsg(to, &message, MSG_NOSIGNAL) == 1);
}

int take(int from) {
  char byte = 0;
  iovec vector = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  int fd = -1;
  CHECK_EQ(recvmsg(from, &message, MSG_DONTWAIT), 1);
  if (cmsghdr* header = CMSG_FIRSTHDR(&message)) memcpy(&fd, CMSG_DATA(header), sizeof fd);
  CHECK(fd >= 0);
  return fd;
}

}  // namespace

// Another user is to reach it, or not to: its owner, its group and its mode decide.
CASE(owner_of_file) {
  const char* names[] = {"for all", "for some", "for one"};
  const mode_t modes[] = {0777, 0670, 0700};
  struct stat before[3];
  for (int i = 0; i < 3; ++i) {
    int fd = socket(AF_UNIX, i == 1 ? SOCK_DGRAM : SOCK_STREAM, 0);
    sockaddr_un address = named(names[i]);
    MUST(bind(fd, plain(address), sizeof address) == 0);
    // Only root can give one away.
    if (geteuid() == 0) MUST(chown(address.sun_path, 12340 + i, 12350 + i) == 0);
    MUST(chmod(address.sun_path, modes[i]) == 0);
    MUST(i == 1 || listen(fd, 2) == 0);
    MUST(stat(address.sun_path, &before[i]) == 0);
  }
  subject::hold();
  for (int i = 0; i < 3; ++i) {
    struct stat now;
    CHECK_EQ(stat(named(names[i]).sun_path, &now), 0);
    CHECK_EQ(now.st_uid, before[i].st_uid);
    CHECK_EQ(now.st_gid, before[i].st_gid);
    CHECK_EQ(now.st_mode, before[i].st_mode);
  }
}

CASE(datagrams_to_itself) {
  int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
  sockaddr_un address = named("itself");
  MUST(bind(fd, plain(address), sizeof address) == 0 && connect(fd, plain(address), sizeof address) == 0);
  MUST(send(fd, "before", 6, 0) == 6);
  subject::hold();
  char back[16] = {};
  sockaddr_un from = {};
  socklen_t length = sizeof from;
  CHECK_EQ(recvfrom(fd, back, sizeof back, MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&from), &length), 6);
  CHECK_EQ(strcmp(from.sun_path, address.sun_path), 0);
  CHECK_EQ(send(fd, "after", 5, MSG_NOSIGNAL), 5);
  CHECK_EQ(recv(fd, back, sizeof back, MSG_DONTWAIT), 5);
}

// Two that are in flight in each other and in themselves: when the program ends, the kernel finds them some
// time later, and they have their names until then.
CASE(names_in_flight_in_a_circle) {
  int pair[2];
  MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
  const Abstract names[] = {Abstract('a'), Abstract('b')};
  for (int i = 0; i < 2; ++i) MUST(bind(pair[i], plain(names[i].address), names[i].length) == 0);
  for (int to = 0; to < 2; ++to) {
    for (int which = 0; which < 2; ++which) give(pair[to], pair[which]);
  }
  subject::hold();
  for (int from = 0; from < 2; ++from) {
    for (int which = 0; which < 2; ++which) {
      int fd = take(pair[from]);
      CHECK(names[which].is_of(fd));
    }
  }
}

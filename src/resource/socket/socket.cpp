#include "resource/socket/socket.h"

#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "resource/refusal.h"

namespace stasis::resource {
namespace {

std::string address_by(int (*ask)(int, sockaddr*, socklen_t*), int fd) {
  sockaddr_storage storage = {};
  socklen_t length = sizeof storage;
  if (ask(fd, reinterpret_cast<sockaddr*>(&storage), &length) < 0) return {};
  return {reinterpret_cast<char*>(&storage), std::min<size_t>(length, sizeof storage)};
}

// The address in aligned memory; an image could hold one of any length.
struct Address {
  explicit Address(const std::string& bytes)
      : length(static_cast<socklen_t>(std::min(bytes.size(), sizeof storage))) {
    memcpy(&storage, bytes.data(), length);
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr_storage storage = {};
  socklen_t length;
};

}  // namespace

bool is_socket(const OpenFile& file) {
  return S_ISSOCK(file.status.st_mode) && file.link.starts_with("socket:");
}

int socket_option(int fd, int level, int name, int otherwise) {
  int value = 0;
  socklen_t length = sizeof value;
  return getsockopt(fd, level, name, &value, &length) == 0 ? value : otherwise;
}

std::string local_address(int fd) { return address_by(getsockname, fd); }
std::string peer_address(int fd) { return address_by(getpeername, fd); }

std::string peer_address_in_any_state(int fd) {
  auto ask = [](int socket, sockaddr* address, socklen_t* length) {
    // The kernel refuses to fill in less than it is asked for.
    const bool ipv6 = socket_option(socket, SOL_SOCKET, SO_DOMAIN) == AF_INET6;
    *length = ipv6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
    return getsockopt(socket, SOL_SOCKET, SO_PEERNAME, address, length);
  };
  return address_by(ask, fd);
}

Result<Fd> new_socket(const Record& record, int family, int type, int protocol) {
  Fd fd(::socket(family, type | SOCK_CLOEXEC, protocol));
  if (!fd) return cannot_make(record, "socket");
  return fd;
}

int bind_to(int fd, const std::string& address) {
  Address target(address);
  return ::bind(fd, target.get(), target.length);
}

int connect_to(int fd, const std::string& address) {
  Address target(address);
  return ::connect(fd, target.get(), target.length);
}

}  // namespace stasis::resource

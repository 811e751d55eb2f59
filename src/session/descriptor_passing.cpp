#include "session/descriptor_passing.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>

namespace stasis::session {
namespace {

// The address of a socket in a directory of any length: sun_path has room for 108 bytes only.
sockaddr_un short_address(int directory, const char* name) {
  sockaddr_un address = {.sun_family = AF_UNIX};
  std::string path = fmt::format("/proc/self/fd/{}/{}", directory, name);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

}  // namespace

bool send_with_descriptor(int socket, std::string_view message, int fd) {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control = {};
  std::string copy(message);
  iovec part = {copy.data(), copy.size()};
  msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
  if (fd >= 0) {
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &fd, sizeof(int));
  }
  return ::sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
}

Result<Received> receive_with_descriptor(int socket) {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control = {};
  std::array<char, 64> buffer;
  iovec part = {buffer.data(), buffer.size()};
  msghdr header = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.data(), .msg_controllen = control.size()};
  ssize_t size;
  do size = ::recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
  while (size < 0 && errno == EINTR);
  if (size < 0) return errno_error("hear from the session", {});
  Received received{std::string(buffer.data(), static_cast<size_t>(size)), {}};
  const cmsghdr* rights = CMSG_FIRSTHDR(&header);
  if (rights != nullptr && rights->cmsg_type == SCM_RIGHTS && rights->cmsg_len == CMSG_LEN(sizeof(int))) {
    int fd;
    std::memcpy(&fd, CMSG_DATA(rights), sizeof(int));
    received.fd.reset(fd);
  }
  return received;
}

Result<Fd> listen_in(const std::string& session_directory, const char* name) {
  std::string path = session_directory + "/" + name;
  STASIS_TRY(Fd directory, open_file(session_directory, O_PATH | O_DIRECTORY));
  Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return errno_error("create a socket", path);
  if (::unlinkat(directory.get(), name, 0) < 0 && errno != ENOENT) return errno_error("replace", path);
  sockaddr_un address = short_address(directory.get(), name);
  if (::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) < 0 ||
      ::listen(socket.get(), 8) < 0)
    return errno_error("listen at", path);
  return socket;
}

Result<Fd> connect_in(const std::string& session_directory, const char* name) {
  std::string path = session_directory + "/" + name;
  STASIS_TRY(Fd directory, open_file(session_directory, O_PATH | O_DIRECTORY));
  Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!socket) return errno_error("create a socket", path);
  sockaddr_un address = short_address(directory.get(), name);
  if (::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) < 0)
    return errno_error("connect to the session", path);
  return socket;
}

}  // namespace stasis::session

#include "resource/socket/inet_bind.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>

#include "kernel/network_view.h"
#include "resource/socket/inet.h"
#include "resource/socket/socket.h"
#include "stasis/fd.h"

namespace stasis::resource {

bool is_of_this_host(const std::string& address) {
  Fd probe = kernel::network_socket(address.size() >= sizeof(sockaddr_in6) ? AF_INET6 : AF_INET,
                                    SOCK_DGRAM | SOCK_CLOEXEC, 0);
  return probe && bind_to(probe.get(), with_port(address, 0)) == 0;
}

void observe_foreign_address(schema::InetSocket& message) {
  if (port_of(message.address()) == 0 || is_any(message.address())) return;
  message.set_foreign_address(!is_of_this_host(message.address()));
}

int bind_again(int fd, const schema::InetSocket& message) {
  if (bind_to(fd, message.address()) == 0) return 0;
  // The program may have cleared IP_FREEBIND since. An address that the host had at the checkpoint and has
  // not now is another matter: nobody could reach the program there.
  if (errno != EADDRNOTAVAIL || !message.foreign_address()) return -1;
  const bool ipv6 = message.family() == AF_INET6;
  const int level = ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, name = ipv6 ? IPV6_FREEBIND : IP_FREEBIND;
  int value = 1;
  if (setsockopt(fd, level, name, &value, sizeof value) < 0) return -1;
  const int bound = bind_to(fd, message.address());
  const int error = errno;
  value = 0;
  setsockopt(fd, level, name, &value, sizeof value);
  errno = error;
  return bound;
}

}  // namespace stasis::resource

// What sockets of every family need: telling them apart, their names, their status flags.
#pragma once

#include <sys/socket.h>

#include <string>

#include "stasis/descriptor.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::resource {

bool is_socket(const OpenFile& file);
// getsockopt() of an int; `otherwise` when the socket does not have the option.
int socket_option(int fd, int level, int name, int otherwise = -1);

// struct sockaddr cut to its length; empty when there is none.
std::string local_address(int fd);
std::string peer_address(int fd);
// The same, also of a TCP connection that is not there yet or has ended.
std::string peer_address_in_any_state(int fd);

Result<Fd> new_socket(const Record& record, int family, int type, int protocol);
int bind_to(int fd, const std::string& address);
int connect_to(int fd, const std::string& address);

}  // namespace stasis::resource

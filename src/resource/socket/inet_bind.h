// Giving internet sockets their addresses again.
#pragma once

#include <string>

#include "schema/kinds/socket.pb.h"

namespace stasis::resource {

// Whether the host has this address, in the network that is looked into (kernel/network_view.h): a socket
// can be bound to it.
bool is_of_this_host(const std::string& address);

// Notes whether the address of a socket is one that the host does not have.
void observe_foreign_address(schema::InetSocket& message);

// bind() to the address of `message`. 0 or -1 with errno.
int bind_again(int fd, const schema::InetSocket& message);

}  // namespace stasis::resource

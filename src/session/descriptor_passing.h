// Descriptors that go with messages through a SOCK_SEQPACKET socket, and sockets in a session's directory.
#pragma once

#include <string>
#include <string_view>

#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::session {

// One packet, with `fd` unless that is negative. Does not wait for room. errno says why it failed.
bool send_with_descriptor(int socket, std::string_view message, int fd);

struct Received {
  std::string message;  // empty: the other side is gone
  Fd fd;
};
// One packet of at most 64 bytes.
Result<Received> receive_with_descriptor(int socket);

// <session directory>/NAME, replacing an old one; does not block.
Result<Fd> listen_in(const std::string& session_directory, const char* name);
Result<Fd> connect_in(const std::string& session_directory, const char* name);

}  // namespace stasis::session

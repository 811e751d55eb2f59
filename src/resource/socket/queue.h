// What a socket has received and the program has not read yet: looked at by MSG_PEEK, sent again at restart.
#pragma once

#include <sys/socket.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "stasis/descriptor.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::resource {

// One message in the queue of a unix socket, or, in a stream, a piece that is told apart by what came with
// it.
struct Queued {
  std::string data;
  std::vector<Fd> descriptors;  // our own descriptors of what is in flight with it
  std::optional<ucred> sender;  // where SO_PASSCRED is set; the pid is in our namespace
  std::string address;          // of the sender of a datagram
};

// All bytes in the queue of a TCP connection.
Result<std::string> peek_stream(const OpenFile& file);
// What is in the queue of a unix or datagram socket, the first first. It is looked at once.
Result<std::shared_ptr<const std::vector<Queued>>> peek_queue(const OpenFile& file);

// Where and with what something is sent.
struct Sending {
  std::string address;           // empty: to the other end
  std::vector<int> descriptors;  // to be in flight
  // As whom our own process sends: with these ids, which are among its own.
  std::optional<ucred> sender;
};
// Sends without waiting for the reader, from the other end; the send buffer is made large enough meanwhile.
Result<void> send_stream(const Record& record, int from, std::string_view data, const Sending& with = {});
Result<void> send_message(const Record& record, int from, std::string_view data, const Sending& with = {});

}  // namespace stasis::resource

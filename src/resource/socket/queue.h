// What a socket has received and the program has not read yet: looked at by MSG_PEEK, sent again at restart.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "resource/descriptor.h"

namespace stasis::resource {

// All bytes in the queue of a stream (TCP, unix). An Error when descriptors are in flight in it.
Result<std::string> peek_stream(const OpenFile& file);
// The messages in the queue of a unix socket that keeps message boundaries.
Result<std::vector<std::string>> peek_messages(const OpenFile& file);

// Sends without waiting for the reader, from the other end; the send buffer is made large enough meanwhile.
Result<void> send_stream(const Record& record, int from, const std::string& data);
Result<void> send_message(const Record& record, int from, const std::string& data);

}  // namespace stasis::resource

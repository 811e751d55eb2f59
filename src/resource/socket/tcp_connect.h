// TCP connections made again over loopback, without privilege.
#pragma once

#include "schema/kinds/socket.pb.h"
#include "stasis/descriptor.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::resource {

struct TcpPair {
  Fd server, client;
};

// A bound and listening socket. An Error names the program that has the port.
Result<Fd> listen_again(const Record& record, const schema::InetSocket& message);

// One end of a connection.
struct TcpEnd {
  const Record& record;
  const schema::InetSocket& message;
};

// Both ends of a connection inside the session, with the addresses that they had; they may be in different
// networks. The server end is the one that was accepted, as far as that can be told.
Result<TcpPair> connect_again(const TcpEnd& server, const TcpEnd& client, Making& context);

// A connection whose other end is ours to close.
Result<TcpPair> connect_to_ourselves(const Record& record, int family);

// The listener among the records that could have accepted `server`, or nullptr.
const Record* find_tcp_listener(const schema::InetSocket& server, const Making& context);

// A client that is bound to its old address and connected; with another port when the old one stays blocked.
Result<Fd> connect_client(const TcpEnd& client, Making& context);

}  // namespace stasis::resource

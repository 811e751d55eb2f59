// TCP connections made again over loopback, without privilege.
#pragma once

#include <vector>

#include "schema/kinds/socket.pb.h"
#include "stasis/descriptor.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::resource {

struct TcpPair {
  Fd server, client;
};

// Whether another socket of the image has the same address, and one of them listens: then only SO_REUSEPORT
// lets both be there, which the program may have cleared since.
enum class Port { kAlone, kShared };
Port is_port_shared(const Record& record, const schema::InetSocket& message, const Making& context);

// A bound and listening socket. An Error names the program that has the port. While a port is shared, its
// sockets have SO_REUSEPORT; the program's own setting is to be put back when all are there.
Result<Fd> listen_again(const Record& record, const schema::InetSocket& message, Port port = Port::kAlone);
// One that neither listens nor is connected, bound if it was.
Result<Fd> bind_unconnected(const Record& record, const schema::InetSocket& message, Port port);

// One end of a connection.
struct TcpEnd {
  const Record& record;
  const schema::InetSocket& message;
};

// Both ends of a connection inside the session, with the addresses that they had; they may be in different
// networks. The server end is the one that was accepted, as far as that can be told.
Result<TcpPair> connect_again(const TcpEnd& server, const TcpEnd& client, Making& context);

// A connection whose other end is ours to close: the client is like `message`, but for its addresses and the
// device that it is bound to.
Result<TcpPair> connect_to_ourselves(const Record& record, const schema::InetSocket& message);

// The listeners among the records that could have accepted `server`.
std::vector<const Record*> find_tcp_listeners(const schema::InetSocket& server, const Making& context);

// A client that is bound to its old address and connected; with another port when the old one stays blocked.
Result<Fd> connect_client(const TcpEnd& client, Making& context);

}  // namespace stasis::resource

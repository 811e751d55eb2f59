// The rings in which a packet socket shares packets with the kernel (PACKET_RX_RING, PACKET_TX_RING):
// packet_mmap in the kernel's documentation.
//
// Where in a ring the kernel goes on, it tells nobody, and it cannot be told. So only a ring through which
// nothing has come yet is made again.
#pragma once

#include "resource/socket/packet_diag.h"
#include "schema/kinds/socket.pb.h"
#include "stasis/descriptor.h"
#include "stasis/result.h"

namespace stasis::resource {

// With where the first owner has them mapped. An Error refuses.
Result<void> observe_rings(const OpenFile& file, const PacketDiag& diag, schema::RawSocket& message);
// When the socket has all its options: the form of a ring depends on some.
Result<void> make_rings(const Record& record, int fd, const schema::RawSocket& message);
// In the owner.
Result<void> map_rings(const Record& record, const schema::RawSocket& message, Finishing& owner);

// Whether memory of this name is that of the rings of this socket.
bool is_ring_of(const OpenFile& file, HostTid task);

}  // namespace stasis::resource

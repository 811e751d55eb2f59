#include "resource/socket/packet_ring.h"

#include <linux/if_packet.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "kernel/proc.h"
#include "resource/refusal.h"
#include "resource/socket/socket.h"

namespace stasis::resource {
namespace {

using schema::PacketRing;

uint64_t size_of(const PacketRing& ring) { return uint64_t{ring.block_size()} * ring.block_count(); }

// Of the newest form the kernel has opened the first block, and noted that nothing is in it.
bool is_unused(std::span<const char> ring, bool has_open_block) {
  size_t start = 0;
  if (has_open_block) {
    tpacket_block_desc block = {};
    if (ring.size() < sizeof block) return false;
    std::memcpy(&block, ring.data(), sizeof block);
    if (block.hdr.bh1.block_status != TP_STATUS_KERNEL || block.hdr.bh1.num_pkts != 0 ||
        block.hdr.bh1.seq_num != 1)
      return false;
    start = sizeof block;
  }
  return std::all_of(ring.begin() + static_cast<ptrdiff_t>(start), ring.end(),
                     [](char byte) { return byte == 0; });
}

Result<void> check_unused(const OpenFile& file, const schema::RawSocket& message, bool is_newest) {
  const uint64_t receive = size_of(message.receive_ring()), all = receive + size_of(message.send_ring());
  void* memory = ::mmap(nullptr, all, PROT_READ, MAP_SHARED, file.duplicate.get(), 0);
  if (memory == MAP_FAILED) return cannot_observe(file, "its ring");
  const char* bytes = static_cast<const char*>(memory);
  const bool unused = (receive == 0 || is_unused({bytes, receive}, is_newest)) &&
                      is_unused({bytes + receive, all - receive}, false);
  ::munmap(memory, all);
  if (unused) return {};
  return refusal(
      file,
      "packets have come through the ring that it shares with the kernel (PACKET_RX_RING), and where the "
      "kernel goes on in it cannot be set",
      "receive without a ring, or close it for the time of the checkpoint");
}

Result<void> set_ring(const Record& record, int fd, int option, const PacketRing& ring) {
  if (ring.block_count() == 0) return {};
  tpacket_req3 request = {};
  request.tp_block_size = ring.block_size();
  request.tp_block_nr = ring.block_count();
  request.tp_frame_size = ring.frame_size();
  request.tp_frame_nr = ring.frame_count();
  request.tp_retire_blk_tov = ring.timeout_ms();
  request.tp_sizeof_priv = ring.private_size();
  request.tp_feature_req_word = ring.features();
  const bool is_newest = socket_option(fd, SOL_PACKET, PACKET_VERSION) == TPACKET_V3;
  if (::setsockopt(fd, SOL_PACKET, option, &request, is_newest ? sizeof request : sizeof(tpacket_req)) == 0)
    return {};
  return cannot_make(record, option == PACKET_RX_RING ? "PACKET_RX_RING" : "PACKET_TX_RING");
}

}  // namespace

bool is_ring_of(const OpenFile& file, HostTid task) {
  return file.task == task && is_socket(file) &&
         socket_option(file.duplicate.get(), SOL_SOCKET, SO_DOMAIN) == AF_PACKET;
}

Result<void> observe_rings(const OpenFile& file, const PacketDiag& diag, schema::RawSocket& message) {
  if (!diag.receive_ring && !diag.send_ring) return {};
  if (diag.receive_ring) *message.mutable_receive_ring() = *diag.receive_ring;
  if (diag.send_ring) *message.mutable_send_ring() = *diag.send_ring;
  STASIS_CHECK(check_unused(file, message,
                            socket_option(file.duplicate.get(), SOL_PACKET, PACKET_VERSION) == TPACKET_V3));
  const uint64_t size = size_of(message.receive_ring()) + size_of(message.send_ring());
  STASIS_TRY(auto maps, kernel::read_maps(file.task));
  for (const auto& entry : maps) {
    if (entry.name != file.link) continue;
    if (entry.offset != 0 || entry.end - entry.start != size)
      return refusal(file, "a part of its ring is mapped in another way than the rest",
                     "leave it as it was mapped");
    auto* mapping = message.add_mappings();
    mapping->set_address(entry.start);
    mapping->set_protection(static_cast<uint32_t>(entry.protection));
    mapping->set_shared(entry.shared);
  }
  return {};
}

Result<void> make_rings(const Record& record, int fd, const schema::RawSocket& message) {
  STASIS_CHECK(set_ring(record, fd, PACKET_RX_RING, message.receive_ring()));
  return set_ring(record, fd, PACKET_TX_RING, message.send_ring());
}

Result<void> map_rings(const Record& record, const schema::RawSocket& message, Finishing& owner) {
  const uint64_t size = size_of(message.receive_ring()) + size_of(message.send_ring());
  for (const auto& mapping : message.mappings()) {
    // The address is the image's word: nothing that is there already gives way to it.
    const uint64_t flags = MAP_FIXED_NOREPLACE | (mapping.shared() ? MAP_SHARED : MAP_PRIVATE);
    STASIS_TRY(int64_t at, owner.call(SYS_mmap, std::array<uint64_t, 6>{
                                                    mapping.address(), size, mapping.protection(), flags,
                                                    static_cast<uint64_t>(owner.number()), 0}));
    if (at < 0 && at > -4096) return cannot_make(record, "map its ring", static_cast<int>(-at));
  }
  return {};
}

}  // namespace stasis::resource

// Raw and packet sockets, and the rings that packets come through.
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/icmp.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "connected.h"
#include "subject.h"

CASE(raw_and_packet_sockets) {
  int raw = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), packet = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_IP));
  if (raw < 0 || packet < 0) SKIP("not root");
  icmp_filter filter = {~(1u << 0)};
  MUST(setsockopt(raw, 255, ICMP_FILTER, &filter, sizeof filter) == 0);
  sockaddr_ll device = {};
  device.sll_family = AF_PACKET;
  device.sll_protocol = htons(ETH_P_IP);
  device.sll_ifindex = 1;
  MUST(bind(packet, reinterpret_cast<sockaddr*>(&device), sizeof device) == 0);
  packet_mreq promiscuous = {};
  promiscuous.mr_ifindex = 1;
  promiscuous.mr_type = PACKET_MR_PROMISC;
  MUST(setsockopt(packet, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof promiscuous) == 0);
  int on = 1;
  MUST(setsockopt(packet, SOL_PACKET, PACKET_AUXDATA, &on, sizeof on) == 0);
  subject::hold();
  icmp_filter now = {};
  socklen_t length = sizeof now;
  CHECK_EQ(getsockopt(raw, 255, ICMP_FILTER, &now, &length), 0);
  CHECK_EQ(now.data, filter.data);
  sockaddr_ll where = {};
  length = sizeof where;
  CHECK_EQ(getsockname(packet, reinterpret_cast<sockaddr*>(&where), &length), 0);
  CHECK_EQ(where.sll_ifindex, 1);
  CHECK_EQ(where.sll_protocol, htons(ETH_P_IP));
  CHECK_EQ(setsockopt(packet, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &promiscuous, sizeof promiscuous), 0);
  length = sizeof on;
  on = 0;
  CHECK_EQ(getsockopt(packet, SOL_PACKET, PACKET_AUXDATA, &on, &length), 0);
  CHECK_EQ(on, 1);
  // Something comes by.
  while (recv(packet, &where, sizeof where, MSG_DONTWAIT) >= 0) {
  }
  int client = socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in address = loopback(9);
  CHECK_EQ(sendto(client, "x", 1, 0, plain(address), sizeof address), 1);
  CHECK(readable(packet));
}

// An experimental protocol of IEEE 802, so that nothing comes by itself.
static constexpr uint16_t kNobodys = 0x88b5;

static int packet_socket(int version, tpacket_req3 ring, bool also_sends) {
  int fd = socket(AF_PACKET, SOCK_RAW, 0);
  if (fd < 0) SKIP("not root");
  MUST(setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version) == 0);
  const socklen_t size = version == TPACKET_V3 ? sizeof ring : sizeof(tpacket_req);
  MUST(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &ring, size) == 0);
  if (also_sends) MUST(setsockopt(fd, SOL_PACKET, PACKET_TX_RING, &ring, size) == 0);
  sockaddr_ll device = {};
  device.sll_family = AF_PACKET;
  device.sll_protocol = htons(kNobodys);
  device.sll_ifindex = 1;
  MUST(bind(fd, reinterpret_cast<sockaddr*>(&device), sizeof device) == 0);
  return fd;
}
static uint8_t* mapped_ring(int fd, size_t size, int flags) {
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, fd, 0);
  MUST(memory != MAP_FAILED);
  return static_cast<uint8_t*>(memory);
}
static void send_one_packet() {
  int fd = socket(AF_PACKET, SOCK_DGRAM, 0);
  sockaddr_ll to = {};
  to.sll_family = AF_PACKET;
  to.sll_protocol = htons(kNobodys);
  to.sll_ifindex = 1;
  to.sll_halen = 6;
  CHECK_EQ(sendto(fd, "to whom it may concern", 22, 0, reinterpret_cast<sockaddr*>(&to), sizeof to), 22);
  close(fd);
}

CASE_WITH(rings_of_packet_sockets, subject::kOwnNetwork) {
  tpacket_req3 ring = {};
  ring.tp_block_size = 8192;
  ring.tp_block_nr = 3;
  ring.tp_frame_size = 2048;
  ring.tp_frame_nr = 12;
  const size_t size = size_t{ring.tp_block_size} * ring.tp_block_nr;
  int both = packet_socket(TPACKET_V2, ring, true), not_mapped = packet_socket(TPACKET_V1, ring, false);
  ring.tp_retire_blk_tov = 20;
  int newest = packet_socket(TPACKET_V3, ring, false);
  uint8_t* old_memory = mapped_ring(both, 2 * size, MAP_PRIVATE);
  uint8_t* new_memory = mapped_ring(newest, size, MAP_SHARED);
  const int fanout = 77 | PACKET_FANOUT_LB << 16;
  MUST(setsockopt(not_mapped, SOL_PACKET, PACKET_FANOUT, &fanout, sizeof fanout) == 0);
  subject::hold();
  auto* frame = reinterpret_cast<volatile tpacket2_hdr*>(old_memory);
  auto* block = reinterpret_cast<volatile tpacket_block_desc*>(new_memory);
  CHECK_EQ(frame->tp_status, TP_STATUS_KERNEL);
  CHECK_EQ(block->hdr.bh1.block_status, TP_STATUS_KERNEL);
  send_one_packet();
  CHECK(readable(both));
  for (int i = 0; i < 400 && (block->hdr.bh1.block_status & TP_STATUS_USER) == 0; ++i) subject::pass(5);
  CHECK((frame->tp_status & TP_STATUS_USER) != 0);
  CHECK((block->hdr.bh1.block_status & TP_STATUS_USER) != 0);
  CHECK(block->hdr.bh1.num_pkts >= 1u);
  CHECK(memcmp(old_memory + frame->tp_net, "to whom it may concern", 22) == 0);
  CHECK(readable(not_mapped));
  uint8_t* late = mapped_ring(not_mapped, size, MAP_SHARED);
  CHECK((reinterpret_cast<volatile tpacket_hdr*>(late)->tp_status & TP_STATUS_USER) != 0);
  int now = 0;
  socklen_t length = sizeof now;
  CHECK_EQ(getsockopt(not_mapped, SOL_PACKET, PACKET_FANOUT, &now, &length), 0);
  CHECK_EQ(now, fanout);
}

// Where the kernel goes on in it cannot be set.
CASE_WITH(ring_that_was_used, subject::kMayRefuse | subject::kOwnNetwork) {
  tpacket_req3 ring = {};
  ring.tp_block_size = 4096;
  ring.tp_block_nr = 1;
  ring.tp_frame_size = 2048;
  ring.tp_frame_nr = 2;
  int fd = packet_socket(TPACKET_V2, ring, false);
  uint8_t* memory = mapped_ring(fd, ring.tp_block_size, MAP_SHARED);
  send_one_packet();
  auto* first = reinterpret_cast<volatile tpacket2_hdr*>(memory);
  auto* second = reinterpret_cast<volatile tpacket2_hdr*>(memory + ring.tp_frame_size);
  MUST((first->tp_status & TP_STATUS_USER) != 0);
  first->tp_status = TP_STATUS_KERNEL;
  subject::hold();
  send_one_packet();
  CHECK((second->tp_status & TP_STATUS_USER) != 0);
}

// The interface before Linux 2.2, of which some programs have not let go.
CASE(old_packet_sockets) {
  int bound = socket(AF_PACKET, SOCK_PACKET, htons(ETH_P_IP)),
      everywhere = socket(AF_PACKET, SOCK_PACKET, htons(ETH_P_IP));
  if (bound < 0 || everywhere < 0) SKIP("not root");
  sockaddr device = {};
  device.sa_family = AF_PACKET;
  strcpy(device.sa_data, "lo");
  MUST(bind(bound, &device, sizeof device) == 0);
  subject::hold();
  for (int fd : {bound, everywhere}) {
    sockaddr now = {};
    socklen_t length = sizeof now;
    CHECK_EQ(getsockname(fd, &now, &length), 0);
    CHECK_EQ(strcmp(now.sa_data, fd == bound ? "lo" : ""), 0);
    char packet[2048];
    while (recv(fd, packet, sizeof packet, MSG_DONTWAIT) >= 0) {
    }
  }
  int client = socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in address = loopback(9);
  CHECK_EQ(sendto(client, "x", 1, 0, plain(address), sizeof address), 1);
  CHECK(readable(bound));
  CHECK(readable(everywhere));
}

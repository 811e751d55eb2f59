#include "resource/socket/packet_diag.h"

#include <linux/netlink.h>
#include <linux/packet_diag.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "kernel/network_view.h"
#include "stasis/fd.h"

namespace stasis::resource {
namespace {

void parse_memberships(const rtattr* attribute, PacketDiag& out) {
  const size_t count = RTA_PAYLOAD(attribute) / sizeof(packet_diag_mclist);
  for (size_t i = 0; i < count; ++i) {
    packet_diag_mclist entry = {};
    memcpy(&entry, static_cast<const char*>(RTA_DATA(attribute)) + i * sizeof entry, sizeof entry);
    schema::PacketMembership membership;
    membership.set_device(kernel::network_interface_name(static_cast<unsigned>(entry.pdmc_index)));
    membership.set_type(entry.pdmc_type);
    membership.set_address(entry.pdmc_addr, std::min<size_t>(entry.pdmc_alen, sizeof entry.pdmc_addr));
    out.memberships.insert(out.memberships.end(), entry.pdmc_count, membership);
  }
}

schema::PacketRing parse_ring(const rtattr* attribute) {
  packet_diag_ring facts = {};
  memcpy(&facts, RTA_DATA(attribute), std::min<size_t>(RTA_PAYLOAD(attribute), sizeof facts));
  schema::PacketRing ring;
  ring.set_block_size(facts.pdr_block_size);
  ring.set_block_count(facts.pdr_block_nr);
  ring.set_frame_size(facts.pdr_frame_size);
  ring.set_frame_count(facts.pdr_frame_nr);
  ring.set_timeout_ms(facts.pdr_retire_tmo);
  ring.set_private_size(facts.pdr_sizeof_priv);
  ring.set_features(facts.pdr_features);
  return ring;
}

PacketDiag parse(const nlmsghdr* header) {
  PacketDiag result;
  auto* message = static_cast<const packet_diag_msg*>(NLMSG_DATA(header));
  result.protocol = message->pdiag_num;
  auto length = static_cast<int>(header->nlmsg_len - NLMSG_LENGTH(sizeof *message));
  auto* attribute = reinterpret_cast<const rtattr*>(message + 1);
  for (; RTA_OK(attribute, length); attribute = RTA_NEXT(attribute, length)) {
    if (attribute->rta_type == PACKET_DIAG_MCLIST) parse_memberships(attribute, result);
    if (attribute->rta_type == PACKET_DIAG_RX_RING) result.receive_ring = parse_ring(attribute);
    if (attribute->rta_type == PACKET_DIAG_TX_RING) result.send_ring = parse_ring(attribute);
    if (attribute->rta_type == PACKET_DIAG_FANOUT) result.in_fanout = true;
  }
  return result;
}

}  // namespace

Result<PacketDiag> packet_diag(ino_t inode) {
  const char* step = "ask the kernel about a packet socket";
  Fd netlink = kernel::network_socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  if (!netlink) return errno_error(step, "sock_diag");
  struct {
    nlmsghdr header;
    packet_diag_req request;
  } question = {};
  question.header.nlmsg_len = sizeof question;
  question.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  question.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  question.request.sdiag_family = AF_PACKET;
  question.request.pdiag_show = PACKET_SHOW_MCLIST | PACKET_SHOW_RING_CFG | PACKET_SHOW_FANOUT;
  if (send(netlink.get(), &question, sizeof question, 0) < 0) return errno_error(step, "sock_diag");
  alignas(nlmsghdr) std::array<char, 32768> answer;
  for (;;) {
    ssize_t count = recv(netlink.get(), answer.data(), answer.size(), 0);
    if (count <= 0) return errno_error(step, "sock_diag", count < 0 ? errno : EIO);
    auto left = static_cast<unsigned>(count);
    for (auto* header = reinterpret_cast<const nlmsghdr*>(answer.data()); NLMSG_OK(header, left);
         header = NLMSG_NEXT(header, left)) {
      if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR)
        return errno_error(step, fmt::format("inode {}", inode), ENOENT,
                           "it is in another network namespace, or the module af_packet_diag is missing");
      if (header->nlmsg_type == SOCK_DIAG_BY_FAMILY &&
          static_cast<const packet_diag_msg*>(NLMSG_DATA(header))->pdiag_ino == static_cast<uint32_t>(inode))
        return parse(header);
    }
  }
}

}  // namespace stasis::resource

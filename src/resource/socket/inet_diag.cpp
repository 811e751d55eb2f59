#include "resource/socket/inet_diag.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstring>

#include "kernel/network_view.h"
#include "resource/socket/inet.h"
#include "stasis/fd.h"

namespace stasis::resource {
namespace {

constexpr uint8_t kReceiveShutdown = 1, kSendShutdown = 2;

std::string address_of(int family, const uint32_t* address, uint16_t port) {
  if (family == AF_INET) {
    sockaddr_in in = {};
    in.sin_family = AF_INET;
    in.sin_port = port;
    memcpy(&in.sin_addr, address, sizeof in.sin_addr);
    return {reinterpret_cast<char*>(&in), sizeof in};
  }
  sockaddr_in6 in6 = {};
  in6.sin6_family = AF_INET6;
  in6.sin6_port = port;
  memcpy(&in6.sin6_addr, address, sizeof in6.sin6_addr);
  return {reinterpret_cast<char*>(&in6), sizeof in6};
}

InetDiag parse(const nlmsghdr* header) {
  auto* message = static_cast<const inet_diag_msg*>(NLMSG_DATA(header));
  InetDiag result;
  result.state = message->idiag_state;
  result.inode = message->idiag_inode;
  result.unread = message->idiag_rqueue;
  result.address =
      endpoint(address_of(message->idiag_family, message->id.idiag_src, message->id.idiag_sport));
  result.peer_address = address_of(message->idiag_family, message->id.idiag_dst, message->id.idiag_dport);
  result.peer = endpoint(result.peer_address);
  auto length = static_cast<int>(header->nlmsg_len - NLMSG_LENGTH(sizeof *message));
  auto* attribute = reinterpret_cast<const rtattr*>(message + 1);
  for (; RTA_OK(attribute, length); attribute = RTA_NEXT(attribute, length)) {
    if (attribute->rta_type != INET_DIAG_SHUTDOWN || RTA_PAYLOAD(attribute) < 1) continue;
    uint8_t shut = 0;
    memcpy(&shut, RTA_DATA(attribute), 1);
    result.cannot_read = shut & kReceiveShutdown;
    result.cannot_write = shut & kSendShutdown;
  }
  return result;
}

void dump(int family, int protocol, std::vector<InetDiag>& found) {
  Fd netlink = kernel::network_socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  if (!netlink) return;
  struct {
    nlmsghdr header;
    inet_diag_req_v2 request;
  } question = {};
  question.header.nlmsg_len = sizeof question;
  question.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  question.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  question.request.sdiag_family = static_cast<uint8_t>(family);
  question.request.sdiag_protocol = static_cast<uint8_t>(protocol);
  question.request.idiag_ext = 1 << (INET_DIAG_SHUTDOWN - 1);
  question.request.idiag_states = UINT32_MAX;
  if (send(netlink.get(), &question, sizeof question, 0) < 0) return;
  alignas(nlmsghdr) std::array<char, 32768> answer;
  for (;;) {
    ssize_t count = recv(netlink.get(), answer.data(), answer.size(), 0);
    if (count <= 0) return;
    auto left = static_cast<unsigned>(count);
    for (auto* header = reinterpret_cast<const nlmsghdr*>(answer.data()); NLMSG_OK(header, left);
         header = NLMSG_NEXT(header, left)) {
      if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR) return;
      if (header->nlmsg_type == SOCK_DIAG_BY_FAMILY) found.push_back(parse(header));
    }
  }
}

}  // namespace

std::vector<InetDiag> inet_diag(int protocol) {
  std::vector<InetDiag> found;
  for (int family : {AF_INET, AF_INET6}) dump(family, protocol, found);
  return found;
}

}  // namespace stasis::resource

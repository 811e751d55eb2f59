#include "resource/socket/unix_diag.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sys/socket.h>

#include <array>

#include "kernel/network_view.h"
#include "stasis/fd.h"

namespace stasis::resource {
namespace {

constexpr uint8_t kListen = 10;  // TCP_LISTEN, which unix sockets use, too
constexpr uint8_t kReceiveShutdown = 1, kSendShutdown = 2;

template <typename T>
T payload(const rtattr* attribute) {
  T value = {};
  if (RTA_PAYLOAD(attribute) >= sizeof value) memcpy(&value, RTA_DATA(attribute), sizeof value);
  return value;
}

UnixDiag parse(const nlmsghdr* header) {
  UnixDiag result;
  auto* message = static_cast<const unix_diag_msg*>(NLMSG_DATA(header));
  result.listening = message->udiag_state == kListen;
  auto length = static_cast<int>(header->nlmsg_len - NLMSG_LENGTH(sizeof *message));
  auto* attribute = reinterpret_cast<const rtattr*>(message + 1);
  for (; RTA_OK(attribute, length); attribute = RTA_NEXT(attribute, length)) {
    switch (attribute->rta_type) {
      case UNIX_DIAG_PEER:
        result.peer = payload<uint32_t>(attribute);
        break;
      case UNIX_DIAG_VFS:
        result.file = payload<unix_diag_vfs>(attribute).udiag_vfs_ino;
        break;
      case UNIX_DIAG_SHUTDOWN: {
        auto shut = payload<uint8_t>(attribute);
        result.cannot_read = shut & kReceiveShutdown;
        result.cannot_write = shut & kSendShutdown;
        break;
      }
      case UNIX_DIAG_RQLEN: {
        auto lengths = payload<unix_diag_rqlen>(attribute);
        if (result.listening) {
          result.waiting = lengths.udiag_rqueue;
          result.backlog = lengths.udiag_wqueue;
        }
        break;
      }
      case UNIX_DIAG_ICONS:
        result.waiting_clients.resize(RTA_PAYLOAD(attribute) / sizeof(uint32_t));
        if (result.waiting_clients.empty()) break;
        memcpy(result.waiting_clients.data(), RTA_DATA(attribute),
               result.waiting_clients.size() * sizeof(uint32_t));
        break;
      default:
        break;
    }
  }
  return result;
}

}  // namespace

Result<UnixDiag> unix_diag(ino_t inode) {
  const char* step = "ask the kernel about a unix socket";
  Fd netlink = kernel::network_socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  if (!netlink) return errno_error(step, "sock_diag");
  struct {
    nlmsghdr header;
    unix_diag_req request;
  } question = {};
  question.header.nlmsg_len = sizeof question;
  question.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  question.header.nlmsg_flags = NLM_F_REQUEST;
  question.request.sdiag_family = AF_UNIX;
  question.request.udiag_states = UINT32_MAX;
  question.request.udiag_ino = static_cast<uint32_t>(inode);
  question.request.udiag_show = UDIAG_SHOW_PEER | UDIAG_SHOW_VFS | UDIAG_SHOW_RQLEN | UDIAG_SHOW_ICONS;
  question.request.udiag_cookie[0] = question.request.udiag_cookie[1] = UINT32_MAX;  // no cookie
  if (send(netlink.get(), &question, sizeof question, 0) < 0) return errno_error(step, "sock_diag");

  alignas(nlmsghdr) std::array<char, 65536> answer;
  ssize_t count = recv(netlink.get(), answer.data(), answer.size(), 0);
  if (count < static_cast<ssize_t>(sizeof(nlmsghdr)))
    return errno_error(step, "sock_diag", count < 0 ? errno : EIO);
  auto* header = reinterpret_cast<const nlmsghdr*>(answer.data());
  if (header->nlmsg_type == NLMSG_ERROR) {
    int error = -static_cast<const nlmsgerr*>(NLMSG_DATA(header))->error;
    return errno_error(
        step, fmt::format("inode {}", inode), error,
        error == ENOENT ? "it is in another network namespace, or the module unix_diag is missing" : "");
  }
  if (header->nlmsg_type != SOCK_DIAG_BY_FAMILY || static_cast<size_t>(count) < header->nlmsg_len) {
    return errno_error(step, "sock_diag", EBADMSG);
  }
  return parse(header);
}

}  // namespace stasis::resource

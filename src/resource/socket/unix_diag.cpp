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

constexpr const char* kStep = "ask the kernel about unix sockets";

// Inode 0: about all.
Result<Fd> ask(ino_t inode) {
  Fd netlink = kernel::network_socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  if (!netlink) return errno_error(kStep, "sock_diag");
  struct {
    nlmsghdr header;
    unix_diag_req request;
  } question = {};
  question.header.nlmsg_len = sizeof question;
  question.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  question.header.nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | (inode == 0 ? NLM_F_DUMP : 0));
  question.request.sdiag_family = AF_UNIX;
  question.request.udiag_states = UINT32_MAX;
  question.request.udiag_ino = static_cast<uint32_t>(inode);
  question.request.udiag_show = UDIAG_SHOW_PEER | UDIAG_SHOW_VFS | UDIAG_SHOW_RQLEN | UDIAG_SHOW_ICONS;
  question.request.udiag_cookie[0] = question.request.udiag_cookie[1] = UINT32_MAX;  // no cookie
  if (send(netlink.get(), &question, sizeof question, 0) < 0) return errno_error(kStep, "sock_diag");
  return netlink;
}

using Answer = std::array<char, 65536>;

Result<size_t> receive(const Fd& netlink, Answer& answer) {
  const ssize_t count = recv(netlink.get(), answer.data(), answer.size(), 0);
  if (count < static_cast<ssize_t>(sizeof(nlmsghdr)))
    return errno_error(kStep, "sock_diag", count < 0 ? errno : EIO);
  return static_cast<size_t>(count);
}

int error_of(const nlmsghdr* header) { return -static_cast<const nlmsgerr*>(NLMSG_DATA(header))->error; }

}  // namespace

Result<UnixDiag> unix_diag(ino_t inode) {
  STASIS_TRY(Fd netlink, ask(inode));
  alignas(nlmsghdr) Answer answer;
  STASIS_TRY(const size_t count, receive(netlink, answer));
  auto* header = reinterpret_cast<const nlmsghdr*>(answer.data());
  if (header->nlmsg_type == NLMSG_ERROR) {
    const int error = error_of(header);
    return errno_error(
        kStep, fmt::format("inode {}", inode), error,
        error == ENOENT ? "it is in another network namespace, or the module unix_diag is missing" : "");
  }
  if (header->nlmsg_type != SOCK_DIAG_BY_FAMILY || count < header->nlmsg_len)
    return errno_error(kStep, "sock_diag", EBADMSG);
  return parse(header);
}

Result<UnixDiags> all_unix_diags() {
  STASIS_TRY(Fd netlink, ask(0));
  UnixDiags all;
  alignas(nlmsghdr) Answer answer;
  for (;;) {
    STASIS_TRY(size_t left, receive(netlink, answer));
    auto* header = reinterpret_cast<const nlmsghdr*>(answer.data());
    for (; NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
      if (header->nlmsg_type == NLMSG_DONE) return all;
      if (header->nlmsg_type == NLMSG_ERROR) return errno_error(kStep, "sock_diag", error_of(header));
      if (header->nlmsg_type != SOCK_DIAG_BY_FAMILY) continue;
      all[static_cast<const unix_diag_msg*>(NLMSG_DATA(header))->udiag_ino] = parse(header);
    }
  }
}

}  // namespace stasis::resource

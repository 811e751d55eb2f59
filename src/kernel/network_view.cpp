#include "kernel/network_view.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace stasis::kernel {
namespace {

struct Request {
  int domain = 0;  // AF_UNSPEC: opens the path
  int type = 0;
  int protocol = 0;
  std::array<char, 64> path = {};
};

constexpr size_t kControl = CMSG_SPACE(sizeof(int));

void answer(int channel, int error, int fd) {
  iovec data = {&error, sizeof error};
  alignas(cmsghdr) std::array<char, kControl> control = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  if (::sendmsg(channel, &message, MSG_NOSIGNAL) < 0) ::_exit(1);
}

[[noreturn]] void serve(int channel) {
  for (;;) {
    Request request;
    if (::recv(channel, &request, sizeof request, 0) != sizeof request) ::_exit(0);
    request.path.back() = 0;
    Fd fd(request.domain == AF_UNSPEC ? ::open(request.path.data(), O_RDONLY | O_CLOEXEC)
                                      : ::socket(request.domain, request.type, request.protocol));
    answer(channel, fd ? 0 : errno, fd.get());
  }
}

NetworkHelper* now = nullptr;

}  // namespace

Result<std::unique_ptr<NetworkHelper>> NetworkHelper::start(const Fd& network, const Fd& user) {
  constexpr const char* kStep = "look into a network namespace";
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return errno_error(kStep, {});
  Fd ours(ends[0]), theirs(ends[1]);
  const pid_t parent = ::getpid();
  const pid_t process = ::fork();
  if (process < 0) return errno_error(kStep, {});
  if (process == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    ours.reset();
    if ((user && ::setns(user.get(), CLONE_NEWUSER) != 0) || ::setns(network.get(), CLONE_NEWNET) != 0) {
      answer(theirs.get(), errno, -1);
      ::_exit(1);
    }
    // Entering a user namespace changes credentials, which takes the signal of the parent's death back.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    answer(theirs.get(), 0, -1);
    serve(theirs.get());
  }
  theirs.reset();
  std::unique_ptr<NetworkHelper> helper(new NetworkHelper(std::move(ours), process));
  int error = EIO;
  if (::recv(helper->channel_.get(), &error, sizeof error, 0) != sizeof error || error != 0)
    return errno_error(kStep, {}, error, "take the checkpoint as root");
  return helper;
}

NetworkHelper::~NetworkHelper() {
  channel_.reset();
  ::kill(process_, SIGKILL);
  while (::waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

Fd NetworkHelper::ask(const void* request, size_t size) {
  Fd none;
  if (::send(channel_.get(), request, size, MSG_NOSIGNAL) < 0) return none;
  int error = EIO;
  iovec data = {&error, sizeof error};
  alignas(cmsghdr) std::array<char, kControl> control = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t count = 0;
  do {
    count = ::recvmsg(channel_.get(), &message, MSG_CMSG_CLOEXEC);
  } while (count < 0 && errno == EINTR);
  const cmsghdr* header = count == sizeof error ? CMSG_FIRSTHDR(&message) : nullptr;
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) {
    errno = error;
    return none;
  }
  int fd = -1;
  memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return Fd(fd);
}

Fd NetworkHelper::socket(int domain, int type, int protocol) {
  const Request request = {.domain = domain, .type = type, .protocol = protocol};
  return ask(&request, sizeof request);
}

Fd NetworkHelper::open(const std::string& path) {
  Request request;
  path.copy(request.path.data(), request.path.size() - 1);
  return ask(&request, sizeof request);
}

LookingInto::LookingInto(NetworkHelper* helper) : helper_(helper) {
  if (helper_ != nullptr) now = helper_;
}
LookingInto::LookingInto(LookingInto&& other) noexcept : helper_(std::exchange(other.helper_, nullptr)) {}
LookingInto& LookingInto::operator=(LookingInto&& other) noexcept {
  if (this == &other) return *this;
  if (helper_ != nullptr) now = nullptr;
  helper_ = std::exchange(other.helper_, nullptr);
  if (helper_ != nullptr) now = helper_;
  return *this;
}
LookingInto::~LookingInto() {
  if (helper_ != nullptr) now = nullptr;
}

uint64_t network_view() { return now == nullptr ? 0 : now->number_; }

Fd network_socket(int domain, int type, int protocol) {
  return now != nullptr ? now->socket(domain, type, protocol) : Fd(::socket(domain, type, protocol));
}

std::string network_interface_name(unsigned index) {
  Fd fd = network_socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ifreq request = {};
  request.ifr_ifindex = static_cast<int>(index);
  if (!fd || ::ioctl(fd.get(), SIOCGIFNAME, &request) != 0) return {};
  request.ifr_name[IFNAMSIZ - 1] = 0;
  return request.ifr_name;
}

unsigned network_interface_index(const std::string& name) {
  Fd fd = network_socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ifreq request = {};
  name.copy(request.ifr_name, IFNAMSIZ - 1);
  if (!fd || ::ioctl(fd.get(), SIOCGIFINDEX, &request) != 0) return 0;
  return static_cast<unsigned>(request.ifr_ifindex);
}

Result<std::string> read_network_file(const std::string& name) {
  const std::string path = "/proc/thread-self/net/" + name;
  if (now == nullptr) return read_file(path);
  Fd fd = now->open(path);
  if (!fd) return errno_error("read", path);
  return read_all(fd.get());
}

}  // namespace stasis::kernel

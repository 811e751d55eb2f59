// What we believe of Linux, about networks and the descriptors of /dev/net/tun.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "child.h"

using beliefs::Child;

namespace {

int open_tap(const char* name, int flags) {
  int fd = open("/dev/net/tun", O_RDWR);
  ifreq request = {};
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_flags = static_cast<short>(IFF_TAP | flags);
  return fd >= 0 && ioctl(fd, TUNSETIFF, &request) == 0 ? fd : -1;
}

int flags_of(int tap) {
  ifreq request = {};
  return ioctl(tap, TUNGETIFF, &request) == 0 ? static_cast<uint16_t>(request.ifr_flags) : -1;
}

// What `look` finds in a network of its own; 77: it cannot be had here.
long in_new_network(long (*look)()) {
  static long (*looks)();
  looks = look;
  Child child([] {
    const bool entered = unshare(geteuid() == 0 ? CLONE_NEWNET : CLONE_NEWUSER | CLONE_NEWNET) == 0;
    Child::tell(!entered || access("/dev/net/tun", R_OK | W_OK) != 0 ? 77 : looks());
  });
  return child.told();
}

}  // namespace

// resource/tun: TUNGETIFF says "no packet information" and "no filter" by one bit, so the first is asked
// elsewhere.
TEST(Network, TwoFlagsOfATapDeviceAreOneBit) {
  const long found = in_new_network([]() -> long {
    int with = open_tap("with", 0), without = open_tap("without", IFF_NO_PI);
    sock_filter all = BPF_STMT(BPF_RET | BPF_K, 0xffff);
    sock_fprog program = {1, &all};
    long seen = 0;
    if ((flags_of(with) & IFF_NO_PI) != 0) seen |= 1;
    if (ioctl(with, TUNATTACHFILTER, &program) != 0) return -1;
    if ((flags_of(with) & IFF_NO_PI) == 0) seen |= 2;
    if (ioctl(without, TUNATTACHFILTER, &program) != 0) return -1;
    if ((flags_of(without) & IFF_NO_PI) != 0) seen |= 4;
    sock_fprog back = {};
    if (ioctl(without, TUNGETFILTER, &back) == 0 && back.len == 1 && back.filter == &all) seen |= 8;
    return seen;
  });
  if (found == 77) GTEST_SKIP() << "no network namespace, or no /dev/net/tun";
  EXPECT_EQ(found, 15);
}

// resource/tun: a device that persists lets go of its descriptor and takes another one; its number is chosen
// before.
TEST(Network, ATapDeviceChangesItsDescriptor) {
  const long found = in_new_network([]() -> long {
    int first = open("/dev/net/tun", O_RDWR);
    unsigned index = 77;
    ifreq request = {};
    strcpy(request.ifr_name, "tap");
    request.ifr_flags = IFF_TAP | IFF_NO_PI;
    if (ioctl(first, TUNSETIFINDEX, &index) != 0 || ioctl(first, TUNSETIFF, &request) != 0) return -1;
    if (ioctl(first, TUNSETPERSIST, 1UL) != 0 || open_tap("tap", IFF_NO_PI) >= 0) return -2;
    close(first);
    int second = open_tap("tap", IFF_NO_PI);
    if (second < 0 || if_nametoindex("tap") != 77) return -3;
    if (ioctl(second, TUNSETPERSIST, 0UL) != 0) return -4;
    close(second);
    return if_nametoindex("tap");
  });
  if (found == 77) GTEST_SKIP() << "no network namespace, or no /dev/net/tun";
  EXPECT_EQ(found, 0);
}

// inspect/namespaces: which network a descriptor of /dev/net/tun was opened in, and which its device is in.
TEST(Network, ATapDeviceTellsItsNetwork) {
  const long found = in_new_network([]() -> long {
    int tap = open_tap("tap", IFF_NO_PI);
    struct stat here = {}, of_descriptor = {}, of_device = {};
    if (stat("/proc/self/ns/net", &here) != 0) return -1;
    if (fstat(ioctl(tap, SIOCGSKNS), &of_descriptor) != 0 ||
        fstat(ioctl(tap, TUNGETDEVNETNS), &of_device) != 0)
      return -2;
    return here.st_ino == of_descriptor.st_ino && here.st_ino == of_device.st_ino ? 0 : 1;
  });
  if (found == 77) GTEST_SKIP() << "no network namespace, or no /dev/net/tun";
  EXPECT_EQ(found, 0);
}

// resource/socket/tcp: sockets of one network have the same cookie, and of another one another.
TEST(Network, TheCookieTellsNetworksApart) {
  constexpr int kCookie = 71;  // SO_NETNS_COOKIE
  static auto cookie_of = [](int socket) {
    uint64_t cookie = 0;
    socklen_t length = sizeof cookie;
    return getsockopt(socket, SOL_SOCKET, kCookie, &cookie, &length) == 0 ? cookie : 0;
  };
  static int outside = socket(AF_INET, SOCK_STREAM, 0);
  const long found = in_new_network([]() -> long {
    const uint64_t here = cookie_of(socket(AF_INET, SOCK_DGRAM, 0)),
                   again = cookie_of(socket(AF_INET6, SOCK_STREAM, 0));
    return here != 0 && here == again && here != cookie_of(outside) ? 0 : 1;
  });
  if (found == 77) GTEST_SKIP() << "no network namespace";
  EXPECT_EQ(found, 0);
}

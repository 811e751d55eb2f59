// Tun and tap devices: in a network of the session's own (--net=private), and in that of the host.
#include "networks.h"

CASE_WITH(private_tap, subject::kOwnNetwork) {
  need_own_network();
  int tap = open_tun("tap7", IFF_TAP | IFF_NO_PI);
  ip("link set tap7 address 02:00:00:00:07:07 up");
  ip("addr add 10.50.0.1/24 dev tap7");
  ip("neigh add 10.50.0.2 lladdr 02:00:00:00:07:08 dev tap7 nud permanent");
  const Lines before = settle();
  subject::hold();
  expect(before);
  expect_packets(tap, "10.50.0.1", "10.50.0.2", 0, ETH_HLEN);
  // It goes with its last descriptor.
  close(tap);
  CHECK(run("ip link show tap7").status != 0);
}
CASE_WITH(private_tun, subject::kOwnNetwork) {
  need_own_network();
  int tun = open_tun("tun7", IFF_TUN);
  int copy = dup(tun);
  fcntl(tun, F_SETFL, O_NONBLOCK);
  ip("link set tun7 up mtu 1300");
  ip("addr add 10.51.0.1/24 dev tun7");
  const Lines before = settle();
  subject::hold();
  expect(before);
  CHECK((fcntl(copy, F_GETFL) & O_NONBLOCK) != 0);
  expect_packets(copy, "10.51.0.1", "10.51.0.2", sizeof(tun_pi), sizeof(tun_pi));
}
CASE_WITH(private_tap_as_emulators_use_it, subject::kOwnNetwork) {
  need_own_network();
  unsigned flags = 0;
  int tap = open_tun("tap%d", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_ONE_QUEUE, &flags);
  int header = 12 /* virtio_net_hdr_mrg_rxbuf */, buffer = 777777, on = 1;
  const unsigned offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
  MUST(ioctl(tap, TUNSETVNETHDRSZ, &header) == 0 && ioctl(tap, TUNSETSNDBUF, &buffer) == 0);
  MUST(ioctl(tap, TUNSETOFFLOAD, offloads) == 0 && ioctl(tap, TUNSETVNETLE, &on) == 0);
  ip("link set tap0 up");
  ip("addr add 10.52.0.1/24 dev tap0");
  ip("neigh add 10.52.0.2 lladdr 02:00:00:00:07:08 dev tap0 nud permanent");
  const Lines before = settle(), features = run("ethtool -k tap0").lines;
  subject::hold();
  expect(before);
  CHECK(run("ethtool -k tap0").lines == features);
  int value = 0;
  CHECK_EQ(ioctl(tap, TUNGETVNETHDRSZ, &value), 0);
  CHECK_EQ(value, header);
  CHECK_EQ(ioctl(tap, TUNGETSNDBUF, &value), 0);
  CHECK_EQ(value, buffer);
  CHECK_EQ(ioctl(tap, TUNGETVNETLE, &value), 0);
  CHECK_EQ(value, 1);
  ifreq request = {};
  CHECK_EQ(ioctl(tap, TUNGETIFF, &request), 0);
  CHECK_EQ(strcmp(request.ifr_name, "tap0"), 0);
  CHECK_EQ(request.ifr_flags & IFF_VNET_HDR, IFF_VNET_HDR);
  expect_packets(tap, "10.52.0.1", "10.52.0.2", static_cast<size_t>(header), header + ETH_HLEN);
}
CASE_WITH(private_tap_with_queues, subject::kOwnNetwork) {
  need_own_network();
  constexpr int kFlags = IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE;
  int first = open_tun("tapq", kFlags), second = open_tun("tapq", kFlags), third = open_tun("tapq", kFlags);
  ifreq request = {};
  request.ifr_flags = IFF_DETACH_QUEUE;
  MUST(ioctl(second, TUNSETQUEUE, &request) == 0);
  ip("link set tapq up");
  const Lines before = settle();
  subject::hold();
  expect(before);
  for (int fd : {first, third}) {
    request = {};
    CHECK_EQ(ioctl(fd, TUNGETIFF, &request), 0);
    CHECK_EQ(request.ifr_flags & IFF_DETACH_QUEUE, 0);
  }
  request = {};
  CHECK_EQ(ioctl(second, TUNGETIFF, &request), 0);
  CHECK_EQ(request.ifr_flags & IFF_DETACH_QUEUE, IFF_DETACH_QUEUE);
  request = {};
  request.ifr_flags = IFF_ATTACH_QUEUE;
  CHECK_EQ(ioctl(second, TUNSETQUEUE, &request), 0);
}
CASE_WITH(private_tap_that_stays, subject::kOwnNetwork) {
  need_own_network();
  int tap = open_tun("tapp", IFF_TAP | IFF_NO_PI);
  MUST(ioctl(tap, TUNSETPERSIST, 1UL) == 0 &&
       ioctl(tap, TUNSETOWNER, static_cast<unsigned long>(getuid())) == 0);
  MUST(ioctl(tap, TUNSETGROUP, static_cast<unsigned long>(getgid())) == 0);
  int alone = open_tun("tapa", IFF_TAP | IFF_NO_PI);
  MUST(ioctl(alone, TUNSETPERSIST, 1UL) == 0);
  close(alone);
  ip("addr add 10.53.0.1/24 dev tapp");
  const Lines before = settle();
  subject::hold();
  expect(before);
  close(tap);
  CHECK_EQ(run("ip link show tapp").status, 0);
  CHECK_EQ(run("ip link show tapa").status, 0);
  alone = open_tun("tapa", IFF_TAP | IFF_NO_PI);
  CHECK(alone >= 0);
}
CASE_WITH(private_tun_attached_to_nothing, subject::kOwnNetwork) {
  need_own_network();
  int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (fd < 0) SKIP("/dev/net/tun cannot be opened");
  subject::hold();
  ifreq request = {};
  strcpy(request.ifr_name, "later");
  request.ifr_flags = IFF_TUN;
  CHECK_EQ(ioctl(fd, TUNSETIFF, &request), 0);
}
CASE_WITH(private_tap_in_a_bridge, subject::kOwnNetwork) {
  need_own_network();
  int tap = open_tun("tapb", IFF_TAP | IFF_NO_PI);
  ip("link add br0 type bridge");
  ip("link set tapb master br0 up");
  ip("link set br0 up");
  ip("addr add 10.54.0.1/24 dev br0");
  ip("neigh add 10.54.0.2 lladdr 02:00:00:00:07:08 dev br0 nud permanent");
  const Lines before = settle();
  subject::hold();
  expect(before);
  expect_packets(tap, "10.54.0.1", "10.54.0.2", 0, ETH_HLEN);
}

// In the network that the session shares with the host.
CASE_WITH(tap_of_the_host, subject::kBusy) {
  need_root();
  need_ip();
  // Names are the machine's.
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  const std::string number = std::to_string(1 + now.tv_nsec / 100);
  const std::string tap = "tap" + number, bridge = "br" + number;
  const int fd = open_tun(tap.c_str(), IFF_TAP | IFF_NO_PI);
  ip("link add " + bridge + " type bridge");
  ip("link set " + bridge + " up");
  ip("link set " + tap + " address 02:00:00:00:07:0b mtu 1300 up");
  ip("addr add 198.51.100.7/32 dev " + tap);
  ip("route add 203.0.113.0/29 dev " + tap + " metric " + number);
  ip("route add 203.0.113.8/29 dev " + tap + " table " + number);
  ip("link set " + tap + " master " + bridge);
  const auto of_tap = [&] {
    Lines all;
    for (const auto& command :
         {"ip -o addr show " + tap + " scope global", "ip route show table all dev " + tap,
          "ip -o link show " + tap + " | grep -o 'mtu.*'"}) {
      for (const auto& line : run(command).lines)
        all.push_back(line.substr(std::min(line.size(), line.find(": ") + 1)));
    }
    std::sort(all.begin(), all.end());
    return all;
  };
  settle();
  const Lines before = of_tap();
  MUST(before.size() >= 4);
  subject::hold();
  settle();
  expect(before, of_tap());
  // It goes with its last descriptor.
  close(fd);
  CHECK(run("ip link show " + tap).status != 0);
  ip("link del " + bridge);
}

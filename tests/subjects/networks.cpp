// What is in a network: of a session with --net=private, and of namespaces that the program makes for itself.
#include "networks.h"

// --- a session's own network. The same checkpoint runs twice at once, with the same ports.

CASE_WITH(private_ports, subject::kOwnNetwork) {
  need_own_network();
  Connection made = connect_over("127.0.0.1", 80);
  const int datagrams = socket(AF_INET, SOCK_DGRAM, 0);
  MUST(bind_to(datagrams, "127.0.0.1", 53));
  const int sender = socket(AF_INET, SOCK_DGRAM, 0);
  MUST(bind_to(sender, "127.0.0.1", 5353) && connect_to(sender, "127.0.0.1", 53) &&
       send(sender, "unread", 6, 0) == 6);
  MUST(write(made.server, "waiting", 7) == 7);
  subject::hold();
  expect_connected(made, "127.0.0.1", 80);
  char back[16] = {};
  CHECK_EQ(read(made.client, back, sizeof back), 7);
  CHECK_EQ(recv(datagrams, back, sizeof back, MSG_DONTWAIT), 6);
  CHECK_EQ(send(sender, "more", 4, 0), 4);
  CHECK_EQ(recv(datagrams, back, sizeof back, 0), 4);
}
CASE_WITH(private_rights, subject::kOwnNetwork) {
  need_own_network();
  subject::hold();
  ip("link add after type veth peer name other");
  ip("link set after up");
}
CASE_WITH(private_addresses, subject::kOwnNetwork) {
  need_own_network();
  ip("addr add 127.5.0.1/8 dev lo label lo:five");
  ip("addr add 10.1.2.3/32 dev lo");
  ip("-6 addr add fd00::1/64 dev lo");
  ip("link add left type veth peer name right");
  ip("link set left address 02:00:00:00:01:01 mtu 1400 txqueuelen 77 alias 'the left one' group 5");
  ip("link property add dev left altname a-much-longer-name-than-fifteen");
  ip("link set left up");
  ip("link set right up promisc on");
  ip("addr add 10.7.0.1/24 brd + dev left");
  ip("addr add 10.7.0.2/24 dev left");
  ip("addr add 10.8.0.1 peer 10.8.0.2/32 dev left");
  ip("addr add 10.9.0.1/24 dev left valid_lft 90000 preferred_lft 80000 noprefixroute");
  ip("-6 addr add fd01::1/64 dev left nodad");
  ip("-6 addr del $(ip -6 -o addr show dev right scope link | awk '{print $4}') dev right || true");
  const Lines before = settle();
  const int bound = socket(AF_INET, SOCK_STREAM, 0);
  MUST(bind_to(bound, "10.7.0.2", 80) && listen(bound, 1) == 0);
  subject::hold();
  expect(before);
  // What is left of the time that it lives.
  CHECK(
      run("ip addr show to 10.9.0.1 | grep -E 'valid_lft 8[0-9]{4}sec preferred_lft 7[0-9]{4}sec'").status ==
      0);
  const int client = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(connect_to(client, "10.7.0.2", 80));
}
CASE_WITH(private_routes, subject::kOwnNetwork) {
  need_own_network();
  ip("link add left type veth peer name right");
  ip("link set left up");
  ip("link set right up");
  ip("addr add 10.7.0.1/24 dev left");
  ip("addr add 10.6.0.1/24 dev right");
  ip("-6 addr add fd01::1/64 dev left nodad");
  ip("route add 10.20.0.0/16 via 10.7.0.9 metric 7");
  ip("route add 10.21.0.0/16 via 10.20.0.9 onlink dev left");
  ip("route add default nexthop via 10.7.0.7 dev left weight 2 nexthop via 10.6.0.7 dev right");
  ip("route add blackhole 10.30.0.0/16");
  ip("route add unreachable 10.31.0.0/16 table 77");
  ip("route add 10.32.0.0/16 dev left src 10.7.0.1 mtu 1300 advmss 1200 proto static");
  ip("route del 10.6.0.0/24 dev right");
  ip("route add 10.6.0.0/24 dev right metric 900");
  ip("-6 route add fd02::/64 via fd01::9 metric 55");
  ip("-6 route add default via fd01::8 table 78");
  ip("rule add from 10.7.0.0/24 lookup 77 pref 100");
  const std::string user = std::to_string(getuid());
  ip("rule add fwmark 0x7/0xf iif left uidrange " + user + "-" + user + " lookup 77 pref 101");
  ip("rule del pref 32767");
  ip("-6 rule add to fd02::/64 lookup 78 pref 100");
  ip("neigh add 10.7.0.9 lladdr 02:00:00:00:00:07 dev left nud permanent");
  ip("neigh add proxy 10.7.0.33 dev left");
  ip("-6 neigh add fd01::9 lladdr 02:00:00:00:00:08 dev left nud permanent");
  const Lines before = settle();
  subject::hold();
  expect(before);
}
CASE_WITH(private_bridge, subject::kOwnNetwork) {
  need_own_network();
  for (const char* name : {"one", "two"}) {
    ip(std::string("link add ") + name + " type veth peer name " + name + "p");
    ip(std::string("link set ") + name + " up");
    ip(std::string("link set ") + name + "p up");
  }
  ip("link add br0 type bridge forward_delay 200 ageing_time 12300 priority 100 mcast_snooping 0 "
     "group_fwd_mask 8");
  ip("link set br0 address 02:00:00:00:0b:00 up");
  ip("link set onep master br0");
  ip("link set twop master br0");
  ip("link set twop type bridge_slave hairpin on cost 77 learning off isolated on");
  ip("addr add 10.40.0.1/24 dev br0");
  MUST(run("bridge fdb add 02:11:22:33:44:55 dev onep master static").status == 0);
  const Lines before = settle();
  subject::hold();
  expect(before);
}
CASE_WITH(private_macvlan, subject::kOwnNetwork) {
  need_own_network();
  ip("link add low type veth peer name lowp");
  ip("link set low up");
  ip("link set lowp up");
  ip("link add mac0 link low type macvlan mode private");
  ip("link add mac1 link low address 02:00:00:00:0c:01 type macvlan mode bridge");
  ip("link set mac0 up");
  ip("link set mac1 up");
  ip("addr add 10.41.0.1/24 dev mac1");
  const Lines before = settle();
  subject::hold();
  expect(before);
}
CASE_WITH(private_vlan, subject::kOwnNetwork) {
  need_own_network();
  ip("link add low type veth peer name lowp");
  ip("link set low up");
  ip("link set lowp up");
  ip("link add link low name low.7 type vlan id 7 reorder_hdr off ingress-qos-map 1:2 egress-qos-map 3:4");
  ip("link set low.7 up");
  ip("addr add 10.42.0.1/24 dev low.7");
  const Lines before = settle();
  subject::hold();
  expect(before);
}
CASE_WITH(private_ipvlan, subject::kOwnNetwork) {
  need_own_network();
  ip("link add low type veth peer name lowp");
  ip("link set low up");
  ip("link set lowp up");
  ip("link add ipv0 link low type ipvlan mode l3");
  ip("link set ipv0 up");
  ip("addr add 10.43.0.1/24 dev ipv0");
  const Lines before = settle();
  subject::hold();
  expect(before);
}
CASE_WITH(private_dummy, subject::kOwnNetwork) {
  need_own_network();
  ip("link add dum0 type dummy");
  ip("link set dum0 up");
  ip("addr add 10.44.0.1/24 dev dum0");
  const Lines before = settle();
  subject::hold();
  expect(before);
}
// With numbers that are not those of their order.
CASE_WITH(private_numbers_of_interfaces, subject::kOwnNetwork) {
  need_own_network();
  ip("link add gone type veth peer name gonep");
  ip("link add late index 77 type veth peer name latep index 33");
  ip("link add early index 12 type veth peer name earlyp");
  ip("link del gone");
  const Lines before = settle();
  subject::hold();
  expect(before);
}
CASE_WITH(private_settings, subject::kOwnNetwork) {
  need_own_network();
  ip("link add left type veth peer name right");
  const std::pair<const char*, const char*> kSettings[] = {
      {"ipv4/ip_forward", "1"},
      {"ipv4/conf/left/forwarding", "0"},
      {"ipv4/conf/default/rp_filter", "2"},
      {"ipv4/conf/left/rp_filter", "1"},
      {"ipv4/conf/all/arp_ignore", "1"},
      {"ipv4/ip_unprivileged_port_start", "80"},
      {"ipv4/ip_local_port_range", "40000\t41000"},
      {"ipv4/tcp_keepalive_time", "123"},
      {"ipv6/conf/all/forwarding", "1"},
      {"ipv6/conf/left/accept_ra", "2"},
      {"ipv6/conf/right/disable_ipv6", "1"},
      {"ipv6/conf/left/dad_transmits", "0"},
      {"core/somaxconn", "77"},
      {"unix/max_dgram_qlen", "33"},
  };
  for (const auto& [name, value] : kSettings) {
    int fd = open((std::string("/proc/sys/net/") + name).c_str(), O_WRONLY | O_CLOEXEC);
    // An ordinary user's network does not show all of them.
    if (fd < 0 || write(fd, value, strlen(value)) != static_cast<ssize_t>(strlen(value)))
      subject::say("(not to be set here: %s)", name);
    close(fd);
  }
  ip("link set left up");
  ip("link set right up");
  const Lines before = settle();
  subject::hold();
  expect(before);
}

// --- networks that the program makes for itself

namespace {

// A child in a network of its own, which does `set_up`, waits, and then `verify`.
template <typename SetUp, typename Verify>
pid_t in_network(const char* name, SetUp set_up, Verify verify) {
  const std::string made = std::string(name) + ".made", done = std::string(name) + ".set";
  pid_t pid = subject::child([=] {
    MUST(unshare(CLONE_NEWNET) == 0);
    subject::mark(made.c_str());
    set_up();
    subject::mark(done.c_str());
    subject::await("go");
    verify();
  });
  subject::await(made.c_str());
  return pid;
}

}  // namespace

CASE(content_of_a_network) {
  need_root();
  need_ip();
  MUST(unshare(CLONE_NEWNET) == 0);
  ip("link set lo up");
  ip("link add left type veth peer name right");
  ip("link set left up");
  ip("link set right up");
  ip("addr add 10.7.0.1/24 dev left");
  ip("route add default via 10.7.0.9");
  int tap = open_tun("tap7", IFF_TAP | IFF_NO_PI);
  ip("link set tap7 up");
  ip("addr add 10.50.0.1/24 dev tap7");
  ip("neigh add 10.50.0.2 lladdr 02:00:00:00:07:08 dev tap7 nud permanent");
  const Lines before = settle();
  const Connection made = connect_over("10.7.0.1", 80);
  subject::hold();
  expect(before);
  expect_connected(made, "10.7.0.1", 80);
  expect_packets(tap, "10.50.0.1", "10.50.0.2", 0, ETH_HLEN);
}
CASE(network_that_is_down) {
  need_root();
  need_ip();
  MUST(unshare(CLONE_NEWNET) == 0);
  const Lines before = settle();
  subject::hold();
  expect(before);
}
CASE(private_two_networks) {
  need_root();
  need_ip();
  auto both = [] {
    const Lines before = settle();
    return before;
  };
  int pipes[2];
  MUST(pipe(pipes) == 0);
  auto serve = [](const char* address) {
    const int fd = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(bind_to(fd, address, 7));
    return fd;
  };
  // The same ports and addresses of loopback in both.
  auto connection = [] { return connect_over("127.0.0.1", 80); };
  static Connection here;
  static int far;  // the end of a connection with the other network
  static int datagrams;
  static Lines seen;
  pid_t first = in_network(
      "first",
      [&] {
        subject::await("linked");
        ip("link set lo up");
        ip("addr add 10.60.0.1/24 dev eth0");
        ip("link set eth0 up");
        datagrams = serve("10.60.0.1");
        here = connection();
        const int listener = socket(AF_INET, SOCK_STREAM, 0);
        MUST(bind_to(listener, "10.60.0.1", 80) && listen(listener, 4) == 0);
        subject::mark("listening");
        far = accept(listener, nullptr, nullptr);
        MUST(far >= 0 && write(far, "unread", 6) == 6);
        close(listener);
        seen = both();
      },
      [&] {
        expect(seen);
        expect_connected(here, "127.0.0.1", 80);
        char answer[8] = {};
        CHECK_EQ(read(far, answer, 8), 6);
        CHECK_EQ(memcmp(answer, "answer", 6), 0);
        const sockaddr_in to = address_of("10.60.0.2", 7);
        char back[8] = {};
        for (int i = 0; i < 100; ++i) {
          sendto(datagrams, "hello", 5, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to);
          pollfd state = {datagrams, POLLIN, 0};
          if (poll(&state, 1, 100) == 1) break;
        }
        CHECK_EQ(recv(datagrams, back, 8, MSG_DONTWAIT), 5);
      });
  pid_t second = in_network(
      "second",
      [&] {
        subject::await("linked");
        ip("link set lo up");
        ip("addr add 10.60.0.2/24 dev eth0");
        ip("link set eth0 up");
        ip("link add mac0 link eth0 type macvlan mode bridge");
        ip("link set mac0 up");
        datagrams = serve("10.60.0.2");
        here = connection();
        subject::await("listening");
        far = socket(AF_INET, SOCK_STREAM, 0);
        MUST(connect_to(far, "10.60.0.1", 80));
        seen = both();
      },
      [&] {
        expect(seen);
        expect_connected(here, "127.0.0.1", 80);
        char unread[8] = {};
        CHECK_EQ(read(far, unread, 8), 6);
        CHECK_EQ(memcmp(unread, "unread", 6), 0);
        CHECK_EQ(write(far, "answer", 6), 6);
        sockaddr_in from = {};
        socklen_t length = sizeof from;
        char back[8] = {};
        CHECK_EQ(recvfrom(datagrams, back, 8, 0, reinterpret_cast<sockaddr*>(&from), &length), 5);
        CHECK_EQ(sendto(datagrams, back, 5, 0, reinterpret_cast<sockaddr*>(&from), length), 5);
      });
  char command[200];
  snprintf(command, sizeof command, "link add eth0 netns %d type veth peer name eth0 netns %d", first,
           second);
  ip(command);
  subject::mark("linked");
  subject::await("first.set");
  subject::await("second.set");
  subject::hold();
  JOIN(first);
  JOIN(second);
}

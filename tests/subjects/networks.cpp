// What is in a network: of a session with --net=private, and of namespaces that the program makes for itself.
// Set up and looked at by ip(8), which knows nothing of how the engine does it.
#include <arpa/inet.h>
#include <linux/if.h>
#include <linux/if_ether.h>
#include <linux/if_tun.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <string>
#include <vector>

#include "subject.h"

namespace {

using Lines = std::vector<std::string>;

struct Said {
  int status = -1;
  Lines lines;
};

Said run(const std::string& command) {
  Said said;
  FILE* pipe = popen(("PATH=/usr/sbin:/usr/bin:/sbin:/bin; " + command + " 2>&1").c_str(), "re");
  MUST(pipe != nullptr);
  char line[4096];
  while (fgets(line, sizeof line, pipe) != nullptr) said.lines.emplace_back(line);
  said.status = pclose(pipe);
  return said;
}

// A step of the set-up. Not every kernel has every kind of interface.
void ip(const std::string& command) {
  const Said said = run("ip " + command);
  if (said.status == 0) return;
  for (const auto& line : said.lines) {
    if (line.find("Unknown device type") != std::string::npos ||
        line.find("not supported") != std::string::npos)
      SKIP("this kernel does not have this kind of interface");
    subject::say("ip %s: %s", command.c_str(), line.c_str());
  }
  MUST(!"ip");
}

void need_ip() {
  if (run("ip link").status != 0) SKIP("ip(8) is missing");
}
// The network of the host is not ours to change.
void need_own_network() {
  need_ip();
  if (run("ip -o link").lines.size() != 1) SKIP("not in a network of its own");
}
void need_root() {
  if (geteuid() != 0) SKIP("not root");
}

// The word behind this one, and both of them, if it is a number.
void leave_out(std::string& line, const std::string& word) {
  for (size_t at = 0; (at = line.find(word + " ", at)) != std::string::npos;) {
    size_t end = line.find_first_not_of(" ", at + word.size());
    end = std::min(line.find(' ', end), line.size());
    line.erase(at, end - at);
  }
}

// All that there is in the network, without what passes by itself.
Lines look() {
  Lines all;
  for (const char* command :
       {"ip -d link", "ip addr", "ip -4 route show table all", "ip -6 route show table all", "ip -4 rule",
        "ip -6 rule", "ip neigh show nud permanent", "ip neigh show proxy", "bridge fdb show",
        "ip netns list-id", "grep -rs '' /proc/sys/net"}) {
    for (std::string line : run(command).lines) {
      for (const char* word :
           {"gc_timer", "hold_timer", "message_age_timer", "forward_delay_timer", "hello_timer",
            "topology_change_timer", "tcn_timer", "expires", "valid_lft", "preferred_lft"})
        leave_out(line, word);
      // Learnt, and learnt again.
      if (strncmp(command, "bridge", 6) == 0 && line.find("permanent") == std::string::npos &&
          line.find("static") == std::string::npos)
        continue;
      // That its carrier is not known is said of an interface which never lost it.
      if (size_t at = line.find("state UNKNOWN"); at != std::string::npos) line.replace(at, 13, "state UP");
      if (line.find("/proc/sys/net/netfilter/nf_conntrack_count") != std::string::npos) continue;
      all.push_back(line);
    }
  }
  std::sort(all.begin(), all.end());
  return all;
}

void expect(const Lines& before) {
  const Lines after = look();
  Lines lost, found;
  std::set_difference(before.begin(), before.end(), after.begin(), after.end(), std::back_inserter(lost));
  std::set_difference(after.begin(), after.end(), before.begin(), before.end(), std::back_inserter(found));
  for (const auto& line : lost) subject::say("- %s", line.c_str());
  for (const auto& line : found) subject::say("+ %s", line.c_str());
  CHECK_EQ(lost.size() + found.size(), 0u);
}

// Until addresses are tried out and carriers are seen.
Lines settle() {
  Lines before;
  for (int quiet = 0, i = 0; quiet < 3 && i < 60; ++i) {
    Lines now = look();
    const bool busy = std::any_of(now.begin(), now.end(), [](const std::string& line) {
      return line.find("tentative") != std::string::npos;
    });
    quiet = !busy && now == before ? quiet + 1 : 0;
    before = std::move(now);
    subject::pass(100);
  }
  return before;
}

sockaddr_in address_of(const char* host, uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  MUST(inet_pton(AF_INET, host, &address.sin_addr) == 1);
  return address;
}
bool bind_to(int fd, const char* host, uint16_t port) {
  const sockaddr_in address = address_of(host, port);
  return bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}
bool connect_to(int fd, const char* host, uint16_t port) {
  const sockaddr_in address = address_of(host, port);
  return connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

struct Connection {
  int listener, client, server;
};
Connection connect_over(const char* host, uint16_t port) {
  Connection made = {socket(AF_INET, SOCK_STREAM, 0), socket(AF_INET, SOCK_STREAM, 0), -1};
  MUST(bind_to(made.listener, host, port) && listen(made.listener, 4) == 0);
  MUST(connect_to(made.client, host, port));
  made.server = accept(made.listener, nullptr, nullptr);
  MUST(made.server >= 0);
  return made;
}
void expect_connected(const Connection& made, const char* host, uint16_t port) {
  char back[8] = {};
  CHECK_EQ(write(made.client, "again", 5), 5);
  CHECK_EQ(read(made.server, back, 8), 5);
  const int second = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(connect_to(second, host, port));
  close(second);
}

int open_tun(const char* name, int flags, unsigned* features = nullptr) {
  int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (fd < 0) SKIP("/dev/net/tun cannot be opened");
  ifreq request = {};
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_flags = static_cast<short>(flags);
  MUST(ioctl(fd, TUNSETIFF, &request) == 0);
  if (features != nullptr) *features = static_cast<uint16_t>(request.ifr_flags);
  return fd;
}

// A packet by the way of the interface: out to whoever has the descriptor, and in again.
void expect_packets(int fd, const char* here, const char* there, size_t before, int payload_at) {
  const int sender = socket(AF_INET, SOCK_DGRAM, 0);
  CHECK(bind_to(sender, here, 5000));
  const sockaddr_in to = address_of(there, 6000);
  CHECK_EQ(sendto(sender, "packet", 6, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to), 6);
  char frame[2048];
  ssize_t count = 0;
  // The interface has other things to say, too.
  for (int i = 0; i < 100; ++i) {
    pollfd state = {fd, POLLIN, 0};
    if (poll(&state, 1, 2000) != 1) break;
    count = read(fd, frame, sizeof frame);
    if (count > payload_at + 28 && memcmp(frame + payload_at + 28, "packet", 6) == 0) break;
    count = 0;
  }
  CHECK(count > 0);
  if (count <= 0) return;
  // Back with addresses and ports exchanged; the sums stay right.
  char* header = frame + payload_at;
  char swap[4];
  memcpy(swap, header + 12, 4);
  memcpy(header + 12, header + 16, 4);
  memcpy(header + 16, swap, 4);
  memcpy(swap, header + 20, 2);
  memcpy(header + 20, header + 22, 2);
  memcpy(header + 22, swap, 2);
  if (payload_at >= static_cast<int>(before) + ETH_HLEN) {
    char* ethernet = frame + payload_at - ETH_HLEN;
    char address[ETH_ALEN];
    memcpy(address, ethernet, ETH_ALEN);
    memcpy(ethernet, ethernet + ETH_ALEN, ETH_ALEN);
    memcpy(ethernet + ETH_ALEN, address, ETH_ALEN);
  }
  CHECK_EQ(write(fd, frame, static_cast<size_t>(count)), count);
  char back[16] = {};
  pollfd state = {sender, POLLIN, 0};
  CHECK_EQ(poll(&state, 1, 2000), 1);
  CHECK_EQ(recv(sender, back, sizeof back, MSG_DONTWAIT), 6);
  CHECK_EQ(memcmp(back, "packet", 6), 0);
  close(sender);
}

}  // namespace

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

// --- tun and tap

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

// In the network that the session shares with the host.
CASE_WITH(tap_of_the_host, subject::kBusy) {
  if (geteuid() != 0) SKIP("only root makes interfaces");
  const std::string number = std::to_string(subject::milliseconds() % 10000000);
  const std::string tap = "tap" + number, bridge = "br" + number;
  const int fd = open_tun(tap.c_str(), IFF_TAP | IFF_NO_PI);
  ip("link add " + bridge + " type bridge");
  ip("link set " + tap + " address 02:00:00:00:07:0b mtu 1300 up");
  ip("addr add 198.51.100.7/32 dev " + tap);
  ip("link set " + tap + " master " + bridge);
  const auto of_tap = [&] {
    Lines lines = run("ip -o addr show " + tap + " scope global").lines;
    for (const auto& line : run("ip -o link show " + tap).lines)
      lines.push_back(line.substr(line.find(": ") + 2));
    for (auto& line : lines) line = line.substr(line.find("tap"));
    return lines;
  };
  settle();
  const Lines before = of_tap();
  subject::hold();
  settle();
  const Lines after = of_tap();
  CHECK(before == after);
  for (const auto& line : before != after ? after : Lines()) subject::say("%s", line.c_str());
  for (const auto& line : before != after ? before : Lines()) subject::say("before: %s", line.c_str());
  // It goes with its last descriptor.
  close(fd);
  CHECK(run("ip link show " + tap).status != 0);
  ip("link del " + bridge);
}

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

// A network, set up and looked at by ip(8), which knows nothing of how the engine does it.
#pragma once

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

using Lines = std::vector<std::string>;

struct Said {
  int status = -1;
  Lines lines;
};

inline Said run(const std::string& command) {
  Said said;
  FILE* pipe = popen(("PATH=/usr/sbin:/usr/bin:/sbin:/bin; " + command + " 2>&1").c_str(), "re");
  MUST(pipe != nullptr);
  char line[4096];
  while (fgets(line, sizeof line, pipe) != nullptr) said.lines.emplace_back(line);
  said.status = pclose(pipe);
  return said;
}

// A step of the set-up. Not every kernel has every kind of interface.
inline void ip(const std::string& command) {
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

inline void need_ip() {
  if (run("ip link").status != 0) SKIP("ip(8) is missing");
}
// The network of the host is not ours to change.
inline void need_own_network() {
  need_ip();
  if (run("ip -o link").lines.size() != 1) SKIP("not in a network of its own");
}
inline void need_root() {
  if (geteuid() != 0) SKIP("not root");
}

// The word behind this one, and both of them, if it is a number.
inline void leave_out(std::string& line, const std::string& word) {
  for (size_t at = 0; (at = line.find(word + " ", at)) != std::string::npos;) {
    size_t end = line.find_first_not_of(" ", at + word.size());
    end = std::min(line.find(' ', end), line.size());
    line.erase(at, end - at);
  }
}

// All that there is in the network, without what passes by itself.
inline Lines look() {
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

inline void expect(const Lines& before, const Lines& after) {
  Lines lost, found;
  std::set_difference(before.begin(), before.end(), after.begin(), after.end(), std::back_inserter(lost));
  std::set_difference(after.begin(), after.end(), before.begin(), before.end(), std::back_inserter(found));
  for (const auto& line : lost) subject::say("- %s", line.c_str());
  for (const auto& line : found) subject::say("+ %s", line.c_str());
  CHECK_EQ(lost.size() + found.size(), 0u);
}
inline void expect(const Lines& before) { expect(before, look()); }

// Until addresses are tried out and carriers are seen.
inline Lines settle() {
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

inline sockaddr_in address_of(const char* host, uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  MUST(inet_pton(AF_INET, host, &address.sin_addr) == 1);
  return address;
}
inline bool bind_to(int fd, const char* host, uint16_t port) {
  const sockaddr_in address = address_of(host, port);
  return bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}
inline bool connect_to(int fd, const char* host, uint16_t port) {
  const sockaddr_in address = address_of(host, port);
  return connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

struct Connection {
  int listener, client, server;
};
inline Connection connect_over(const char* host, uint16_t port) {
  Connection made = {socket(AF_INET, SOCK_STREAM, 0), socket(AF_INET, SOCK_STREAM, 0), -1};
  MUST(bind_to(made.listener, host, port) && listen(made.listener, 4) == 0);
  MUST(connect_to(made.client, host, port));
  made.server = accept(made.listener, nullptr, nullptr);
  MUST(made.server >= 0);
  return made;
}
inline void expect_connected(const Connection& made, const char* host, uint16_t port) {
  char back[8] = {};
  CHECK_EQ(write(made.client, "again", 5), 5);
  CHECK_EQ(read(made.server, back, 8), 5);
  const int second = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(connect_to(second, host, port));
  close(second);
}

inline int open_tun(const char* name, int flags, unsigned* features = nullptr) {
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
inline void expect_packets(int fd, const char* here, const char* there, size_t before, int payload_at) {
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

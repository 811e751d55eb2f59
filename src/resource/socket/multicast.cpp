#include "resource/socket/multicast.h"

#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <sstream>
#include <vector>

#include "kernel/network_view.h"
#include "resource/refusal.h"
#include "resource/socket/socket.h"
#include "stasis/fd.h"

namespace stasis::resource {
namespace {

constexpr size_t kMostSources = 64;  // of one group

struct Candidate {
  int family;
  std::string device;
  sockaddr_storage group;
};

// "2\teth0      :     1      V3" and below it "\t\t\t\t010000E0     1 0:00000000\t\t0".
void read_igmp(std::vector<Candidate>& found) {
  auto text = kernel::read_network_file("igmp");
  if (!text.ok()) return;
  std::istringstream lines(*text);
  std::string device, word;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    if (!line.empty() && line[0] != '\t') {
      words >> word >> device;
      continue;
    }
    if (!(words >> word)) continue;
    Candidate& candidate = found.emplace_back(Candidate{AF_INET, device, {}});
    auto* in = reinterpret_cast<sockaddr_in*>(&candidate.group);
    in->sin_family = AF_INET;
    in->sin_addr.s_addr = static_cast<in_addr_t>(strtoul(word.c_str(), nullptr, 16));
  }
}

// "1    lo              ff020000000000000000000000000001     1 0000000C 0".
void read_igmp6(std::vector<Candidate>& found) {
  auto text = kernel::read_network_file("igmp6");
  if (!text.ok()) return;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string index, device, group;
    if (!(words >> index >> device >> group) || group.size() != 32) continue;
    Candidate& candidate = found.emplace_back(Candidate{AF_INET6, device, {}});
    auto* in6 = reinterpret_cast<sockaddr_in6*>(&candidate.group);
    in6->sin6_family = AF_INET6;
    for (size_t i = 0; i < 16; ++i)
      in6->sin6_addr.s6_addr[i] = static_cast<uint8_t>(strtoul(group.substr(2 * i, 2).c_str(), nullptr, 16));
  }
}

int level_of(int family) { return family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6; }
size_t length_of(int family) { return family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6); }

void take(const std::string& bytes, sockaddr_storage& out) {
  memcpy(&out, bytes.data(), std::min(bytes.size(), sizeof out));
}

// struct group_filter with room for sources.
struct Filter {
  alignas(group_filter) std::array<char, GROUP_FILTER_SIZE(kMostSources)> bytes = {};
  group_filter* get() { return reinterpret_cast<group_filter*>(bytes.data()); }
};

}  // namespace

void observe_memberships(const OpenFile& file, Memberships& memberships) {
  const int fd = file.duplicate.get();
  const int domain = socket_option(fd, SOL_SOCKET, SO_DOMAIN);
  std::vector<Candidate> candidates;
  read_igmp(candidates);
  if (domain == AF_INET6) read_igmp6(candidates);
  for (const Candidate& candidate : candidates) {
    Filter filter;
    filter.get()->gf_interface = kernel::network_interface_index(candidate.device);
    filter.get()->gf_group = candidate.group;
    filter.get()->gf_numsrc = kMostSources;
    socklen_t length = filter.bytes.size();
    if (getsockopt(fd, level_of(candidate.family), MCAST_MSFILTER, filter.get(), &length) < 0) continue;
    auto* out = memberships.Add();
    const size_t size = length_of(candidate.family);
    out->set_group(&candidate.group, size);
    out->set_device(candidate.device);
    out->set_only_listed(filter.get()->gf_fmode == MCAST_INCLUDE);
    for (uint32_t i = 0; i < std::min<uint32_t>(filter.get()->gf_numsrc, kMostSources); ++i)
      out->add_sources(&filter.get()->gf_slist[i], size);
  }
}

Result<void> join_groups(const Record& record, int fd, const Memberships& memberships) {
  for (const auto& membership : memberships) {
    group_req request = {};
    request.gr_interface = if_nametoindex(membership.device().c_str());
    take(membership.group(), request.gr_group);
    const int level = level_of(request.gr_group.ss_family);
    if (request.gr_interface == 0 || setsockopt(fd, level, MCAST_JOIN_GROUP, &request, sizeof request) < 0) {
      return cannot_make(record, "join a multicast group on " + membership.device(), errno,
                         "the interface is needed under its old name");
    }
    if (!membership.only_listed() && membership.sources_size() == 0) continue;
    Filter filter;
    filter.get()->gf_interface = request.gr_interface;
    filter.get()->gf_group = request.gr_group;
    filter.get()->gf_fmode = membership.only_listed() ? MCAST_INCLUDE : MCAST_EXCLUDE;
    uint32_t sources = 0;
    for (const auto& source : membership.sources()) {
      if (sources < kMostSources) take(source, filter.get()->gf_slist[sources++]);
    }
    filter.get()->gf_numsrc = sources;
    if (setsockopt(fd, level, MCAST_MSFILTER, filter.get(), GROUP_FILTER_SIZE(sources)) < 0)
      return cannot_make(record, "MCAST_MSFILTER");
  }
  return {};
}

}  // namespace stasis::resource

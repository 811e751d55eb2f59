#include "kernel/network.h"

#include <linux/capability.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace stasis::kernel {
namespace {

// Newer than the C library's headers: linux/if_link.h.
constexpr uint16_t kGsoMaxSizeOfIpv4 = 63, kGroMaxSizeOfIpv4 = 64;
constexpr uint16_t kMostLearned = 49;     // IFLA_BR_FDB_MAX_LEARNED
constexpr uint16_t kMacBypass = 42;       // IFLA_BRPORT_MAB
constexpr uint16_t kBroadcastCutoff = 9;  // IFLA_MACVLAN_BC_CUTOFF

constexpr uint16_t kSettings[] = {
    IFLA_ADDRESS,      IFLA_BROADCAST,    IFLA_MTU,          IFLA_TXQLEN,       IFLA_LINKMODE,
    IFLA_IFALIAS,      IFLA_GROUP,        IFLA_GSO_MAX_SEGS, IFLA_GSO_MAX_SIZE, IFLA_GRO_MAX_SIZE,
    kGsoMaxSizeOfIpv4, kGroMaxSizeOfIpv4, IFLA_PROTO_DOWN,
};

constexpr uint16_t kBridge[] = {
    IFLA_BR_FORWARD_DELAY,
    IFLA_BR_HELLO_TIME,
    IFLA_BR_MAX_AGE,
    IFLA_BR_AGEING_TIME,
    IFLA_BR_STP_STATE,
    IFLA_BR_PRIORITY,
    IFLA_BR_VLAN_PROTOCOL,
    IFLA_BR_GROUP_FWD_MASK,
    IFLA_BR_GROUP_ADDR,
    IFLA_BR_MCAST_ROUTER,
    IFLA_BR_MCAST_SNOOPING,
    IFLA_BR_MCAST_QUERY_USE_IFADDR,
    IFLA_BR_MCAST_QUERIER,
    IFLA_BR_MCAST_HASH_MAX,
    IFLA_BR_MCAST_LAST_MEMBER_CNT,
    IFLA_BR_MCAST_STARTUP_QUERY_CNT,
    IFLA_BR_MCAST_LAST_MEMBER_INTVL,
    IFLA_BR_MCAST_MEMBERSHIP_INTVL,
    IFLA_BR_MCAST_QUERIER_INTVL,
    IFLA_BR_MCAST_QUERY_INTVL,
    IFLA_BR_MCAST_QUERY_RESPONSE_INTVL,
    IFLA_BR_MCAST_STARTUP_QUERY_INTVL,
    IFLA_BR_NF_CALL_IPTABLES,
    IFLA_BR_NF_CALL_IP6TABLES,
    IFLA_BR_NF_CALL_ARPTABLES,
    IFLA_BR_VLAN_DEFAULT_PVID,
    IFLA_BR_VLAN_STATS_ENABLED,
    IFLA_BR_MCAST_STATS_ENABLED,
    IFLA_BR_MCAST_IGMP_VERSION,
    IFLA_BR_MCAST_MLD_VERSION,
    IFLA_BR_VLAN_STATS_PER_PORT,
    IFLA_BR_MULTI_BOOLOPT,
    kMostLearned,
};
constexpr uint16_t kBridgePort[] = {
    IFLA_BRPORT_PRIORITY,
    IFLA_BRPORT_COST,
    IFLA_BRPORT_MODE,
    IFLA_BRPORT_GUARD,
    IFLA_BRPORT_PROTECT,
    IFLA_BRPORT_FAST_LEAVE,
    IFLA_BRPORT_LEARNING,
    IFLA_BRPORT_UNICAST_FLOOD,
    IFLA_BRPORT_PROXYARP,
    IFLA_BRPORT_PROXYARP_WIFI,
    IFLA_BRPORT_MULTICAST_ROUTER,
    IFLA_BRPORT_MCAST_FLOOD,
    IFLA_BRPORT_MCAST_TO_UCAST,
    IFLA_BRPORT_VLAN_TUNNEL,
    IFLA_BRPORT_BCAST_FLOOD,
    IFLA_BRPORT_GROUP_FWD_MASK,
    IFLA_BRPORT_NEIGH_SUPPRESS,
    IFLA_BRPORT_ISOLATED,
    IFLA_BRPORT_BACKUP_PORT,
    IFLA_BRPORT_MCAST_EHT_HOSTS_LIMIT,
    IFLA_BRPORT_LOCKED,
    kMacBypass,
};
constexpr uint16_t kVlan[] = {IFLA_VLAN_ID, IFLA_VLAN_FLAGS, IFLA_VLAN_EGRESS_QOS, IFLA_VLAN_INGRESS_QOS,
                              IFLA_VLAN_PROTOCOL};
constexpr uint16_t kMacvlan[] = {IFLA_MACVLAN_MODE, IFLA_MACVLAN_FLAGS, IFLA_MACVLAN_BC_QUEUE_LEN,
                                 kBroadcastCutoff};
constexpr uint16_t kIpvlan[] = {IFLA_IPVLAN_MODE, IFLA_IPVLAN_FLAGS};

constexpr LinkKind kKinds[] = {
    {"", {}},        {"dummy", {}},         {"ifb", {}},
    {"veth", {}},    {"tun", {}},           {"bridge", kBridge},
    {"vlan", kVlan}, {"macvlan", kMacvlan}, {"ipvlan", kIpvlan},
};

}  // namespace

const LinkKind* find_link_kind(std::string_view name) {
  const auto* found = std::find_if(std::begin(kKinds), std::end(kKinds),
                                   [&](const LinkKind& kind) { return kind.name == name; });
  return found == std::end(kKinds) ? nullptr : found;
}

std::span<const uint16_t> link_settings() { return kSettings; }
std::span<const uint16_t> bridge_port_settings() { return kBridgePort; }

std::span<const uint16_t> address_attributes() {
  constexpr uint16_t kProtocol = 11;  // IFA_PROTO, Linux 5.18
  static constexpr uint16_t kAttributes[] = {IFA_ADDRESS, IFA_LOCAL,       IFA_LABEL, IFA_BROADCAST,
                                             IFA_FLAGS,   IFA_RT_PRIORITY, kProtocol};
  return kAttributes;
}

bool is_fallback_link(std::string_view name) {
  constexpr std::string_view kAlways[] = {"sit0",    "tunl0",   "gre0",    "gretap0", "erspan0",
                                          "ip6tnl0", "ip6gre0", "ip_vti0", "ip6_vti0"};
  return std::find(std::begin(kAlways), std::end(kAlways), name) != std::end(kAlways);
}

bool has_administrator_rights() {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  return ::syscall(SYS_capget, &header, data) == 0 && (data[0].effective & (1U << CAP_SYS_ADMIN)) != 0;
}

uint64_t network_cookie(int socket) {
  constexpr int kCookie = 71;  // SO_NETNS_COOKIE
  uint64_t cookie = 0;
  socklen_t length = sizeof cookie;
  return ::getsockopt(socket, SOL_SOCKET, kCookie, &cookie, &length) == 0 ? cookie : 0;
}

uint64_t network_cookie() {
  Fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  return network_cookie(fd.get());
}

Result<void> raise_loopback() {
  constexpr const char* kStep = "raise the loopback interface";
  Fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request = {};
  std::strcpy(request.ifr_name, "lo");
  if (!fd || ::ioctl(fd.get(), SIOCGIFFLAGS, &request) != 0) return errno_error(kStep, "lo");
  request.ifr_flags |= IFF_UP;
  if (::ioctl(fd.get(), SIOCSIFFLAGS, &request) != 0) return errno_error(kStep, "lo");
  return {};
}

}  // namespace stasis::kernel

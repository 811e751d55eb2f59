#include "resource/tun.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstring>

#include "kernel/ethtool.h"
#include "kernel/network.h"
#include "kernel/network_view.h"
#include "kernel/proc.h"
#include "kernel/rtnetlink.h"
#include "resource/payload.h"
#include "resource/refusal.h"
#include "resource/reopen.h"
#include "resource/tun_interface.h"
#include "schema/kinds/tun.pb.h"

namespace stasis::resource {
namespace {

// Documentation/admin-guide/devices.txt
constexpr unsigned kMisc = 10, kTunMinor = 200;

// Linux 6.16; linux/if_tun.h. By which features of the interface each TUN_F_* shows, in the driver's
// set_offload(): those for UFO and for one family alone do nothing.
struct Offload {
  uint32_t flags;
  const char* feature;
};
constexpr uint32_t kUso = 0x20 | 0x40, kTunnel = 0x80, kTunnelChecksum = 0x100;
constexpr Offload kOffloads[] = {
    {TUN_F_CSUM, "tx-checksum-ip-generic"},
    {TUN_F_TSO4, "tx-tcp-segmentation"},
    {TUN_F_TSO6, "tx-tcp6-segmentation"},
    {TUN_F_TSO_ECN, "tx-tcp-ecn-segmentation"},
    {kUso, "tx-udp-segmentation"},
    {kTunnel, "tx-udp_tnl-segmentation"},
    {kTunnelChecksum, "tx-udp_tnl-csum-segmentation"},
};

// What TUNSETIFF takes; that a device is persistent, or detached, is set otherwise.
constexpr uint32_t kAttachFlags =
    IFF_TUN | IFF_TAP | IFF_NAPI | IFF_NAPI_FRAGS | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
static_assert(IFF_NO_PI == IFF_NOFILTER);

const char* mode_of(uint32_t flags) { return (flags & IFF_TAP) != 0 ? "tap" : "tun"; }

ifreq request_for(const std::string& device, uint32_t flags) {
  ifreq request = {};
  device.copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_flags = static_cast<short>(flags);
  return request;
}

uint64_t identity_of(const Fd& network) {
  struct stat status = {};
  return network && fstat(network.get(), &status) == 0 ? status.st_ino : 0;
}

enum class Network {
  kOwn,         // is made again with its interfaces
  kHost,        // shared by the session, and we may change it
  kHostOfRoot,  // shared, and we may not
};

Result<Network> network_of(const OpenFile& file, const std::string& device) {
  Fd of_device(ioctl(file.duplicate.get(), TUNGETDEVNETNS));
  Fd of_descriptor(ioctl(file.duplicate.get(), SIOCGSKNS));
  STASIS_TRY(Fd own, open_file(kernel::host_proc(), "self/ns/net", O_RDONLY));
  // Who may change none may not ask, and is in the host's.
  if (!of_device) return Network::kHostOfRoot;
  if (identity_of(of_device) == identity_of(own)) return Network::kHost;
  if (identity_of(of_device) != identity_of(of_descriptor)) {
    return refusal(
        file, fmt::format("its interface {} was moved to another network than the descriptor is of", device),
        "open /dev/net/tun in that network");
  }
  return Network::kOwn;
}

struct LinkFacts {
  bool has_packet_info = false;
  bool may_attach = true;  // an ordinary user, when it is persistent
  bool has_carrier = true;
};

Result<LinkFacts> ask_about_link(const OpenFile& file, const std::string& device) {
  kernel::Netlink route(kernel::network_socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  kernel::NetlinkRequest question(RTM_GETLINK, 0, ifinfomsg{});
  question.add_name(IFLA_IFNAME, device);
  kernel::NetlinkMessage reply;
  if (int error = route.ask(question, &reply); error != 0) return cannot_observe(file, device, error);
  auto attributes = kernel::netlink_attribute_map(reply.payload, sizeof(ifinfomsg));
  auto info = kernel::netlink_attribute_map(attributes[IFLA_LINKINFO]);
  auto data = kernel::netlink_attribute_map(info[IFLA_INFO_DATA]);
  LinkFacts facts;
  const auto owner = data.find(IFLA_TUN_OWNER), group = data.find(IFLA_TUN_GROUP);
  facts.may_attach =
      (owner == data.end() || kernel::netlink_value<uint32_t>(owner->second) == ::geteuid()) &&
      (group == data.end() || ::group_member(kernel::netlink_value<uint32_t>(group->second)) != 0);
  facts.has_packet_info = kernel::netlink_value<uint8_t>(data[IFLA_TUN_PI]) != 0;
  facts.has_carrier = kernel::netlink_value<uint8_t>(attributes[IFLA_CARRIER]) != 0;
  return facts;
}

// The filter of a tap device is a pointer that the program gave: the kernel does not give the filter back.
Result<void> refuse_filter(const OpenFile& file, uint32_t flags, const LinkFacts& facts) {
  // TUNGETIFF says that there is none by the bit that says that there is no packet information, too.
  sock_fprog filter = {};
  const bool none = facts.has_packet_info
                        ? (flags & IFF_NOFILTER) != 0
                        : ioctl(file.duplicate.get(), TUNGETFILTER, &filter) != 0 || filter.len == 0;
  if (none) return {};
  return refusal(file, "it has a filter (TUNATTACHFILTER), which the kernel does not give back",
                 "run the program without it");
}

Result<void> observe_device(const OpenFile& file, const ifreq& shown, schema::Tun& message) {
  const int fd = file.duplicate.get();
  message.set_device(shown.ifr_name);
  STASIS_TRY(const Network network, network_of(file, message.device()));
  message.set_of_host(network != Network::kOwn);
  STASIS_TRY(const LinkFacts facts, ask_about_link(file, message.device()));
  uint32_t flags = static_cast<uint16_t>(shown.ifr_flags);
  const bool is_persistent = (flags & IFF_PERSIST) != 0;
  if (network == Network::kHostOfRoot && !(is_persistent && facts.may_attach)) {
    return refusal(
        file,
        fmt::format("its interface {} belongs to the network of the host, and an ordinary user cannot "
                    "{} it again",
                    message.device(), is_persistent ? "attach to" : "make"),
        fmt::format("use one of your own (as root: ip tuntap add dev NAME mode {} user {}), or launch the "
                    "program with --net=private",
                    mode_of(static_cast<uint32_t>(flags)), ::geteuid()));
  }
  STASIS_CHECK(refuse_filter(file, flags, facts));
  flags = facts.has_packet_info ? flags & ~uint32_t{IFF_NO_PI} : flags | IFF_NO_PI;
  message.set_flags(flags);
  if (network == Network::kHost && !is_persistent) {
    STASIS_TRY(*message.mutable_made(), read_tun_interface(message.device()));
  }
  int value = 0;
  if (ioctl(fd, TUNGETVNETHDRSZ, &value) != 0) return cannot_observe(file, "TUNGETVNETHDRSZ");
  message.set_header_size(static_cast<uint32_t>(value));
  if (ioctl(fd, TUNGETSNDBUF, &value) != 0) return cannot_observe(file, "TUNGETSNDBUF");
  message.set_send_buffer(value);
  message.set_little_endian(ioctl(fd, TUNGETVNETLE, &value) == 0 && value != 0);
  message.set_big_endian(ioctl(fd, TUNGETVNETBE, &value) == 0 && value != 0);
  message.set_no_carrier(!facts.has_carrier && (flags & IFF_DETACH_QUEUE) == 0);
  const Fd socket = kernel::network_socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const auto features = kernel::link_features(socket.get(), message.device());
  uint32_t offloads = 0;
  for (const Offload& offload : kOffloads) {
    if (features.contains(offload.feature)) offloads |= offload.flags;
  }
  message.set_offloads(offloads);
  return {};
}

// The first descriptor of an interface is that which has held it: then the interface never loses its carrier.
// Without several queues there is room for one. Empty: it has another one, or needs what that does not have.
Fd take_holder(const Record& record, const schema::Tun& message, Making& context) {
  if (message.device().empty()) return {};
  auto held = context.shared_objects().find(tun_holder_key(message.device()));
  if (held == context.shared_objects().end()) return {};
  Fd holder = std::move(held->second);
  context.shared_objects().erase(held);
  const bool is_like_it =
      (record.flags & O_ACCMODE) == O_RDWR && (message.flags() & (IFF_NAPI | IFF_NAPI_FRAGS)) == 0;
  return is_like_it ? std::move(holder) : Fd();
}

}  // namespace

bool is_tun(const OpenFile& file) {
  return S_ISCHR(file.status.st_mode) && major(file.status.st_rdev) == kMisc &&
         minor(file.status.st_rdev) == kTunMinor;
}

std::string tun_holder_key(const std::string& device) {
  return fmt::format("tun: {} of {}", device, kernel::network_cookie());
}

KindInfo TunKind::info() const {
  return {
      "tun", "Devices", "tun and tap devices: flags, queues, offloads, header and buffer sizes, owner",
      Support::kPartial,
      "in the host's network a persistent interface is attached to again, and another one is made again "
      "with its addresses, routes, size of packets and bridge, which takes root; packets that were not read "
      "yet are lost, as on a network; what the kernel does not tell is not kept: a filter of addresses "
      "(TUNSETTXFILTER) and BPF programs; a socket filter is refused"};
}

bool TunKind::recognises(const OpenFile& file, const Observation&) const { return is_tun(file); }

Result<std::string> TunKind::observe(const OpenFile& file, Observation&) const {
  schema::Tun message;
  message.set_path(file.link);
  ifreq shown = {};
  if (ioctl(file.duplicate.get(), TUNGETIFF, &shown) == 0) {
    STASIS_CHECK(observe_device(file, shown, message));
  } else if (errno != EBADFD) {
    return cannot_observe(file, "TUNGETIFF");
  }
  return pack(message);
}

Result<Fd> TunKind::make(const Record& record, Making& context) const {
  STASIS_TRY(auto message, unpack<schema::Tun>(record));
  if (Fd holder = take_holder(record, message, context)) {
    STASIS_CHECK(set_status_flags(holder.get(), record.flags));
    return holder;
  }
  Fd fd(open(message.path().c_str(), open_flags(record.flags) | O_CLOEXEC));
  if (!fd) return cannot_make(record, message.path());
  STASIS_CHECK(set_status_flags(fd.get(), record.flags));
  if (message.device().empty()) return fd;
  if (message.of_host() && !message.has_made() && ::if_nametoindex(message.device().c_str()) == 0) {
    return Error{"restart", record.describe(),
                 fmt::format("the host has no interface {} any more", message.device()),
                 fmt::format("make it again (ip tuntap add dev {} mode {})", message.device(),
                             mode_of(message.flags())),
                 ErrorCode::kFailed};
  }
  ifreq request = request_for(message.device(), message.flags() & kAttachFlags);
  if (ioctl(fd.get(), TUNSETIFF, &request) != 0)
    return cannot_make(record, "attach to interface " + message.device());
  return fd;
}

// When all are attached: an interface that is not to stay without them would go.
Result<void> TunKind::fill(const Record& record, int fd, Making&) const {
  STASIS_TRY(auto message, unpack<schema::Tun>(record));
  if (message.device().empty()) return {};
  int header = static_cast<int>(message.header_size()), buffer = message.send_buffer(), on = 1, off = 0;
  if (ioctl(fd, TUNSETVNETHDRSZ, &header) != 0) return cannot_make(record, "TUNSETVNETHDRSZ");
  if (ioctl(fd, TUNSETSNDBUF, &buffer) != 0) return cannot_make(record, "TUNSETSNDBUF");
  if (message.little_endian() && ioctl(fd, TUNSETVNETLE, &on) != 0)
    return cannot_make(record, "TUNSETVNETLE");
  if (message.big_endian() && ioctl(fd, TUNSETVNETBE, &on) != 0) return cannot_make(record, "TUNSETVNETBE");
  if (ioctl(fd, TUNSETOFFLOAD, static_cast<unsigned long>(message.offloads())) != 0)
    return cannot_make(record, "TUNSETOFFLOAD");
  if (message.no_carrier() && ioctl(fd, TUNSETCARRIER, &off) != 0)
    return cannot_make(record, "TUNSETCARRIER");
  if (message.has_made()) STASIS_CHECK(set_tun_interface(message.device(), message.made()));
  const unsigned long persistent = (message.flags() & IFF_PERSIST) != 0 ? 1 : 0;
  if (ioctl(fd, TUNSETPERSIST, persistent) != 0) return cannot_make(record, "TUNSETPERSIST");
  if ((message.flags() & IFF_DETACH_QUEUE) == 0) return {};
  ifreq request = request_for({}, IFF_DETACH_QUEUE);
  if (ioctl(fd, TUNSETQUEUE, &request) != 0) return cannot_make(record, "TUNSETQUEUE");
  return {};
}

std::string TunKind::summary(const Record& record) const {
  auto message = unpack<schema::Tun>(record);
  if (!message.ok()) return {};
  if (message->device().empty()) return "attached to no interface";
  return fmt::format("{} {}{}", mode_of(message->flags()), message->device(),
                     (message->flags() & IFF_MULTI_QUEUE) != 0 ? ", one of several queues" : "");
}

}  // namespace stasis::resource

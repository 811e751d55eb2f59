#include "restore/network_entries.h"

#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <set>
#include <vector>

#include "kernel/network.h"

namespace stasis::restore {
namespace {

using kernel::Netlink;
using kernel::NetlinkRequest;
using Entries = google::protobuf::RepeatedPtrField<schema::NetlinkEntry>;

constexpr const char* kStep = "restart: make a network";

// Flags of addresses that the kernel sets by itself.
constexpr uint32_t kPassingAddressFlags = IFA_F_TENTATIVE | IFA_F_DADFAILED | IFA_F_SECONDARY |
                                          IFA_F_DEPRECATED | IFA_F_OPTIMISTIC | IFA_F_PERMANENT;

struct Attribute {
  uint16_t type;
  std::string value;
  auto operator<=>(const Attribute&) const = default;
};

// An entry in a form in which equal ones are equal.
struct Entry {
  std::string head;
  std::vector<Attribute> attributes;
  auto operator<=>(const Entry&) const = default;

  const std::string* find(uint16_t type) const {
    for (const auto& attribute : attributes) {
      if (attribute.type == type) return &attribute.value;
    }
    return nullptr;
  }
  template <typename Head>
  Head as() const {
    return kernel::netlink_value<Head>(head);
  }
};

using Clean = void (*)(Entry&);

Entry entry_of(const schema::NetlinkEntry& saved, Clean clean) {
  Entry entry{saved.head(), {}};
  for (const auto& attribute : saved.attributes())
    entry.attributes.push_back({static_cast<uint16_t>(attribute.type()), attribute.value()});
  clean(entry);
  return entry;
}

Entry entry_of(const kernel::NetlinkMessage& message, size_t head, Clean clean) {
  Entry entry{message.payload.substr(0, head), {}};
  for (const auto& attribute : kernel::netlink_attributes(message.payload, head))
    entry.attributes.push_back({attribute.type, std::string(attribute.value)});
  clean(entry);
  return entry;
}

NetlinkRequest request_of(uint16_t type, uint16_t flags, const Entry& entry) {
  NetlinkRequest request(type, flags, std::string_view(entry.head));
  for (const auto& attribute : entry.attributes) request.add(attribute.type, attribute.value);
  return request;
}

void leave_out(Entry& entry, std::initializer_list<uint16_t> types) {
  std::erase_if(entry.attributes, [&](const Attribute& attribute) {
    return std::find(types.begin(), types.end(), attribute.type) != types.end();
  });
}

// --- addresses

void clean_address(Entry& entry) {
  auto head = entry.as<ifaddrmsg>();
  head.ifa_flags = 0;
  entry.head.assign(reinterpret_cast<const char*>(&head), sizeof head);
  std::erase_if(entry.attributes, [](const Attribute& attribute) {
    const auto kept = kernel::address_attributes();
    return attribute.type != IFA_CACHEINFO &&
           std::find(kept.begin(), kept.end(), attribute.type) == kept.end();
  });
  for (auto& attribute : entry.attributes) {
    if (attribute.type == IFA_FLAGS) {
      const uint32_t flags = kernel::netlink_value<uint32_t>(attribute.value) & ~kPassingAddressFlags;
      attribute.value.assign(reinterpret_cast<const char*>(&flags), sizeof flags);
    }
    if (attribute.type == IFA_CACHEINFO) {
      auto times = kernel::netlink_value<ifa_cacheinfo>(attribute.value);
      times.cstamp = times.tstamp = 0;
      attribute.value.assign(reinterpret_cast<const char*>(&times), sizeof times);
    }
  }
  std::sort(entry.attributes.begin(), entry.attributes.end());
}

bool is_same_address(const Entry& a, const Entry& b) {
  auto equal = [&](uint16_t type) {
    const std::string *mine = a.find(type), *other = b.find(type);
    return (mine == nullptr) == (other == nullptr) && (mine == nullptr || *mine == *other);
  };
  const auto x = a.as<ifaddrmsg>(), y = b.as<ifaddrmsg>();
  return x.ifa_family == y.ifa_family && x.ifa_index == y.ifa_index && x.ifa_prefixlen == y.ifa_prefixlen &&
         equal(IFA_LOCAL) && equal(IFA_ADDRESS);
}

// --- routes, rules, neighbours

void clean_route(Entry& entry) {
  auto head = entry.as<rtmsg>();
  head.rtm_flags &= RTNH_F_ONLINK | RTNH_F_PERVASIVE;
  entry.head.assign(reinterpret_cast<const char*>(&head), sizeof head);
  leave_out(entry, {RTA_CACHEINFO, RTA_EXPIRES});
  for (auto& attribute : entry.attributes) {
    if (attribute.type != RTA_MULTIPATH) continue;
    // struct rtnexthop, one behind the other.
    for (size_t at = 0; at + sizeof(rtnexthop) <= attribute.value.size();) {
      auto hop = kernel::netlink_value<rtnexthop>(std::string_view(attribute.value).substr(at));
      hop.rtnh_flags &= RTNH_F_ONLINK | RTNH_F_PERVASIVE;
      memcpy(&attribute.value[at], &hop, sizeof hop);
      if (hop.rtnh_len < sizeof hop) break;
      at += RTNH_ALIGN(hop.rtnh_len);
    }
  }
  std::sort(entry.attributes.begin(), entry.attributes.end());
}

void clean_rule(Entry& entry) { std::sort(entry.attributes.begin(), entry.attributes.end()); }

void clean_neighbour(Entry& entry) {
  leave_out(entry, {NDA_CACHEINFO, NDA_PROBES, NDA_MASTER});
  std::sort(entry.attributes.begin(), entry.attributes.end());
}

class Applier {
 public:
  Applier(Netlink& route, const schema::Network& wanted) : route_(route), wanted_(wanted) {}

  Result<void> run() {
    STASIS_CHECK(apply_addresses());
    await([this] { return addresses_are_ready(); });
    for (int family : {AF_INET, AF_INET6}) STASIS_CHECK(apply_rules(family));
    for (int family : {AF_INET, AF_INET6}) STASIS_CHECK(apply_routes(family));
    STASIS_CHECK(add_all(wanted_.neighbours(), NLM_F_CREATE | NLM_F_REPLACE, "neighbour"));
    return add_all(wanted_.bridged(), NLM_F_CREATE | NLM_F_REPLACE, "station of a bridge");
  }

 private:
  Error failure(const std::string& object, int error) const {
    return Error{
        kStep, object, route_.story_of(error), {}, error == EPERM ? ErrorCode::kDenied : ErrorCode::kFailed};
  }

  // What there is now.
  Result<std::vector<Entry>> list(const NetlinkRequest& question, size_t head, int family, Clean clean) {
    auto dump = route_.dump(question);
    if (dump.error == EOPNOTSUPP || dump.error == EAFNOSUPPORT) return std::vector<Entry>();
    if (dump.error != 0) return failure("list what there is", dump.error);
    std::vector<Entry> entries;
    for (const auto& message : dump.messages) {
      if (family != AF_UNSPEC && message.head<rtgenmsg>().rtgen_family != family) continue;
      entries.push_back(entry_of(message, head, clean));
    }
    return entries;
  }

  // The kernel completes some things a moment later. Whether it has, or never will, is seen by everybody
  // alike.
  template <typename Done>
  static void await(const Done& done) {
    constexpr int kLooks = 300;
    constexpr timespec kMoment = {.tv_sec = 0, .tv_nsec = 1'000'000};
    for (int look = 0; look < kLooks && !done(); ++look) ::nanosleep(&kMoment, nullptr);
  }
  bool addresses_are_ready();

  Result<void> apply_addresses();
  Result<void> apply_routes(int family);
  Result<void> apply_rules(int family);
  Result<void> add_all(const Entries& entries, uint16_t flags, const char* what);

  Netlink& route_;
  const schema::Network& wanted_;
};

Result<void> Applier::apply_addresses() {
  STASIS_TRY(auto there, list({RTM_GETADDR, 0, ifaddrmsg{}}, sizeof(ifaddrmsg), AF_UNSPEC, clean_address));
  std::vector<Entry> wanted;
  for (const auto& saved : wanted_.addresses()) wanted.push_back(entry_of(saved, clean_address));
  for (const Entry& entry : there) {
    const bool stays = std::any_of(wanted.begin(), wanted.end(),
                                   [&](const Entry& other) { return is_same_address(entry, other); });
    if (stays) continue;
    const int error = route_.ask(request_of(RTM_DELADDR, 0, entry));
    // Of one that another was secondary to.
    if (error != 0 && error != EADDRNOTAVAIL) return failure("take an address away", error);
  }
  // In their order: the first of a prefix is the primary one.
  for (const Entry& entry : wanted) {
    if (std::find(there.begin(), there.end(), entry) != there.end()) continue;
    if (int error = route_.ask(request_of(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, entry)); error != 0)
      return failure(fmt::format("address of interface {}", entry.as<ifaddrmsg>().ifa_index), error);
  }
  return {};
}

// Before addresses are tried out again (SettingsStage::kLast): whoever binds to one that is being tried out
// fails.
bool Applier::addresses_are_ready() {
  std::set<uint32_t> up;
  for (const auto& link : wanted_.links()) {
    if ((link.flags() & kernel::kLinkUp) != 0) up.insert(link.index());
  }
  ifaddrmsg question = {};
  question.ifa_family = AF_INET6;
  const auto addresses = route_.dump({RTM_GETADDR, 0, question});
  return std::none_of(addresses.messages.begin(), addresses.messages.end(), [&](const auto& message) {
    const auto head = message.template head<ifaddrmsg>();
    return (head.ifa_flags & IFA_F_TENTATIVE) != 0 && up.contains(head.ifa_index);
  });
}

Result<void> Applier::apply_rules(int family) {
  fib_rule_hdr question = {};
  question.family = static_cast<unsigned char>(family);
  STASIS_TRY(auto there, list({RTM_GETRULE, 0, question}, sizeof question, family, clean_rule));
  std::vector<Entry> wanted;
  for (const auto& saved : wanted_.rules()) {
    Entry entry = entry_of(saved, clean_rule);
    if (entry.as<fib_rule_hdr>().family == family) wanted.push_back(std::move(entry));
  }
  // First what is new: without any rule no packet goes anywhere.
  for (const Entry& entry : wanted) {
    if (std::find(there.begin(), there.end(), entry) != there.end()) continue;
    if (int error = route_.ask(request_of(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, entry)); error != 0)
      return failure("rule", error);
  }
  for (const Entry& entry : there) {
    if (std::find(wanted.begin(), wanted.end(), entry) != wanted.end()) continue;
    if (int error = route_.ask(request_of(RTM_DELRULE, 0, entry)); error != 0)
      return failure("take a rule away", error);
  }
  return {};
}

Result<void> Applier::apply_routes(int family) {
  rtmsg question = {};
  question.rtm_family = static_cast<unsigned char>(family);
  STASIS_TRY(auto there, list({RTM_GETROUTE, 0, question}, sizeof question, family, clean_route));
  std::vector<Entry> wanted, missing;
  for (const auto& saved : wanted_.routes()) {
    Entry entry = entry_of(saved, clean_route);
    if (entry.as<rtmsg>().rtm_family != family) continue;
    wanted.push_back(entry);
    if (std::find(there.begin(), there.end(), entry) == there.end()) missing.push_back(std::move(entry));
  }
  for (const Entry& entry : there) {
    if (std::find(wanted.begin(), wanted.end(), entry) != wanted.end()) continue;
    const int error = route_.ask(request_of(RTM_DELROUTE, 0, entry));
    if (error != 0 && error != ESRCH) return failure("take a route away", error);
  }
  // The kernel's own for the addresses come with these, in a moment.
  auto comes_by_itself = [&](const Entry& entry) {
    const auto head = entry.as<rtmsg>();
    return family == AF_INET6 && head.rtm_protocol == RTPROT_KERNEL && head.rtm_type != RTN_UNICAST;
  };
  await([&] {
    if (std::none_of(missing.begin(), missing.end(), comes_by_itself)) return true;
    auto now = list({RTM_GETROUTE, 0, question}, sizeof question, family, clean_route);
    if (!now.ok()) return true;
    std::erase_if(missing, [&](const Entry& entry) {
      return comes_by_itself(entry) && std::find(now->begin(), now->end(), entry) != now->end();
    });
    return false;
  });
  std::erase_if(missing, comes_by_itself);
  // A gateway must be reachable by a route that is there. The kernel's own come and go with addresses and
  // carriers.
  for (;;) {
    const size_t before = missing.size();
    int last = 0;
    std::erase_if(missing, [&](const Entry& entry) {
      const int error = route_.ask(request_of(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, entry));
      const bool is_kernels = entry.as<rtmsg>().rtm_protocol == RTPROT_KERNEL;
      if (error != 0 && error != EEXIST && !is_kernels) last = error;
      return error == 0 || error == EEXIST;
    });
    if (last == 0) return {};
    if (missing.size() == before) return failure("route", last);
  }
}

Result<void> Applier::add_all(const Entries& entries, uint16_t flags, const char* what) {
  for (const auto& saved : entries) {
    if (int error = route_.ask(request_of(RTM_NEWNEIGH, flags, entry_of(saved, clean_neighbour))); error != 0)
      return failure(what, error);
  }
  return {};
}

}  // namespace

Result<void> apply_network_entries(Netlink& route, const schema::Network& wanted) {
  return Applier(route, wanted).run();
}

}  // namespace stasis::restore

#include "kernel/rtnetlink.h"

#include <gtest/gtest.h>
#include <net/if.h>

namespace stasis::kernel {
namespace {

TEST(Rtnetlink, WhatIsPutIntoARequestIsFoundInIt) {
  NetlinkRequest request(RTM_NEWLINK, NLM_F_CREATE, ifinfomsg{});
  request.add_name(IFLA_IFNAME, "left");
  request.add_value<uint32_t>(IFLA_MTU, 1400);
  const size_t nest = request.begin(IFLA_LINKINFO);
  request.add_name(IFLA_INFO_KIND, "veth");
  request.end(nest);
  request.add(IFLA_IFALIAS, "odd");
  const std::string_view payload = std::string_view(request.bytes()).substr(NLMSG_HDRLEN);
  auto attributes = netlink_attribute_map(payload, sizeof(ifinfomsg));
  EXPECT_EQ(netlink_name(attributes[IFLA_IFNAME]), "left");
  EXPECT_EQ(netlink_value<uint32_t>(attributes[IFLA_MTU]), 1400U);
  EXPECT_EQ(netlink_name(netlink_attribute_map(attributes[IFLA_LINKINFO])[IFLA_INFO_KIND]), "veth");
  EXPECT_EQ(attributes[IFLA_IFALIAS], "odd");
  EXPECT_EQ(attributes.size(), 4U);
}

TEST(Rtnetlink, AttributesThatAreCutAreNotRead) {
  NetlinkRequest request(RTM_NEWLINK, 0, ifinfomsg{});
  request.add(1, "first");
  request.add(2, "second");
  const std::string payload = request.bytes().substr(NLMSG_HDRLEN);
  for (size_t size = 0; size < payload.size(); ++size) {
    for (const auto& attribute :
         netlink_attributes(std::string_view(payload).substr(0, size), sizeof(ifinfomsg)))
      EXPECT_EQ(attribute.value, attribute.type == 1 ? "first" : "second");
  }
  const std::string nonsense("\x01\x00\x01\x00\xff\xff\x02\x00", 8);
  EXPECT_TRUE(netlink_attributes(nonsense).empty());
}

TEST(Rtnetlink, TheKernelAnswers) {
  auto route = Netlink::open(NETLINK_ROUTE);
  ASSERT_TRUE(route.ok());
  auto links = route->dump({RTM_GETLINK, 0, ifinfomsg{}});
  EXPECT_EQ(links.error, 0);
  EXPECT_FALSE(links.messages.empty());
  NetlinkRequest question(RTM_GETLINK, 0, ifinfomsg{});
  question.add_name(IFLA_IFNAME, "lo");
  NetlinkMessage reply;
  EXPECT_EQ(route->ask(question, &reply), 0);
  EXPECT_EQ(reply.head<ifinfomsg>().ifi_index, static_cast<int>(if_nametoindex("lo")));
  ifinfomsg none = {};
  none.ifi_index = 0x7ffffff0;
  EXPECT_EQ(route->ask({RTM_GETLINK, 0, none}), ENODEV);
}

}  // namespace
}  // namespace stasis::kernel

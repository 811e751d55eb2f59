#include "inspect/control_groups.h"

#include <gtest/gtest.h>

namespace stasis::inspect {
namespace {

using Lines = std::vector<std::string>;

Lines roots(const std::string& whole, const std::string& shown) {
  auto found = roots_of_groups(HostTid{1}, whole, shown);
  EXPECT_TRUE(found.ok());
  return found.ok() ? *found : Lines();
}

TEST(ControlGroups, TheRootOfANamespaceIsWhatItDoesNotShow) {
  EXPECT_EQ(roots("0::/outer/inner\n", "0::/inner\n"), Lines{"0::/outer"});
  EXPECT_EQ(roots("0::/outer\n", "0::/\n"), Lines{"0::/outer"});
  EXPECT_EQ(roots("0::/a/a\n", "0::/a/a\n"), Lines{"0::/"});
  EXPECT_EQ(roots("0::/\n", "0::/\n"), Lines{"0::/"});
}

TEST(ControlGroups, HierarchiesComeAndGoBetweenTwoLooks) {
  EXPECT_EQ(roots("9:name=new:/\n4:memory:/a/b\n0::/c\n", "4:memory:/b\n0::/c\n"),
            (Lines{"0::/", "4:memory:/a"}));
  EXPECT_EQ(roots("0::/c\n", "9:name=new:/..\n0::/c\n"), Lines{"0::/"});
}

TEST(ControlGroups, OutsideOfTheRootIsRefused) {
  auto found = roots_of_groups(HostTid{7}, "0::/elsewhere\n", "0::/../elsewhere\n");
  ASSERT_FALSE(found.ok());
  EXPECT_EQ(found.error().code, ErrorCode::kRefused);
  EXPECT_FALSE(roots_of_groups(HostTid{7}, "0::/a/b\n", "0::/c\n").ok());
}

TEST(ControlGroups, OwnGroupsAreThoseInWhichTheOtherIsNot) {
  EXPECT_EQ(own_groups("1:a:/x\n0::/\n", "1:a:/\n0::/\n"), Lines{"1:a:/x"});
  EXPECT_EQ(own_groups("0::/\n", "0::/\n"), Lines());
}

}  // namespace
}  // namespace stasis::inspect

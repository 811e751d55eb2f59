#include "kernel/mounts.h"

#include <gtest/gtest.h>

namespace stasis::kernel {
namespace {

constexpr const char* kText =
    "25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
    "30 25 0:22 /sub/dir /mnt/with\\040blank ro,nosuid,nosymfollow master:7 shared:9 - tmpfs memory "
    "rw,size=4k\n"
    "31 30 0:40 / /mnt/with\\040blank/over rw unbindable - overlay overlay "
    "rw,lowerdir=/a\\134,b:/c,upperdir=/u\n"
    "32 30 0:22 /gone//deleted /mnt/with\\040blank rw,noatime - tmpfs memory rw\n";

TEST(Mounts, AreReadAndLinked) {
  auto mounts = parse_mounts(kText);
  ASSERT_EQ(mounts.size(), 4u);
  ASSERT_TRUE(link_mounts(mounts));
  EXPECT_EQ(mounts[0].parent, 0);
  EXPECT_EQ(mounts[1].point, "/mnt/with blank");
  EXPECT_EQ(mounts[1].below, "mnt/with blank");
  EXPECT_EQ(mounts[1].root, "/sub/dir");
  EXPECT_EQ(mounts[1].shared, 9);
  EXPECT_EQ(mounts[1].master, 7);
  EXPECT_EQ(mounts[2].below, "over");
  EXPECT_TRUE(mounts[2].unbindable);
  EXPECT_EQ(mounts[3].below, "");
  EXPECT_EQ(mount_options(mounts[2].super_options),
            (std::vector<std::string>{"rw", "lowerdir=/a\\,b:/c", "upperdir=/u"}));
}

TEST(Mounts, OfTwoTreesAreNone) {
  auto mounts = parse_mounts(std::string(kText) + "40 39 0:1 / /elsewhere rw - tmpfs none rw\n");
  EXPECT_FALSE(link_mounts(mounts));
}

TEST(Mounts, HaveAttributes) {
  EXPECT_EQ(mount_attributes("rw,relatime"), 0u);
  EXPECT_EQ(mount_attributes("rw"), 0x20u);  // MOUNT_ATTR_STRICTATIME
  EXPECT_EQ(mount_attributes("ro,nosuid,nodev,noexec,noatime,nodiratime,nosymfollow"), 0x20009fu);
}

TEST(Mounts, PathsBelowOthers) {
  EXPECT_EQ(path_below("/a/b", "/a"), "b");
  EXPECT_EQ(path_below("/a", "/a"), "");
  EXPECT_EQ(path_below("/a", "/"), "a");
  EXPECT_EQ(path_below("/ab", "/a"), std::nullopt);
  EXPECT_EQ(path_joined("/", "a"), "/a");
  EXPECT_EQ(path_joined("/a", ""), "/a");
}

}  // namespace
}  // namespace stasis::kernel

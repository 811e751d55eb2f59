#include "checkpoint/tracking.h"

#include <gtest/gtest.h>

#include "checkpoint/increment.h"

namespace stasis::checkpoint {
namespace {

using Work = Candidate::Work;
constexpr uint64_t P = kPageSize;

TEST(PageRanges, AreSortedAndJoined) {
  EXPECT_EQ(normalized({{5, 7}, {1, 2}, {2, 3}, {6, 9}, {4, 4}}), (PageRanges{{1, 3}, {5, 9}}));
  EXPECT_EQ(normalized({}), PageRanges{});
}

// Against sets of numbers.
TEST(PageRanges, IntersectionAndDifferenceAreThoseOfSets) {
  auto ranges_of = [](unsigned bits) {
    PageRanges ranges;
    for (uint64_t i = 0; i < 8; ++i)
      if ((bits >> i & 1) != 0) ranges.push_back({i, i + 1});
    return normalized(ranges);
  };
  for (unsigned a = 0; a < 256; ++a) {
    for (unsigned b = 0; b < 256; ++b) {
      ASSERT_EQ(normalized(intersection(ranges_of(a), ranges_of(b))), ranges_of(a & b)) << a << " " << b;
      ASSERT_EQ(normalized(difference(ranges_of(a), ranges_of(b))), ranges_of(a & ~b)) << a << " " << b;
    }
  }
}

TEST(PageRanges, Contain) {
  const PageRanges ranges = {{2, 4}, {6, 7}};
  EXPECT_FALSE(contains(ranges, 1));
  EXPECT_TRUE(contains(ranges, 2));
  EXPECT_TRUE(contains(ranges, 3));
  EXPECT_FALSE(contains(ranges, 4));
  EXPECT_TRUE(contains(ranges, 6));
  EXPECT_FALSE(contains(ranges, 7));
  EXPECT_EQ(bytes_of(ranges), 3U);
}

TEST(TrackingNote, SaysAfterwardsWhatItSaidBefore) {
  Tracking tracking;
  tracking.base = 0xfedcba9876543210;
  tracking.processes.resize(2);
  auto& one = tracking.processes[0];
  one.pid = HostTid{17};
  one.start_time = 123456789;
  one.watched = {{P, 9 * P}, {20 * P, 21 * P}};
  one.written = {{3 * P, 4 * P}};
  tracking.processes[1].pid = HostTid{18};
  auto read = decode(encode(tracking));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->base, tracking.base);
  ASSERT_EQ(read->processes.size(), 2U);
  EXPECT_EQ(read->processes[0].pid, HostTid{17});
  EXPECT_EQ(read->processes[0].start_time, 123456789U);
  EXPECT_EQ(read->processes[0].watched, one.watched);
  EXPECT_EQ(read->processes[0].written, one.written);
  EXPECT_TRUE(read->processes[1].watched.empty());
}

TEST(TrackingNote, NothingIsKnownFromANoteThatIsNotWhole) {
  for (const char* text : {"", "b", "b \n", "b 1", "b 1 2\n", "p 1 2\n", "b 1\nk 1 2\n", "b 1\np 1\n",
                           "b 1\np 1 2\nk 1\n", "b 1\np 1 2\nk 1 2", "b 1\nx 1 2\n", "b 1\nb 2\n", "b -1\n"})
    EXPECT_FALSE(decode(text)) << text;
}

Candidate candidate(uint64_t page, uint64_t pages, Work work, int file, uint64_t offset) {
  return {{page * P, pages * P, file, offset * P}, work, 0};
}

TEST(ShareKnown, DividesWhatWouldBeCompared) {
  std::vector<Candidate> candidates = {candidate(0, 4, Work::kCompare, 0, 10),
                                       candidate(4, 4, Work::kWrite, -1, 0),
                                       candidate(8, 4, Work::kCompare, 1, 20)};
  share_known(candidates, {{1 * P, 2 * P}, {3 * P, 9 * P}, {11 * P, 30 * P}});
  const std::vector<Candidate> expected = {
      candidate(0, 1, Work::kCompare, 0, 10), candidate(1, 1, Work::kShare, 0, 11),
      candidate(2, 1, Work::kCompare, 0, 12), candidate(3, 1, Work::kShare, 0, 13),
      candidate(4, 4, Work::kWrite, -1, 0),  // the base does not have it, so it has to be written
      candidate(8, 1, Work::kShare, 1, 20),   candidate(9, 2, Work::kCompare, 1, 21),
      candidate(11, 1, Work::kShare, 1, 23)};
  EXPECT_EQ(candidates, expected);
  EXPECT_EQ(bytes_to_compare(candidates), 4 * P);
}

TEST(ShareKnown, WithNothingKnownAllIsCompared) {
  std::vector<Candidate> candidates = {candidate(0, 4, Work::kCompare, 0, 10)};
  const auto before = candidates;
  share_known(candidates, {});
  EXPECT_EQ(candidates, before);
  share_known(candidates, {{8 * P, 9 * P}});
  EXPECT_EQ(candidates, before);
}

}  // namespace
}  // namespace stasis::checkpoint

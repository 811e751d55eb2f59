// What a keeper has written into its journal is there for the next one, up to the entry that was the last.
#include "keeper/journal.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vector>

namespace stasis::gl {

namespace {

class JournalTest : public testing::Test {
 protected:
  JournalTest() : file_(memfd_create("journal", MFD_CLOEXEC)) {}
  ~JournalTest() override { close(file_); }
  JournalTest(const JournalTest&) = delete;
  JournalTest& operator=(const JournalTest&) = delete;

  static void add(Journal& journal, uint32_t ring, uint64_t position, uint32_t size = 16) {
    std::vector<uint64_t> room(size / 8);
    auto& packet = *reinterpret_cast<Packet*>(room.data());
    packet = {size, 77, 0};
    journal.add(ring, position, packet);
  }
  // As the next keeper sees it.
  bool read() {
    positions_.clear();
    return Journal(file_).read(log_, more_, [&](const Journal::Entry& entry) {
      EXPECT_EQ(entry.packet->op, 77);
      positions_.push_back(entry.position);
    });
  }

  int file_;
  std::string log_, more_;
  std::vector<uint64_t> positions_;
};

TEST_F(JournalTest, TheNextKeeperReadsWhatTheOneBeforeHasWritten) {
  Journal journal(file_);
  ASSERT_TRUE(journal.is_mapped());
  EXPECT_TRUE(journal.is_empty());
  journal.begin("a log", "and more");
  add(journal, 1, 100);
  add(journal, 2, 50);
  ASSERT_TRUE(read());
  EXPECT_EQ(log_, "a log");
  EXPECT_EQ(more_, "and more");
  EXPECT_EQ(positions_, (std::vector<uint64_t>{100, 50}));
  EXPECT_FALSE(Journal(file_).is_empty());
}

TEST_F(JournalTest, ANewLogTakesThePlaceOfAllBefore) {
  Journal journal(file_);
  for (int i = 0; i < 5; ++i) {
    journal.begin(std::string(static_cast<size_t>(i), 'x'), "");
    add(journal, 1, static_cast<uint64_t>(i));
  }
  ASSERT_TRUE(read());
  EXPECT_EQ(log_, "xxxx");
  EXPECT_EQ(positions_, std::vector<uint64_t>{4});
}

TEST_F(JournalTest, IsLongWhenThereIsMoreBehindTheLogThanInIt) {
  Journal journal(file_);
  journal.begin("", "");
  const uint32_t size = 1 << 20;
  for (int i = 0; i < 31; ++i) add(journal, 1, 1, size);
  EXPECT_FALSE(journal.is_long());
  for (int i = 0; i < 2; ++i) add(journal, 1, 1, size);
  EXPECT_TRUE(journal.is_long());
  journal.begin(std::string(40 << 20, 'x'), "");
  for (int i = 0; i < 39; ++i) add(journal, 1, 1, size);
  EXPECT_FALSE(journal.is_long());
}

TEST_F(JournalTest, DamageIsSeen) {
  Journal journal(file_);
  journal.begin("a log", "");
  add(journal, 1, 100);
  constexpr off_t kSecondSlot = 4096 + (off_t{8} << 30);
  const uint64_t large = uint64_t{1} << 40;
  ASSERT_EQ(pwrite(file_, &large, sizeof large, kSecondSlot), static_cast<ssize_t>(sizeof large));
  EXPECT_FALSE(read());
}

TEST_F(JournalTest, WhatIsNoFileIsNotMapped) { EXPECT_FALSE(Journal(-1).is_mapped()); }

}  // namespace

}  // namespace stasis::gl

#include "restore/mapped_pages.h"

#include <gtest/gtest.h>

#include "stasis/types.h"

namespace stasis::restore {
namespace {

constexpr uint64_t P = kPageSize;
constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kStart = 0x7f0000000000;

struct Run {
  uint64_t at, size, offset;
  uint32_t layer;
};

schema::Memory memory_of(std::initializer_list<Run> runs) {
  schema::Memory memory;
  auto* mapping = memory.add_mappings();
  mapping->set_kind(schema::Mapping::ANONYMOUS);
  mapping->set_start(kStart);
  mapping->set_end(kStart + 64 * kMiB);
  for (const auto& run : runs) {
    auto* entry = memory.add_runs();
    entry->set_address(kStart + run.at);
    entry->set_size(run.size);
    entry->set_offset(run.offset);
    entry->set_layer(run.layer);
  }
  return memory;
}

std::vector<MappedPages> pieces_of(const schema::Memory& memory) {
  return mapped_pages(memory, memory.mappings(0));
}

TEST(MappedPages, AHoleOfTheOwnFileIsMappedWithItsNeighbours) {
  auto memory = memory_of({{0, kMiB, 0, 0}, {kMiB + P, kMiB, kMiB + P, 0}});
  auto pieces = pieces_of(memory);
  ASSERT_EQ(pieces.size(), 1u);
  EXPECT_EQ(pieces[0].size, 2 * kMiB + P);
}

// What is in the gap of an older file may be a page that the program has given back since.
TEST(MappedPages, AGapInAnOlderFileIsNotMapped) {
  auto memory = memory_of({{0, kMiB, 0, 1}, {kMiB + P, kMiB, kMiB + P, 1}});
  auto pieces = pieces_of(memory);
  ASSERT_EQ(pieces.size(), 2u);
  EXPECT_EQ(pieces[0].size, kMiB);
  EXPECT_EQ(pieces[1].address, kStart + kMiB + P);
}

TEST(MappedPages, AGapInAnOlderFileThatIsHalfCoveredIsNotMapped) {
  auto memory = memory_of({{0, kMiB, 0, 1}, {kMiB, P, 0, 0}, {kMiB + 2 * P, kMiB, kMiB + 2 * P, 1}});
  auto pieces = pieces_of(memory);
  ASSERT_EQ(pieces.size(), 2u);
  EXPECT_FALSE(is_mapped(pieces, memory.runs(1)));
  EXPECT_TRUE(is_mapped(pieces, memory.runs(2)));
}

TEST(MappedPages, ChangedPagesAreWrittenOverTheOlderFile) {
  auto memory = memory_of(
      {{0, kMiB, 0, 2}, {kMiB, P, 0, 0}, {kMiB + P, P, 7 * P, 1}, {kMiB + 2 * P, kMiB, kMiB + 2 * P, 2}});
  auto pieces = pieces_of(memory);
  ASSERT_EQ(pieces.size(), 1u);
  EXPECT_EQ(pieces[0].layer, 2u);
  EXPECT_EQ(pieces[0].size, 2 * kMiB + 2 * P);
  EXPECT_TRUE(is_mapped(pieces, memory.runs(0)));
  EXPECT_FALSE(is_mapped(pieces, memory.runs(1)));
  EXPECT_FALSE(is_mapped(pieces, memory.runs(2)));
  EXPECT_TRUE(is_mapped(pieces, memory.runs(3)));
}

TEST(MappedPages, PiecesOfDifferentFilesDoNotOverlap) {
  auto memory = memory_of({{0, kMiB, 0, 1},
                           {kMiB, kMiB, 0, 0},
                           {2 * kMiB, kMiB, 2 * kMiB, 1},
                           {3 * kMiB, 64 * P, kMiB, 0},
                           {3 * kMiB + 64 * P, kMiB, 0, 2}});
  auto pieces = pieces_of(memory);
  uint64_t end = 0;
  for (const auto& piece : pieces) {
    EXPECT_GE(piece.address, end);
    end = piece.end();
  }
  for (const auto& run : memory.runs()) {
    // Everything is either shown by a piece or written over it.
    if (!is_mapped(pieces, run)) continue;
    bool found = false;
    for (const auto& piece : pieces)
      found = found || (piece.layer == run.layer() && piece.address <= run.address() &&
                        run.address() + run.size() <= piece.end() &&
                        piece.offset + (run.address() - piece.address) == run.offset());
    EXPECT_TRUE(found);
  }
  EXPECT_EQ(pieces.size(), 5u);
}

}  // namespace
}  // namespace stasis::restore

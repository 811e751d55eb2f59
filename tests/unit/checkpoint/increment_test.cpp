#include "checkpoint/increment.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>

namespace stasis::checkpoint {
namespace {

using Work = Candidate::Work;
constexpr uint64_t P = kPageSize;

schema::PageRun run(uint64_t address, uint64_t size, uint64_t offset, uint32_t file = 0) {
  schema::PageRun made;
  made.set_address(address);
  made.set_size(size);
  made.set_offset(offset);
  made.set_layer(file);
  return made;
}

// A base with one file of `pages` pages, each filled with its number from 1.
BasePages base_with_file(uint64_t pages) {
  BasePages base;
  BaseFile& file = base.files.emplace_back();
  file.name = "base";
  file.fd = Fd(::memfd_create("base", MFD_CLOEXEC));
  file.identity = {1, 2};
  file.stored = pages * P;
  for (uint64_t i = 0; i < pages; ++i)
    EXPECT_TRUE(
        pwrite_all(file.fd.get(), std::string(P, static_cast<char>(i + 1)), static_cast<off_t>(i * P)).ok());
  return base;
}

Pages pages(uint64_t address, uint64_t size, size_t mapping = 0) {
  Pages made;
  made.address = address;
  made.size = size;
  made.mapping = mapping;
  return made;
}

// Memory as a map from page to the byte that fills it; others are zero.
ReadMemory memory(const std::map<uint64_t, char>& filled) {
  return [filled](uint64_t address, std::span<char> into) {
    for (uint64_t at = 0; at < into.size(); at += P) {
      auto found = filled.find(address + at);
      std::memset(&into[at], found == filled.end() ? 0 : found->second, P);
    }
    return true;
  };
}

std::vector<Extent> extents_of(const std::vector<Pages>& present, const BasePages& base,
                               const std::map<uint64_t, char>& filled) {
  return compare(find_candidates(present, base), base, memory(filled), {});
}

TEST(Increment, WhatIsTheSameIsShared) {
  auto base = base_with_file(4);
  base.runs = {run(0x10000, 4 * P, 0)};
  auto found =
      extents_of({pages(0x10000, 4 * P)}, base, {{0x10000, 1}, {0x11000, 9}, {0x12000, 3}, {0x13000, 4}});
  EXPECT_EQ(found, (std::vector<Extent>{
                       {0x10000, P, 0, 0}, {0x11000, P, Extent::kOwn, 0}, {0x12000, 2 * P, 0, 2 * P}}));
}

TEST(Increment, OneByteIsAChange) {
  auto base = base_with_file(1);
  base.runs = {run(0x10000, P, 0)};
  for (size_t at : {size_t{0}, size_t{2048}, size_t{P - 1}}) {
    ReadMemory read = [at](uint64_t, std::span<char> into) {
      std::fill(into.begin(), into.end(), 1);
      into[at] = 2;
      return true;
    };
    auto found = compare(find_candidates({pages(0x10000, P)}, base), base, read, {});
    ASSERT_EQ(found.size(), 1u);
    EXPECT_EQ(found[0].file, Extent::kOwn) << at;
  }
}

TEST(Increment, MemoryIsPartlyNewPartlyGonePartlyMoved) {
  auto base = base_with_file(8);
  // Two runs that touch in memory and not in the file; memory begins within the first and ends behind the
  // last.
  base.runs = {run(0x10000, 4 * P, 4 * P), run(0x14000, 2 * P, 0)};
  auto found = find_candidates({pages(0x11000, 6 * P), pages(0x20000, P, 1)}, base);
  EXPECT_EQ(found, (std::vector<Candidate>{{{0x11000, 3 * P, 0, 5 * P}, Work::kCompare, 0},
                                           {{0x14000, 2 * P, 0, 0}, Work::kCompare, 0},
                                           {{0x16000, P, Extent::kOwn, 0}, Work::kWrite, 0},
                                           {{0x20000, P, Extent::kOwn, 0}, Work::kWrite, 1}}));
}

TEST(Increment, ARunOfTheBaseMayBeInManyPieces) {
  auto base = base_with_file(8);
  base.runs = {run(0x10000, 8 * P, 0)};
  auto found = find_candidates({pages(0x10000, P), pages(0x12000, P), pages(0x14000, 8 * P)}, base);
  EXPECT_EQ(found, (std::vector<Candidate>{{{0x10000, P, 0, 0}, Work::kCompare, 0},
                                           {{0x12000, P, 0, 2 * P}, Work::kCompare, 0},
                                           {{0x14000, 4 * P, 0, 4 * P}, Work::kCompare, 0},
                                           {{0x18000, 4 * P, Extent::kOwn, 0}, Work::kWrite, 0}}));
}

// Only the very pages of the file are known to be the same; all others are looked at.
TEST(Increment, UntouchedPagesOfAMappedFileAreNotRead) {
  auto base = base_with_file(4);
  base.runs = {run(0x10000, 4 * P, 0)};
  Pages same = pages(0x10000, P);
  same.untouched_of = {1, 2};
  Pages elsewhere = pages(0x11000, P);
  elsewhere.untouched_of = {1, 2};
  elsewhere.file_offset = 3 * P;
  Pages of_another = pages(0x12000, P);
  of_another.untouched_of = {1, 3};
  of_another.file_offset = 2 * P;
  auto found = find_candidates({same, elsewhere, of_another, pages(0x13000, P)}, base);
  ASSERT_EQ(found.size(), 4u);
  EXPECT_EQ(found[0].work, Work::kShare);
  for (size_t i = 1; i < 4; ++i) EXPECT_EQ(found[i].work, Work::kCompare) << i;
}

TEST(Increment, AnUntouchedPageOfZerosNeedsNoPage) {
  auto base = base_with_file(1);
  base.runs = {run(0x10000, P, 0)};
  Pages hole = pages(0x11000, 2 * P);
  hole.untouched_of = {1, 2};
  hole.file_offset = P;
  auto found = extents_of({pages(0x10000, P), hole}, base, {{0x10000, 1}, {0x12000, 5}});
  EXPECT_EQ(found, (std::vector<Extent>{{0x10000, P, 0, 0}, {0x12000, P, Extent::kOwn, 0}}));
}

TEST(Increment, FilesThatCannotBeHadAreWrittenAgain) {
  auto base = base_with_file(2);
  base.files.emplace_back();  // could not be linked
  base.runs = {run(0x10000, P, 0, 1), run(0x11000, P, 0, 0)};
  auto found = extents_of({pages(0x10000, 2 * P)}, base, {{0x10000, 1}, {0x11000, 1}});
  EXPECT_EQ(found, (std::vector<Extent>{{0x10000, P, Extent::kOwn, 0}, {0x11000, P, 0, 0}}));
}

// A file that is shorter than the base says, or a disk that does not give it.
TEST(Increment, WhatTheFileDoesNotGiveIsWrittenAgain) {
  auto base = base_with_file(1);
  base.runs = {run(0x10000, 2 * P, 0)};
  auto found = extents_of({pages(0x10000, 2 * P)}, base, {{0x10000, 1}, {0x11000, 2}});
  EXPECT_EQ(found, (std::vector<Extent>{{0x10000, 2 * P, Extent::kOwn, 0}}));
}

TEST(Increment, ExtentsEndWhereMappingsDo) {
  auto base = base_with_file(4);
  base.runs = {run(0x10000, 4 * P, 0)};
  auto found = extents_of({pages(0x10000, 2 * P, 0), pages(0x12000, 2 * P, 1)}, base,
                          {{0x10000, 1}, {0x11000, 2}, {0x12000, 3}, {0x13000, 4}});
  EXPECT_EQ(found, (std::vector<Extent>{{0x10000, 2 * P, 0, 0}, {0x12000, 2 * P, 0, 2 * P}}));
}

// Large enough for several threads.
TEST(Increment, ManyPagesAtOnce) {
  constexpr uint64_t kPages = 5000;
  auto base = base_with_file(kPages);
  base.runs = {run(0x100000, kPages * P, 0)};
  std::map<uint64_t, char> filled;
  for (uint64_t i = 0; i < kPages; ++i)
    filled[0x100000 + i * P] = static_cast<char>(i % 37 == 5 ? 0x7e - (i & 1) : i + 1);
  uint64_t told = 0;
  auto found = compare(find_candidates({pages(0x100000, kPages * P)}, base), base, memory(filled),
                       [&](uint64_t bytes) { told += bytes; });
  uint64_t at = 0x100000, own = 0;
  for (const auto& extent : found) {
    ASSERT_EQ(extent.address, at);
    for (uint64_t page = at; page < at + extent.size; page += P) {
      const uint64_t i = (page - 0x100000) / P;
      const bool same = filled[page] == static_cast<char>(i + 1);
      ASSERT_EQ(extent.file == Extent::kOwn, !same) << i;
      if (same) {
        ASSERT_EQ(extent.offset + (page - at), i * P);
      }
      own += same ? 0 : P;
    }
    at += extent.size;
  }
  EXPECT_EQ(at, 0x100000 + kPages * P);
  EXPECT_EQ(told + own, kPages * P);
}

TEST(Increment, WastefulFilesAreGivenUp) {
  EXPECT_EQ(files_to_share({{100, 100}, {100, 50}, {100, 49}, {100, 0}}),
            (std::vector<bool>{true, true, false, false}));
  // A long series is merged into its largest files.
  std::vector<FileUse> many(12, FileUse{10, 10});
  many[3] = {1000, 900};
  many[7] = {500, 500};
  many[9] = {500, 400};
  auto share = files_to_share(many);
  EXPECT_EQ(std::count(share.begin(), share.end(), true), 3);
  EXPECT_TRUE(share[3] && share[7] && share[9]);
  many.pop_back();
  share = files_to_share(many);
  EXPECT_EQ(std::count(share.begin(), share.end(), true), 11);
}

TEST(Increment, ManyPagesOfWhichNoSampleIsTheSameAreNotCompared) {
  constexpr uint64_t kPages = 200;
  auto base = base_with_file(kPages);
  base.runs = {run(0x100000, kPages * P, 0)};
  // Of what is filled with `value`; every second page is the base's if `half`.
  auto memory_with = [](char value, bool half) -> ReadMemory {
    return [=](uint64_t address, std::span<char> into) {
      for (uint64_t at = 0; at < into.size(); at += P) {
        const uint64_t page = (address + at - 0x100000) / P;
        std::memset(&into[at], half && page % 2 == 1 ? static_cast<char>(page + 1) : value, P);
      }
      return true;
    };
  };
  auto works = [&](const ReadMemory& read) {
    auto candidates = find_candidates({pages(0x100000, kPages * P)}, base);
    skip_unlike(candidates, base, read);
    EXPECT_EQ(candidates.size(), 1u);
    return candidates[0];
  };
  EXPECT_EQ(works(memory_with('\xff', false)),
            (Candidate{{0x100000, kPages * P, Extent::kOwn, 0}, Work::kWrite, 0}));
  EXPECT_EQ(works(memory_with('\xff', true)).work, Work::kCompare);
  // To compare few takes no longer than to ask.
  auto few = find_candidates({pages(0x100000, 8 * P)}, base);
  skip_unlike(few, base, memory_with('\xff', false));
  EXPECT_EQ(few[0].work, Work::kCompare);
}

TEST(Increment, WhatIsNotFoundElsewhereIsLeftToWrite) {
  Pages first = pages(0x10000, 4 * P);
  first.offset = 8 * P;
  Pages second = pages(0x14000, 2 * P, 1);
  second.offset = 12 * P;
  const std::vector<Extent> extents = {{0x10000, P, 0, 0},
                                       {0x11000, P, Extent::kOwn, 0},
                                       {0x12000, P, 0, 0},
                                       {0x13000, P, Extent::kOwn, 0},
                                       {0x14000, 2 * P, Extent::kOwn, 0}};
  const auto left = left_to_write({first, second}, extents);
  ASSERT_EQ(left.size(), 3u);
  EXPECT_EQ(left[0].address, 0x11000u);
  EXPECT_EQ(left[0].offset, 9 * P);
  EXPECT_EQ(left[1].address, 0x13000u);
  EXPECT_EQ(left[1].offset, 11 * P);
  EXPECT_EQ(left[2].mapping, 1u);
  // In their places, and not across the end of a mapping.
  EXPECT_EQ(own_extents(left, {}), (std::vector<Extent>{{0x11000, P, Extent::kOwn, 9 * P},
                                                        {0x13000, P, Extent::kOwn, 11 * P},
                                                        {0x14000, 2 * P, Extent::kOwn, 12 * P}}));
  // Or one after the other.
  EXPECT_EQ(own_extents(left, 5 * P), (std::vector<Extent>{{0x11000, P, Extent::kOwn, 5 * P},
                                                           {0x13000, P, Extent::kOwn, 6 * P},
                                                           {0x14000, 2 * P, Extent::kOwn, 7 * P}}));
}

}  // namespace
}  // namespace stasis::checkpoint

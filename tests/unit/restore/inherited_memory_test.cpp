#include "restore/inherited_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include "stasis/types.h"

namespace stasis::restore {
namespace {

using kernel::PageRanges;
using schema::Mapping;
constexpr uint64_t P = kPageSize;
constexpr uint64_t kAt = 0x7f0000000000;

Mapping anonymous(uint64_t first, uint64_t pages) {
  Mapping mapping;
  mapping.set_kind(Mapping::ANONYMOUS);
  mapping.set_start(kAt + first * P);
  mapping.set_end(kAt + (first + pages) * P);
  return mapping;
}

// In pages, from kAt.
StoredPages stored(uint64_t first, uint64_t pages, uint32_t file, uint64_t offset, uint32_t layer = 0) {
  return {kAt + first * P, pages * P, offset * P, layer, file};
}
PageRanges ranges(std::initializer_list<std::pair<uint64_t, uint64_t>> pages) {
  PageRanges made;
  for (auto [start, end] : pages) made.push_back({kAt + start * P, kAt + end * P});
  return made;
}

// A family: each has a memory of its own, with one page file.
class Family : public testing::Test {
 protected:
  int add(int pid, int parent, std::initializer_list<const char*> layers) {
    auto* process = manifest.add_processes();
    process->set_pid(pid);
    process->set_parent(parent);
    process->set_session(2);
    process->set_group(2);
    process->set_memory(static_cast<uint32_t>(manifest.memories_size()));
    auto* memory = manifest.add_memories();
    memory->set_page_file(std::to_string(pid));
    for (const char* name : layers) memory->add_layers(name);
    *memory->add_mappings() = anonymous(0, 100);
    return manifest.memories_size() - 1;
  }
  void add_run(int memory, uint64_t first, uint64_t pages, uint32_t layer, uint64_t offset) {
    auto* run = manifest.mutable_memories(memory)->add_runs();
    run->set_address(kAt + first * P);
    run->set_size(pages * P);
    run->set_layer(layer);
    run->set_offset(offset * P);
  }
  PagesInCommon common() {
    auto plan = Topology::plan(manifest);
    EXPECT_TRUE(plan.ok());
    topology = std::move(plan).value();
    return PagesInCommon(manifest, topology);
  }
  schema::Manifest manifest;
  Topology topology;
};

TEST_F(Family, WhatADescendantHasIsWanted) {
  const int first = add(2, 1, {});
  const int second = add(3, 2, {"2"});
  const int third = add(4, 3, {"3", "2"});
  add_run(first, 0, 10, 0, 0);
  add_run(second, 0, 4, 1, 0);  // of its parent
  add_run(second, 4, 4, 0, 4);  // its own
  add_run(third, 4, 2, 1, 4);   // of its parent
  add_run(third, 8, 1, 2, 8);   // of its grandparent only
  add_run(third, 9, 1, 2, 3);   // another page of the file: not the same
  const auto found = common();
  EXPECT_EQ(found.with_descendants(first), (std::vector{stored(0, 4, 0, 0), stored(8, 1, 0, 8)}));
  EXPECT_EQ(found.with_descendants(second), (std::vector{stored(4, 2, 1, 4)}));
  EXPECT_TRUE(found.with_descendants(third).empty());
}

TEST_F(Family, BrothersInheritNothingFromEachOther) {
  const int first = add(2, 1, {});
  const int one = add(3, 2, {});
  const int other = add(4, 2, {"3"});
  add_run(first, 0, 1, 0, 0);
  add_run(one, 4, 4, 0, 4);
  add_run(other, 4, 4, 1, 4);
  const auto found = common();
  for (int memory : {first, one, other}) EXPECT_TRUE(found.with_descendants(memory).empty());
}

TEST_F(Family, AMappingIsAsWideAsThatOfAChild) {
  const int first = add(2, 1, {});
  const int second = add(3, 2, {"2"});
  add_run(first, 50, 10, 0, 0);
  add_run(second, 50, 10, 1, 0);
  *manifest.mutable_memories(first)->mutable_mappings(0) = anonymous(50, 10);
  *manifest.mutable_memories(second)->mutable_mappings(0) = anonymous(40, 30);
  auto wide = common().widened(first, manifest.memories(first).mappings(0));
  EXPECT_EQ(wide.start(), kAt + 40 * P);
  EXPECT_EQ(wide.end(), kAt + 70 * P);
  // Of another kind it cannot be a part.
  manifest.mutable_memories(second)->mutable_mappings(0)->set_no_reserve(true);
  wide = common().widened(first, manifest.memories(first).mappings(0));
  EXPECT_EQ(wide.start(), kAt + 50 * P);
  EXPECT_EQ(wide.end(), kAt + 60 * P);
}

TEST(InheritedMemory, FindsThePagesThatAreThere) {
  InheritedMemory memory;
  EXPECT_TRUE(memory.empty());
  memory.add_mapping(anonymous(0, 20));
  memory.add_pages(stored(0, 10, 0, 0));
  EXPECT_EQ(memory.find({stored(2, 2, 0, 2), stored(4, 2, 0, 9), stored(6, 2, 1, 6), stored(8, 4, 0, 8)}),
            ranges({{2, 4}, {8, 10}}));
  // What a process in between has changed.
  memory.add_pages(stored(3, 1, 5, 0));
  EXPECT_EQ(memory.find({stored(2, 3, 0, 2)}), ranges({{2, 3}, {4, 5}}));
  EXPECT_EQ(memory.find({stored(3, 1, 5, 0)}), ranges({{3, 4}}));
  EXPECT_EQ(memory.pages(), ranges({{0, 10}}));
}

TEST(InheritedMemory, AMappingIsCoveredByOneOfItsKind) {
  InheritedMemory memory;
  memory.add_mapping(anonymous(10, 20));
  EXPECT_TRUE(memory.covers(anonymous(10, 20)));
  EXPECT_TRUE(memory.covers(anonymous(12, 3)));
  EXPECT_FALSE(memory.covers(anonymous(12, 30)));
  auto other = anonymous(12, 3);
  other.set_grows_down(true);
  EXPECT_FALSE(memory.covers(other));
  other = anonymous(12, 3);
  other.add_advice(MADV_HUGEPAGE);
  EXPECT_FALSE(memory.covers(other));
  other = anonymous(12, 3);
  other.set_kind(Mapping::PRIVATE_FILE);
  EXPECT_FALSE(memory.covers(other));
  other.set_kind(Mapping::SHARED_MEMORY);
  EXPECT_FALSE(memory.covers(other));

  // The same place in a file counts, whatever the part.
  Mapping file = anonymous(40, 10);
  file.set_kind(Mapping::PRIVATE_FILE);
  file.set_path("/a");
  file.set_file_offset(5 * P);
  memory.add_mapping(file);
  Mapping part = file;
  part.set_start(kAt + 42 * P);
  EXPECT_FALSE(memory.covers(part));
  part.set_file_offset(7 * P);
  EXPECT_TRUE(memory.covers(part));
  part.set_path("/b");
  EXPECT_FALSE(memory.covers(part));
}

TEST(InheritedMemory, ANewMappingTakesThePlaceOfWhatWasThere) {
  InheritedMemory memory;
  memory.add_mapping(anonymous(0, 20));
  memory.add_pages(stored(0, 20, 0, 0));
  auto other = anonymous(5, 5);
  other.set_no_reserve(true);
  memory.add_mapping(other);
  EXPECT_EQ(memory.pages(), ranges({{0, 5}, {10, 20}}));
  EXPECT_TRUE(memory.covers(anonymous(0, 5)));
  EXPECT_FALSE(memory.covers(anonymous(4, 2)));
  EXPECT_TRUE(memory.covers(other));
  EXPECT_EQ(memory.except(ranges({{0, 5}, {12, 20}})), ranges({{5, 12}}));
}

}  // namespace
}  // namespace stasis::restore

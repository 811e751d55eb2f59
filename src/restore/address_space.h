// Builds the memory of a new process from the image.
#pragma once

#include <functional>
#include <map>
#include <vector>

#include "restore/descriptors.h"
#include "restore/inherited_memory.h"
#include "restore/restart.h"
#include "restore/skeleton.h"
#include "restore/work_area.h"
#include "schema/manifest.pb.h"
#include "stasis/result.h"

namespace stasis::restore {

// The files that all memories need, opened by the builder before anything is forked.
class MemoryFiles {
 public:
  // Also checks that mapped files are still the ones that were mapped.
  static Result<MemoryFiles> open(const image::Image& image, DescriptorTable& table);
  // Opens what has to be there and compares; for prepare(), which changes nothing.
  static Result<void> check(const schema::Manifest& manifest);

  // `layer` as in schema::PageRun. -1: the memory has none.
  int page_file(int memory, uint32_t layer) const {
    const auto& files = page_files_[static_cast<size_t>(memory)];
    return layer < files.size() ? files[layer] : -1;
  }
  int executable(int memory) const { return executables_[memory]; }
  int shared_memory(int object) const { return shared_[object]; }
  // Of a System V segment, by its id; in whole pages.
  uint64_t segment_size(int32_t id) const { return segment_sizes_.at(id); }

 private:
  std::vector<std::vector<int>> page_files_;  // by memory and layer
  std::vector<int> executables_;
  std::vector<int> shared_;
  std::map<int32_t, uint64_t> segment_sizes_;
};

// The memory of one process, and what all of them need.
struct MemoryRequest {
  const schema::Memory& memory;
  int index;
  const MemoryFiles& files;
  DescriptorTable& table;
  const WorkArea& area;
  MemoryMode mode;
  std::string_view saved_vdso;
  const PagesInCommon& common;
  const std::function<void(uint64_t bytes)>& read;
};

// Puts into a stripped skeleton what it has in common with those who will descend from it. `inherited` is
// what it has from its own birth, and then what its children have from theirs.
Result<void> begin_memory(Skeleton& skeleton, const MemoryRequest& request, InheritedMemory& inherited);

// Maps everything into a skeleton that has nothing but `inherited`, and fills it. The leader's stub and the
// work area stay.
Result<void> build_memory(Skeleton& skeleton, const MemoryRequest& request, InheritedMemory& inherited);

}  // namespace stasis::restore

// The address space of a frozen process: what each mapping is and where its pages come from again.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "freeze/frozen_tree.h"
#include "inspect/descriptors.h"
#include "kernel/proc.h"
#include "remote/foothold.h"
#include "schema/manifest.pb.h"
#include "stasis/result.h"

namespace stasis::inspect {

// Which of a mapping's pages go into the image.
enum class Content {
  kNone,       // nothing: the file has it all, or there is nothing
  kModified,   // pages that differ from the file (or from zeros)
  kEverything  // all pages that exist: the file cannot be had again, or is an image of ours
};

struct MappingFacts {
  kernel::MapsEntry entry;
  schema::Mapping mapping;
  Content content = Content::kNone;
  bool mapped_page_file = false;  // a page file of an image of ours, mapped by a restart
};

// Shared objects are found once and numbered over the whole tree.
class SharedMemoryTable {
 public:
  // The index of the object, a new one if it was not seen before.
  uint32_t index_of(uint64_t device, uint64_t inode, bool& is_new);

 private:
  std::map<std::pair<uint64_t, uint64_t>, uint32_t> known_;
};

// Classifies all mappings. Refuses what cannot be restored (devices), naming it.
Result<std::vector<MappingFacts>> classify_mappings(const freeze::FrozenProcess& process,
                                                    const std::vector<kernel::MapsEntry>& maps,
                                                    const remote::Foothold& foothold,
                                                    const DescriptorGraph& files, SharedMemoryTable& shared,
                                                    schema::Manifest& manifest);

// What VmFlags say and maps does not: advice, locks, growth. `flags` may come from a fork of the process.
void add_flags(std::vector<MappingFacts>& mappings, const std::vector<kernel::MappingFlags>& flags);

// The MCL_* by which the program locks what it maps; 0: it does not. The kernel tells nobody, but the scratch
// area of the foothold is such a mapping.
uint32_t lock_of_future_mappings(const std::vector<kernel::MappingFlags>& flags,
                                 const remote::Foothold& foothold);

}  // namespace stasis::inspect

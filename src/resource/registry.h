// The one list of kinds. Its order is the order in which descriptors are offered to them; docs/support.md is
// made of it.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "stasis/descriptor.h"

namespace stasis::resource {

// Kinds of descriptors, most specific first.
std::span<const DescriptorKind* const> descriptor_kinds();
const DescriptorKind* find_descriptor_kind(std::string_view name);
// The first kind that recognises the file. There always is one: the last of the list takes and refuses
// everything.
const DescriptorKind& recognise(const OpenFile& file, const Observation& tree);

// Everything, also what belongs to tasks and memory: for the table of what is supported.
std::vector<KindInfo> all_kinds();

}  // namespace stasis::resource

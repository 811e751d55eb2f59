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

// Kinds of a plugin, which are offered descriptors before all others. Before anything else is asked.
void add_kinds(std::span<const DescriptorKind* const> kinds);
// Whether memory with this name in /proc/PID/maps is that of a kind, which maps it again (see
// DescriptorKind::maps()).
bool is_mapped_by_kind(std::string_view name);

// Everything, also what belongs to tasks and memory: for the table of what is supported.
std::vector<KindInfo> all_kinds();

}  // namespace stasis::resource

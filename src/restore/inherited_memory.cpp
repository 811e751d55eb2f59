#include "restore/inherited_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <string_view>

namespace stasis::restore {

using kernel::PageRange;
using kernel::PageRanges;
using schema::Mapping;

namespace {

std::vector<int> advice_on_size(const Mapping& mapping) {
  std::vector<int> found;
  for (int advice : mapping.advice()) {
    if (advice == MADV_HUGEPAGE || advice == MADV_NOHUGEPAGE) found.push_back(advice);
  }
  return found;
}

std::string_view given_name(const Mapping& mapping) {
  return mapping.path().starts_with("[anon:") ? std::string_view(mapping.path()) : std::string_view();
}

bool are_alike(const Mapping& one, const Mapping& other) {
  if (one.kind() != other.kind() || one.grows_down() != other.grows_down() ||
      one.no_reserve() != other.no_reserve() || advice_on_size(one) != advice_on_size(other))
    return false;
  if (one.kind() == Mapping::ANONYMOUS) return given_name(one) == given_name(other);
  return one.path() == other.path() && one.host_path() == other.host_path() &&
         one.description() == other.description() &&
         one.file_offset() - one.start() == other.file_offset() - other.start();
}

template <typename Pages>
auto first_behind(Pages& pages, uint64_t address) {
  return std::upper_bound(pages.begin(), pages.end(), address,
                          [](uint64_t value, const StoredPages& one) { return value < one.end(); });
}

}  // namespace

bool can_be_inherited(const Mapping& mapping) {
  return (mapping.kind() == Mapping::ANONYMOUS || mapping.kind() == Mapping::PRIVATE_FILE) &&
         mapping.huge_page_shift() == 0;
}

std::vector<StoredPages> within(const std::vector<StoredPages>& pages, const PageRange& range) {
  std::vector<StoredPages> found;
  for (auto one = first_behind(pages, range.start); one != pages.end() && one->address < range.end; ++one)
    found.push_back(one->part({std::max(one->address, range.start), std::min(one->end(), range.end)}));
  return found;
}

std::vector<StoredPages> without(const std::vector<StoredPages>& pages, const PageRanges& ranges) {
  std::vector<StoredPages> left;
  for (const auto& one : pages) {
    for (const auto& range : kernel::difference({{one.address, one.end()}}, ranges))
      left.push_back(one.part(range));
  }
  return left;
}

PagesInCommon::PagesInCommon(const schema::Manifest& manifest, const Topology& topology) {
  std::map<std::string_view, uint32_t> numbers;
  std::vector<int> users;
  for (const auto& memory : manifest.memories()) {
    auto& files = files_.emplace_back();
    auto add = [&](const std::string& name) {
      auto [known, is_new] = numbers.try_emplace(name, static_cast<uint32_t>(users.size()));
      if (is_new) users.push_back(0);
      files.push_back(known->second);
    };
    add(memory.page_file());
    for (const auto& name : memory.layers()) add(name);
    std::vector<uint32_t> distinct = files;
    std::sort(distinct.begin(), distinct.end());
    distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
    for (uint32_t file : distinct) ++users[file];
  }
  for (int count : users) in_common_.push_back(count > 1);
  wanted_.resize(files_.size());
  below_.resize(files_.size());
  if (std::none_of(in_common_.begin(), in_common_.end(), [](bool common) { return common; })) return;
  for (size_t root : topology.roots()) find(manifest, topology, root);
}

StoredPages PagesInCommon::stored(int memory, const schema::PageRun& run) const {
  return {run.address(), run.size(), run.offset(), run.layer(),
          files_[static_cast<size_t>(memory)][run.layer()]};
}

const std::vector<StoredPages>& PagesInCommon::with_descendants(int memory) const {
  return wanted_[static_cast<size_t>(memory)];
}

PagesInCommon::Found PagesInCommon::look_at(const schema::Manifest& manifest, int memory) const {
  Found found;
  const auto& mappings = manifest.memories(memory).mappings();
  auto mapping = mappings.begin();
  for (const auto& run : manifest.memories(memory).runs()) {
    const uint32_t file = stored(memory, run).file;
    if (!in_common_[file]) continue;
    const uint64_t end = run.address() + run.size();
    found.pages[{file, run.offset() - run.address()}].push_back({run.address(), end});
    while (mapping != mappings.end() && mapping->end() <= run.address()) ++mapping;
    for (auto one = mapping; one != mappings.end() && one->start() < end; ++one)
      found.mappings.try_emplace({one->start(), one->end()}, &*one);
  }
  // What touches is one, also when it is two runs.
  for (auto& [place, ranges] : found.pages) ranges = kernel::normalized(std::move(ranges));
  return found;
}

// Of the process and all that descend from it.
PagesInCommon::Found PagesInCommon::find(const schema::Manifest& manifest, const Topology& topology,
                                         size_t birth) {
  const Birth& one = topology.births()[birth];
  Found all;
  auto add = [&](Found&& more) {
    for (auto& [place, ranges] : more.pages) {
      auto& known = all.pages[place];
      known.insert(known.end(), ranges.begin(), ranges.end());
    }
    all.mappings.merge(more.mappings);
  };
  auto normalize = [&] {
    for (auto& [place, ranges] : all.pages) ranges = kernel::normalized(std::move(ranges));
  };
  for (const auto* children : {&one.early_children, &one.children}) {
    for (size_t child : *children) add(find(manifest, topology, child));
  }
  normalize();
  if (one.process == nullptr || one.process->state() == schema::Process::ZOMBIE) return all;

  const auto memory = static_cast<int>(one.process->memory());
  if (!all.pages.empty()) {
    auto& wanted = wanted_[one.process->memory()];
    for (const auto& run : manifest.memories(memory).runs()) {
      const StoredPages pages = stored(memory, run);
      auto below = all.pages.find({pages.file, pages.offset - pages.address});
      if (below == all.pages.end()) continue;
      for (const auto& range : kernel::intersection({{pages.address, pages.end()}}, below->second))
        wanted.push_back(pages.part(range));
    }
    if (!wanted.empty()) below_[one.process->memory()] = all.mappings;
  }
  add(look_at(manifest, memory));
  normalize();
  return all;
}

Mapping PagesInCommon::widened(int memory, const Mapping& mapping) const {
  Mapping wide = mapping;
  const auto& below = below_[static_cast<size_t>(memory)];
  for (bool wider = true; wider;) {
    wider = false;
    for (const auto& [place, other] : below) {
      if (place.first >= wide.end()) break;
      if (place.second <= wide.start() || !are_alike(wide, *other)) continue;
      if (place.first >= wide.start() && place.second <= wide.end()) continue;
      if (place.first < wide.start()) {
        wide.set_start(place.first);
        wide.set_file_offset(other->file_offset());
      }
      wide.set_end(std::max(wide.end(), place.second));
      wider = true;
    }
  }
  return wide;
}

bool InheritedMemory::covers(const Mapping& mapping) const {
  return can_be_inherited(mapping) && std::any_of(parts_.begin(), parts_.end(), [&](const Part& part) {
           return part.range.start <= mapping.start() && mapping.end() <= part.range.end &&
                  are_alike(*part.like, mapping);
         });
}

PageRanges InheritedMemory::except(const PageRanges& kept) const {
  PageRanges all;
  for (const auto& part : parts_) all.push_back(part.range);
  return kernel::difference(kernel::normalized(std::move(all)), kernel::normalized(kept));
}

PageRanges InheritedMemory::find(const std::vector<StoredPages>& wanted) const {
  PageRanges found;
  for (const auto& one : wanted) {
    for (auto there = first_behind(pages_, one.address); there != pages_.end() && there->address < one.end();
         ++there) {
      if (there->file != one.file || there->offset - there->address != one.offset - one.address) continue;
      found.push_back({std::max(there->address, one.address), std::min(there->end(), one.end())});
    }
  }
  return kernel::normalized(std::move(found));
}

PageRanges InheritedMemory::pages() const {
  PageRanges ranges;
  for (const auto& one : pages_) ranges.push_back({one.address, one.end()});
  return kernel::normalized(std::move(ranges));
}

void InheritedMemory::add_mapping(const Mapping& mapping) {
  const PageRange range{mapping.start(), mapping.end()};
  std::vector<Part> parts;
  for (const auto& part : parts_) {
    for (const auto& left : kernel::difference({part.range}, {range})) parts.push_back({left, part.like});
  }
  parts.push_back({range, std::make_shared<const Mapping>(mapping)});
  std::sort(parts.begin(), parts.end(),
            [](const Part& a, const Part& b) { return a.range.start < b.range.start; });
  parts_ = std::move(parts);
  remove_pages(range);
}

void InheritedMemory::remove_pages(const PageRange& range) { pages_ = without(pages_, {range}); }

void InheritedMemory::add_pages(const StoredPages& pages) {
  // Mostly there is nothing, and they come in the order of their addresses.
  if (first_behind(pages_, pages.address) != pages_.end()) remove_pages({pages.address, pages.end()});
  pages_.insert(first_behind(pages_, pages.address), pages);
}

}  // namespace stasis::restore

#include "stasis/descriptor.h"

#include <algorithm>

namespace stasis {

Result<int64_t> Process::call(long number, std::span<const uint64_t> arguments) {
  Call one = {.number = number};
  std::copy_n(arguments.begin(), std::min(arguments.size(), one.arguments.size()), one.arguments.begin());
  STASIS_CHECK(run({&one, 1}));
  return one.result;
}

}  // namespace stasis

namespace stasis::resource {

std::string OpenFile::describe() const {
  if (owners.empty()) return fmt::format("a descriptor in flight ({})", link);
  if (number < 0) return fmt::format("{} of task {}", link, pid);
  return fmt::format("descriptor {} of task {} ({})", number, pid, link);
}

std::string OpenFile::info(std::string_view key) const {
  size_t start = 0;
  while (start < fdinfo.size()) {
    size_t end = fdinfo.find('\n', start);
    if (end == std::string::npos) end = fdinfo.size();
    std::string_view line(fdinfo.data() + start, end - start);
    if (line.starts_with(key) && line.size() > key.size() && line[key.size()] == ':') {
      line.remove_prefix(key.size() + 1);
      size_t first = line.find_first_not_of(" \t");
      return first == std::string_view::npos ? std::string() : std::string(line.substr(first));
    }
    start = end + 1;
  }
  return {};
}

const Observation::Index& Observation::index(const std::string& name, const Key& key) const {
  auto [entry, is_new] = indices_.try_emplace(name);
  if (is_new) {
    for (const auto& file : all()) {
      if (std::string value = key(*file); !value.empty()) entry->second.emplace(std::move(value), file.get());
    }
  }
  return entry->second;
}

const OpenFile* Observation::description_of(int) const { return nullptr; }

Result<Process*> Observation::owner(const OpenFile& file) {
  return Error{"save", file.describe(), "no process can be asked about it", {}, ErrorCode::kRefused};
}

const Record* Making::record(uint32_t id) const {
  if (by_id_.empty()) {
    for (const Record& record : records()) by_id_.emplace(record.id, &record);
  }
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

const Making::Index& Making::index(std::string_view kind, const std::string& name, const Key& key) const {
  auto [entry, is_new] = indices_.try_emplace(fmt::format("{}: {}", kind, name));
  if (is_new) {
    for (const Record& record : records()) {
      if (record.kind != kind) continue;
      if (std::string value = key(record); !value.empty()) entry->second.emplace(std::move(value), &record);
    }
  }
  return entry->second;
}

std::string Record::describe() const { return fmt::format("{} ({})", kind, shown); }

Result<void> DescriptorKind::fill(const Record&, int, Making&) const { return {}; }
Result<void> DescriptorKind::settle(const Record&, int, Making&, Round) const { return {}; }
Result<void> DescriptorKind::finish(const Record&, Finishing&) const { return {}; }
Result<void> DescriptorKind::relocate(Record&, const Place&) const { return {}; }
std::string DescriptorKind::summary(const Record&) const { return {}; }

}  // namespace stasis::resource

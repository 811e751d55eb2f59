#include "restore/path_map.h"

#include <sys/stat.h>

#include "resource/registry.h"

namespace stasis::restore {
namespace {

bool exists(const std::string& path) {
  struct stat status = {};
  return ::lstat(path.c_str(), &status) == 0;
}

bool has_directory(const std::string& path) {
  struct stat status = {};
  const std::string directory = path.substr(0, path.rfind('/'));
  return ::stat(directory.empty() ? "/" : directory.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

// Without a slash at its end; "/" becomes empty, so that all paths are below it.
std::string without_slash(std::string path) {
  while (path.ends_with('/')) path.pop_back();
  return path;
}

}  // namespace

Result<void> PathMap::add(const std::string& rule) {
  const size_t sign = rule.find("=/");
  if (!rule.starts_with('/') || sign == std::string::npos) {
    return Error{"restart", rule, "this is not OLD=NEW with two absolute paths",
                 "--map-path /home/old=/home/new", ErrorCode::kUsage};
  }
  rules_.emplace_back(without_slash(rule.substr(0, sign)), without_slash(rule.substr(sign + 1)));
  return {};
}

std::string PathMap::place_of(const std::string& path) const {
  if (!path.starts_with('/')) return path;
  const std::pair<std::string, std::string>* best = nullptr;
  for (const auto& rule : rules_) {
    const std::string& old = rule.first;
    const bool fits = path.starts_with(old) && (path.size() == old.size() || path[old.size()] == '/');
    if (fits && (best == nullptr || old.size() > best->first.size())) best = &rule;
  }
  if (best == nullptr) return path;
  std::string place = best->second + path.substr(best->first.size());
  if (place.empty()) place = "/";
  if (exists(place) || (!exists(path) && has_directory(place))) return place;
  return path;
}

Result<void> relocate(schema::Manifest& manifest, const PathMap& paths) {
  auto moved = [&](const std::string& path) { return paths.place_of(path); };
  for (auto& memory : *manifest.mutable_memories()) {
    memory.set_executable(moved(memory.executable()));
    for (auto& mapping : *memory.mutable_mappings()) {
      if (mapping.kind() == schema::Mapping::PRIVATE_FILE || mapping.kind() == schema::Mapping::SHARED_FILE)
        mapping.set_path(moved(mapping.path()));
    }
  }
  for (auto& process : *manifest.mutable_processes()) {
    process.set_working_directory(moved(process.working_directory()));
    if (process.root() != "/") process.set_root(moved(process.root()));
  }
  for (auto& file : *manifest.mutable_captured_files()) {
    file.set_path(moved(file.path()));
    for (auto& other : *file.mutable_other_paths()) other = moved(other);
  }
  for (auto& description : *manifest.mutable_descriptions()) {
    const auto* kind = resource::find_descriptor_kind(description.kind());
    if (kind == nullptr) continue;  // whoever makes it says so
    resource::Record record;
    record.id = description.id();
    record.kind = description.kind();
    record.payload = description.payload();
    record.shown = description.shown();
    STASIS_CHECK(kind->relocate(record, moved));
    description.set_payload(std::move(record.payload));
  }
  return {};
}

}  // namespace stasis::restore

#include "kernel/mounts.h"

#include <sys/sysmacros.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <sstream>
#include <string_view>

#include "kernel/proc.h"

namespace stasis::kernel {
namespace {

// Blanks in names are written as octal numbers.
std::string unescaped(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      result += static_cast<char>(std::strtol(std::string(text.substr(i + 1, 3)).c_str(), nullptr, 8));
      i += 3;
    } else {
      result += text[i];
    }
  }
  return result;
}

int group_of(const std::string& word, std::string_view key) {
  return word.starts_with(key) ? std::atoi(word.c_str() + key.size()) : 0;
}

// "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue"
Mount parse(const std::string& line) {
  std::istringstream words(line);
  Mount mount;
  std::string device, root, point, word, source;
  words >> mount.id >> mount.parent >> device >> root >> point >> mount.options;
  while (words >> word && word != "-") {
    mount.shared = std::max(mount.shared, group_of(word, "shared:"));
    mount.master = std::max(mount.master, group_of(word, "master:"));
    mount.unbindable = mount.unbindable || word == "unbindable";
  }
  words >> mount.type >> source >> mount.super_options;
  mount.root = unescaped(root);
  mount.point = unescaped(point);
  mount.source = unescaped(source);
  mount.super_options = unescaped(mount.super_options);
  const size_t colon = device.find(':');
  if (colon != std::string::npos)
    mount.device = makedev(static_cast<unsigned>(std::atoi(device.c_str())),
                           static_cast<unsigned>(std::atoi(device.c_str() + colon + 1)));
  return mount;
}

}  // namespace

std::vector<Mount> parse_mounts(const std::string& text) {
  std::vector<Mount> mounts;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) mounts.push_back(parse(line));
  return mounts;
}

Result<std::vector<Mount>> read_mounts(HostTid task) {
  STASIS_TRY(std::string text, read_proc(task, "mountinfo"));
  return parse_mounts(text);
}

std::optional<std::string> path_below(const std::string& path, const std::string& directory) {
  if (path == directory) return "";
  if (directory == "/") return path.substr(1);
  if (path.starts_with(directory + "/")) return path.substr(directory.size() + 1);
  return std::nullopt;
}

std::string path_joined(const std::string& directory, const std::string& below) {
  if (below.empty()) return directory;
  return directory == "/" ? "/" + below : directory + "/" + below;
}

bool link_mounts(std::vector<Mount>& mounts) {
  std::map<int, const Mount*> by_id;
  for (const Mount& mount : mounts) by_id[mount.id] = &mount;
  int roots = 0;
  for (Mount& mount : mounts) {
    const auto parent = by_id.find(mount.parent);
    if (parent == by_id.end() || mount.parent == mount.id) {
      mount.parent = 0;
      ++roots;
      continue;
    }
    auto below = path_below(mount.point, parent->second->point);
    if (!below) return false;
    mount.below = *below;
  }
  return roots == 1;
}

std::vector<std::string> mount_options(const std::string& options) {
  std::vector<std::string> words(1);
  for (size_t i = 0; i < options.size(); ++i) {
    if (options[i] == ',') {
      words.emplace_back();
      continue;
    }
    // A name can have a comma.
    if (options[i] == '\\' && i + 1 < options.size()) words.back() += options[i++];
    words.back() += options[i];
  }
  std::erase(words, "");
  return words;
}

bool has_option(const std::string& options, std::string_view option) {
  const auto words = mount_options(options);
  return std::find(words.begin(), words.end(), option) != words.end();
}

uint64_t mount_attributes(const std::string& options) {
  // The C library's header has them since 2.36, but not all. Without either option the kernel updates access
  // times always.
  constexpr std::pair<std::string_view, uint64_t> kAttributes[] = {
      {"ro", 0x1},       {"nosuid", 0x2},      {"nodev", 0x4},           {"noexec", 0x8},
      {"noatime", 0x10}, {"nodiratime", 0x80}, {"nosymfollow", 0x200000}};
  constexpr uint64_t kStrictAccessTime = 0x20;
  uint64_t attributes = 0;
  for (const auto& [name, value] : kAttributes) {
    if (has_option(options, name)) attributes |= value;
  }
  if (!has_option(options, "noatime") && !has_option(options, "relatime")) attributes |= kStrictAccessTime;
  return attributes;
}

}  // namespace stasis::kernel

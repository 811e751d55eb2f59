#include "kernel/mounts.h"

#include <sys/mount.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cstdlib>
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

unsigned long mount_flags(const std::string& options) {
  constexpr std::pair<std::string_view, unsigned long> kFlags[] = {
      {"ro", MS_RDONLY},       {"nosuid", MS_NOSUID},         {"nodev", MS_NODEV},      {"noexec", MS_NOEXEC},
      {"noatime", MS_NOATIME}, {"nodiratime", MS_NODIRATIME}, {"relatime", MS_RELATIME}};
  unsigned long flags = 0;
  std::istringstream words(options);
  for (std::string word; std::getline(words, word, ',');) {
    for (const auto& [name, flag] : kFlags) {
      if (word == name) flags |= flag;
    }
  }
  return flags;
}

}  // namespace stasis::kernel

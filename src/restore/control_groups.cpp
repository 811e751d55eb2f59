#include "restore/control_groups.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <sstream>
#include <vector>

#include "kernel/proc.h"
#include "stasis/fd.h"

namespace stasis::restore {

namespace {

struct Hierarchy {
  std::string place;
  std::vector<std::string> options;  // controllers, or "name=..."; none: the one of version 2
};

std::vector<std::string> split(const std::string& text, char by) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, by);) parts.push_back(part);
  return parts;
}

std::vector<Hierarchy> mounted_hierarchies() {
  std::vector<Hierarchy> all;
  // /proc is the session's by now, in which we are not.
  auto text = read_file(kernel::host_proc(), "self/mounts");
  for (const std::string& line : split(text.ok() ? *text : "", '\n')) {
    auto words = split(line, ' ');
    if (words.size() < 4) continue;
    if (words[2] == "cgroup") all.push_back({words[1], split(words[3], ',')});
    if (words[2] == "cgroup2") all.push_back({words[1], {}});
  }
  return all;
}

// "4:memory:/some/group"; of version 2 "0::/some/group".
std::optional<std::string> place_of(const std::string& line) {
  const size_t first = line.find(':'), second = line.find(':', first + 1);
  if (first == std::string::npos || second == std::string::npos) return std::nullopt;
  const auto wanted = split(line.substr(first + 1, second - first - 1), ',');
  for (const Hierarchy& hierarchy : mounted_hierarchies()) {
    const bool same = wanted.empty()
                          ? hierarchy.options.empty()
                          : std::all_of(wanted.begin(), wanted.end(), [&](const std::string& controller) {
                              return std::find(hierarchy.options.begin(), hierarchy.options.end(),
                                               controller) != hierarchy.options.end();
                            });
    if (same) return hierarchy.place + line.substr(second + 1);
  }
  return std::nullopt;
}

}  // namespace

Result<void> join_control_groups(HostTid task, const schema::Process& process) {
  for (const auto& line : process.control_groups()) {
    auto place = place_of(line);
    // One whose group was removed while it was in it stays where it is.
    constexpr std::string_view kDeleted = " (deleted)";
    if (!place || place->ends_with(kDeleted)) continue;
    for (size_t slash = place->find('/', 1); slash != std::string::npos; slash = place->find('/', slash + 1))
      ::mkdir(place->substr(0, slash).c_str(), 0755);
    ::mkdir(place->c_str(), 0755);
    auto file = open_file(*place + "/cgroup.procs", O_WRONLY);
    Result<void> joined;
    if (file.ok()) {
      joined = write_all(file->get(), std::to_string(task.value));
    } else {
      joined = std::move(file).error();
    }
    if (joined.ok() || ::geteuid() != 0) continue;
    return Error{"restart: join a control group", *place, joined.error().cause,
                 "make the group again, with what it needs", ErrorCode::kFailed};
  }
  return {};
}

}  // namespace stasis::restore

#include "inspect/control_groups.h"

#include <fmt/format.h>

#include <map>
#include <sstream>

#include "kernel/proc.h"

namespace stasis::inspect {

std::vector<std::string> own_groups(const std::string& text, const std::string& common) {
  std::vector<std::string> own;
  if (text == common) return own;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (("\n" + common).find("\n" + line + "\n") == std::string::npos) own.push_back(line);
  }
  return own;
}

std::vector<std::vector<std::string>> groups_of_threads(const freeze::FrozenProcess& process,
                                                        const std::string& of_first) {
  std::vector<std::vector<std::string>> all(process.threads.size() - 1);
  // Reading all takes a while where there are many, and nearly everywhere they can be in no other.
  if (of_first == "0::/\n" || of_first.empty()) return all;
  for (size_t i = 0; i < all.size(); ++i) {
    auto groups = kernel::read_proc(process.threads[i + 1].tid, "cgroup");
    if (groups.ok()) all[i] = own_groups(*groups, of_first);
  }
  return all;
}

namespace {

// By hierarchies, which come and go: "4:memory:" and "/some/group".
std::map<std::string, std::string> by_hierarchy(const std::string& text) {
  std::map<std::string, std::string> groups;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t start = line.find(":/", line.find(':') + 1);
    if (start != std::string::npos) groups[line.substr(0, start + 1)] = line.substr(start + 1);
  }
  return groups;
}

}  // namespace

// The namespace shows groups from its roots on, and we see whole paths: what is before is the root.
Result<std::vector<std::string>> roots_of_groups(HostTid task, const std::string& whole,
                                                 const std::string& shown) {
  std::vector<std::string> roots;
  auto inside = by_hierarchy(shown);
  for (const auto& [hierarchy, group] : by_hierarchy(whole)) {
    const std::string& below = inside[hierarchy];
    if (below.empty()) continue;
    if (below == "/") {
      roots.push_back(hierarchy + group);
      continue;
    }
    if (below.starts_with("/..") || !group.ends_with(below)) {
      return Error{
          "save", fmt::format("task {}", task),
          fmt::format("it is in a control group ({}) outside of the root of its cgroup namespace", group),
          "move it back below that root", ErrorCode::kRefused};
    }
    roots.push_back(hierarchy + (group == below ? "/" : group.substr(0, group.size() - below.size())));
  }
  return roots;
}

}  // namespace stasis::inspect

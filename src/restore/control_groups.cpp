#include "restore/control_groups.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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

// A line of /proc/PID/cgroup: "4:memory:/some/group"; of version 2 "0::/some/group".
struct Membership {
  std::vector<std::string> options;  // as in Hierarchy
  std::string path;
};

std::optional<Membership> parse_membership(const std::string& line) {
  const size_t first = line.find(':');
  const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
  if (second == std::string::npos) return std::nullopt;
  return Membership{split(line.substr(first + 1, second - first - 1), ','), line.substr(second + 1)};
}

// linux/mount.h clashes with the C library's header.
constexpr unsigned kCloseOnExec = 1;                           // FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC
constexpr unsigned kSetFlag = 0, kSetString = 1, kCreate = 6;  // FSCONFIG_*

// Without a place. A hierarchy is there for as long as it has groups, whether or not it is mounted.
Fd mount_hierarchy(const std::vector<std::string>& options) {
  Fd context(static_cast<int>(::syscall(SYS_fsopen, options.empty() ? "cgroup2" : "cgroup", kCloseOnExec)));
  if (!context) return {};
  const auto set = [&](unsigned command, const char* key, const char* value) {
    return ::syscall(SYS_fsconfig, context.get(), command, key, value, 0) == 0;
  };
  constexpr std::string_view kName = "name=";
  for (const std::string& option : options) {
    const bool is_name = option.starts_with(kName);
    if (is_name && options.size() == 1 && !set(kSetFlag, "none", nullptr)) return {};
    if (is_name ? !set(kSetString, "name", option.c_str() + kName.size())
                : !set(kSetFlag, option.c_str(), nullptr))
      return {};
  }
  if (!set(kCreate, nullptr, nullptr)) return {};
  return Fd(static_cast<int>(::syscall(SYS_fsmount, context.get(), kCloseOnExec, 0)));
}

// Its root directory. The program may have mounted it where only it sees that. Empty: there is none here.
Fd open_hierarchy(const std::vector<std::string>& options) {
  for (const Hierarchy& hierarchy : mounted_hierarchies()) {
    const auto& its = hierarchy.options;
    const bool same = options.empty()
                          ? its.empty()
                          : std::all_of(options.begin(), options.end(), [&](const std::string& option) {
                              return std::find(its.begin(), its.end(), option) != its.end();
                            });
    if (!same) continue;
    auto root = open_file(hierarchy.place, O_PATH | O_DIRECTORY);
    if (root.ok()) return std::move(*root);
  }
  return mount_hierarchy(options);
}

// Makes what is not there of it. A path that leaves the hierarchy is of a group that is outside of what we
// see of it.
Result<Fd> make_group(Fd directory, const std::string& path) {
  for (const std::string& name : split(path, '/')) {
    if (name.empty()) continue;
    if (name == "." || name == "..") return errno_error("find a control group", path, EXDEV);
    ::mkdirat(directory.get(), name.c_str(), 0755);
    STASIS_TRY(directory, open_file(directory.get(), name, O_PATH | O_DIRECTORY | O_NOFOLLOW));
  }
  return directory;
}

// `members`: the files of a group into which one writes who joins it; the first that it has.
Result<void> join_group(HostTid task, const Fd& group, std::initializer_list<const char*> members) {
  Error missing;
  for (const char* name : members) {
    auto file = open_file(group.get(), name, O_WRONLY);
    if (file.ok()) return write_all(file->get(), std::to_string(task.value));
    missing = std::move(file).error();
  }
  return missing;
}

template <typename Lines>
Result<void> join(HostTid task, const Lines& lines, std::initializer_list<const char*> members) {
  for (const auto& line : lines) {
    auto membership = parse_membership(line);
    // One whose group was removed while it was in it stays where it is.
    if (!membership || membership->path.ends_with(" (deleted)")) continue;
    Fd root = open_hierarchy(membership->options);
    if (!root) continue;
    auto group = make_group(std::move(root), membership->path);
    Result<void> joined = group.ok() ? join_group(task, *group, members) : std::move(group).error();
    if (joined.ok() || ::geteuid() != 0) continue;
    return Error{"restart: join a control group", line, joined.error().cause,
                 "make the group again, with what it needs", ErrorCode::kFailed};
  }
  return {};
}

}  // namespace

Result<void> join_control_groups(HostTid task, const schema::Process& process) {
  return join(task, process.control_groups(), {"cgroup.procs"});
}

Result<void> join_control_groups(const google::protobuf::RepeatedPtrField<std::string>& lines) {
  constexpr HostTid kOurs{0};
  return join(kOurs, lines, {"cgroup.procs"});
}

Result<void> join_control_groups(HostTid thread, const schema::Thread& record) {
  return join(thread, record.control_groups(), {"cgroup.threads", "tasks"});
}

}  // namespace stasis::restore

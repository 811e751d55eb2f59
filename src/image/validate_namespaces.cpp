#include <sched.h>

#include <algorithm>
#include <map>
#include <set>

#include "image/validate_internal.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

namespace stasis::image::validation {
namespace {

using Spaces = std::map<uint32_t, const schema::Namespace*>;
using Numbers = google::protobuf::RepeatedField<int32_t>;

constexpr int kMostRanges = 340;  // UID_GID_MAP_MAX_EXTENTS

bool is_of_type(const Spaces& spaces, uint32_t id, uint64_t type) {
  auto found = spaces.find(id);
  return found != spaces.end() && found->second->type() == type;
}

Result<void> check_ranges(const google::protobuf::RepeatedPtrField<schema::IdRange>& ranges,
                          const std::string& where) {
  if (ranges.size() > kMostRanges) return bad(where, "it maps too many ranges of ids");
  for (const auto& range : ranges) {
    constexpr uint64_t kEnd = uint64_t{1} << 32;
    if (range.count() == 0 || range.inside() + uint64_t{range.count()} > kEnd ||
        range.outside() + uint64_t{range.count()} > kEnd)
      return bad(where, "it maps an impossible range of ids");
  }
  return {};
}

Result<void> check_namespace(const schema::Namespace& one, const Spaces& before, const std::string& where) {
  constexpr uint64_t kTypes[] = {CLONE_NEWUTS,    CLONE_NEWIPC, CLONE_NEWNET,  CLONE_NEWNS,
                                 CLONE_NEWCGROUP, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWTIME};
  if (std::find(std::begin(kTypes), std::end(kTypes), one.type()) == std::end(kTypes))
    return bad(where, fmt::format("its type {:#x} is none", one.type()));
  if (one.parent() != 0 && !is_of_type(before, one.parent(), one.type()))
    return bad(where, fmt::format("it is below {}, which does not come before it", one.parent()));
  if (one.owner() != 0 && !is_of_type(before, one.owner(), CLONE_NEWUSER))
    return bad(where, fmt::format("it belongs to {}, which does not come before it", one.owner()));
  // As the kernel has it, no clock may be beyond what 64 bits of nanoseconds can say.
  constexpr int64_t kMost = int64_t{1} << 61;
  for (int64_t offset : {one.monotonic_offset_ns(), one.boottime_offset_ns()}) {
    if (offset < -kMost || offset > kMost) return bad(where, "its clocks differ impossibly much");
  }
  STASIS_CHECK(check_control_groups(one.control_group_roots(), where));
  STASIS_CHECK(check_ranges(one.users(), where));
  return check_ranges(one.groups(), where);
}

size_t depth_of(const Spaces& spaces, uint32_t id) {
  size_t depth = 0;
  for (; id != 0; id = spaces.at(id)->parent()) ++depth;  // parents come before
  return depth;
}

Result<void> check_numbers(const Numbers& numbers, size_t depth, int least, const std::string& where) {
  if (static_cast<size_t>(numbers.size()) != depth)
    return bad(where, "it has not one number for each pid namespace that it is in");
  for (int number : numbers) {
    if (number < least || number >= kPidEnd)
      return bad(where, fmt::format("{} is no number of a task", number));
  }
  return {};
}

Result<void> check_process(const schema::Process& process, const Spaces& spaces) {
  const std::string where = fmt::format("process {}", process.pid());
  std::unordered_set<uint64_t> types;
  uint32_t own = 0;
  for (uint32_t id : process.namespaces()) {
    auto found = spaces.find(id);
    if (found == spaces.end())
      return bad(where, fmt::format("it is in namespace {}, which does not exist", id));
    if (!types.insert(found->second->type()).second) return bad(where, "it is in two namespaces of one type");
    if (found->second->type() == CLONE_NEWPID) own = id;
  }
  const size_t depth = depth_of(spaces, own);
  STASIS_CHECK(check_numbers(process.inner_numbers(), depth, 1, where));
  STASIS_CHECK(check_numbers(process.inner_groups(), depth, 0, where));
  STASIS_CHECK(check_numbers(process.inner_sessions(), depth, 0, where));
  for (const auto& thread : process.threads())
    STASIS_CHECK(check_numbers(thread.inner_numbers(), depth, 1, where));
  if (process.threads_size() > 0 &&
      !std::equal(process.inner_numbers().begin(), process.inner_numbers().end(),
                  process.threads(0).inner_numbers().begin(), process.threads(0).inner_numbers().end()))
    return bad(where, "its first thread has other numbers than it");
  if (process.namespace_of_children() != 0 &&
      !is_of_type(spaces, process.namespace_of_children(), CLONE_NEWPID))
    return bad(where, "its children are born in what is no pid namespace");
  return {};
}

Result<void> check_system(const schema::FileSystem& system, const Spaces& spaces) {
  std::set<uint64_t> types;
  for (uint32_t id : system.namespaces()) {
    auto found = spaces.find(id);
    if (found == spaces.end()) continue;  // check_mounts()
    const uint64_t type = found->second->type();
    const std::string where = fmt::format("file system {}", system.id());
    if (!types.insert(type).second) return bad(where, "it shows two namespaces of one type");
    if (type == CLONE_NEWPID && !system.of_processes())
      return bad(where, "it is of a pid namespace, but shows no processes");
  }
  return {};
}

}  // namespace

Result<void> check_namespaces(const Known& known) {
  Spaces spaces;
  for (const auto& one : known.manifest->namespaces()) {
    const std::string where = fmt::format("namespace {}", one.id());
    if (one.id() == 0) return bad(where, "namespaces are numbered from 1");
    STASIS_CHECK(check_namespace(one, spaces, where));
    if (!spaces.emplace(one.id(), &one).second) return bad(where, "its number is used twice");
  }
  for (const auto& system : known.manifest->file_systems()) STASIS_CHECK(check_system(system, spaces));
  for (const auto& process : known.manifest->processes()) STASIS_CHECK(check_process(process, spaces));
  return {};
}

}  // namespace stasis::image::validation

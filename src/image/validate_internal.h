// What the parts of the validator share.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "schema/manifest.pb.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::image::validation {

// The end of user space with four-level page tables, which is all that the kernel gives out unless asked for
// more.
inline constexpr uint64_t kUserEnd = uint64_t{1} << 47;
// PID_MAX_LIMIT of the kernel.
inline constexpr int64_t kPidEnd = int64_t{1} << 22;
// No file system of today has larger files; sums of sizes below this cannot overflow.
inline constexpr uint64_t kSizeLimit = uint64_t{1} << 56;

inline Error bad(std::string_view where, std::string_view what) {
  return {"manifest", "", where.empty() ? std::string(what) : fmt::format("{}: {}", where, what),
          "the image is damaged or was not written by stasis; use another one (stasis list)",
          ErrorCode::kDamaged};
}

inline bool aligned(uint64_t value) { return value % kPageSize == 0; }

// Paths and names end up in system calls, which would end them at a NUL.
inline bool sane_text(const std::string& text, size_t limit) {
  return text.size() <= limit && text.find('\0') == std::string::npos;
}
inline constexpr size_t kPathLimit = 64 << 10;

// Lines as in /proc/PID/cgroup. A restart makes the groups, component by component from the root of their
// hierarchy.
Result<void> check_control_groups(const google::protobuf::RepeatedPtrField<std::string>& lines,
                                  const std::string& where);

// What references may refer to.
struct Known {
  const schema::Manifest* manifest = nullptr;
  std::unordered_set<uint32_t> descriptions;
  std::unordered_map<std::string, uint64_t> file_sizes;
  std::unordered_map<int32_t, uint64_t> segments;        // System V: bytes, by id
  std::unordered_map<int32_t, uint32_t> semaphore_sets;  // how many are in it, by id

  bool description_or_none(uint32_t id) const { return id == 0 || descriptions.contains(id); }
};

// The sizes of a memory's page files, by layer (schema::PageRun).
using PageFileSizes = std::vector<uint64_t>;
using FileNames = google::protobuf::RepeatedPtrField<std::string>;
inline constexpr uint32_t kLayerLimit = 256;

Result<PageFileSizes> page_file_sizes(const std::string& page_file, const FileNames& layers, bool needed,
                                      const std::string& where, const Known& known);
template <typename Memory>
Result<PageFileSizes> page_file_sizes(const Memory& memory, const std::string& where, const Known& known) {
  return page_file_sizes(memory.page_file(), memory.layers(), memory.runs_size() > 0, where, known);
}

// In one walk: where pages of an object of `limit` bytes are, in the files of the image.
Result<void> check_runs(const google::protobuf::RepeatedPtrField<schema::PageRun>& runs, uint64_t limit,
                        const PageFileSizes& files, const std::string& where);

Result<void> check_huge_page_shift(uint32_t shift, const std::string& where);

Result<void> check_system_v(Known& known);
Result<void> check_processes(const Known& known);
Result<void> check_namespaces(const Known& known);
Result<void> check_memories(const Known& known);
Result<void> check_captured_files(const Known& known);
Result<void> check_networks(const Known& known);
// What the program has mounted.
Result<void> check_mounts(const Known& known);

}  // namespace stasis::image::validation

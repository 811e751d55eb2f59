// The files that the program can write to, as they are while it stands still: disk and memory of one instant.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "image/writer.h"
#include "inspect/descriptors.h"
#include "inspect/memory.h"
#include "schema/manifest.pb.h"
#include "stasis/result.h"

namespace stasis::checkpoint {

enum class FileMode {
  kAuto,     // clones where the file system can, copies up to the limit
  kReflink,  // clones, or the checkpoint is refused
  kCopy,     // clones where the file system can, copies of any size
  kNone,     // nothing: a restart finds the files as they are then
};

std::string_view file_mode_name(FileMode mode);
std::optional<FileMode> parse_file_mode(std::string_view name);

inline constexpr uint64_t kFilesLimit = uint64_t{64} << 20;

struct FilePolicy {
  FileMode mode = FileMode::kAuto;
  // Bytes of data (without holes) that one checkpoint may read: copied while the program stands still, or of
  // clones to be summed while it runs on.
  uint64_t limit = kFilesLimit;
};

// A process's mappings, and the process as the host sees it.
struct MappedFiles {
  HostTid pid;
  NsTid ns_pid;
  const std::vector<inspect::MappingFacts>* mappings;
};

// What was read while the program stood still, and can be written when it runs again.
struct HeldFile {
  std::string name;
  std::string content;
};

// Puts regular files with a name that are open for writing, or mapped shared and writable, into the image.
// `files` has been observed into `manifest`. `ends`: the program does not run on after this checkpoint, so
// what it leaves behind stays as it is. An Error refuses the checkpoint. Descriptors that are in flight in
// sockets are not looked at.
Result<std::vector<HeldFile>> capture_files(inspect::DescriptorGraph& files,
                                            std::span<const MappedFiles> mapped, const FilePolicy& policy,
                                            bool ends, image::Writer& writer, schema::Manifest& manifest);
Result<void> write_held_files(const std::vector<HeldFile>& files, image::Writer& writer);

}  // namespace stasis::checkpoint

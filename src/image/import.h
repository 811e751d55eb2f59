// A checkpoint from one file (export.h).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "image/byte_stream.h"
#include "image/mapped_files.h"
#include "stasis/result.h"

namespace stasis::image {

struct ImportRequest {
  std::string source;  // its name, for messages
  std::string name;    // of the session; empty: the one that was exported
  // Where the checkpoints of the session with that name are. May refuse the name.
  std::function<Result<std::string>(const std::string& session)> session_store;
  // Bytes done and in all, of what is written; may be empty.
  std::function<void(uint64_t, uint64_t)> progress;
};

struct Imported {
  std::string session;
  uint32_t id = 0;
  std::string directory;
  uint64_t logical = 0;
  uint64_t stored = 0;
  int files = 0;
  std::vector<std::string> carried;     // mapped files that came along
  std::vector<Difference> differences;  // of this host
};

// Takes nothing on trust: what does not look exactly as export_image() writes it is refused (kDamaged), and
// nothing is written but what the manifest declares, under the names that it gives. The checkpoint is
// published, with the next number, when all of the source has been read and all sums are right; until then,
// and after an Error, there is none.
Result<Imported> import_image(ByteSource& source, const ImportRequest& request);

}  // namespace stasis::image

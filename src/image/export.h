// One file that has all of a checkpoint. What is in it: docs/image-format.md.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "image/byte_stream.h"
#include "image/reader.h"

namespace stasis::image {

// The first words in each: what this version writes and reads.
inline constexpr std::string_view kArchiveComment = "stasis export 1";
inline constexpr std::string_view kArchiveSum = "archive.xxh128";
inline constexpr uint32_t kCarriedMode = 0600;
inline constexpr uint32_t kCarriedProgramMode = 0700;

struct ExportRequest {
  bool carry_mapped_files = false;
  // Bytes done and in all; may be empty.
  std::function<void(uint64_t, uint64_t)> progress;
};

struct Exported {
  uint64_t logical = 0;              // bytes of all files, holes included
  uint64_t stored = 0;               // without holes
  std::vector<std::string> carried;  // paths of mapped files
};

// Reads everything and compares every sum: what is damaged is not exported (kDamaged). Pages in files of
// earlier checkpoints that this one does not need are left out. kRefused when files have to be carried that
// are not what was mapped.
Result<Exported> export_image(const Image& image, ByteSink& sink, const ExportRequest& request);

}  // namespace stasis::image

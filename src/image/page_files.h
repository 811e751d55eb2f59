// The page files of a memory: the one that its checkpoint wrote, and those of earlier checkpoints that it
// shares (layers). The same for private memory, shared memory and System V segments.
#pragma once

#include <string>
#include <vector>

#include "image/reader.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::image {

// By the number that PageRun.layer has; an empty Fd: there is none.
template <typename Memory>
Result<std::vector<Fd>> open_page_files(const Image& image, const Memory& memory) {
  std::vector<Fd> files(1);
  if (!memory.page_file().empty()) {
    STASIS_TRY(files.front(), image.open_file(memory.page_file()));
  }
  for (const auto& name : memory.layers()) {
    STASIS_TRY(Fd layer, image.open_file(name));
    files.push_back(std::move(layer));
  }
  return files;
}

}  // namespace stasis::image

// The screen of an X server that keeps it in memory as an XWD file (Xvfb -shmem, -fbdir).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "stasis/result.h"

namespace stasis::picture {

struct Picture {
  uint32_t width = 0;
  uint32_t height = 0;
  std::string pixels;  // three bytes each, red first, rows from the top without gaps
};

// The window dump at the beginning of `bytes`. Only true colour with 32 bits for each pixel, which is what a
// session's server has. The bytes come from a program and may be anything.
Result<Picture> read_xwd(std::string_view bytes);

}  // namespace stasis::picture

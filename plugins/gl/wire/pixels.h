// Questions for pixels, which say more than the calls do, and what their answers begin with.
#pragma once

#include <GL/gl.h>

#include "generated/commands.h"

namespace stasis::gl {

// `to_buffer`: nothing is answered, the driver writes at `offset` of the pixel pack buffer.
struct ReadPixelsRequest : PReadPixels {
  uint64_t offset, to_buffer;
  uint64_t row_bytes;  // of the program's rows, without gaps
};

// For a part of the rows of all images, one after the other.
struct GetTexImageRequest : PGetTexImage {
  uint64_t offset, to_buffer;
  uint64_t row_bytes, all_rows, first_row, rows;
};

struct GetPolygonStippleRequest : PGetPolygonStipple {
  uint64_t offset, to_buffer;
};

struct GetPixelMapRequest {
  Packet header;
  uint32_t map, pad;
  uint64_t offset, to_buffer;
};

// The first part of an answer: what the driver has written, the second part are the bytes of that. Outside of
// the window, or when something is wrong with the call, it writes nothing.
struct WrittenPixels {
  uint64_t first_row, end_row;
  uint64_t from, to;  // bytes in each row
};

}  // namespace stasis::gl

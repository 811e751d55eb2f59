// How much memory a call reads or writes, and whether it is there.
#pragma once

#include <GL/gl.h>

#include <cstddef>
#include <cstdint>

namespace stasis::gl {

// What a call reads: behind the fixed part of its packet, or at an offset into a buffer.
struct Source {
  uint64_t offset;
  uint32_t bytes;  // kOffset: in the buffer
};

struct ImageSize {
  GLsizei width, height, depth;
  GLenum format, type;
  bool three_dimensional;
};

// Of an image whose rows lie one behind the other. `known` is false where no driver takes such pixels.
struct DenseImage {
  bool known = true;
  size_t row_bytes = 0, rows = 0;
  size_t bytes() const { return row_bytes * rows; }
};
DenseImage dense(const ImageSize& image);

// What the driver says of a number; -1 within a primitive, and where it does not know it.
GLint ask(GLenum name);

// Of the one that is bound.
size_t size_of_buffer(GLenum target);
// An offset into the buffer that is bound to `target` (of which `binding` asks). False: `needed` bytes are
// not there, and the program has an error of OpenGL. Throws where no buffer is bound: then it would be an
// address.
bool is_in_buffer(GLenum target, GLenum binding, uint64_t offset, size_t needed);
// The same for an image, of which the pixel store of the moment says how it lies there.
bool is_image_in_buffer(GLenum target, uint64_t offset, const ImageSize& image);

// Of a range in a buffer of the driver. Not so when its end cannot be computed, which drivers do without
// looking.
bool is_range(int64_t offset, int64_t size);

}  // namespace stasis::gl

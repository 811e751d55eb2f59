#include "renderer/bounds.h"

#include <GL/glext.h>

#include <limits>

#include "renderer/renderer.h"
#include "wire/sizes.h"

namespace stasis::gl {

DenseImage dense(const ImageSize& image) {
  if (image.width <= 0 || image.height <= 0 || image.depth <= 0) return {};
  const auto width = static_cast<size_t>(image.width);
  const size_t rows = static_cast<size_t>(image.height) * static_cast<size_t>(image.depth);
  if (image.type == GL_BITMAP) return {true, (width + 7) / 8, rows};
  const size_t pixel = pixel_size(image.format, image.type);
  DenseImage found = {pixel != 0, width * pixel, rows};
  size_t all = 0;
  if (__builtin_mul_overflow(found.row_bytes, found.rows, &all)) throw BadStream{"an image of no size"};
  return found;
}

GLint ask(GLenum name) {
  GLint value = -1;
  Renderer::gl.GetIntegerv(name, &value);
  return value;
}

size_t size_of_buffer(GLenum target) {
  GLint64 size = 0;
  Renderer::gl.GetBufferParameteri64v(target, GL_BUFFER_SIZE, &size);
  return count_in(size);
}

namespace {

// Products of three numbers of a program's.
__extension__ using Wide = unsigned __int128;

bool fits(GLenum target, GLenum binding, uint64_t offset, Wide needed) {
  const GLint bound = ask(binding);
  if (bound == 0) throw BadStream{"an offset where no buffer is bound"};
  if (bound > 0 && Wide{offset} + needed <= size_of_buffer(target)) return true;
  raise_error(GL_INVALID_OPERATION);
  return false;
}

}  // namespace

bool is_in_buffer(GLenum target, GLenum binding, uint64_t offset, size_t needed) {
  return fits(target, binding, offset, needed);
}

bool is_image_in_buffer(GLenum target, uint64_t offset, const ImageSize& image) {
  const bool pack = target == GL_PIXEL_PACK_BUFFER;
  const DenseImage size = dense(image);
  if (!size.known) {
    raise_error(GL_INVALID_ENUM);
    return false;
  }
  auto store = [&](GLenum unpack_name, GLenum pack_name) {
    return Wide{count_in(ask(pack ? pack_name : unpack_name))};
  };
  Wide needed = 0;
  if (size.bytes() != 0) {
    const bool bits = image.type == GL_BITMAP;
    const size_t pixel = bits ? 1 : pixel_size(image.format, image.type);
    auto bytes_of = [&](Wide pixels) { return bits ? (pixels + 7) / 8 : pixels * pixel; };
    const Wide row_length = store(GL_UNPACK_ROW_LENGTH, GL_PACK_ROW_LENGTH);
    const Wide alignment = std::max<Wide>(store(GL_UNPACK_ALIGNMENT, GL_PACK_ALIGNMENT), 1);
    const Wide row = bytes_of(row_length != 0 ? row_length : Wide{count_in(image.width)});
    const Wide stride = (row + alignment - 1) / alignment * alignment;
    Wide first = bytes_of(store(GL_UNPACK_SKIP_PIXELS, GL_PACK_SKIP_PIXELS)) +
                 store(GL_UNPACK_SKIP_ROWS, GL_PACK_SKIP_ROWS) * stride;
    Wide last = first + (count_in(image.height) - 1) * stride;
    if (image.three_dimensional) {
      const Wide height = store(GL_UNPACK_IMAGE_HEIGHT, GL_PACK_IMAGE_HEIGHT);
      const Wide image_stride = stride * (height != 0 ? height : Wide{count_in(image.height)});
      // Numbers of 31 bits: with those of the stride, less than 2^102.
      last += (store(GL_UNPACK_SKIP_IMAGES, GL_PACK_SKIP_IMAGES) + count_in(image.depth) - 1) * image_stride;
    }
    needed = last + size.row_bytes;
  }
  return fits(target, pack ? GL_PIXEL_PACK_BUFFER_BINDING : GL_PIXEL_UNPACK_BUFFER_BINDING, offset, needed);
}

bool is_range(int64_t offset, int64_t size) {
  if (offset < 0 || size < 0 || offset <= std::numeric_limits<int64_t>::max() - size) return true;
  raise_error(GL_INVALID_VALUE);
  return false;
}

void Renderer::require_no_buffer(GLenum binding) const {
  // OpenGL ES 2 has no such buffers, and cannot be asked.
  if (current->uses_pixel_buffers && ask(binding) > 0)
    throw BadStream{"memory that is not in the buffer that is bound"};
}

bool Renderer::find_source(Payload& payload, Source source, size_t needed, bool may_be_null,
                           const void*& found) const {
  if (source.bytes != kOffset) {
    require_no_buffer(GL_PIXEL_UNPACK_BUFFER_BINDING);
    const bool is_null = source.bytes == kNull;
    found = payload.bytes(source.bytes, is_null ? 0 : needed);
    // Null is no values: nothing happens, but within a list drivers read them all the same.
    return !is_null || may_be_null || needed == 0;
  }
  found = reinterpret_cast<const void*>(source.offset);
  return is_in_buffer(GL_PIXEL_UNPACK_BUFFER, GL_PIXEL_UNPACK_BUFFER_BINDING, source.offset, needed);
}

bool Renderer::find_pixels(const Packet& header, Payload& payload, Source source, const ImageSize& image,
                           const void*& found) {
  use_unpacking(source.bytes == kOffset, header.flags);
  found = reinterpret_cast<const void*>(source.offset);
  if (source.bytes == kOffset) return is_image_in_buffer(GL_PIXEL_UNPACK_BUFFER, source.offset, image);
  require_no_buffer(GL_PIXEL_UNPACK_BUFFER_BINDING);
  const DenseImage size = dense(image);
  found = payload.bytes(source.bytes, source.bytes == kNull ? 0 : size.bytes());
  if (size.known || found == nullptr) return true;
  raise_error(GL_INVALID_ENUM);  // the driver may know pixels of which we do not know how large they are
  return false;
}

}  // namespace stasis::gl

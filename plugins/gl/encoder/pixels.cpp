// Pixels go along in one layout, without gaps, whatever the program's pixel store says; so a packet says all
// that there is to know, and a replay needs no state for it.
#include "wire/pixels.h"

#include <cstdlib>

#include "encoder/program.h"
#include "generated/packets.h"
#include "wire/sizes.h"

namespace stasis::gl {

namespace {

struct Image {
  size_t row_bytes;   // that are there
  size_t row_stride;  // in the program's memory
  size_t image_stride;
  size_t skip;  // from the pointer to the first pixel
  size_t rows, images;
  size_t total() const { return row_bytes * rows * images; }
};

Image layout(const PixelStore& store, GLsizei width, GLsizei height, GLsizei depth, GLenum format,
             GLenum type, bool three_dimensional) {
  if (width <= 0 || height <= 0 || depth <= 0) return {};
  const auto w = static_cast<size_t>(width), h = static_cast<size_t>(height), d = static_cast<size_t>(depth);
  const size_t row_pixels = store.row_length > 0 ? static_cast<size_t>(store.row_length) : w;
  const auto alignment = static_cast<size_t>(store.alignment);
  const auto skip_pixels = static_cast<size_t>(store.skip_pixels);
  size_t row_bytes, row_stride, skip;
  if (type == GL_BITMAP) {
    row_bytes = (w + 7) / 8;
    row_stride = ((row_pixels + 7) / 8 + alignment - 1) / alignment * alignment;
    skip = skip_pixels / 8;
  } else {
    const size_t pixel = pixel_size(format, type);
    row_bytes = w * pixel;
    row_stride = (row_pixels * pixel + alignment - 1) / alignment * alignment;
    skip = skip_pixels * pixel;
  }
  const size_t image_rows =
      three_dimensional && store.image_height > 0 ? static_cast<size_t>(store.image_height) : h;
  skip += static_cast<size_t>(store.skip_rows) * row_stride;
  if (three_dimensional) skip += static_cast<size_t>(store.skip_images) * row_stride * image_rows;
  return {row_bytes, row_stride, row_stride * image_rows, skip, h, d};
}

void gather(char* into, const void* from, const Image& image, size_t bit_skip) {
  const char* start = static_cast<const char*>(from) + image.skip;
  if (image.row_bytes == image.row_stride && image.images <= 1 && bit_skip == 0) {
    memcpy(into, start, image.total());
    return;
  }
  for (size_t z = 0; z < image.images; ++z) {
    for (size_t y = 0; y < image.rows; ++y) {
      const char* row = start + z * image.image_stride + y * image.row_stride;
      if (bit_skip == 0) {
        memcpy(into, row, image.row_bytes);
      } else {
        for (size_t i = 0; i < image.row_bytes; ++i) {
          auto high = static_cast<unsigned char>(row[i]), low = static_cast<unsigned char>(row[i + 1]);
          into[i] = static_cast<char>(high << bit_skip | low >> (8 - bit_skip));
        }
      }
      into += image.row_bytes;
    }
  }
}

// How the pixels of one call travel.
struct Upload {
  Upload(Stream& s, GLsizei width, GLsizei height, GLsizei depth, GLenum format, GLenum type,
         const void* from, bool three_dimensional = false)
      : stream(s), pixels(from) {
    Context& c = context_of(s);
    if (c.bound[kPixelUnpackTarget] != 0) {
      bytes = kOffset;
      return;
    }
    image = layout(c.unpack, width, height, depth, format, type, three_dimensional);
    bytes = from == nullptr ? kNull : image.total();
    bit_skip = type == GL_BITMAP ? static_cast<size_t>(c.unpack.skip_pixels) % 8 : 0;
    if (c.unpack.swap != 0) flags |= kSwapBytes;
    if (c.unpack.lsb_first != 0) flags |= kLsbFirst;
  }
  template <typename P>
  void send(P* packet) {
    stream.set_flags(flags);
    if (bytes == kOffset) packet->pixels = reinterpret_cast<uint64_t>(pixels);
    put(packet, sizeof(P));
  }
  void put(void* packet, size_t size) {
    if (has_bytes(bytes)) gather(static_cast<char*>(packet) + padded(size), pixels, image, bit_skip);
    stream.commit();
  }
  Stream& stream;
  const void* pixels;
  Image image = {};
  size_t bytes = 0;
  size_t bit_skip = 0;
  uint16_t flags = 0;
};

// How the answer to a question for pixels comes back, of which those of `image` begin with `first_row`. What
// the driver has not written stays as it is.
void download(Stream& s, const Image& image, void* into, size_t first_row = 0) {
  Answer answer = s.ask();
  WrittenPixels written = {};
  answer.take(&written, sizeof written);
  size_t size = 0;
  const char* from = answer.next(size);
  const size_t width = written.to - written.from;
  if (into == nullptr || written.to > image.row_bytes || size < width * (written.end_row - written.first_row))
    return;
  char* start = static_cast<char*>(into) + image.skip + written.from;
  for (size_t row = written.first_row; row < written.end_row; ++row) {
    const size_t at = first_row + row;
    memcpy(start + at / image.rows * image.image_stride + at % image.rows * image.row_stride, from, width);
    from += width;
  }
}

// So many rows go into one answer.
size_t rows_of_answer(const Image& image) {
  constexpr size_t kPiece = size_t{32} << 20;
  return image.row_bytes == 0 || image.row_bytes >= kPiece ? 1 : kPiece / image.row_bytes;
}

}  // namespace

void stub_TexImage1D(GLenum target, GLint level, GLint internal, GLsizei width, GLint border, GLenum format,
                     GLenum type, const void* pixels) {
  STREAM_OR_RETURN();
  Upload up(*s, width, 1, 1, format, type, pixels);
  up.send(begin_TexImage1D(*s, target, level, internal, width, border, format, type, up.bytes));
}
void stub_TexImage2D(GLenum target, GLint level, GLint internal, GLsizei width, GLsizei height, GLint border,
                     GLenum format, GLenum type, const void* pixels) {
  STREAM_OR_RETURN();
  Upload up(*s, width, height, 1, format, type, pixels);
  up.send(begin_TexImage2D(*s, target, level, internal, width, height, border, format, type, up.bytes));
}
void stub_TexImage3D(GLenum target, GLint level, GLint internal, GLsizei width, GLsizei height, GLsizei depth,
                     GLint border, GLenum format, GLenum type, const void* pixels) {
  STREAM_OR_RETURN();
  Upload up(*s, width, height, depth, format, type, pixels, true);
  up.send(
      begin_TexImage3D(*s, target, level, internal, width, height, depth, border, format, type, up.bytes));
}
void stub_TexSubImage1D(GLenum target, GLint level, GLint x, GLsizei width, GLenum format, GLenum type,
                        const void* pixels) {
  STREAM_OR_RETURN();
  Upload up(*s, width, 1, 1, format, type, pixels);
  up.send(begin_TexSubImage1D(*s, target, level, x, width, format, type, up.bytes));
}
void stub_TexSubImage2D(GLenum target, GLint level, GLint x, GLint y, GLsizei width, GLsizei height,
                        GLenum format, GLenum type, const void* pixels) {
  STREAM_OR_RETURN();
  Upload up(*s, width, height, 1, format, type, pixels);
  up.send(begin_TexSubImage2D(*s, target, level, x, y, width, height, format, type, up.bytes));
}
void stub_TexSubImage3D(GLenum target, GLint level, GLint x, GLint y, GLint z, GLsizei width, GLsizei height,
                        GLsizei depth, GLenum format, GLenum type, const void* pixels) {
  STREAM_OR_RETURN();
  Upload up(*s, width, height, depth, format, type, pixels, true);
  up.send(begin_TexSubImage3D(*s, target, level, x, y, z, width, height, depth, format, type, up.bytes));
}
void stub_DrawPixels(GLsizei width, GLsizei height, GLenum format, GLenum type, const void* pixels) {
  STREAM_OR_RETURN();
  Upload up(*s, width, height, 1, format, type, pixels);
  up.send(begin_DrawPixels(*s, width, height, format, type, up.bytes));
}
void stub_Bitmap(GLsizei width, GLsizei height, GLfloat x, GLfloat y, GLfloat move_x, GLfloat move_y,
                 const GLubyte* bitmap) {
  STREAM_OR_RETURN();
  Upload up(*s, width, height, 1, GL_COLOR_INDEX, GL_BITMAP, bitmap);
  auto* packet = begin_Bitmap(*s, width, height, x, y, move_x, move_y, up.bytes);
  s->set_flags(up.flags);
  if (up.bytes == kOffset) packet->bitmap = reinterpret_cast<uint64_t>(bitmap);
  up.put(packet, sizeof *packet);
}
void stub_PolygonStipple(const GLubyte* mask) {
  STREAM_OR_RETURN();
  Upload up(*s, 32, 32, 1, GL_COLOR_INDEX, GL_BITMAP, mask);
  auto* packet = begin_PolygonStipple(*s, up.bytes);
  s->set_flags(up.flags);
  if (up.bytes == kOffset) packet->mask = reinterpret_cast<uint64_t>(mask);
  up.put(packet, sizeof *packet);
}

namespace {

// Compressed images have no layout to choose (but for the block sizes of GL 4.2, which are not offered).
size_t compressed_bytes(Stream& s, GLsizei size, const void* data) {
  if (context_of(s).bound[kPixelUnpackTarget] != 0) return kOffset;
  return data == nullptr ? kNull : bytes_of(static_cast<size_t>(size), 1);
}
template <typename P>
void send_compressed(Stream& s, P* packet, size_t bytes, const void* data) {
  if (bytes == kOffset) packet->data = reinterpret_cast<uint64_t>(data);
  put_payload(reinterpret_cast<char*>(packet) + padded(sizeof *packet), data, bytes);
  s.commit();
}

}  // namespace

void stub_CompressedTexImage1D(GLenum target, GLint level, GLenum internal, GLsizei width, GLint border,
                               GLsizei size, const void* data) {
  STREAM_OR_RETURN();
  const size_t bytes = compressed_bytes(*s, size, data);
  send_compressed(*s, begin_CompressedTexImage1D(*s, target, level, internal, width, border, size, bytes),
                  bytes, data);
}
void stub_CompressedTexImage2D(GLenum target, GLint level, GLenum internal, GLsizei width, GLsizei height,
                               GLint border, GLsizei size, const void* data) {
  STREAM_OR_RETURN();
  const size_t bytes = compressed_bytes(*s, size, data);
  send_compressed(*s,
                  begin_CompressedTexImage2D(*s, target, level, internal, width, height, border, size, bytes),
                  bytes, data);
}
void stub_CompressedTexImage3D(GLenum target, GLint level, GLenum internal, GLsizei width, GLsizei height,
                               GLsizei depth, GLint border, GLsizei size, const void* data) {
  STREAM_OR_RETURN();
  const size_t bytes = compressed_bytes(*s, size, data);
  send_compressed(
      *s, begin_CompressedTexImage3D(*s, target, level, internal, width, height, depth, border, size, bytes),
      bytes, data);
}
void stub_CompressedTexSubImage1D(GLenum target, GLint level, GLint x, GLsizei width, GLenum format,
                                  GLsizei size, const void* data) {
  STREAM_OR_RETURN();
  const size_t bytes = compressed_bytes(*s, size, data);
  send_compressed(*s, begin_CompressedTexSubImage1D(*s, target, level, x, width, format, size, bytes), bytes,
                  data);
}
void stub_CompressedTexSubImage2D(GLenum target, GLint level, GLint x, GLint y, GLsizei width, GLsizei height,
                                  GLenum format, GLsizei size, const void* data) {
  STREAM_OR_RETURN();
  const size_t bytes = compressed_bytes(*s, size, data);
  send_compressed(*s,
                  begin_CompressedTexSubImage2D(*s, target, level, x, y, width, height, format, size, bytes),
                  bytes, data);
}
void stub_CompressedTexSubImage3D(GLenum target, GLint level, GLint x, GLint y, GLint z, GLsizei width,
                                  GLsizei height, GLsizei depth, GLenum format, GLsizei size,
                                  const void* data) {
  STREAM_OR_RETURN();
  const size_t bytes = compressed_bytes(*s, size, data);
  send_compressed(
      *s,
      begin_CompressedTexSubImage3D(*s, target, level, x, y, z, width, height, depth, format, size, bytes),
      bytes, data);
}

void stub_ReadPixels(GLint x, GLint y, GLsizei width, GLsizei height, GLenum format, GLenum type,
                     void* pixels) {
  STREAM_OR_RETURN();
  Context& c = context_of(*s);
  const Image image = layout(c.pack, width, height, 1, format, type, false);
  // With a pack buffer the driver writes there; the pointer is an offset.
  const bool to_buffer = c.bound[kPixelPackTarget] != 0;
  const size_t most = to_buffer ? ~size_t{0} : rows_of_answer(image);
  size_t row = 0;
  do {
    const size_t rows = image.rows - row < most ? image.rows - row : most;
    auto* packet = static_cast<ReadPixelsRequest*>(s->begin(kOpReadPixels, sizeof(ReadPixelsRequest)));
    packet->x = x;
    packet->y = y + static_cast<GLint>(row);
    packet->width = width;
    packet->height = height <= 0 ? height : static_cast<GLsizei>(rows);
    packet->format = format;
    packet->type = type;
    packet->offset = reinterpret_cast<uint64_t>(pixels);
    packet->row_bytes = image.row_bytes;
    packet->to_buffer = to_buffer;
    if (c.pack.swap != 0) s->set_flags(kSwapBytes);
    if (c.pack.lsb_first != 0) s->set_flags(kLsbFirst);
    if (to_buffer) return s->commit();
    download(*s, image, pixels, row);
    row += rows;
  } while (row < image.rows);
}

void stub_GetTexImage(GLenum target, GLint level, GLenum format, GLenum type, void* pixels) {
  STREAM_OR_RETURN();
  Context& c = context_of(*s);
  const bool to_buffer = c.bound[kPixelPackTarget] != 0;
  GLint width = 0, height = 0, depth = 0;
  if (!to_buffer) {
    stub_GetTexLevelParameteriv(target, level, GL_TEXTURE_WIDTH, &width);
    stub_GetTexLevelParameteriv(target, level, GL_TEXTURE_HEIGHT, &height);
    stub_GetTexLevelParameteriv(target, level, GL_TEXTURE_DEPTH, &depth);
  }
  const Image image = layout(c.pack, width, height, depth, format, type, true);
  const size_t total = image.rows * image.images, most = rows_of_answer(image);
  size_t row = 0;
  do {
    const size_t rows = total - row < most ? total - row : most;
    auto* packet = static_cast<GetTexImageRequest*>(s->begin(kOpGetTexImage, sizeof(GetTexImageRequest)));
    packet->target = target;
    packet->level = level;
    packet->format = format;
    packet->type = type;
    packet->offset = reinterpret_cast<uint64_t>(pixels);
    packet->to_buffer = to_buffer;
    packet->row_bytes = image.row_bytes;
    packet->all_rows = total;
    packet->first_row = row;
    packet->rows = rows;
    if (c.pack.swap != 0) s->set_flags(kSwapBytes);
    if (to_buffer) return s->commit();
    download(*s, image, pixels, row);
    row += rows;
  } while (row < total);
}

void stub_GetCompressedTexImage(GLenum target, GLint level, void* pixels) {
  STREAM_OR_RETURN();
  const bool to_buffer = context_of(*s).bound[kPixelPackTarget] != 0;
  struct Request : PGetCompressedTexImage {
    uint64_t offset, to_buffer;
  };
  auto* packet = static_cast<Request*>(s->begin(kOpGetCompressedTexImage, sizeof(Request)));
  packet->target = target;
  packet->level = level;
  packet->offset = reinterpret_cast<uint64_t>(pixels);
  packet->to_buffer = to_buffer;
  if (to_buffer) return s->commit();
  s->ask().take(pixels, kAnySize);
}

void stub_GetPolygonStipple(GLubyte* mask) {
  STREAM_OR_RETURN();
  auto* packet = static_cast<GetPolygonStippleRequest*>(
      s->begin(kOpGetPolygonStipple, sizeof(GetPolygonStippleRequest)));
  packet->offset = reinterpret_cast<uint64_t>(mask);
  packet->to_buffer = context_of(*s).bound[kPixelPackTarget] != 0;
  if (context_of(*s).pack.lsb_first != 0) s->set_flags(kLsbFirst);
  if (packet->to_buffer != 0) return s->commit();
  download(*s, layout(context_of(*s).pack, 32, 32, 1, GL_COLOR_INDEX, GL_BITMAP, false), mask);
}

// --- Pixel maps

namespace {

template <typename T, typename Begin>
void set_pixel_map(GLenum map, GLsizei size, const T* values, Begin begin) {
  STREAM_OR_RETURN();
  const bool in_buffer = context_of(*s).bound[kPixelUnpackTarget] != 0;
  const size_t bytes = in_buffer           ? size_t{kOffset}
                       : values == nullptr ? size_t{kNull}
                                           : bytes_of(static_cast<size_t>(size), sizeof(T));
  auto* packet = begin(*s, map, size, bytes);
  if (in_buffer) packet->values = reinterpret_cast<uint64_t>(values);
  put_payload(reinterpret_cast<char*>(packet) + padded(sizeof *packet), values, bytes);
  s->commit();
}

void get_pixel_map(uint16_t op, GLenum map, void* values) {
  STREAM_OR_RETURN();
  auto* packet = static_cast<GetPixelMapRequest*>(s->begin(op, sizeof(GetPixelMapRequest)));
  packet->map = map;
  packet->offset = reinterpret_cast<uint64_t>(values);
  packet->to_buffer = context_of(*s).bound[kPixelPackTarget] != 0;
  if (packet->to_buffer != 0) return s->commit();
  s->ask().take(values, kAnySize);
}

}  // namespace

void stub_PixelMapfv(GLenum map, GLsizei size, const GLfloat* values) {
  set_pixel_map(map, size, values, begin_PixelMapfv);
}
void stub_PixelMapuiv(GLenum map, GLsizei size, const GLuint* values) {
  set_pixel_map(map, size, values, begin_PixelMapuiv);
}
void stub_PixelMapusv(GLenum map, GLsizei size, const GLushort* values) {
  set_pixel_map(map, size, values, begin_PixelMapusv);
}
void stub_GetPixelMapfv(GLenum map, GLfloat* values) { get_pixel_map(kOpGetPixelMapfv, map, values); }
void stub_GetPixelMapuiv(GLenum map, GLuint* values) { get_pixel_map(kOpGetPixelMapuiv, map, values); }
void stub_GetPixelMapusv(GLenum map, GLushort* values) { get_pixel_map(kOpGetPixelMapusv, map, values); }

// --- Pixel store

int32_t* pixel_store(Context& c, uint32_t name) {
  switch (name) {
    case GL_UNPACK_SWAP_BYTES:
      return &c.unpack.swap;
    case GL_UNPACK_LSB_FIRST:
      return &c.unpack.lsb_first;
    case GL_UNPACK_ROW_LENGTH:
      return &c.unpack.row_length;
    case GL_UNPACK_IMAGE_HEIGHT:
      return &c.unpack.image_height;
    case GL_UNPACK_SKIP_ROWS:
      return &c.unpack.skip_rows;
    case GL_UNPACK_SKIP_PIXELS:
      return &c.unpack.skip_pixels;
    case GL_UNPACK_SKIP_IMAGES:
      return &c.unpack.skip_images;
    case GL_UNPACK_ALIGNMENT:
      return &c.unpack.alignment;
    case GL_PACK_SWAP_BYTES:
      return &c.pack.swap;
    case GL_PACK_LSB_FIRST:
      return &c.pack.lsb_first;
    case GL_PACK_ROW_LENGTH:
      return &c.pack.row_length;
    case GL_PACK_IMAGE_HEIGHT:
      return &c.pack.image_height;
    case GL_PACK_SKIP_ROWS:
      return &c.pack.skip_rows;
    case GL_PACK_SKIP_PIXELS:
      return &c.pack.skip_pixels;
    case GL_PACK_SKIP_IMAGES:
      return &c.pack.skip_images;
    case GL_PACK_ALIGNMENT:
      return &c.pack.alignment;
  }
  return nullptr;
}

namespace {

bool is_valid(const Context& c, GLenum name, GLint value) {
  const bool of_desktop = name == GL_UNPACK_SWAP_BYTES || name == GL_UNPACK_LSB_FIRST ||
                          name == GL_PACK_SWAP_BYTES || name == GL_PACK_LSB_FIRST ||
                          name == GL_PACK_IMAGE_HEIGHT || name == GL_PACK_SKIP_IMAGES;
  if (c.is_es && of_desktop) return false;
  if (name == GL_UNPACK_ALIGNMENT || name == GL_PACK_ALIGNMENT)
    return value == 1 || value == 2 || value == 4 || value == 8;
  return value >= 0;
}

}  // namespace

void stub_PixelStorei(GLenum name, GLint value) {
  STREAM_OR_RETURN();
  int32_t* at = pixel_store(context_of(*s), name);
  if (context_of(*s).in_primitive) return raise(*s, GL_INVALID_OPERATION);
  if (at != nullptr && *at == value) return;
  if (at != nullptr && is_valid(context_of(*s), name, value)) *at = value;
  begin_PixelStorei(*s, name, value);
  s->commit_small();
}
void stub_PixelStoref(GLenum name, GLfloat value) {
  stub_PixelStorei(name, static_cast<GLint>(value >= 0 ? value + 0.5F : value - 0.5F));
}

}  // namespace stasis::gl

// Images, the pixel store, and maps of pixels.
#include <algorithm>

#include "tests/gl/model.h"

namespace stasis::gl {

namespace {

struct Pixels {
  GLsizei width, height, depth;
  GLenum format, type;
};

// The bytes from the first to the last pixel, and where they begin.
void use_pixels(bool pack, const void* at, const Pixels& image, void (*use)(void*, size_t)) {
  if (!outside() || image.width <= 0 || image.height <= 0 || image.depth <= 0) return;
  auto store = [&](GLenum unpack_name, GLenum pack_name) {
    const auto found = m.store.find(pack ? pack_name : unpack_name);
    return found == m.store.end() ? size_t{0} : elements(found->second);
  };
  const size_t alignment = std::max<size_t>(store(GL_UNPACK_ALIGNMENT, GL_PACK_ALIGNMENT), 1);
  const size_t row_length = store(GL_UNPACK_ROW_LENGTH, GL_PACK_ROW_LENGTH);
  const size_t image_height = store(GL_UNPACK_IMAGE_HEIGHT, GL_PACK_IMAGE_HEIGHT);
  const size_t skip_pixels = store(GL_UNPACK_SKIP_PIXELS, GL_PACK_SKIP_PIXELS);
  const size_t known = pixel_size(image.format, image.type);
  // What the renderer does not know, some driver may know.
  const size_t pixel = known != 0 ? known : 16;
  const size_t pixels = row_length != 0 ? row_length : elements(image.width);
  const bool bits = image.type == GL_BITMAP;
  const size_t bytes = bits ? (pixels + 7) / 8 : pixels * pixel;
  const size_t stride = (bytes + alignment - 1) / alignment * alignment;
  const size_t rows = image.depth > 1 && image_height != 0 ? image_height : elements(image.height);
  const size_t row = bits ? (elements(image.width) + 7) / 8 : elements(image.width) * pixel;
  const size_t start =
      (bits ? skip_pixels / 8 : skip_pixels * pixel) + store(GL_UNPACK_SKIP_ROWS, GL_PACK_SKIP_ROWS) * stride;
  const size_t size =
      (elements(image.depth) - 1) * rows * stride + (elements(image.height) - 1) * stride + row;
  const GLuint name = m.bound[pack ? GL_PIXEL_PACK_BUFFER : GL_PIXEL_UNPACK_BUFFER];
  if (name == 0) return use(const_cast<char*>(static_cast<const char*>(at)) + start, size);
  // A driver does compare, but in numbers that overflow.
  std::vector<char>& buffer = m.buffers[name];
  const auto offset = reinterpret_cast<uint64_t>(at);
  if (offset > buffer.size()) return fail(GL_INVALID_OPERATION);
  if (start + size > buffer.size() - offset) caught("pixels beyond their buffer");
  use(buffer.data() + offset + start, size);
}

void read_source(const void* at, size_t size) {
  const GLuint name = m.bound[GL_PIXEL_UNPACK_BUFFER];
  if (name == 0) {
    if (at != nullptr) touch(at, size);
    return;
  }
  const auto offset = reinterpret_cast<uint64_t>(at);
  if (offset + size <= m.buffers[name].size() && offset > m.buffers[name].size())
    caught("an offset into a buffer that has overflowed");
}

void upload(const void* at, const Pixels& image) {
  if (at == nullptr && m.bound[GL_PIXEL_UNPACK_BUFFER] == 0) return;
  use_pixels(false, at, image, [](void* from, size_t bytes) { touch(from, bytes); });
}
void write_pixels(void* at, const Pixels& image) { use_pixels(true, at, image, fill); }

void make_image(GLenum target, GLint level, GLsizei width, GLsizei height, GLsizei depth,
                GLint compressed = 0) {
  constexpr GLsizei kMost = 64;
  const bool fits =
      width >= 0 && height >= 0 && depth >= 0 && width <= kMost && height <= kMost && depth <= kMost;
  if (!fits || !outside() || m.images.size() > 64) return fail(GL_INVALID_VALUE);
  m.images[{target, level}] = {width, height, depth, compressed};
}
void compressed_image(GLenum target, GLint level, GLsizei width, GLsizei height, GLsizei depth, GLsizei size,
                      const void* at) {
  if (size < 0) return fail(GL_INVALID_VALUE);
  read_source(at, elements(size));
  make_image(target, level, width, height, depth, std::min(size, 1 << 16));
}

template <typename T>
void get_level(GLenum target, GLint level, GLenum name, T* value) {
  if (!outside()) return;
  const Image image = m.images.contains({target, level}) ? m.images[{target, level}] : Image{};
  switch (name) {
    case GL_TEXTURE_WIDTH:
      *value = static_cast<T>(image.width);
      break;
    case GL_TEXTURE_HEIGHT:
      *value = static_cast<T>(image.height);
      break;
    case GL_TEXTURE_DEPTH:
      *value = static_cast<T>(image.depth);
      break;
    case GL_TEXTURE_COMPRESSED_IMAGE_SIZE:
      *value = static_cast<T>(image.compressed);
      break;
    default:
      *value = T{0};
  }
}

template <typename T>
void set_pixel_map(GLenum map, GLsizei size, const T* values) {
  constexpr GLsizei kMost = 65536;
  if (!outside() || size < 1 || size > kMost) return fail(GL_INVALID_VALUE);
  if (values == nullptr && m.bound[GL_PIXEL_UNPACK_BUFFER] == 0 && m.list != 0)
    caught("a pixel map of nothing");
  read_source(values, elements(size) * sizeof(T));
  m.pixel_maps[map] = size;
}
template <typename T>
void get_pixel_map(GLenum map, T* values) {
  if (!outside() || map < GL_PIXEL_MAP_I_TO_I || map > GL_PIXEL_MAP_A_TO_A) return;
  const size_t size = elements(std::max(m.pixel_maps[map], 1)) * sizeof(T);
  const GLuint name = m.bound[GL_PIXEL_PACK_BUFFER];
  if (name == 0) return fill(values, size);
  const auto offset = reinterpret_cast<uint64_t>(values);
  if (offset > m.buffers[name].size()) return;
  if (size > m.buffers[name].size() - offset) caught("a pixel map beyond its buffer");
}

}  // namespace

void add_pixel_calls(Calls& calls) {
  calls.insert({
      {"glPixelStorei", address(+[](GLenum name, GLint value) {
         const bool is_alignment = name == GL_PACK_ALIGNMENT || name == GL_UNPACK_ALIGNMENT;
         const bool is_power = value == 1 || value == 2 || value == 4 || value == 8;
         if (outside() && value >= 0 && (!is_alignment || is_power)) m.store[name] = value;
       })},
      {"glTexImage1D", address(+[](GLenum target, GLint level, GLint, GLsizei width, GLint, GLenum format,
                                   GLenum type, const void* at) {
         upload(at, {width, 1, 1, format, type});
         make_image(target, level, width, 1, 1);
       })},
      {"glTexImage2D", address(+[](GLenum target, GLint level, GLint, GLsizei width, GLsizei height, GLint,
                                   GLenum format, GLenum type, const void* at) {
         upload(at, {width, height, 1, format, type});
         make_image(target, level, width, height, 1);
       })},
      {"glTexImage3D", address(+[](GLenum target, GLint level, GLint, GLsizei width, GLsizei height,
                                   GLsizei depth, GLint, GLenum format, GLenum type, const void* at) {
         upload(at, {width, height, depth, format, type});
         make_image(target, level, width, height, depth);
       })},
      {"glTexSubImage1D",
       address(+[](GLenum, GLint, GLint, GLsizei width, GLenum format, GLenum type, const void* at) {
         upload(at, {width, 1, 1, format, type});
       })},
      {"glTexSubImage2D", address(+[](GLenum, GLint, GLint, GLint, GLsizei width, GLsizei height,
                                      GLenum format, GLenum type, const void* at) {
         upload(at, {width, height, 1, format, type});
       })},
      {"glTexSubImage3D", address(+[](GLenum, GLint, GLint, GLint, GLint, GLsizei width, GLsizei height,
                                      GLsizei depth, GLenum format, GLenum type, const void* at) {
         upload(at, {width, height, depth, format, type});
       })},
      {"glDrawPixels",
       address(+[](GLsizei width, GLsizei height, GLenum format, GLenum type, const void* at) {
         upload(at, {width, height, 1, format, type});
       })},
      {"glBitmap",
       address(+[](GLsizei width, GLsizei height, GLfloat, GLfloat, GLfloat, GLfloat, const GLubyte* at) {
         upload(at, {width, height, 1, GL_COLOR_INDEX, GL_BITMAP});
       })},
      {"glPolygonStipple", address(+[](const GLubyte* at) {
         upload(at, {32, 32, 1, GL_COLOR_INDEX, GL_BITMAP});
       })},
      {"glReadPixels",
       address(+[](GLint, GLint, GLsizei width, GLsizei height, GLenum format, GLenum type, void* at) {
         write_pixels(at, {width, height, 1, format, type});
       })},
      {"glGetTexImage", address(+[](GLenum target, GLint level, GLenum format, GLenum type, void* at) {
         const auto found = m.images.find({target, level});
         if (found == m.images.end()) return fail(GL_INVALID_ENUM);
         write_pixels(at, {found->second.width, found->second.height, found->second.depth, format, type});
       })},
      {"glGetPolygonStipple", address(+[](GLubyte* at) {
         write_pixels(at, {32, 32, 1, GL_COLOR_INDEX, GL_BITMAP});
       })},
      {"glGetCompressedTexImage", address(+[](GLenum target, GLint level, void* at) {
         const auto found = m.images.find({target, level});
         if (!outside() || found == m.images.end()) return fail(GL_INVALID_ENUM);
         const size_t size = elements(found->second.compressed);
         const GLuint name = m.bound[GL_PIXEL_PACK_BUFFER];
         if (name == 0) return fill(at, size);
         if (reinterpret_cast<uint64_t>(at) <= m.buffers[name].size() &&
             size > m.buffers[name].size() - reinterpret_cast<uint64_t>(at))
           caught("a compressed image beyond its buffer");
       })},
      {"glGetTexLevelParameteriv", address(get_level<GLint>)},
      {"glGetTexLevelParameterfv", address(get_level<GLfloat>)},
      {"glCompressedTexImage1D",
       address(+[](GLenum target, GLint level, GLenum, GLsizei width, GLint, GLsizei size, const void* at) {
         compressed_image(target, level, width, 1, 1, size, at);
       })},
      {"glCompressedTexImage2D",
       address(+[](GLenum target, GLint level, GLenum, GLsizei width, GLsizei height, GLint, GLsizei size,
                   const void* at) { compressed_image(target, level, width, height, 1, size, at); })},
      {"glCompressedTexImage3D",
       address(+[](GLenum target, GLint level, GLenum, GLsizei width, GLsizei height, GLsizei depth, GLint,
                   GLsizei size,
                   const void* at) { compressed_image(target, level, width, height, depth, size, at); })},
      {"glCompressedTexSubImage1D", address(+[](GLenum, GLint, GLint, GLsizei, GLenum, GLsizei size,
                                                const void* at) { read_source(at, elements(size)); })},
      {"glCompressedTexSubImage2D",
       address(+[](GLenum, GLint, GLint, GLint, GLsizei, GLsizei, GLenum, GLsizei size, const void* at) {
         read_source(at, elements(size));
       })},
      {"glCompressedTexSubImage3D",
       address(+[](GLenum, GLint, GLint, GLint, GLint, GLsizei, GLsizei, GLsizei, GLenum, GLsizei size,
                   const void* at) { read_source(at, elements(size)); })},
      {"glPixelMapfv", address(set_pixel_map<GLfloat>)},
      {"glPixelMapuiv", address(set_pixel_map<GLuint>)},
      {"glPixelMapusv", address(set_pixel_map<GLushort>)},
      {"glGetPixelMapfv", address(get_pixel_map<GLfloat>)},
      {"glGetPixelMapuiv", address(get_pixel_map<GLuint>)},
      {"glGetPixelMapusv", address(get_pixel_map<GLushort>)},
  });
}

}  // namespace stasis::gl

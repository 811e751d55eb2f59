#include "renderer/contents.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "generated/commands.h"
#include "renderer/accumulation.h"
#include "renderer/answer.h"
#include "renderer/borrowed.h"

namespace stasis::gl {

namespace {

const Functions& gl = Renderer::gl;

bool has_samples(GLenum target) {
  return target == GL_TEXTURE_2D_MULTISAMPLE || target == GL_TEXTURE_2D_MULTISAMPLE_ARRAY;
}
bool is_volume(GLenum target) { return target == GL_TEXTURE_3D || target == GL_TEXTURE_2D_ARRAY; }

// What an image has of each component, in bits.
struct Components {
  GLint red = 0, green = 0, blue = 0, alpha = 0, luminance = 0, intensity = 0, depth = 0, stencil = 0;
  GLint shared = 0;
  GLenum type = GL_UNSIGNED_NORMALIZED;
};

// In which nothing is lost.
PixelFormat exact_format(const Components& c, bool es) {
  if (c.depth != 0 && c.stencil != 0) {
    if (c.type == GL_FLOAT || c.depth > 24) return {GL_DEPTH_STENCIL, GL_FLOAT_32_UNSIGNED_INT_24_8_REV, 8};
    return {GL_DEPTH_STENCIL, GL_UNSIGNED_INT_24_8, 4};
  }
  if (c.depth != 0) return {GL_DEPTH_COMPONENT, c.type == GL_FLOAT ? GL_FLOAT : GLenum{GL_UNSIGNED_INT}, 4};
  if (c.stencil != 0) return {GL_STENCIL_INDEX, GL_UNSIGNED_BYTE, 1};
  const bool only_red = !es && c.green == 0 && c.red != 0 && c.alpha == 0;
  const bool only_two = !es && c.blue == 0 && c.green != 0 && c.alpha == 0;
  const size_t count = only_red ? 1 : only_two ? 2 : 4;
  const GLint most = std::max({c.red, c.green, c.blue, c.alpha, c.luminance, c.intensity});
  if (c.type == GL_INT || c.type == GL_UNSIGNED_INT) {
    const GLenum format = only_red ? GL_RED_INTEGER : only_two ? GL_RG_INTEGER : GL_RGBA_INTEGER;
    return {format, c.type, count * 4};
  }
  const GLenum format = only_red ? GL_RED : only_two ? GL_RG : GL_RGBA;
  if (c.type == GL_UNSIGNED_NORMALIZED && most <= 8) return {format, GL_UNSIGNED_BYTE, count};
  if (c.type == GL_UNSIGNED_NORMALIZED && most <= 16 && !es) return {format, GL_UNSIGNED_SHORT, count * 2};
  if (c.type == GL_FLOAT && most <= 16 && c.shared == 0 && !es) return {format, GL_HALF_FLOAT, count * 2};
  return {format, GL_FLOAT, count * 4};
}

// What is larger is not an image of a driver of today.
constexpr size_t kMostBytes = size_t{3} << 30;

// --- Reading by way of a framebuffer: what has no question of its own.

// The pixels of what is bound for reading.
void read_pixels(std::string& into, const Contents& question, GLint width, GLint height,
                 const PixelFormat& pixels, GLenum internal) {
  const size_t bytes = static_cast<size_t>(width) * static_cast<size_t>(height) * pixels.pixel;
  if (bytes > kMostBytes) return;
  Answer answer(into, question, question.level, width, height, 1, bytes);
  answer.describe(pixels, internal);
  gl.ReadPixels(0, 0, width, height, pixels.format, pixels.type, answer.pixels());
  if (gl.GetError() != GL_NO_ERROR) answer.take_back();
}

class Framebuffer {
 public:
  Framebuffer() { gl.GenFramebuffers(1, &name_); }
  ~Framebuffer() { gl.DeleteFramebuffers(1, &name_); }
  Framebuffer(const Framebuffer&) = delete;
  Framebuffer& operator=(const Framebuffer&) = delete;
  void bind(GLenum target, bool has_color, bool es) const {
    gl.BindFramebuffer(target, name_);
    if (es) return;
    const GLenum buffer = has_color ? GL_COLOR_ATTACHMENT0 : GL_NONE;
    target == GL_READ_FRAMEBUFFER ? gl.ReadBuffer(buffer) : gl.DrawBuffer(buffer);
  }

 private:
  GLuint name_ = 0;
};

std::vector<GLenum> attachments_of(const Components& c) {
  if (c.depth == 0 && c.stencil == 0) return {GL_COLOR_ATTACHMENT0};
  std::vector<GLenum> found;
  if (c.depth != 0) found.push_back(GL_DEPTH_ATTACHMENT);
  if (c.stencil != 0) found.push_back(GL_STENCIL_ATTACHMENT);
  return found;
}
GLbitfield mask_of(const Components& c) {
  if (c.depth == 0 && c.stencil == 0) return GL_COLOR_BUFFER_BIT;
  return (c.depth != 0 ? GL_DEPTH_BUFFER_BIT : 0U) | (c.stencil != 0 ? GL_STENCIL_BUFFER_BIT : 0U);
}

struct ComponentSizes {
  GLenum red, green, blue, alpha, depth, stencil;
};
// `size_of` asks the driver.
template <typename SizeOf>
Components ask_components(const ComponentSizes& names, SizeOf size_of) {
  Components c;
  c.red = size_of(names.red);
  c.green = size_of(names.green);
  c.blue = size_of(names.blue);
  c.alpha = size_of(names.alpha);
  c.depth = size_of(names.depth);
  c.stencil = size_of(names.stencil);
  return c;
}

// Of what is bound.
GLint renderbuffer_parameter(GLenum name) {
  GLint value = 0;
  gl.GetRenderbufferParameteriv(GL_RENDERBUFFER, name, &value);
  return value;
}

GLenum component_type(GLenum target, GLenum attachment) {
  GLint type = GL_UNSIGNED_NORMALIZED;
  gl.GetFramebufferAttachmentParameteriv(target, attachment, GL_FRAMEBUFFER_ATTACHMENT_COMPONENT_TYPE, &type);
  if (gl.GetError() != GL_NO_ERROR) return GL_UNSIGNED_NORMALIZED;
  return static_cast<GLenum>(type);
}

void read_renderbuffer(Renderer& r, const Contents& question, std::string& into) {
  const bool es = r.current->is_es;
  const GLuint name = r.names(kRenderbuffer).find(question.name, false);
  gl.BindRenderbuffer(GL_RENDERBUFFER, name);
  const GLint width = renderbuffer_parameter(GL_RENDERBUFFER_WIDTH);
  const GLint height = renderbuffer_parameter(GL_RENDERBUFFER_HEIGHT);
  const GLint internal = renderbuffer_parameter(GL_RENDERBUFFER_INTERNAL_FORMAT);
  if (width == 0 || height == 0) {
    (void)gl.GetError();
    Answer nothing(into, question, 0, 0, 0, 0, 0);
    return;
  }
  const GLint samples = es ? 0 : renderbuffer_parameter(GL_RENDERBUFFER_SAMPLES);
  Components c =
      ask_components({GL_RENDERBUFFER_RED_SIZE, GL_RENDERBUFFER_GREEN_SIZE, GL_RENDERBUFFER_BLUE_SIZE,
                      GL_RENDERBUFFER_ALPHA_SIZE, GL_RENDERBUFFER_DEPTH_SIZE, GL_RENDERBUFFER_STENCIL_SIZE},
                     renderbuffer_parameter);
  (void)gl.GetError();
  Framebuffer whole, resolved;
  const bool has_color = (mask_of(c) & GL_COLOR_BUFFER_BIT) != 0;
  whole.bind(es ? GL_FRAMEBUFFER : GL_READ_FRAMEBUFFER, has_color, es);
  const GLenum reading = es ? GL_FRAMEBUFFER : GL_READ_FRAMEBUFFER;
  for (GLenum where : attachments_of(c)) gl.FramebufferRenderbuffer(reading, where, GL_RENDERBUFFER, name);
  c.type = component_type(reading, attachments_of(c)[0]);
  GLuint single = 0;
  if (samples != 0) {
    // Which sample has what cannot be asked for; all get what they are together.
    gl.GenRenderbuffers(1, &single);
    gl.BindRenderbuffer(GL_RENDERBUFFER, single);
    gl.RenderbufferStorage(GL_RENDERBUFFER, static_cast<GLenum>(internal), width, height);
    resolved.bind(GL_DRAW_FRAMEBUFFER, has_color, es);
    for (GLenum where : attachments_of(c))
      gl.FramebufferRenderbuffer(GL_DRAW_FRAMEBUFFER, where, GL_RENDERBUFFER, single);
    gl.BlitFramebuffer(0, 0, width, height, 0, 0, width, height, mask_of(c), GL_NEAREST);
    resolved.bind(GL_READ_FRAMEBUFFER, has_color, es);
  }
  read_pixels(into, question, width, height, exact_format(c, es), static_cast<GLenum>(internal));
  if (single != 0) gl.DeleteRenderbuffers(1, &single);
}

// --- Textures

GLint level_parameter(GLenum face, GLint level, GLenum name) {
  GLint value = 0;
  gl.GetTexLevelParameteriv(face, level, name, &value);
  return value;
}

Components components_of_level(GLenum face, GLint level) {
  auto get_level = [&](GLenum name) { return level_parameter(face, level, name); };
  Components c = ask_components({GL_TEXTURE_RED_SIZE, GL_TEXTURE_GREEN_SIZE, GL_TEXTURE_BLUE_SIZE,
                                 GL_TEXTURE_ALPHA_SIZE, GL_TEXTURE_DEPTH_SIZE, GL_TEXTURE_STENCIL_SIZE},
                                get_level);
  c.luminance = get_level(GL_TEXTURE_LUMINANCE_SIZE);
  c.intensity = get_level(GL_TEXTURE_INTENSITY_SIZE);
  c.shared = get_level(GL_TEXTURE_SHARED_SIZE);
  for (GLenum name : {GL_TEXTURE_DEPTH_TYPE, GL_TEXTURE_RED_TYPE, GL_TEXTURE_ALPHA_TYPE,
                      GL_TEXTURE_LUMINANCE_TYPE, GL_TEXTURE_INTENSITY_TYPE}) {
    const GLint type = get_level(name);
    if (type != GL_NONE) {
      c.type = static_cast<GLenum>(type);
      break;
    }
  }
  return c;
}

// False when there is no such level.
bool read_level(const Contents& question, GLint level, std::string& into) {
  const GLenum face = question.face;
  auto get_level = [&](GLenum name) { return level_parameter(face, level, name); };
  const GLint width = get_level(GL_TEXTURE_WIDTH), height = get_level(GL_TEXTURE_HEIGHT);
  const GLint depth = get_level(GL_TEXTURE_DEPTH);
  if (gl.GetError() != GL_NO_ERROR || width <= 0 || height <= 0 || depth <= 0) return false;
  const bool compressed = get_level(GL_TEXTURE_COMPRESSED) != 0;
  PixelFormat pixels = {static_cast<GLenum>(get_level(GL_TEXTURE_INTERNAL_FORMAT)), 0, 0};
  const GLenum internal = pixels.format;
  size_t bytes = 0;
  if (compressed) {
    bytes = static_cast<size_t>(std::max(get_level(GL_TEXTURE_COMPRESSED_IMAGE_SIZE), 0));
  } else {
    pixels = exact_format(components_of_level(face, level), false);
    bytes =
        static_cast<size_t>(width) * static_cast<size_t>(height) * static_cast<size_t>(depth) * pixels.pixel;
  }
  (void)gl.GetError();
  if (bytes > kMostBytes) return true;
  Answer answer(into, question, level, width, height, depth, bytes);
  answer.describe(pixels, internal);
  if (compressed) {
    gl.GetCompressedTexImage(face, level, answer.pixels());
  } else {
    gl.GetTexImage(face, level, pixels.format, pixels.type, answer.pixels());
  }
  if (gl.GetError() != GL_NO_ERROR) answer.take_back();
  return true;
}

// As what it is: colours, or depth and stencil, of what is attached so. Nothing: the driver does not take it.
std::optional<Components> attach_level(const Contents& question, GLuint name, GLint layer) {
  auto attach = [&](GLenum where, GLuint texture) {
    if (is_volume(question.target))
      return gl.FramebufferTextureLayer(GL_FRAMEBUFFER, where, texture, question.level, layer);
    gl.FramebufferTexture2D(GL_FRAMEBUFFER, where, question.face, texture, question.level);
  };
  auto bits = [](GLenum where, GLenum what) {
    GLint value = 0;
    gl.GetFramebufferAttachmentParameteriv(GL_FRAMEBUFFER, where, what, &value);
    return value;
  };
  for (GLenum where : {GL_COLOR_ATTACHMENT0, GL_DEPTH_STENCIL_ATTACHMENT, GL_DEPTH_ATTACHMENT}) {
    attach(where, name);
    if (gl.CheckFramebufferStatus(GL_FRAMEBUFFER) != GL_FRAMEBUFFER_COMPLETE) {
      attach(where, 0);
      continue;
    }
    Components c;
    if (where == GL_COLOR_ATTACHMENT0) {
      c.red = c.green = c.blue = c.alpha = 8;
      c.type = component_type(GL_FRAMEBUFFER, where);
    } else {
      c.depth = bits(GL_DEPTH_ATTACHMENT, GL_FRAMEBUFFER_ATTACHMENT_DEPTH_SIZE);
      if (where == GL_DEPTH_STENCIL_ATTACHMENT)
        c.stencil = bits(GL_STENCIL_ATTACHMENT, GL_FRAMEBUFFER_ATTACHMENT_STENCIL_SIZE);
      c.type = component_type(GL_FRAMEBUFFER, GL_DEPTH_ATTACHMENT);
    }
    (void)gl.GetError();
    return c;
  }
  return std::nullopt;
}

// ES cannot be asked for a texture, nor for its size. What can be drawn into can be read all the same:
// colours, and where the driver has GL_NV_read_depth_stencil, as Mesa's, depth and stencil.
void read_level_by_framebuffer(Renderer& r, const Contents& question, GLuint name, std::string& into) {
  Framebuffer framebuffer;
  framebuffer.bind(GL_FRAMEBUFFER, true, true);
  const GLint width = question.width, height = question.height;
  const GLint layers = is_volume(question.target) ? question.depth : 1;
  if (width <= 0 || height <= 0 || layers <= 0) return;
  const std::optional<Components> c = attach_level(question, name, 0);
  if (!c) return;
  const PixelFormat pixels = exact_format(*c, r.current->is_es);
  const size_t layer_bytes = static_cast<size_t>(width) * static_cast<size_t>(height) * pixels.pixel;
  if (static_cast<size_t>(layers) > kMostBytes / layer_bytes) return;
  Answer answer(into, question, question.level, width, height, layers,
                layer_bytes * static_cast<size_t>(layers));
  answer.describe(pixels, 0);
  auto* at = static_cast<char*>(answer.pixels());
  bool read = true;
  for (GLint layer = 0; layer < layers; ++layer, at += layer_bytes) {
    if (layer != 0) read &= attach_level(question, name, layer).has_value();
    gl.ReadPixels(0, 0, width, height, pixels.format, pixels.type, at);
  }
  if (!read || gl.GetError() != GL_NO_ERROR) answer.take_back();
}

void read_texture(Renderer& r, const Contents& question, std::string& into) {
  const GLuint name = question.name == 0 ? 0 : r.names(kTexture).find(question.name, false);
  if (r.current->is_es) return read_level_by_framebuffer(r, question, name, into);
  if (has_samples(question.target)) return;
  BoundTexture bound(question.target, name);
  if (gl.GetError() != GL_NO_ERROR) return;
  constexpr GLint kMostLevels = 32;
  bool any = false;
  if (question.level != kAllLevels) {
    any = read_level(question, question.level, into);
  } else {
    for (GLint level = 0; level < kMostLevels && read_level(question, level, into); ++level) any = true;
  }
  if (!any) Answer nothing(into, question, 0, 0, 0, 0, 0);
}

// --- Buffers

void read_buffer(Renderer& r, const Contents& question, std::string& into) {
  const GLint before = get(GL_ARRAY_BUFFER_BINDING);
  gl.BindBuffer(GL_ARRAY_BUFFER, r.names(kBuffer).find(question.name, false));
  GLint size = 0;
  gl.GetBufferParameteriv(GL_ARRAY_BUFFER, GL_BUFFER_SIZE, &size);
  if (gl.GetError() == GL_NO_ERROR && size >= 0) {
    const auto bytes = static_cast<size_t>(size);
    Answer answer(into, question, 0, size, 1, 1, bytes);
    if (!r.current->is_es) {
      gl.GetBufferSubData(GL_ARRAY_BUFFER, 0, size, answer.pixels());
    } else if (const void* mapped = gl.MapBufferRange(GL_ARRAY_BUFFER, 0, size, GL_MAP_READ_BIT)) {
      std::memcpy(answer.pixels(), mapped, bytes);
      gl.UnmapBuffer(GL_ARRAY_BUFFER);
    }
    if (gl.GetError() != GL_NO_ERROR) answer.take_back();
  }
  gl.BindBuffer(GL_ARRAY_BUFFER, static_cast<GLuint>(before));
}

const void* pixels_of(const Contents& contents, size_t needed) {
  Payload payload(contents.header, sizeof contents);
  return payload.bytes(contents.bytes, needed);
}
size_t bytes_of_image(const Contents& c, GLsizei height, GLsizei depth) {
  const DenseImage image = dense({c.width, height, depth, c.format, c.type, false});
  if (!image.known) throw BadStream{"pixels of type " + std::to_string(c.type)};
  return image.bytes();
}

// --- Queries. No call gives one a result: those of another driver are answered by us.

void read_query(Renderer& r, const Contents& question, std::string& into) {
  const std::optional<GLuint64> known = r.current->share->result_of(question.name);
  GLuint64 result = known.value_or(0);
  if (!known) {
    const GLuint name = r.names(kQuery).find(question.name, false);
    gl.GetQueryObjectui64v(name, GL_QUERY_RESULT, &result);
    if (gl.GetError() != GL_NO_ERROR) {  // ES has no such call
      GLuint narrow = 0;
      gl.GetQueryObjectuiv(name, GL_QUERY_RESULT, &narrow);
      result = narrow;
      if (gl.GetError() != GL_NO_ERROR) return;
    }
  }
  Answer answer(into, question, 0, 1, 1, 1, sizeof result);
  std::memcpy(answer.pixels(), &result, sizeof result);
}

void write_query(Renderer& r, const Contents& c) {
  GLuint64 result = 0;
  std::memcpy(&result, pixels_of(c, sizeof result), sizeof result);
  std::lock_guard lock(r.current->share->mutex);
  r.current->share->results[c.name] = result;
}

// --- Windows, pbuffers

void read_surface(Renderer& r, const Contents& question, std::string& into) {
  const auto [width, height] = surface_size(question.surface);
  const bool es = r.current->is_es;
  gl.BindFramebuffer(GL_FRAMEBUFFER, 0);
  if (width <= 0 || height <= 0 || gl.CheckFramebufferStatus(GL_FRAMEBUFFER) != GL_FRAMEBUFFER_COMPLETE) {
    Answer nothing(into, question, 0, 0, 0, 0, 0);
    return;
  }
  const GLint buffer = es ? 0 : get(GL_READ_BUFFER);
  GLint doubled = 0;
  if (!es) gl.GetIntegerv(GL_DOUBLEBUFFER, &doubled);
  auto bits = [&](GLenum attachment, GLenum what) {
    GLint value = 0;
    gl.GetFramebufferAttachmentParameteriv(GL_FRAMEBUFFER, attachment, what, &value);
    return value;
  };
  Components c;
  if (question.target == GL_COLOR) {
    if (!es) gl.ReadBuffer(doubled != 0 ? GL_BACK : GL_FRONT);
    c.red = c.green = c.blue = c.alpha = 8;
    const GLint real =
        es ? 8 : bits(doubled != 0 ? GL_BACK_LEFT : GL_FRONT_LEFT, GL_FRAMEBUFFER_ATTACHMENT_RED_SIZE);
    if (real > 8) c.red = real;
  } else {
    c.depth = bits(GL_DEPTH, GL_FRAMEBUFFER_ATTACHMENT_DEPTH_SIZE);
    c.stencil = bits(GL_STENCIL, GL_FRAMEBUFFER_ATTACHMENT_STENCIL_SIZE);
  }
  (void)gl.GetError();
  // ES 2 does not even tell whether there is any.
  if (question.target != GL_COLOR && c.depth == 0 && c.stencil == 0) {
    Answer nothing(into, question, 0, 0, 0, 0, 0);
    return;
  }
  const GLenum depth = c.depth <= 16 ? GL_DEPTH_COMPONENT16 : GL_DEPTH_COMPONENT24;
  const GLenum internal = c.depth != 0 ? (c.stencil != 0 ? GL_DEPTH24_STENCIL8 : depth)
                          : c.red > 8  ? GL_RGBA16
                                       : GL_RGBA8;
  read_pixels(into, question, width, height, exact_format(c, es), internal);
  if (!es) gl.ReadBuffer(static_cast<GLenum>(buffer));
}

// --- Writing

void write_level(const Contents& c) {
  const bool has_depth = is_volume(c.target);
  const void* pixels = pixels_of(
      c,
      c.type == 0 ? 0 : bytes_of_image(c, c.target == GL_TEXTURE_1D ? 1 : c.height, has_depth ? c.depth : 1));
  if (c.type == 0) {
    const auto size = static_cast<GLsizei>(c.bytes);
    if (is_volume(c.target))
      return gl.CompressedTexSubImage3D(c.face, c.level, 0, 0, 0, c.width, c.height, c.depth, c.format, size,
                                        pixels);
    return gl.CompressedTexSubImage2D(c.face, c.level, 0, 0, c.width, c.height, c.format, size, pixels);
  }
  if (c.target == GL_TEXTURE_1D)
    return gl.TexSubImage1D(c.face, c.level, 0, c.width, c.format, c.type, pixels);
  if (is_volume(c.target))
    return gl.TexSubImage3D(c.face, c.level, 0, 0, 0, c.width, c.height, c.depth, c.format, c.type, pixels);
  gl.TexSubImage2D(c.face, c.level, 0, 0, c.width, c.height, c.format, c.type, pixels);
}

// A level that only the driver has made.
void make_level(const Contents& c) {
  const auto internal = static_cast<GLint>(c.internal_format);
  if (c.type == 0) return;
  if (c.target == GL_TEXTURE_1D)
    return gl.TexImage1D(c.face, c.level, internal, c.width, 0, c.format, c.type, nullptr);
  if (is_volume(c.target))
    return gl.TexImage3D(c.face, c.level, internal, c.width, c.height, c.depth, 0, c.format, c.type, nullptr);
  gl.TexImage2D(c.face, c.level, internal, c.width, c.height, 0, c.format, c.type, nullptr);
}

void write_texture(Renderer& r, const Contents& c) {
  BoundTexture bound(c.target, c.name == 0 ? 0 : r.names(kTexture).find(c.name, false));
  if (!r.current->is_es) {
    GLint width = 0;
    gl.GetTexLevelParameteriv(c.face, c.level, GL_TEXTURE_WIDTH, &width);
    if (width != c.width) make_level(c);
  }
  write_level(c);
}

// Pixels cannot be put into a renderbuffer or a window, but copied there from a texture.
void copy_from_texture(const Contents& c, const Components& parts, bool es, const void* pixels) {
  GLuint name = 0;
  gl.GenTextures(1, &name);
  Framebuffer from;
  {
    BoundTexture bound(GL_TEXTURE_2D, name);
    const auto internal = static_cast<GLint>(c.internal_format);
    gl.TexImage2D(GL_TEXTURE_2D, 0, internal, c.width, c.height, 0, c.format, c.type, pixels);
    gl.TexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MAX_LEVEL, 0);
    from.bind(GL_READ_FRAMEBUFFER, (mask_of(parts) & GL_COLOR_BUFFER_BIT) != 0, es);
    for (GLenum where : attachments_of(parts))
      gl.FramebufferTexture2D(GL_READ_FRAMEBUFFER, where, GL_TEXTURE_2D, name, 0);
    gl.BlitFramebuffer(0, 0, c.width, c.height, 0, 0, c.width, c.height, mask_of(parts), GL_NEAREST);
  }
  gl.DeleteTextures(1, &name);
}

Components parts_of(const Contents& c) {
  Components parts;
  if (c.format == GL_DEPTH_COMPONENT || c.format == GL_DEPTH_STENCIL) parts.depth = 1;
  if (c.format == GL_STENCIL_INDEX || c.format == GL_DEPTH_STENCIL) parts.stencil = 1;
  return parts;
}

void write_renderbuffer(Renderer& r, const Contents& c) {
  const Components parts = parts_of(c);
  Framebuffer into;
  into.bind(GL_DRAW_FRAMEBUFFER, (mask_of(parts) & GL_COLOR_BUFFER_BIT) != 0, r.current->is_es);
  const GLuint name = r.names(kRenderbuffer).find(c.name, false);
  for (GLenum where : attachments_of(parts))
    gl.FramebufferRenderbuffer(GL_DRAW_FRAMEBUFFER, where, GL_RENDERBUFFER, name);
  copy_from_texture(c, parts, r.current->is_es, pixels_of(c, bytes_of_image(c, c.height, 1)));
}

// --- The accumulation buffer

PutColors put_into_window(GLint width, GLint height) {
  Contents colors = {};
  colors.internal_format = GL_RGBA8;
  colors.format = GL_RGBA;
  colors.type = GL_UNSIGNED_BYTE;
  colors.width = width;
  colors.height = height;
  return [colors](const unsigned char* image) { copy_from_texture(colors, {}, false, image); };
}

void read_accumulated(const Contents& question, std::string& into) {
  const auto [width, height] = surface_size(question.surface);
  gl.BindFramebuffer(GL_FRAMEBUFFER, 0);
  if (width <= 0 || height <= 0) return;
  const size_t bytes = kAccumulationImages * accumulation_image_bytes(width, height);
  if (bytes > kMostBytes) return;
  Answer answer(into, question, 0, width, height, kAccumulationImages, bytes);
  answer.describe({GL_RGBA, GL_UNSIGNED_BYTE, 4}, GL_RGBA8);
  if (!read_accumulation(width, height, put_into_window(width, height),
                         static_cast<unsigned char*>(answer.pixels())))
    answer.take_back();
}

void write_surface(Renderer& r, const Contents& c) {
  gl.BindFramebuffer(GL_FRAMEBUFFER, 0);
  if (c.target != GL_ACCUM)
    return copy_from_texture(c, parts_of(c), r.current->is_es, pixels_of(c, bytes_of_image(c, c.height, 1)));
  if (c.format != GL_RGBA || c.type != GL_UNSIGNED_BYTE)
    throw BadStream{"an accumulation buffer of another kind"};
  write_accumulation(
      c.width, c.height, put_into_window(c.width, c.height),
      static_cast<const unsigned char*>(pixels_of(c, bytes_of_image(c, c.height, kAccumulationImages))));
}

}  // namespace

void read_contents(Renderer& r, const Contents& question, std::string& into) {
  if (r.current == nullptr) return;
  Borrowed borrowed(r);
  switch (question.of) {
    case kOfTexture:
      return read_texture(r, question, into);
    case kOfRenderbuffer:
      return read_renderbuffer(r, question, into);
    case kOfBuffer:
      return read_buffer(r, question, into);
    case kOfQuery:
      return read_query(r, question, into);
    case kOfSurface:
      return question.target == GL_ACCUM ? read_accumulated(question, into) : read_surface(r, question, into);
    default:
      throw BadStream{"contents of nothing"};
  }
}

void write_contents(Renderer& r, const Contents& c) {
  if (r.current == nullptr || c.width == 0) return;
  if (c.of == kOfQuery) return write_query(r, c);
  Borrowed borrowed(r);
  switch (c.of) {
    case kOfTexture:
      write_texture(r, c);
      break;
    case kOfRenderbuffer:
      write_renderbuffer(r, c);
      break;
    case kOfSurface:
      write_surface(r, c);
      break;
    default:
      throw BadStream{"contents of nothing"};
  }
  if (const GLenum error = gl.GetError(); error != GL_NO_ERROR)
    fprintf(stderr, "stasis: OpenGL: the driver does not take the contents of %s %u (error 0x%x)\n",
            c.of == kOfTexture        ? "texture"
            : c.of == kOfRenderbuffer ? "renderbuffer"
                                      : "the window",
            c.name, error);
}

}  // namespace stasis::gl

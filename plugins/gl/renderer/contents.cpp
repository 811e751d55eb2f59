#include "renderer/contents.h"

#include <algorithm>
#include <cstring>

#include "generated/commands.h"
#include "renderer/accumulation.h"
#include "renderer/answer.h"

namespace stasis::gl {

namespace {

const Functions& gl = Renderer::gl;

GLint get(GLenum name) {
  GLint value = 0;
  gl.GetIntegerv(name, &value);
  return value;
}

GLenum binding_of(GLenum target) {
  switch (target) {
    case GL_TEXTURE_1D:
      return GL_TEXTURE_BINDING_1D;
    case GL_TEXTURE_3D:
      return GL_TEXTURE_BINDING_3D;
    case GL_TEXTURE_CUBE_MAP:
      return GL_TEXTURE_BINDING_CUBE_MAP;
    case GL_TEXTURE_RECTANGLE:
      return GL_TEXTURE_BINDING_RECTANGLE;
    case GL_TEXTURE_1D_ARRAY:
      return GL_TEXTURE_BINDING_1D_ARRAY;
    case GL_TEXTURE_2D_ARRAY:
      return GL_TEXTURE_BINDING_2D_ARRAY;
    case GL_TEXTURE_2D_MULTISAMPLE:
      return GL_TEXTURE_BINDING_2D_MULTISAMPLE;
    case GL_TEXTURE_2D_MULTISAMPLE_ARRAY:
      return GL_TEXTURE_BINDING_2D_MULTISAMPLE_ARRAY;
    default:
      return GL_TEXTURE_BINDING_2D;
  }
}

bool has_samples(GLenum target) {
  return target == GL_TEXTURE_2D_MULTISAMPLE || target == GL_TEXTURE_2D_MULTISAMPLE_ARRAY;
}
bool is_volume(GLenum target) { return target == GL_TEXTURE_3D || target == GL_TEXTURE_2D_ARRAY; }

// The context is the program's: what is changed for a moment is put back.
class Borrowed {
 public:
  explicit Borrowed(Renderer& r) : es_(r.current->is_es) {
    // Errors that nobody has asked for yet stay the program's.
    if (const GLenum error = gl.GetError(); error != GL_NO_ERROR && r.current->pending_error == GL_NO_ERROR)
      r.current->pending_error = error;
    draw_ = get(GL_DRAW_FRAMEBUFFER_BINDING);  // in ES 2 the only one
    read_ = get(GL_READ_FRAMEBUFFER_BINDING);
    if (gl.GetError() != GL_NO_ERROR) read_ = draw_ = get(GL_FRAMEBUFFER_BINDING);
    renderbuffer_ = get(GL_RENDERBUFFER_BINDING);
    pack_ = get(GL_PIXEL_PACK_BUFFER_BINDING);
    unpack_ = get(GL_PIXEL_UNPACK_BUFFER_BINDING);
    has_pixel_buffers_ = gl.GetError() == GL_NO_ERROR;
    if (has_pixel_buffers_) {
      gl.BindBuffer(GL_PIXEL_PACK_BUFFER, 0);
      gl.BindBuffer(GL_PIXEL_UNPACK_BUFFER, 0);
    }
    scissor_ = gl.IsEnabled(GL_SCISSOR_TEST) != 0;
    gl.Disable(GL_SCISSOR_TEST);
    r.use_packing(false, 0);
    r.use_unpacking(false, 0);
    if (!es_) transfer_ = is_transfer_changed();
    if (transfer_) {
      gl.PushAttrib(GL_PIXEL_MODE_BIT);
      for (GLenum scale : {GL_RED_SCALE, GL_GREEN_SCALE, GL_BLUE_SCALE, GL_ALPHA_SCALE, GL_DEPTH_SCALE})
        gl.PixelTransferf(scale, 1);
      for (GLenum bias : {GL_RED_BIAS, GL_GREEN_BIAS, GL_BLUE_BIAS, GL_ALPHA_BIAS, GL_DEPTH_BIAS})
        gl.PixelTransferf(bias, 0);
      for (GLenum other : {GL_MAP_COLOR, GL_MAP_STENCIL, GL_INDEX_SHIFT, GL_INDEX_OFFSET})
        gl.PixelTransferi(other, 0);
    }
    (void)gl.GetError();
  }
  ~Borrowed() {
    if (transfer_) gl.PopAttrib();
    if (scissor_) gl.Enable(GL_SCISSOR_TEST);
    if (has_pixel_buffers_) {
      gl.BindBuffer(GL_PIXEL_PACK_BUFFER, static_cast<GLuint>(pack_));
      gl.BindBuffer(GL_PIXEL_UNPACK_BUFFER, static_cast<GLuint>(unpack_));
    }
    gl.BindRenderbuffer(GL_RENDERBUFFER, static_cast<GLuint>(renderbuffer_));
    gl.BindFramebuffer(GL_FRAMEBUFFER, static_cast<GLuint>(draw_));
    if (read_ != draw_) gl.BindFramebuffer(GL_READ_FRAMEBUFFER, static_cast<GLuint>(read_));
    while (gl.GetError() != GL_NO_ERROR) {
    }
  }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;

 private:
  static bool is_transfer_changed() {
    GLfloat scale = 1, bias = 0;
    bool changed = false;
    for (GLenum name : {GL_RED_SCALE, GL_GREEN_SCALE, GL_BLUE_SCALE, GL_ALPHA_SCALE, GL_DEPTH_SCALE}) {
      gl.GetFloatv(name, &scale);
      changed |= scale != 1;
    }
    for (GLenum name : {GL_RED_BIAS, GL_GREEN_BIAS, GL_BLUE_BIAS, GL_ALPHA_BIAS, GL_DEPTH_BIAS}) {
      gl.GetFloatv(name, &bias);
      changed |= bias != 0;
    }
    for (GLenum name : {GL_MAP_COLOR, GL_MAP_STENCIL, GL_INDEX_SHIFT, GL_INDEX_OFFSET})
      changed |= get(name) != 0;
    // A core context has none of them.
    return gl.GetError() == GL_NO_ERROR && changed;
  }

  bool es_, scissor_ = false, has_pixel_buffers_ = false, transfer_ = false;
  GLint draw_ = 0, read_ = 0, renderbuffer_ = 0, pack_ = 0, unpack_ = 0;
};

class BoundTexture {
 public:
  BoundTexture(GLenum target, GLuint name) : target_(target), before_(get(binding_of(target))) {
    gl.BindTexture(target, name);
  }
  ~BoundTexture() { gl.BindTexture(target_, static_cast<GLuint>(before_)); }
  BoundTexture(const BoundTexture&) = delete;
  BoundTexture& operator=(const BoundTexture&) = delete;

 private:
  GLenum target_;
  GLint before_;
};

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

// ES cannot be asked for a texture, nor for its size. What can be drawn into can be read all the same, when
// it has colours.
void read_level_by_framebuffer(Renderer& r, const Contents& question, GLuint name, GLint width, GLint height,
                               std::string& into) {
  Framebuffer framebuffer;
  framebuffer.bind(GL_FRAMEBUFFER, true, true);
  if (is_volume(question.target) || width <= 0 || height <= 0) return;
  gl.FramebufferTexture2D(GL_FRAMEBUFFER, GL_COLOR_ATTACHMENT0, question.face, name, question.level);
  if (gl.CheckFramebufferStatus(GL_FRAMEBUFFER) != GL_FRAMEBUFFER_COMPLETE) return;
  Components c;
  c.red = c.green = c.blue = c.alpha = 8;
  c.type = component_type(GL_FRAMEBUFFER, GL_COLOR_ATTACHMENT0);
  read_pixels(into, question, width, height, exact_format(c, r.current->is_es), 0);
}

void read_texture(Renderer& r, const Contents& question, std::string& into) {
  const GLuint name = question.name == 0 ? 0 : r.names(kTexture).find(question.name, false);
  if (r.current->is_es)
    return read_level_by_framebuffer(r, question, name, question.width, question.height, into);
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
  } else if (!es) {
    c.depth = bits(GL_DEPTH, GL_FRAMEBUFFER_ATTACHMENT_DEPTH_SIZE);
    c.stencil = bits(GL_STENCIL, GL_FRAMEBUFFER_ATTACHMENT_STENCIL_SIZE);
  }
  (void)gl.GetError();
  // ES does not show depth; a frame begins with none there.
  if (question.target != GL_COLOR && c.depth == 0 && c.stencil == 0) {
    Answer nothing(into, question, 0, 0, 0, 0, 0);
    return;
  }
  const GLenum internal = c.depth != 0 ? (c.stencil != 0 ? GL_DEPTH24_STENCIL8 : GL_DEPTH_COMPONENT24)
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

// All that OpenGL can tell of a context and its objects, as a text of facts: NAME=VALUES;
// What it binds on the way is bound as before in the end.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "oracle.h"

namespace {

class Text {
 public:
  void about(const std::string& subject) { subject_ = subject; }
  template <typename T, typename Ask>
  void fact(const std::string& name, Ask ask) {
    constexpr size_t kRoom = 1 << 9;
    T values[kRoom], others[kRoom];
    memset(values, 0x5a, sizeof values);
    memset(others, 0xa5, sizeof others);
    ask(values);
    if (glGetError() != GL_NO_ERROR) return;
    ask(others);
    std::string all;
    for (size_t i = 0; i < kRoom && memcmp(&values[i], &others[i], sizeof(T)) == 0; ++i) {
      char text[40];
      snprintf(text, sizeof text, " %.9g", static_cast<double>(values[i]));
      all += text;
    }
    text(name, all);
  }
  void text(const std::string& name, const std::string& value) {
    all_ += subject_ + " " + name + "=" + value + ";";
  }
  // Of many bytes their sum.
  template <typename Ask>
  void bytes(const std::string& name, size_t size, Ask ask) {
    std::vector<unsigned char> found(size);
    ask(found.data());
    if (glGetError() != GL_NO_ERROR) return;
    uint64_t hash = 14695981039346656037U;
    for (unsigned char byte : found) hash = (hash ^ byte) * 1099511628211U;
    char sum[20];
    snprintf(sum, sizeof sum, "%016llx", static_cast<unsigned long long>(hash));
    text(name, sum);
  }
  std::string take() { return std::move(all_); }

 private:
  std::string subject_, all_;
};

std::string hex(GLenum name) {
  char text[12];
  snprintf(text, sizeof text, "%04x", name);
  return text;
}

GLuint get(GLenum name) {
  GLint value = 0;
  glGetIntegerv(name, &value);
  (void)glGetError();
  return static_cast<GLuint>(value);
}

// The names of glGet*, whatever they are of.
void tell_gets(Text& text, GLenum first, GLenum end) {
  for (GLenum name = first; name < end; ++name) {
    // Versions and the list of extensions are those of what is recorded.
    if (name == GL_TIMESTAMP || (name >= GL_MAJOR_VERSION && name <= GL_NUM_EXTENSIONS)) continue;
    text.fact<GLdouble>("get " + hex(name), [&](GLdouble* v) { glGetDoublev(name, v); });
  }
}

constexpr size_t kPixels = size_t{1} << 16;
constexpr std::pair<GLenum, GLenum> kReadable[] = {{GL_RGBA, GL_FLOAT},
                                                   {GL_RGBA_INTEGER, GL_INT},
                                                   {GL_DEPTH_COMPONENT, GL_FLOAT},
                                                   {GL_STENCIL_INDEX, GL_UNSIGNED_BYTE}};

GLenum binding_of(GLenum target) {
  switch (target) {
    case GL_TEXTURE_1D:
      return GL_TEXTURE_BINDING_1D;
    case GL_TEXTURE_2D:
      return GL_TEXTURE_BINDING_2D;
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
    default:
      return GL_TEXTURE_BINDING_BUFFER;
  }
}

void tell_level(Text& text, GLenum face, GLint level) {
  GLint width = 0;
  glGetTexLevelParameteriv(face, level, GL_TEXTURE_WIDTH, &width);
  if (glGetError() != GL_NO_ERROR || width == 0) return;
  const std::string where = hex(face) + " level " + std::to_string(level) + " ";
  for (GLenum name : {GL_TEXTURE_WIDTH, GL_TEXTURE_HEIGHT, GL_TEXTURE_DEPTH, GL_TEXTURE_INTERNAL_FORMAT,
                      GL_TEXTURE_RED_SIZE, GL_TEXTURE_ALPHA_SIZE, GL_TEXTURE_DEPTH_SIZE, GL_TEXTURE_RED_TYPE,
                      GL_TEXTURE_COMPRESSED, GL_TEXTURE_BUFFER_DATA_STORE_BINDING})
    text.fact<GLint>(where + hex(name), [&](GLint* v) { glGetTexLevelParameteriv(face, level, name, v); });
  for (const auto& [format, type] : kReadable) {
    if (face == GL_TEXTURE_BUFFER) continue;
    text.bytes(where + "as " + hex(format), kPixels,
               [&, f = format, t = type](void* pixels) { glGetTexImage(face, level, f, t, pixels); });
  }
}

void tell_texture(Text& text, GLenum target) {
  for (GLenum name :
       {GL_TEXTURE_MIN_FILTER, GL_TEXTURE_MAG_FILTER, GL_TEXTURE_WRAP_S, GL_TEXTURE_WRAP_T, GL_TEXTURE_WRAP_R,
        GL_TEXTURE_BORDER_COLOR, GL_TEXTURE_MIN_LOD, GL_TEXTURE_MAX_LOD, GL_TEXTURE_LOD_BIAS,
        GL_TEXTURE_BASE_LEVEL, GL_TEXTURE_MAX_LEVEL, GL_TEXTURE_SWIZZLE_RGBA, GL_TEXTURE_COMPARE_MODE,
        GL_TEXTURE_COMPARE_FUNC, GL_GENERATE_MIPMAP, GL_TEXTURE_PRIORITY})
    text.fact<GLfloat>(hex(name), [&](GLfloat* v) { glGetTexParameterfv(target, name, v); });
  for (GLint level = 0; level < 5; ++level) {
    for (GLenum side = 0; side < 6 && (target == GL_TEXTURE_CUBE_MAP || side == 0); ++side)
      tell_level(text, target == GL_TEXTURE_CUBE_MAP ? GL_TEXTURE_CUBE_MAP_POSITIVE_X + side : target, level);
  }
}

void tell_textures(Text& text, const World& world) {
  const GLuint unit = get(GL_ACTIVE_TEXTURE);
  glActiveTexture(GL_TEXTURE0);
  for (size_t i = 0; i < world.textures.size(); ++i) {
    const Texture& texture = world.textures[i];
    text.about("texture " + std::to_string(i));
    if (!glIsTexture(texture.name)) continue;
    const GLuint before = get(binding_of(texture.target));
    glBindTexture(texture.target, texture.name);
    tell_texture(text, texture.target);
    glBindTexture(texture.target, before);
  }
  for (GLuint i = 0; i < kUnits; ++i) {
    glActiveTexture(GL_TEXTURE0 + i);
    text.about("unit " + std::to_string(i));
    for (GLenum target :
         {GL_TEXTURE_1D, GL_TEXTURE_2D, GL_TEXTURE_3D, GL_TEXTURE_CUBE_MAP, GL_TEXTURE_RECTANGLE,
          GL_TEXTURE_1D_ARRAY, GL_TEXTURE_2D_ARRAY, GL_TEXTURE_BUFFER}) {
      text.text("bound " + hex(target), std::to_string(get(binding_of(target))));
      text.text("enabled " + hex(target), std::to_string(glIsEnabled(target)));
    }
    text.text("sampler", std::to_string(get(GL_SAMPLER_BINDING)));
    tell_gets(text, GL_TEXTURE_GEN_S, GL_TEXTURE_GEN_Q + 1);
    tell_gets(text, GL_TEXTURE_MATRIX, GL_TEXTURE_MATRIX + 1);
    tell_gets(text, GL_CURRENT_TEXTURE_COORDS, GL_CURRENT_TEXTURE_COORDS + 1);
    for (GLenum name : {GL_TEXTURE_ENV_MODE, GL_TEXTURE_ENV_COLOR, GL_COMBINE_RGB, GL_RGB_SCALE})
      text.fact<GLfloat>(hex(name), [&](GLfloat* v) { glGetTexEnvfv(GL_TEXTURE_ENV, name, v); });
    text.fact<GLfloat>("bias",
                       [](GLfloat* v) { glGetTexEnvfv(GL_TEXTURE_FILTER_CONTROL, GL_TEXTURE_LOD_BIAS, v); });
    text.fact<GLfloat>("sprite", [](GLfloat* v) { glGetTexEnvfv(GL_POINT_SPRITE, GL_COORD_REPLACE, v); });
    for (GLenum coordinate : {GL_S, GL_T, GL_R, GL_Q}) {
      for (GLenum name : {GL_TEXTURE_GEN_MODE, GL_OBJECT_PLANE, GL_EYE_PLANE})
        text.fact<GLfloat>(hex(coordinate) + hex(name),
                           [&](GLfloat* v) { glGetTexGenfv(coordinate, name, v); });
    }
  }
  (void)glGetError();
  glActiveTexture(unit);
}

void tell_buffers(Text& text, const World& world) {
  const GLuint before = get(GL_COPY_READ_BUFFER_BINDING);
  for (size_t i = 0; i < world.buffers.size(); ++i) {
    text.about("buffer " + std::to_string(i));
    if (!glIsBuffer(world.buffers[i].name)) continue;
    glBindBuffer(GL_COPY_READ_BUFFER, world.buffers[i].name);
    for (GLenum name : {GL_BUFFER_SIZE, GL_BUFFER_USAGE, GL_BUFFER_ACCESS, GL_BUFFER_MAPPED})
      text.fact<GLint>(hex(name), [&](GLint* v) { glGetBufferParameteriv(GL_COPY_READ_BUFFER, name, v); });
    const GLsizei size = world.buffers[i].size;
    text.bytes("content", static_cast<size_t>(size),
               [&](void* to) { glGetBufferSubData(GL_COPY_READ_BUFFER, 0, size, to); });
  }
  glBindBuffer(GL_COPY_READ_BUFFER, before);
}

void tell_attachments(Text& text) {
  text.text("status", hex(glCheckFramebufferStatus(GL_READ_FRAMEBUFFER)));
  for (GLenum where :
       {GL_COLOR_ATTACHMENT0, GL_COLOR_ATTACHMENT1, GL_DEPTH_ATTACHMENT, GL_STENCIL_ATTACHMENT}) {
    for (GLenum name = GL_FRAMEBUFFER_ATTACHMENT_COLOR_ENCODING;
         name <= GL_FRAMEBUFFER_ATTACHMENT_STENCIL_SIZE; ++name)
      text.fact<GLint>(hex(where) + hex(name), [&](GLint* v) {
        glGetFramebufferAttachmentParameteriv(GL_READ_FRAMEBUFFER, where, name, v);
      });
    for (GLenum name = GL_FRAMEBUFFER_ATTACHMENT_OBJECT_TYPE; name <= GL_FRAMEBUFFER_ATTACHMENT_TEXTURE_LAYER;
         ++name)
      text.fact<GLint>(hex(where) + hex(name), [&](GLint* v) {
        glGetFramebufferAttachmentParameteriv(GL_READ_FRAMEBUFFER, where, name, v);
      });
  }
}

void tell_pixels(Text& text, GLenum buffer) {
  glReadBuffer(buffer);
  for (const auto& [format, type] : kReadable)
    text.bytes(hex(buffer) + " as " + hex(format), kPixels,
               [f = format, t = type](void* to) { glReadPixels(0, 0, 16, 16, f, t, to); });
}

void tell_framebuffers(Text& text, const World& world) {
  const GLuint read = get(GL_READ_FRAMEBUFFER_BINDING), draw = get(GL_DRAW_FRAMEBUFFER_BINDING);
  for (size_t i = 0; i < world.framebuffers.size(); ++i) {
    text.about("framebuffer " + std::to_string(i));
    if (!glIsFramebuffer(world.framebuffers[i])) continue;
    glBindFramebuffer(GL_FRAMEBUFFER, world.framebuffers[i]);
    tell_gets(text, GL_DRAW_BUFFER, GL_READ_BUFFER + 1);
    tell_gets(text, GL_DRAW_BUFFER0, GL_DRAW_BUFFER0 + kColors);
    tell_attachments(text);
    const GLuint buffer = get(GL_READ_BUFFER);
    for (GLenum color : {GL_COLOR_ATTACHMENT0, GL_COLOR_ATTACHMENT1}) tell_pixels(text, color);
    glReadBuffer(buffer);
  }
  text.about("window");
  glBindFramebuffer(GL_FRAMEBUFFER, 0);
  const GLuint buffer = get(GL_READ_BUFFER);
  tell_pixels(text, GL_BACK);
  glReadBuffer(buffer);
  const GLuint renderbuffer = get(GL_RENDERBUFFER_BINDING);
  for (size_t i = 0; i < world.renderbuffers.size(); ++i) {
    text.about("renderbuffer " + std::to_string(i));
    if (!glIsRenderbuffer(world.renderbuffers[i].name)) continue;
    glBindRenderbuffer(GL_RENDERBUFFER, world.renderbuffers[i].name);
    for (GLenum name = GL_RENDERBUFFER_WIDTH; name <= GL_RENDERBUFFER_STENCIL_SIZE; ++name)
      text.fact<GLint>(hex(name), [&](GLint* v) { glGetRenderbufferParameteriv(GL_RENDERBUFFER, name, v); });
  }
  glBindRenderbuffer(GL_RENDERBUFFER, renderbuffer);
  glBindFramebuffer(GL_DRAW_FRAMEBUFFER, draw);
  glBindFramebuffer(GL_READ_FRAMEBUFFER, read);
}

void tell_arrays(Text& text, const World& world) {
  const GLuint before = get(GL_VERTEX_ARRAY_BINDING);
  for (size_t i = 0; i < world.arrays.size(); ++i) {
    text.about("array " + std::to_string(i));
    if (!glIsVertexArray(world.arrays[i])) continue;
    glBindVertexArray(world.arrays[i]);
    for (GLuint index = 0; index < kAttributes; ++index) {
      for (GLenum name :
           {GL_VERTEX_ATTRIB_ARRAY_ENABLED, GL_VERTEX_ATTRIB_ARRAY_SIZE, GL_VERTEX_ATTRIB_ARRAY_STRIDE,
            GL_VERTEX_ATTRIB_ARRAY_TYPE, GL_VERTEX_ATTRIB_ARRAY_NORMALIZED, GL_VERTEX_ATTRIB_ARRAY_INTEGER,
            GL_VERTEX_ATTRIB_ARRAY_BUFFER_BINDING, GL_VERTEX_ATTRIB_ARRAY_DIVISOR})
        text.fact<GLint>(std::to_string(index) + hex(name),
                         [&](GLint* v) { glGetVertexAttribiv(index, name, v); });
      void* pointer = nullptr;
      glGetVertexAttribPointerv(index, GL_VERTEX_ATTRIB_ARRAY_POINTER, &pointer);
      text.text(std::to_string(index), std::to_string(reinterpret_cast<uintptr_t>(pointer)));
    }
    tell_gets(text, 0x8074, 0x8098);  // the arrays of the fixed function
    tell_gets(text, GL_VERTEX_ARRAY_BUFFER_BINDING, GL_WEIGHT_ARRAY_BUFFER_BINDING);
    text.text("elements", std::to_string(get(GL_ELEMENT_ARRAY_BUFFER_BINDING)));
  }
  glBindVertexArray(before);
  for (GLuint index = 1; index < kAttributes; ++index)
    text.fact<GLfloat>("current " + std::to_string(index),
                       [&](GLfloat* v) { glGetVertexAttribfv(index, GL_CURRENT_VERTEX_ATTRIB, v); });
}

void tell_programs(Text& text, const World& world) {
  for (size_t i = 0; i < world.programs.size(); ++i) {
    const GLuint program = world.programs[i];
    text.about("program " + std::to_string(i));
    for (GLenum name :
         {GL_LINK_STATUS, GL_DELETE_STATUS, GL_ACTIVE_UNIFORMS, GL_ACTIVE_ATTRIBUTES, GL_ATTACHED_SHADERS,
          GL_ACTIVE_UNIFORM_BLOCKS, GL_TRANSFORM_FEEDBACK_VARYINGS, GL_TRANSFORM_FEEDBACK_BUFFER_MODE})
      text.fact<GLint>(hex(name), [&](GLint* v) { glGetProgramiv(program, name, v); });
    for (const char* name : {"turn", "tint", "tint[1]", "tint[2]", "scale", "pair", "count", "image"}) {
      const GLint place = glGetUniformLocation(program, name);
      text.fact<GLfloat>(name, [&](GLfloat* v) { glGetUniformfv(program, place, v); });
    }
    for (GLuint block = 0; block < 2; ++block)
      text.fact<GLint>("block " + std::to_string(block), [&](GLint* v) {
        glGetActiveUniformBlockiv(program, block, GL_UNIFORM_BLOCK_BINDING, v);
      });
    text.text("attributes", std::to_string(glGetAttribLocation(program, "place")) +
                                std::to_string(glGetAttribLocation(program, "number")));
    text.text("output", std::to_string(glGetFragDataLocation(program, "two")));
    char name[99] = {};
    GLsizei length = 0, size = 0;
    GLenum type = 0;
    glGetTransformFeedbackVarying(program, 1, sizeof name, &length, &size, &type, name);
    text.text("captured", std::string(name) + hex(type));
  }
}

void tell_others(Text& text, const World& world) {
  for (size_t i = 0; i < world.samplers.size(); ++i) {
    text.about("sampler " + std::to_string(i));
    for (GLenum name : {GL_TEXTURE_MIN_FILTER, GL_TEXTURE_MAG_FILTER, GL_TEXTURE_WRAP_S, GL_TEXTURE_WRAP_T,
                        GL_TEXTURE_WRAP_R, GL_TEXTURE_BORDER_COLOR, GL_TEXTURE_MIN_LOD, GL_TEXTURE_MAX_LOD,
                        GL_TEXTURE_LOD_BIAS, GL_TEXTURE_COMPARE_MODE, GL_TEXTURE_COMPARE_FUNC})
      text.fact<GLfloat>(hex(name), [&](GLfloat* v) { glGetSamplerParameterfv(world.samplers[i], name, v); });
  }
  for (size_t i = 0; i < world.queries.size(); ++i) {
    text.about("query " + std::to_string(i));
    if (glIsQuery(world.queries[i]))
      text.fact<GLuint>("result",
                        [&](GLuint* v) { glGetQueryObjectuiv(world.queries[i], GL_QUERY_RESULT, v); });
  }
  text.about("context");
  for (GLuint i = 0; i < kColors; ++i) {
    text.text("blend " + std::to_string(i), std::to_string(glIsEnabledi(GL_BLEND, i)));
    text.fact<GLint>("mask " + std::to_string(i),
                     [&](GLint* v) { glGetIntegeri_v(GL_COLOR_WRITEMASK, i, v); });
  }
  for (GLuint i = 0; i < 3; ++i) {
    for (GLenum name : {GL_UNIFORM_BUFFER_BINDING, GL_UNIFORM_BUFFER_START, GL_UNIFORM_BUFFER_SIZE})
      text.fact<GLint>(hex(name) + std::to_string(i), [&](GLint* v) { glGetIntegeri_v(name, i, v); });
  }
  text.fact<GLint>("sample mask", [](GLint* v) { glGetIntegeri_v(GL_SAMPLE_MASK_VALUE, 0, v); });
}

void tell_fixed(Text& text, const World& world) {
  text.about("fixed");
  for (GLenum light : {GL_LIGHT0, GL_LIGHT1}) {
    for (GLenum name = GL_AMBIENT; name <= GL_QUADRATIC_ATTENUATION; ++name)
      text.fact<GLfloat>(hex(light) + hex(name), [&](GLfloat* v) { glGetLightfv(light, name, v); });
  }
  for (GLenum face : {GL_FRONT, GL_BACK}) {
    for (GLenum name : {GL_AMBIENT, GL_DIFFUSE, GL_SPECULAR, GL_EMISSION, GL_SHININESS})
      text.fact<GLfloat>(hex(face) + hex(name), [&](GLfloat* v) { glGetMaterialfv(face, name, v); });
  }
  for (GLenum plane : {GL_CLIP_PLANE0, GL_CLIP_PLANE1})
    text.fact<GLdouble>(hex(plane), [&](GLdouble* v) { glGetClipPlane(plane, v); });
  for (GLenum map : {GL_MAP1_VERTEX_3, GL_MAP2_VERTEX_3}) {
    for (GLenum name : {GL_COEFF, GL_ORDER, GL_DOMAIN})
      text.fact<GLfloat>(hex(map) + hex(name), [&](GLfloat* v) { glGetMapfv(map, name, v); });
  }
  for (GLenum map = GL_PIXEL_MAP_I_TO_I; map <= GL_PIXEL_MAP_A_TO_A; ++map)
    text.fact<GLfloat>(hex(map), [&](GLfloat* v) { glGetPixelMapfv(map, v); });
  text.bytes("stipple", 4096, [](void* to) { glGetPolygonStipple(static_cast<GLubyte*>(to)); });
  for (GLuint list : world.lists) text.text("list " + std::to_string(list), std::to_string(glIsList(list)));
}

constexpr GLenum kPacking[] = {GL_PACK_SWAP_BYTES,   GL_PACK_LSB_FIRST, GL_PACK_ROW_LENGTH,
                               GL_PACK_IMAGE_HEIGHT, GL_PACK_SKIP_ROWS, GL_PACK_SKIP_PIXELS,
                               GL_PACK_SKIP_IMAGES,  GL_PACK_ALIGNMENT};

}  // namespace

std::string tell_all(World& world) {
  (void)glGetError();
  Text text;
  text.about("context");
  for (const auto& [first, end] : {std::pair<GLenum, GLenum>{0x0b00, 0x0e00},
                                   {0x1200, 0x1210},
                                   {0x2a00, 0x2a30},
                                   {0x3000, 0x3008},
                                   {0x8000, 0x9400}})
    tell_gets(text, first, end);
  // Pixels are told without gaps.
  GLint packing[std::size(kPacking)];
  for (size_t i = 0; i < std::size(kPacking); ++i) {
    glGetIntegerv(kPacking[i], packing + i);
    glPixelStorei(kPacking[i], kPacking[i] == GL_PACK_ALIGNMENT ? 1 : 0);
  }
  tell_buffers(text, world);
  tell_textures(text, world);
  tell_framebuffers(text, world);
  tell_arrays(text, world);
  tell_programs(text, world);
  tell_others(text, world);
  if (!world.core) tell_fixed(text, world);
  for (size_t i = 0; i < std::size(kPacking); ++i) glPixelStorei(kPacking[i], packing[i]);
  (void)glGetError();
  return text.take();
}

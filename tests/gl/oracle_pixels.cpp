// Random calls for images: uploads of many formats, copies, mipmaps, parameters; and draws into what is
// bound.
#include <algorithm>

#include "oracle.h"

namespace {

struct Format {
  GLenum internal, format, type;
};
constexpr Format kFormats[] = {{GL_RGBA8, GL_RGBA, GL_UNSIGNED_BYTE},
                               {GL_RGB8, GL_RGB, GL_UNSIGNED_BYTE},
                               {GL_RGB565, GL_RGB, GL_UNSIGNED_SHORT_5_6_5},
                               {GL_RGB5_A1, GL_BGRA, GL_UNSIGNED_SHORT_1_5_5_5_REV},
                               {GL_RGB10_A2, GL_RGBA, GL_UNSIGNED_INT_2_10_10_10_REV},
                               {GL_R8, GL_RED, GL_UNSIGNED_BYTE},
                               {GL_RG16, GL_RG, GL_UNSIGNED_SHORT},
                               {GL_RGBA8_SNORM, GL_RGBA, GL_BYTE},
                               {GL_SRGB8_ALPHA8, GL_RGBA, GL_UNSIGNED_BYTE},
                               {GL_RGBA16F, GL_RGBA, GL_SHORT},
                               {GL_R11F_G11F_B10F, GL_RGB, GL_UNSIGNED_BYTE},
                               {GL_RGB9_E5, GL_RGB, GL_UNSIGNED_BYTE},
                               {GL_RGBA32I, GL_RGBA_INTEGER, GL_INT},
                               {GL_RG8UI, GL_RG_INTEGER, GL_UNSIGNED_BYTE},
                               {GL_R16I, GL_RED_INTEGER, GL_SHORT},
                               {GL_DEPTH_COMPONENT24, GL_DEPTH_COMPONENT, GL_UNSIGNED_INT},
                               {GL_DEPTH24_STENCIL8, GL_DEPTH_STENCIL, GL_UNSIGNED_INT_24_8},
                               {GL_COMPRESSED_RED_RGTC1, GL_RED, GL_UNSIGNED_BYTE}};
constexpr Format kFixedFormats[] = {{GL_LUMINANCE8, GL_LUMINANCE, GL_UNSIGNED_BYTE},
                                    {GL_ALPHA8, GL_ALPHA, GL_UNSIGNED_BYTE},
                                    {GL_INTENSITY16, GL_LUMINANCE, GL_UNSIGNED_SHORT},
                                    {GL_LUMINANCE8_ALPHA8, GL_LUMINANCE_ALPHA, GL_UNSIGNED_BYTE}};
constexpr GLsizei kEdge = 16;

GLenum face_of(GLenum target, Dice& dice) {
  return target == GL_TEXTURE_CUBE_MAP ? GL_TEXTURE_CUBE_MAP_POSITIVE_X + dice.below(6) : target;
}

void upload(Texture& texture, Dice& dice, const Format& format) {
  const GLint level = texture.target == GL_TEXTURE_RECTANGLE ? 0 : dice.between(0, 2);
  const GLsizei edge = kEdge >> level;
  const auto pixels = dice.bytes(size_t{1} << 17);
  const auto internal = static_cast<GLint>(format.internal);
  switch (texture.target) {
    case GL_TEXTURE_1D:
      return glTexImage1D(GL_TEXTURE_1D, level, internal, edge, 0, format.format, format.type, pixels.data());
    case GL_TEXTURE_3D:
      return glTexImage3D(GL_TEXTURE_3D, level, internal, edge, edge, 4 >> level, 0, format.format,
                          format.type, pixels.data());
    case GL_TEXTURE_2D_ARRAY:
      return glTexImage3D(GL_TEXTURE_2D_ARRAY, level, internal, edge, edge, 4, 0, format.format, format.type,
                          pixels.data());
    case GL_TEXTURE_1D_ARRAY:
      return glTexImage2D(GL_TEXTURE_1D_ARRAY, level, internal, edge, 4, 0, format.format, format.type,
                          pixels.data());
    default:
      return glTexImage2D(face_of(texture.target, dice), level, internal, edge, edge, 0, format.format,
                          format.type, pixels.data());
  }
}

void upload_part(const Texture& texture, Dice& dice) {
  const auto pixels = dice.bytes(size_t{1} << 14);
  const GLint x = dice.between(0, 8), y = dice.between(0, 2);
  switch (texture.target) {
    case GL_TEXTURE_1D:
      return glTexSubImage1D(GL_TEXTURE_1D, 0, x, 7, GL_RGBA, GL_UNSIGNED_BYTE, pixels.data());
    case GL_TEXTURE_3D:
    case GL_TEXTURE_2D_ARRAY:
      return glTexSubImage3D(texture.target, 0, x, y, 1, 7, 2, 2, GL_RGBA, GL_UNSIGNED_BYTE, pixels.data());
    default:
      return glTexSubImage2D(face_of(texture.target, dice), 0, x, y, 7, 2, GL_RGBA, GL_UNSIGNED_BYTE,
                             pixels.data());
  }
}

void parameter(const Texture& texture, Dice& dice) {
  const GLfloat border[] = {dice.fraction(), dice.fraction(), 0, 1};
  switch (dice.below(7)) {
    case 0:
      return glTexParameteri(texture.target, GL_TEXTURE_MIN_FILTER,
                             static_cast<GLint>(dice.one_of({GL_NEAREST, GL_LINEAR})));
    case 1:
      return glTexParameteri(texture.target, dice.one_of({GL_TEXTURE_WRAP_S, GL_TEXTURE_WRAP_T}),
                             static_cast<GLint>(dice.one_of({GL_CLAMP_TO_EDGE, GL_CLAMP_TO_BORDER})));
    case 2:
      return glTexParameterfv(texture.target, GL_TEXTURE_BORDER_COLOR, border);
    case 3:
      return glTexParameteri(texture.target, dice.one_of({GL_TEXTURE_SWIZZLE_R, GL_TEXTURE_SWIZZLE_A}),
                             static_cast<GLint>(dice.one_of({GL_RED, GL_ALPHA, GL_ONE, GL_ZERO})));
    case 4:
      return glTexParameteri(texture.target, GL_TEXTURE_MAX_LEVEL, dice.between(0, 9));
    case 5:
      return glTexParameterf(texture.target, dice.one_of({GL_TEXTURE_MIN_LOD, GL_TEXTURE_LOD_BIAS}),
                             dice.fraction());
    default:
      return glTexParameteri(texture.target, GL_TEXTURE_COMPARE_FUNC,
                             static_cast<GLint>(dice.one_of({GL_LEQUAL, GL_ALWAYS})));
  }
}

GLint get(GLenum name) {
  GLint value = 0;
  glGetIntegerv(name, &value);
  return value;
}

// The images of the framebuffer for drawing or reading. Those of the window have none.
std::vector<GLint> attached(GLenum target) {
  std::vector<GLint> names;
  if (get(target == GL_READ_FRAMEBUFFER ? GL_READ_FRAMEBUFFER_BINDING : GL_DRAW_FRAMEBUFFER_BINDING) == 0)
    return names;
  for (GLenum where :
       {GL_COLOR_ATTACHMENT0, GL_COLOR_ATTACHMENT1, GL_DEPTH_ATTACHMENT, GL_STENCIL_ATTACHMENT}) {
    GLint name = 0;
    glGetFramebufferAttachmentParameteriv(target, where, GL_FRAMEBUFFER_ATTACHMENT_OBJECT_NAME, &name);
    if (name != 0) names.push_back(name);
  }
  return names;
}

bool have_common(const std::vector<GLint>& some, const std::vector<GLint>& others) {
  return std::any_of(some.begin(), some.end(),
                     [&](GLint one) { return std::find(others.begin(), others.end(), one) != others.end(); });
}

bool is_complete(GLenum target) { return glCheckFramebufferStatus(target) == GL_FRAMEBUFFER_COMPLETE; }

// What is read and written at once is undefined, and so is what nobody has written yet.
bool may_copy_into(const Texture& texture) {
  return texture.whole && is_complete(GL_READ_FRAMEBUFFER) && get(GL_READ_BUFFER) != GL_NONE &&
         !have_common(attached(GL_READ_FRAMEBUFFER), {static_cast<GLint>(texture.name)});
}

bool may_blit() {
  return is_complete(GL_READ_FRAMEBUFFER) && is_complete(GL_DRAW_FRAMEBUFFER) &&
         get(GL_READ_FRAMEBUFFER_BINDING) != get(GL_DRAW_FRAMEBUFFER_BINDING) &&
         !have_common(attached(GL_READ_FRAMEBUFFER), attached(GL_DRAW_FRAMEBUFFER));
}

}  // namespace

bool may_draw(const World& world) {
  if (!is_complete(GL_DRAW_FRAMEBUFFER)) return false;
  std::vector<GLint> drawn = attached(GL_DRAW_FRAMEBUFFER), read;
  const GLint unit = get(GL_ACTIVE_TEXTURE);
  for (GLuint i = 0; i < kUnits; ++i) {
    glActiveTexture(GL_TEXTURE0 + i);
    read.push_back(get(GL_TEXTURE_BINDING_2D));
  }
  glActiveTexture(static_cast<GLenum>(unit));
  if (have_common(drawn, read)) return false;
  glBindVertexArray(world.arrays[0]);
  for (GLuint i = 0; i < kAttributes; ++i) {
    GLint buffer = 0;
    glGetVertexAttribiv(i, GL_VERTEX_ATTRIB_ARRAY_BUFFER_BINDING, &buffer);
    if (buffer == 0) glDisableVertexAttribArray(i);  // it was deleted
  }
  for (GLuint i = 0; i < 3; ++i) {
    GLint bound = 0;
    glGetIntegeri_v(GL_UNIFORM_BUFFER_BINDING, i, &bound);
    if (bound != 0) continue;
    const auto sized =
        std::find_if(world.buffers.begin(), world.buffers.end(), [](auto& b) { return b.size != 0; });
    if (sized == world.buffers.end()) return false;
    glBindBufferBase(GL_UNIFORM_BUFFER, i, sized->name);
  }
  return true;
}

namespace {

void call_texture(World& world, Dice& dice) {
  Texture& texture = dice.one_of(world.textures);
  glActiveTexture(GL_TEXTURE0 + dice.below(kUnits));
  glBindTexture(texture.target, texture.name);
  if (texture.target == GL_TEXTURE_BUFFER)
    return glTexBuffer(GL_TEXTURE_BUFFER, dice.one_of({GL_RGBA8, GL_R32F}), dice.one_of(world.buffers).name);
  switch (dice.below(10)) {
    case 0:
    case 1:
    case 2:
      texture.whole = true;
      return upload(texture, dice,
                    !world.core && dice.once_in(4) ? dice.one_of(kFixedFormats) : dice.one_of(kFormats));
    case 3:
    case 4:
      return upload_part(texture, dice);
    case 5:
    case 6:
      return parameter(texture, dice);
    case 7:
      return glGenerateMipmap(texture.target);
    case 8:
      if (texture.target == GL_TEXTURE_2D && may_copy_into(texture))
        glCopyTexImage2D(GL_TEXTURE_2D, 0, dice.one_of({GL_RGBA8, GL_RGB8, GL_R16F}), 1, 2, kEdge, kEdge, 0);
      return;
    default:
      if (!may_copy_into(texture)) return;
      if (texture.target == GL_TEXTURE_3D || texture.target == GL_TEXTURE_2D_ARRAY)
        return glCopyTexSubImage3D(texture.target, 0, 2, 3, 1, 0, 0, 5, 6);
      if (texture.target != GL_TEXTURE_1D)
        glCopyTexSubImage2D(face_of(texture.target, dice), 0, 2, 1, 0, 0, 5, 2);
  }
}

void draw(World& world, Dice& dice) {
  switch (dice.below(world.core ? 4 : 5)) {
    case 0:
      return glClear(GL_COLOR_BUFFER_BIT | GL_DEPTH_BUFFER_BIT | GL_STENCIL_BUFFER_BIT);
    case 1: {
      const GLfloat value[] = {dice.fraction(), dice.fraction(), dice.fraction(), 1};
      return glClearBufferfv(GL_COLOR, dice.between(0, 1), value);
    }
    case 2:
      if (!may_blit()) return;
      return glBlitFramebuffer(0, 0, 9, 9, 3, 2, 12, 11, GL_COLOR_BUFFER_BIT, GL_NEAREST);
    case 3:
      if (!may_draw(world)) return;
      glUseProgram(dice.one_of(world.programs));
      glBindVertexArray(world.arrays[0]);
      return glDrawArrays(GL_TRIANGLES, 0, 3);
    default:
      if (!may_draw(world)) return;
      glUseProgram(0);
      return glRectf(-1, -1, dice.fraction(), dice.fraction());
  }
}

}  // namespace

void call_pixels(World& world, Dice& dice) {
  dice.once_in(3) ? draw(world, dice) : call_texture(world, dice);
}

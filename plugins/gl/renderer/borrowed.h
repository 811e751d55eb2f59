// What is borrowed of the program's context for a moment, and put back.
#pragma once

#include <GL/gl.h>
#include <GL/glext.h>

#include "renderer/renderer.h"

namespace stasis::gl {

inline GLint get(GLenum name) {
  GLint value = 0;
  Renderer::gl.GetIntegerv(name, &value);
  return value;
}

inline GLenum binding_of(GLenum target) {
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
  static constexpr const Functions& gl = Renderer::gl;
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
  static constexpr const Functions& gl = Renderer::gl;
  GLenum target_;
  GLint before_;
};

}  // namespace stasis::gl

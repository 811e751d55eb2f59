// Questions whose answers may be names of objects: the program has other ones than the driver.
#include <algorithm>

#include "generated/commands.h"
#include "renderer/renderer.h"

namespace stasis::gl {

namespace {

NameType binding_type(GLenum name) {
  switch (name) {
    case GL_TEXTURE_BINDING_1D:
    case GL_TEXTURE_BINDING_2D:
    case GL_TEXTURE_BINDING_3D:
    case GL_TEXTURE_BINDING_CUBE_MAP:
    case GL_TEXTURE_BINDING_RECTANGLE:
    case GL_TEXTURE_BINDING_1D_ARRAY:
    case GL_TEXTURE_BINDING_2D_ARRAY:
    case GL_TEXTURE_BINDING_BUFFER:
    case GL_TEXTURE_BINDING_2D_MULTISAMPLE:
    case GL_TEXTURE_BINDING_2D_MULTISAMPLE_ARRAY:
    case GL_TEXTURE_BUFFER_DATA_STORE_BINDING:
      return kTexture;
    case GL_ARRAY_BUFFER_BINDING:
    case GL_ELEMENT_ARRAY_BUFFER_BINDING:
    case GL_PIXEL_PACK_BUFFER_BINDING:
    case GL_PIXEL_UNPACK_BUFFER_BINDING:
    case GL_UNIFORM_BUFFER_BINDING:
    case GL_TRANSFORM_FEEDBACK_BUFFER_BINDING:
    case GL_COPY_READ_BUFFER_BINDING:
    case GL_COPY_WRITE_BUFFER_BINDING:
    case GL_VERTEX_ARRAY_BUFFER_BINDING:
    case GL_NORMAL_ARRAY_BUFFER_BINDING:
    case GL_COLOR_ARRAY_BUFFER_BINDING:
    case GL_TEXTURE_COORD_ARRAY_BUFFER_BINDING:
      return kBuffer;
    case GL_DRAW_FRAMEBUFFER_BINDING:
    case GL_READ_FRAMEBUFFER_BINDING:
      return kFramebuffer;
    case GL_RENDERBUFFER_BINDING:
      return kRenderbuffer;
    case GL_CURRENT_PROGRAM:
      return kProgram;
    case GL_SAMPLER_BINDING:
      return kSampler;
    case GL_VERTEX_ARRAY_BINDING:
      return kVertexArrayName;
    case GL_TRANSFORM_FEEDBACK_BINDING:
      return kTransformFeedback;
    default:
      return kNameTypes;
  }
}

template <typename T>
void translate(Renderer& r, NameType type, T* value) {
  if (type == kNameTypes) return;
  // What is no name, since the call failed, stays as it is.
  if (const GLuint name = r.names(type).name_of(static_cast<GLuint>(*value)); name != 0)
    *value = static_cast<T>(name);
}

template <typename T>
void get_number(Renderer& r, const Packet& header, GLenum name, void (*get)(GLenum, T*)) {
  r.answer_outputs(header, {kAnyOutput}, [&](void* const* o) {
    auto* values = static_cast<T*>(o[0]);
    get(name, values);
    translate(r, binding_type(name), values);
    return uint64_t{0};
  });
}

}  // namespace

void own_GetIntegerv(Renderer& r, const Packet& header) {
  get_number(r, header, view<PGetIntegerv>(header).pname, r.gl.GetIntegerv);
}
void own_GetInteger64v(Renderer& r, const Packet& header) {
  get_number(r, header, view<PGetInteger64v>(header).pname, r.gl.GetInteger64v);
}
void own_GetFloatv(Renderer& r, const Packet& header) {
  get_number(r, header, view<PGetFloatv>(header).pname, r.gl.GetFloatv);
}
void own_GetDoublev(Renderer& r, const Packet& header) {
  get_number(r, header, view<PGetDoublev>(header).pname, r.gl.GetDoublev);
}

void own_GetIntegeri_v(Renderer& r, const Packet& header) {
  const auto& p = view<PGetIntegeri_v>(header);
  r.answer_outputs(header, {kAnyOutput}, [&](void* const* o) {
    auto* values = static_cast<GLint*>(o[0]);
    r.gl.GetIntegeri_v(p.target, p.index, values);
    translate(r, binding_type(p.target), values);
    return uint64_t{0};
  });
}

void own_GetFramebufferAttachmentParameteriv(Renderer& r, const Packet& header) {
  const auto& p = view<PGetFramebufferAttachmentParameteriv>(header);
  r.answer_outputs(header, {kAnyOutput}, [&](void* const* o) {
    auto* values = static_cast<GLint*>(o[0]);
    r.gl.GetFramebufferAttachmentParameteriv(p.target, p.attachment, p.pname, values);
    if (p.pname == GL_FRAMEBUFFER_ATTACHMENT_OBJECT_NAME) {
      GLint type = 0;
      r.gl.GetFramebufferAttachmentParameteriv(p.target, p.attachment, GL_FRAMEBUFFER_ATTACHMENT_OBJECT_TYPE,
                                               &type);
      if (type == GL_TEXTURE) translate(r, kTexture, values);
      if (type == GL_RENDERBUFFER) translate(r, kRenderbuffer, values);
    }
    return uint64_t{0};
  });
}

void own_GetTexLevelParameteriv(Renderer& r, const Packet& header) {
  const auto& p = view<PGetTexLevelParameteriv>(header);
  r.answer_outputs(header, {kAnyOutput}, [&](void* const* o) {
    auto* values = static_cast<GLint*>(o[0]);
    r.gl.GetTexLevelParameteriv(p.target, p.level, p.pname, values);
    if (p.pname == GL_TEXTURE_BUFFER_DATA_STORE_BINDING) translate(r, kBuffer, values);
    return uint64_t{0};
  });
}

void own_GetQueryiv(Renderer& r, const Packet& header) {
  const auto& p = view<PGetQueryiv>(header);
  r.answer_outputs(header, {kAnyOutput}, [&](void* const* o) {
    auto* values = static_cast<GLint*>(o[0]);
    r.gl.GetQueryiv(p.target, p.pname, values);
    if (p.pname == GL_CURRENT_QUERY) translate(r, kQuery, values);
    return uint64_t{0};
  });
}

namespace {

constexpr GLsizei kMostShaders = 4096;

// Answers a count, and so many names.
void answer_attached(Renderer& r, const Packet& header, GLsizei most,
                     const std::function<void(GLsizei*, GLuint*)>& get) {
  const size_t room = count_in(std::min(most, kMostShaders));
  r.answer_outputs(header, {sizeof(GLsizei), room * sizeof(GLuint)}, [&](void* const* o) {
    GLsizei count = -1;
    auto* names = static_cast<GLuint*>(o[1]);
    get(&count, names);
    for (GLsizei i = 0; i < count; ++i) translate(r, kProgram, names + i);
    if (count >= 0) *static_cast<GLsizei*>(o[0]) = count;
    return uint64_t{0};
  });
}

}  // namespace

void own_GetAttachedShaders(Renderer& r, const Packet& header) {
  const auto& p = view<PGetAttachedShaders>(header);
  answer_attached(r, header, p.maxCount, [&](GLsizei* count, GLuint* names) {
    r.gl.GetAttachedShaders(r.names(kProgram).find(p.program, false), std::min(p.maxCount, kMostShaders),
                            count, names);
  });
}

void own_GetActiveUniformBlockiv(Renderer& r, const Packet& header) {
  const auto& p = view<PGetActiveUniformBlockiv>(header);
  const GLuint program = r.names(kProgram).find(p.program, false);
  GLint count = 1;
  if (p.pname == GL_UNIFORM_BLOCK_ACTIVE_UNIFORM_INDICES)
    r.gl.GetActiveUniformBlockiv(program, p.uniformBlockIndex, GL_UNIFORM_BLOCK_ACTIVE_UNIFORMS, &count);
  r.answer_outputs(header, {count_in(count) * sizeof(GLint)}, [&](void* const* o) {
    r.gl.GetActiveUniformBlockiv(program, p.uniformBlockIndex, p.pname, static_cast<GLint*>(o[0]));
    return uint64_t{0};
  });
}

}  // namespace stasis::gl

// Commands of extensions that are others in disguise.
#include "encoder/program.h"
#include "generated/packets.h"

namespace stasis::gl {

// --- GL_EXT_vertex_array: how many elements there are is of no use to anybody

void stub_VertexPointerEXT(GLint size, GLenum type, GLsizei stride, GLsizei, const void* pointer) {
  stub_VertexPointer(size, type, stride, pointer);
}
void stub_NormalPointerEXT(GLenum type, GLsizei stride, GLsizei, const void* pointer) {
  stub_NormalPointer(type, stride, pointer);
}
void stub_ColorPointerEXT(GLint size, GLenum type, GLsizei stride, GLsizei, const void* pointer) {
  stub_ColorPointer(size, type, stride, pointer);
}
void stub_IndexPointerEXT(GLenum type, GLsizei stride, GLsizei, const void* pointer) {
  stub_IndexPointer(type, stride, pointer);
}
void stub_EdgeFlagPointerEXT(GLsizei stride, GLsizei, const GLboolean* pointer) {
  stub_EdgeFlagPointer(stride, pointer);
}
void stub_TexCoordPointerEXT(GLint size, GLenum type, GLsizei stride, GLsizei, const void* pointer) {
  stub_TexCoordPointer(size, type, stride, pointer);
}

// --- GL_IBM_multimode_draw_arrays

namespace {

GLenum mode_of(const GLenum* modes, GLint stride, GLsizei i) {
  return *reinterpret_cast<const GLenum*>(reinterpret_cast<const char*>(modes) + i * stride);
}

}  // namespace

void stub_MultiModeDrawArraysIBM(const GLenum* modes, const GLint* first, const GLsizei* count, GLsizei draws,
                                 GLint stride) {
  for (GLsizei i = 0; i < draws; ++i) {
    if (count[i] > 0) stub_DrawArrays(mode_of(modes, stride, i), first[i], count[i]);
  }
}
void stub_MultiModeDrawElementsIBM(const GLenum* modes, const GLsizei* count, GLenum type,
                                   const void* const* indices, GLsizei draws, GLint stride) {
  for (GLsizei i = 0; i < draws; ++i) {
    if (count[i] > 0) stub_DrawElements(mode_of(modes, stride, i), count[i], type, indices[i]);
  }
}

// --- GL_ARB_shader_objects: shaders and programs by the same commands

void stub_DeleteObjectARB(GLhandleARB object) {
  stub_IsProgram(object) ? stub_DeleteProgram(object) : stub_DeleteShader(object);
}

GLhandleARB stub_GetHandleARB(GLenum name) {
  STREAM_OR_RETURN(0);
  if (name != GL_PROGRAM_OBJECT_ARB) {
    raise(*s, GL_INVALID_ENUM);
    return 0;
  }
  GLint program = 0;
  stub_GetIntegerv(GL_CURRENT_PROGRAM, &program);
  return static_cast<GLhandleARB>(program);
}

void stub_GetObjectParameterivARB(GLhandleARB object, GLenum name, GLint* values) {
  const bool is_program = stub_IsProgram(object) != GL_FALSE;
  if (name != GL_OBJECT_TYPE_ARB)  // the others have kept their numbers
    return is_program ? stub_GetProgramiv(object, name, values) : stub_GetShaderiv(object, name, values);
  STREAM_OR_RETURN();
  if (!is_program && !stub_IsShader(object)) return raise(*s, GL_INVALID_VALUE);
  *values = is_program ? GL_PROGRAM_OBJECT_ARB : GL_SHADER_OBJECT_ARB;
}
void stub_GetObjectParameterfvARB(GLhandleARB object, GLenum name, GLfloat* values) {
  GLint value = static_cast<GLint>(*values);
  stub_GetObjectParameterivARB(object, name, &value);
  *values = static_cast<GLfloat>(value);
}

void stub_GetInfoLogARB(GLhandleARB object, GLsizei size, GLsizei* length, GLcharARB* text) {
  stub_IsProgram(object) ? stub_GetProgramInfoLog(object, size, length, text)
                         : stub_GetShaderInfoLog(object, size, length, text);
}

void stub_GetAttachedObjectsARB(GLhandleARB program, GLsizei most, GLsizei* count, GLhandleARB* objects) {
  stub_GetAttachedShaders(program, most, count, objects);
}

// --- GL_ATI_separate_stencil

void stub_StencilFuncSeparateATI(GLenum front, GLenum back, GLint reference, GLuint mask) {
  stub_StencilFuncSeparate(GL_FRONT, front, reference, mask);
  stub_StencilFuncSeparate(GL_BACK, back, reference, mask);
}

}  // namespace stasis::gl

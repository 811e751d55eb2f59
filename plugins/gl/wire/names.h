// Kinds of names that a program gives to objects.
#pragma once

#include <GL/gl.h>

#include <cstddef>
#include <cstdint>

namespace stasis::gl {

enum NameType : uint32_t {
  kTexture,
  kBuffer,
  kFramebuffer,
  kRenderbuffer,
  kQuery,
  kProgram,
  kSampler,
  kVertexArrayName,
  kTransformFeedback,
  kList,
  kArbProgram,
  kNameTypes
};

// What glCallLists takes names of, in bytes; 0: nothing that it knows.
inline size_t size_of_list_name(GLenum type) {
  switch (type) {
    case GL_BYTE:
    case GL_UNSIGNED_BYTE:
      return 1;
    case GL_SHORT:
    case GL_UNSIGNED_SHORT:
    case GL_2_BYTES:
      return 2;
    case GL_3_BYTES:
      return 3;
    case GL_INT:
    case GL_UNSIGNED_INT:
    case GL_FLOAT:
    case GL_4_BYTES:
      return 4;
    default:
      return 0;
  }
}

}  // namespace stasis::gl

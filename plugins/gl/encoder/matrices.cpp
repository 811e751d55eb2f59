#include "encoder/matrices.h"

#include "generated/packets.h"

namespace stasis::gl {

namespace {

GLenum matrix_of(GLint mode) {
  switch (mode) {
    case GL_MODELVIEW:
      return GL_MODELVIEW_MATRIX;
    case GL_PROJECTION:
      return GL_PROJECTION_MATRIX;
    case GL_TEXTURE:
      return GL_TEXTURE_MATRIX;
    default:
      return 0x8641;  // GL_CURRENT_MATRIX_ARB: there are others only where there is this
  }
}

}  // namespace

void load_what_it_is(Stream& s) {
  const Context& c = context_of(s);
  // Where it cannot be asked for, or loading it would go into a list, the next multiplication tries again.
  if (c.list_mode != 0 || c.in_primitive || c.is_core || c.is_es || c.may_be_core) return;
  GLint mode = 0;
  stub_GetIntegerv(GL_MATRIX_MODE, &mode);
  note_matrix_mode(s, static_cast<GLenum>(mode));
  GLfloat matrix[16] = {};
  stub_GetFloatv(matrix_of(mode), matrix);
  stub_LoadMatrixf(matrix);
}

void note_end_of_list(Context& c) {
  const uint32_t count = c.matrices.in_list;
  c.matrices.in_list = 0;
  if (count != 0 || c.share->list_multiplies.find(c.list) != nullptr)
    c.share->list_multiplies.at(c.list) = count;
  if (count > c.share->most_multiplies) c.share->most_multiplies = count;
}

void note_call_of_list(Stream& s, GLuint list) {
  if (const uint32_t* count = context_of(s).share->list_multiplies.find(list);
      count != nullptr && *count != 0)
    note_multiplications(s, *count);
}
// Which ones is not looked up.
void note_call_of_lists(Stream& s, size_t count) {
  if (const uint32_t most = context_of(s).share->most_multiplies; most != 0)
    note_multiplications(s, static_cast<uint32_t>(count) * most);
}

}  // namespace stasis::gl

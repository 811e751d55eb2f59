// A matrix that a program multiplies and never loads, say by a small turn with each frame, would be kept as
// all the calls that made it. So after many of them the driver is asked for it, and it is loaded with what it
// is: what was before is superseded. This counts them. Where it counts wrongly (it does not know which matrix
// a list chooses) a matrix is loaded too early or too late, but always with what it is.
//
// Mesa does nothing when a matrix is loaded with what it is, so the program's pictures stay the native ones.
// A driver that gets it from the log has the same numbers, but does not know that they are a rotation, and
// takes the inverse, for normals, in another way: what is lit may differ by rounding. So it is not done
// early.
#pragma once

#include "encoder/program.h"

namespace stasis::gl {

// The matrix that is current for the driver.
void load_what_it_is(Stream& s);

constexpr GLenum kFirstProgramMatrix = 0x88C0;  // GL_MATRIX0_ARB
inline MatrixStack& current_stack(Matrices& m) {
  switch (m.current.mode) {
    case GL_PROJECTION:
      return m.projection;
    case GL_TEXTURE:
      return m.texture[m.current.unit];
  }
  const uint32_t number = m.current.mode - kFirstProgramMatrix;
  return number < Matrices::kOfPrograms ? m.of_programs[number] : m.modelview;
}

inline void note_multiplications(Stream& s, uint32_t count) {
  // 400 kB of calls, and a question every five minutes for a program that turns once a frame.
  constexpr uint32_t kMost = 16384;
  Context& c = context_of(s);
  if (__builtin_expect(c.list_mode != 0, 0)) {
    c.matrices.in_list += count;
    if (c.list_mode == GL_COMPILE) return;
  }
  MatrixStack& stack = current_stack(c.matrices);
  stack.multiplied[stack.depth] += count;
  if (__builtin_expect(stack.multiplied[stack.depth] >= kMost, 0)) load_what_it_is(s);
}
inline void note_multiply(Stream& s) { note_multiplications(s, 1); }

// Null: the call goes into a list and is not done.
inline Matrices* matrices_of(Stream& s) {
  Context& c = context_of(s);
  return c.list_mode == GL_COMPILE ? nullptr : &c.matrices;
}
inline void note_load(Stream& s) {
  if (Matrices* m = matrices_of(s)) current_stack(*m).multiplied[current_stack(*m).depth] = 0;
}
inline void note_push_matrix(Stream& s) {
  Matrices* m = matrices_of(s);
  if (m == nullptr || current_stack(*m).depth + 1 == MatrixStack::kLevels) return;
  MatrixStack& stack = current_stack(*m);
  stack.multiplied[stack.depth + 1] = stack.multiplied[stack.depth];
  ++stack.depth;
}
inline void note_pop_matrix(Stream& s) {
  if (Matrices* m = matrices_of(s); m != nullptr && current_stack(*m).depth != 0) --current_stack(*m).depth;
}
inline void note_matrix_mode(Stream& s, GLenum mode) {
  if (Matrices* m = matrices_of(s)) m->current.mode = mode;
}
inline void note_active_texture(Stream& s, GLenum texture) {
  const uint32_t unit = texture - GL_TEXTURE0;
  if (Matrices* m = matrices_of(s); m != nullptr && unit < Matrices::kUnits) m->current.unit = unit;
}
inline void note_push_attributes(Stream& s, GLbitfield mask) {
  Matrices* m = matrices_of(s);
  if (m != nullptr && m->saved_count != Matrices::kSaved) m->saved[m->saved_count++] = {mask, m->current};
}
inline void note_pop_attributes(Stream& s) {
  Matrices* m = matrices_of(s);
  if (m == nullptr || m->saved_count == 0) return;
  const auto& saved = m->saved[--m->saved_count];
  if ((saved.mask & GL_TRANSFORM_BIT) != 0) m->current.mode = saved.current.mode;
  if ((saved.mask & GL_TEXTURE_BIT) != 0) m->current.unit = saved.current.unit;
}

// Of lists.
void note_end_of_list(Context& c);
void note_call_of_list(Stream& s, GLuint list);
void note_call_of_lists(Stream& s, size_t count);

}  // namespace stasis::gl

// What the driver would read vertices from. Arrays in the program's memory come with each draw, and are gone
// after it; so before a draw, every array that is enabled must lie in a buffer or have come with this draw.
// Asking the driver for all of them would take longer than many a draw: it is kept track of here, on the safe
// side. `enabled` may have too many bits, `in_buffer` too few.
#pragma once

#include <GL/gl.h>

#include <array>
#include <cstdint>
#include <map>

#include "wire/packet.h"

namespace stasis::gl {

struct Renderer;

struct VertexArrays {
  static constexpr uint32_t kGeneric = kArrays - kGenericArray;

  // Of one vertex array object, by kinds of arrays.
  struct Object {
    uint32_t enabled = 0;
    uint32_t in_buffer = 0;
    GLint element_buffer = -1;  // as below
    std::array<GLuint, kGeneric> divisor = {};
    // The forms in which the driver has taken an array from memory.
    std::array<uint64_t, kArrays> accepted = {};
  };
  Object* now = &first;
  Object first;
  std::map<GLuint, Object> objects;  // by the program's names

  uint32_t client_texture = 0;
  // Set by what may begin a primitive; within one, calls that change arrays are errors.
  bool maybe_inside = false;
  // A list, since one was begun: the driver reads draws then at once, and unchecked.
  bool maybe_compiling = false;

  // What is bound, once the driver was asked; -1: not yet.
  GLint array_buffer = -1;
  bool has_fixed = false;  // the arrays of OpenGL 1, which not every context has

  GLuint zeros = 0;  // a buffer that no name of the program's stands for

  // How many vertices all enabled arrays that are in buffers have at least.
  uint64_t vertices = 0;
  bool vertices_known = false;
  uint64_t buffer_changes = 0;  // of the Share, when they were counted

  void forget_buffers() {
    array_buffer = now->element_buffer = -1;
    vertices_known = false;
  }
};

// False: within glBegin and glEnd.
bool is_outside(Renderer& r);
// The buffer of GL_ARRAY_BUFFER or GL_ELEMENT_ARRAY_BUFFER, by the driver's name; 0: none, -1: within a
// primitive.
GLint array_buffer(Renderer& r);
GLint element_buffer(Renderer& r);

// Arrays that are enabled and have no memory - neither a buffer nor one of the kinds that came with the draw
// - become zeros. False: that cannot be, and the program has an error.
bool have_memory(Renderer& r, uint32_t came_along = 0);
// The draw is executed now, outside of a list, and so checked by the driver.
bool is_compiling(Renderer& r);
// Throws unless the enabled arrays that are in buffers have so many vertices.
void require_vertices(Renderer& r, uint64_t count);

// Tells the driver of an array in memory for one draw. False: it does not take it.
bool point_at(Renderer& r, const ClientArray& array, const void* at);

}  // namespace stasis::gl

// A driver for the renderer that draws nothing: it reads and writes what a real one would, as trustingly as
// the least careful one, so that AddressSanitizer (or the end of a page) sees what the renderer should not
// have let through. It knows buffers, arrays, lists, primitives, the pixel store and images; EGL, GLX and X
// are there as far as the renderer uses them.
#pragma once

#include <GL/gl.h>
#include <GL/glext.h>

#include <cstddef>
#include <cstdint>

namespace stasis::gl {

constexpr size_t elements(int64_t count) { return count > 0 ? static_cast<size_t>(count) : 0; }

// All these bytes are read, or written; it is a crash when they are not there.
void touch(const void* from, size_t bytes);
void fill(void* into, size_t bytes);
void touch_text(const char* text);

void* find_generated_model(const char* name);
// Makes it the driver of the renderer.
void use_model_driver();
// As if nothing had been called.
void reset_model_driver();
// Each context has all of it for itself, also what contexts may share. Null: none is current.
void make_model_current(const void* context);

// For tests: how many draws have reached the driver, and what it would say to glGetError next.
size_t draws_of_model();
GLenum error_of_model();

}  // namespace stasis::gl

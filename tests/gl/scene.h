// What the scenes of gl_scene, and gl_oracle, share.
#pragma once

#include <GL/gl.h>
#include <GL/glext.h>
#include <GL/glx.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

constexpr int kSize = 256;  // of the window, and of its picture

template <typename F>
F load(const char* name) {
  return reinterpret_cast<F>(glXGetProcAddressARB(reinterpret_cast<const GLubyte*>(name)));
}
#define LOAD(type, name) auto* name = load<type>(#name)

// window.cpp
void open_window(bool core);
void end_frame();
[[noreturn]] void die(const char* what);
GLuint compile(GLenum type, const char* source);
GLuint link_program(const char* vertex, const char* fragment);
// scene.cpp
std::vector<unsigned char> pattern(int width, int height, int seed);
void fullscreen(float left, float bottom, float right, float top, float depth = 0);
void filter(GLenum min);  // of the texture that is bound
void triangle(float shift, float depth);

// scene_fixed.cpp: the fixed function
void set_up_fixed();
void draw_fixed();
void extra_fixed();
// scene_core.cpp: the core profile
void set_up_core();
void draw_core();
// scene_driver.cpp: what only the driver knows
void set_up_driver();
void begin_driver();
void more_driver();
void draw_driver();
// scene_turning.cpp: a matrix that is multiplied for ever, and never loaded
void set_up_turning();
void draw_turning();

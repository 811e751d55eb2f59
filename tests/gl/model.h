// What the model driver knows of a context (see model_driver.h), for its own files.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "renderer/renderer.h"
#include "tests/gl/model_driver.h"
#include "wire/packet.h"
#include "wire/sizes.h"

namespace stasis::gl {

struct Array {
  bool enabled = false;
  const char* at = nullptr;
  GLuint buffer = 0, divisor = 0;
  GLint size = 4;
  GLenum type = GL_FLOAT;
  GLsizei stride = 0;
  size_t element() const { return element_size(size, type); }
  size_t step() const { return stride != 0 ? static_cast<size_t>(stride) : element(); }
};
struct Object {
  Array array[kArrays];
  GLuint elements = 0;
};
struct Image {
  GLint width = 0, height = 0, depth = 0, compressed = 0;
};

struct Model {
  std::map<GLuint, std::vector<char>> buffers;
  std::map<GLenum, GLuint> bound;
  std::map<GLuint, Object> objects;
  GLuint object = 0, next_name = 1000, client_texture = 0;
  bool inside = false, restarts = false;
  GLuint restart_index = 0;
  GLuint list = 0;
  GLenum error = GL_NO_ERROR;
  std::map<GLenum, GLint> store;
  std::map<std::pair<GLenum, GLint>, Image> images;
  std::map<GLenum, GLsizei> pixel_maps;
  void *feedback = nullptr, *selection = nullptr;
  GLsizei feedback_size = 0, selection_size = 0;
  GLenum mode = GL_RENDER;
  size_t draws = 0;
  Object& now() { return objects[object]; }
};
extern Model m;  // of the context that is current

void fail(GLenum error);
// Most calls are errors within a primitive.
bool outside();
[[noreturn]] void caught(const char* what);
std::vector<char>* buffer_of(GLuint name);
// What is bound to a target.
GLuint& binding(GLenum target);
// Of the arrays that have a name of their own; false: it is not about them.
bool array_number(GLenum name, GLint& value);

using Calls = std::map<std::string, void*>;
template <typename F>
void* address(F* function) {
  return reinterpret_cast<void*>(function);
}
void add_array_calls(Calls& calls);
void add_pixel_calls(Calls& calls);

}  // namespace stasis::gl

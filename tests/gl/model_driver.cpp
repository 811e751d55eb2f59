#include "tests/gl/model_driver.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/gl/model.h"

#if defined(__SANITIZE_ADDRESS__)
extern "C" void* __asan_region_is_poisoned(void* from, size_t bytes);
#endif

namespace stasis::gl {

Model m;

void fail(GLenum error) {
  if (m.error == GL_NO_ERROR) m.error = error;
}
bool outside() {
  if (m.inside) fail(GL_INVALID_OPERATION);
  return !m.inside;
}

[[noreturn]] void caught(const char* what) {
  std::fprintf(stderr, "model driver: %s\n", what);
  std::abort();
}

std::vector<char>* buffer_of(GLuint name) {
  const auto found = m.buffers.find(name);
  return found == m.buffers.end() ? nullptr : &found->second;
}
GLuint& binding(GLenum target) {
  return target == GL_ELEMENT_ARRAY_BUFFER ? m.now().elements : m.bound[target];
}

namespace {

const void* context_of_m = nullptr;
std::map<const void*, Model> others;

void gen_names(GLsizei n, GLuint* names) {
  if (n < 0) return fail(GL_INVALID_VALUE);
  if (!outside()) return;
  fill(names, elements(n) * sizeof *names);
  for (GLsizei i = 0; i < n; ++i) names[i] = m.next_name++;
}

// --- Numbers

template <typename T>
void get_number(GLenum name, T* values) {
  if (!outside()) return;
  GLint value = 0;
  constexpr GLenum kSizes = GL_PIXEL_MAP_I_TO_I_SIZE - GL_PIXEL_MAP_I_TO_I;
  switch (name) {
    case GL_ARRAY_BUFFER_BINDING:
      value = static_cast<GLint>(m.bound[GL_ARRAY_BUFFER]);
      break;
    case GL_ELEMENT_ARRAY_BUFFER_BINDING:
      value = static_cast<GLint>(m.now().elements);
      break;
    case GL_PIXEL_UNPACK_BUFFER_BINDING:
      value = static_cast<GLint>(m.bound[GL_PIXEL_UNPACK_BUFFER]);
      break;
    case GL_PIXEL_PACK_BUFFER_BINDING:
      value = static_cast<GLint>(m.bound[GL_PIXEL_PACK_BUFFER]);
      break;
    case GL_LIST_INDEX:
      value = static_cast<GLint>(m.list);
      break;
    case GL_PRIMITIVE_RESTART_INDEX:
      value = static_cast<GLint>(m.restart_index);
      break;
    case GL_MAX_CLIENT_ATTRIB_STACK_DEPTH:
      value = 4;
      break;
    case GL_VIEWPORT:
      fill(values, 4 * sizeof(T));
      return;
    default:
      if (array_number(name, value)) break;
      if (m.store.contains(name)) value = m.store[name];
      if (name >= GL_PIXEL_MAP_I_TO_I_SIZE && name <= GL_PIXEL_MAP_A_TO_A_SIZE)
        value = std::max(m.pixel_maps[name - kSizes], 1);
  }
  *values = static_cast<T>(value);
}

// --- The rest

template <typename T>
void map1(GLenum target, T, T, GLint stride, GLint order, const T* points) {
  if (!outside() || stride < components_of_map(target) || !is_order(order)) return;
  for (GLint i = 0; i < order; ++i)
    touch(points + i * int64_t{stride}, static_cast<size_t>(components_of_map(target)) * sizeof(T));
}
template <typename T>
void map2(GLenum target, T, T, GLint u, GLint u_order, T, T, GLint v, GLint v_order, const T* points) {
  const GLint n = components_of_map(target);
  if (!outside() || u < n || v < n || !is_order(u_order) || !is_order(v_order)) return;
  for (GLint i = 0; i < u_order; ++i) {
    for (GLint j = 0; j < v_order; ++j)
      touch(points + i * int64_t{u} + j * int64_t{v}, static_cast<size_t>(n) * sizeof(T));
  }
}

GLint render_mode(GLenum mode) {
  if (!outside()) return 0;
  if (m.mode == GL_FEEDBACK) fill(m.feedback, elements(m.feedback_size) * sizeof(GLfloat));
  if (m.mode == GL_SELECT) fill(m.selection, elements(m.selection_size) * sizeof(GLuint));
  m.mode = mode;
  return 0;
}

size_t size_of_names(GLsizei n, GLenum type) { return elements(n) * size_of_list_name(type); }

Calls make_calls() {
  Calls calls = {
      {"glGenVertexArrays", address(gen_names)},
      {"glGenBuffers", address(gen_names)},
      {"glGenTextures", address(gen_names)},
      {"glGenFramebuffers", address(gen_names)},
      {"glGenRenderbuffers", address(gen_names)},
      {"glGenQueries", address(gen_names)},
      {"glGenProgramsARB", address(gen_names)},
      {"glGetIntegerv", address(get_number<GLint>)},
      {"glGetInteger64v", address(get_number<GLint64>)},
      {"glGetFloatv", address(get_number<GLfloat>)},
      {"glGetDoublev", address(get_number<GLdouble>)},
      {"glGetError", address(+[]() -> GLenum {
         return m.inside ? GLenum{GL_NO_ERROR} : std::exchange(m.error, GLenum{GL_NO_ERROR});
       })},
      {"glBegin", address(+[](GLenum) {
         if (m.list == 0) m.inside = true;
       })},
      {"glEnd", address(+[]() { m.inside = false; })},
      {"glNewList", address(+[](GLuint list, GLenum) {
         if (outside() && m.list == 0) m.list = list;
       })},
      {"glEndList", address(+[]() {
         if (outside()) m.list = 0;
       })},
      {"glCallLists",
       address(+[](GLsizei n, GLenum type, const void* lists) { touch(lists, size_of_names(n, type)); })},
      {"glMap1f", address(map1<GLfloat>)},
      {"glMap1d", address(map1<GLdouble>)},
      {"glMap2f", address(map2<GLfloat>)},
      {"glMap2d", address(map2<GLdouble>)},
      {"glGetMapdv", address(+[](GLenum, GLenum, GLdouble* values) {
         constexpr size_t kOrder = 30;  // the most that Mesa has
         fill(values, kOrder * kOrder * 4 * sizeof *values);
       })},
      {"glGetMapfv", address(+[](GLenum, GLenum, GLfloat* values) {
         constexpr size_t kOrder = 30;
         fill(values, kOrder * kOrder * 4 * sizeof *values);
       })},
      {"glGetActiveUniformsiv", address(+[](GLuint, GLsizei n, const GLuint* indices, GLenum, GLint* values) {
         touch(indices, elements(n) * sizeof *indices);
         fill(values, elements(n) * sizeof *values);
       })},
      {"glGetActiveUniformBlockiv", address(+[](GLuint, GLuint, GLenum name, GLint* values) {
         constexpr GLint kUniforms = 20000;
         *values = kUniforms;
         if (name == GL_UNIFORM_BLOCK_ACTIVE_UNIFORM_INDICES) fill(values, kUniforms * sizeof *values);
       })},
      {"glGetAttachedShaders", address(+[](GLuint, GLsizei most, GLsizei* count, GLuint* shaders) {
         constexpr GLsizei kShaders = 10000;
         *count = std::min(most, kShaders);
         fill(shaders, elements(*count) * sizeof *shaders);
       })},
      {"glGetSynciv", address(+[](GLsync, GLenum, GLsizei n, GLsizei*, GLint* values) {
         fill(values, elements(n) * sizeof *values);
       })},
      {"glShaderSource", address(+[](GLuint, GLsizei n, const GLchar* const* texts, const GLint* lengths) {
         for (GLsizei i = 0; i < n; ++i) touch(texts[i], elements(lengths[i]));
       })},
      {"glTransformFeedbackVaryings", address(+[](GLuint, GLsizei n, const GLchar* const* texts, GLenum) {
         for (GLsizei i = 0; i < n; ++i) touch_text(texts[i]);
       })},
      {"glGetUniformIndices", address(+[](GLuint, GLsizei n, const GLchar* const* texts, GLuint* indices) {
         for (GLsizei i = 0; i < n; ++i) touch_text(texts[i]);
         fill(indices, elements(n) * sizeof *indices);
       })},
      {"glFeedbackBuffer", address(+[](GLsizei size, GLenum, GLfloat* at) {
         if (!outside() || size < 0 || m.mode == GL_FEEDBACK) return;
         m.feedback = at;
         m.feedback_size = size;
       })},
      {"glSelectBuffer", address(+[](GLsizei size, GLuint* at) {
         if (!outside() || size < 0 || m.mode == GL_SELECT) return;
         m.selection = at;
         m.selection_size = size;
       })},
      {"glRenderMode", address(render_mode)},
      {"glGetString", address(+[](GLenum) { return reinterpret_cast<const GLubyte*>("a model"); })},
      {"glClearBufferfv", address(+[](GLenum buffer, GLint, const GLfloat* value) {
         touch(value, (buffer == GL_COLOR ? 4 : 1) * sizeof *value);
       })},
      {"glClearBufferiv", address(+[](GLenum buffer, GLint, const GLint* value) {
         touch(value, (buffer == GL_COLOR ? 4 : 1) * sizeof *value);
       })},
      {"glClearBufferuiv", address(+[](GLenum buffer, GLint, const GLuint* value) {
         touch(value, (buffer == GL_COLOR ? 4 : 1) * sizeof *value);
       })},
  };
  add_array_calls(calls);
  add_pixel_calls(calls);
  return calls;
}

const Calls& by_hand() {
  static const Calls kCalls = make_calls();
  return kCalls;
}

}  // namespace

void touch(const void* from, size_t bytes) {
  if (bytes == 0) return;
  const auto* at = static_cast<const volatile char*>(from);
  (void)at[0];
  (void)at[bytes - 1];
#if defined(__SANITIZE_ADDRESS__)
  if (void* bad = __asan_region_is_poisoned(const_cast<void*>(from), bytes))
    (void)*static_cast<volatile char*>(bad);
#endif
}

void fill(void* into, size_t bytes) {
  if (bytes != 0) std::memset(into, 0, bytes);
}

void touch_text(const char* text) {
  if (text != nullptr) touch(text, std::strlen(text) + 1);
}

void use_model_driver() {
  Renderer::gl.load([](const char* name) {
    const auto found = by_hand().find(name);
    return found != by_hand().end() ? found->second : find_generated_model(name);
  });
}

void reset_model_driver() {
  others.clear();
  context_of_m = nullptr;
  m = Model();
}

void make_model_current(const void* context) {
  if (context == context_of_m) return;
  others[context_of_m] = std::move(m);
  m = std::move(others[context]);
  context_of_m = context;
}

size_t draws_of_model() { return m.draws; }
GLenum error_of_model() { return m.error; }

}  // namespace stasis::gl

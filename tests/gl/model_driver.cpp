#include "tests/gl/model_driver.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "renderer/renderer.h"
#include "wire/packet.h"
#include "wire/sizes.h"

#if defined(__SANITIZE_ADDRESS__)
extern "C" void* __asan_region_is_poisoned(void* from, size_t bytes);
#endif

namespace stasis::gl {

namespace {

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
Model m;  // of the context that is current
const void* context_of_m = nullptr;
std::map<const void*, Model> others;

void fail(GLenum error) {
  if (m.error == GL_NO_ERROR) m.error = error;
}
// Most calls are errors within a primitive.
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

// --- Buffers

void gen_names(GLsizei n, GLuint* names) {
  if (n < 0) return fail(GL_INVALID_VALUE);
  if (!outside()) return;
  fill(names, elements(n) * sizeof *names);
  for (GLsizei i = 0; i < n; ++i) names[i] = m.next_name++;
}
void bind_buffer(GLenum target, GLuint name) {
  if (!outside()) return;
  if (name == kNoName) return fail(GL_INVALID_OPERATION);
  if (name != 0) m.buffers[name];
  binding(target) = name;
}
void delete_buffers(GLsizei n, const GLuint* names) {
  touch(names, elements(n) * sizeof *names);
  if (!outside()) return;
  for (GLsizei i = 0; i < n; ++i) {
    for (auto& [target, name] : m.bound) name = name == names[i] ? 0 : name;
    if (m.now().elements == names[i]) m.now().elements = 0;
    for (Array& one : m.now().array) one.buffer = one.buffer == names[i] ? 0 : one.buffer;
  }
}
void buffer_data(GLenum target, GLsizeiptr size, const void* data, GLenum) {
  constexpr GLsizeiptr kMost = 1 << 20;
  if (data != nullptr) touch(data, elements(size));
  if (!outside() || size < 0) return;
  std::vector<char>* buffer = buffer_of(binding(target));
  if (buffer == nullptr) return fail(GL_INVALID_OPERATION);
  if (size > kMost) return fail(GL_OUT_OF_MEMORY);
  buffer->assign(elements(size), '\1');
  if (data != nullptr && size != 0) std::memcpy(buffer->data(), data, elements(size));
}
bool in_buffer(GLenum target, GLintptr offset, GLsizeiptr size) {
  const std::vector<char>* buffer = buffer_of(binding(target));
  if (buffer == nullptr || offset < 0 || size < 0) return false;
  // The sum as drivers make it.
  const auto end = static_cast<int64_t>(static_cast<uint64_t>(offset) + static_cast<uint64_t>(size));
  if (end > static_cast<int64_t>(buffer->size())) return false;
  if (static_cast<size_t>(offset) > buffer->size()) caught("a range in a buffer whose end has overflowed");
  return true;
}
void buffer_sub_data(GLenum target, GLintptr offset, GLsizeiptr size, const void* data) {
  if (data == nullptr || !outside() || !in_buffer(target, offset, size)) return;
  touch(data, elements(size));
}
void get_buffer_sub_data(GLenum target, GLintptr offset, GLsizeiptr size, void* data) {
  if (!outside() || !in_buffer(target, offset, size)) return fail(GL_INVALID_VALUE);
  fill(data, elements(size));
  if (size != 0) std::memcpy(data, buffer_of(binding(target))->data() + offset, elements(size));
}
void copy_buffer_sub_data(GLenum from, GLenum to, GLintptr at, GLintptr into, GLsizeiptr size) {
  (void)(in_buffer(from, at, size) && in_buffer(to, into, size));
}
void* map_buffer_range(GLenum target, GLintptr offset, GLsizeiptr size, GLbitfield) {
  if (!outside() || size == 0 || !in_buffer(target, offset, size)) return nullptr;
  return buffer_of(binding(target))->data() + offset;
}
void* map_buffer(GLenum target, GLenum) {
  std::vector<char>* buffer = outside() ? buffer_of(binding(target)) : nullptr;
  return buffer == nullptr || buffer->empty() ? nullptr : buffer->data();
}
template <typename T>
void get_buffer_parameter(GLenum target, GLenum name, T* values) {
  const std::vector<char>* buffer = outside() ? buffer_of(binding(target)) : nullptr;
  if (buffer != nullptr && name == GL_BUFFER_SIZE) *values = static_cast<T>(buffer->size());
}

// --- Arrays

void set_array(uint32_t kind, GLint size, GLenum type, GLsizei stride, const void* at) {
  if (kind >= kArrays) return fail(GL_INVALID_VALUE);
  const GLuint buffer = m.bound[GL_ARRAY_BUFFER];
  const bool is_size = size == GL_BGRA || (size >= 1 && size <= 4);
  // Some types are not of every driver.
  const bool is_type = element_size(1, type) != 0 && (type != GL_DOUBLE || kind < kGenericArray);
  if (!outside() || !is_size || !is_type || stride < 0 || (buffer == 0 && at != nullptr && m.object != 0))
    return fail(GL_INVALID_VALUE);
  Array& array = m.now().array[kind];
  array.at = static_cast<const char*>(at);
  array.buffer = buffer;
  array.size = size;
  array.type = type;
  array.stride = stride;
}
uint32_t fixed_kind(GLenum name, std::initializer_list<GLenum> names) {
  uint32_t kind = 0;
  for (GLenum one : names) {
    if (one == name) return kind == kTexCoordArray ? kTexCoordArray + m.client_texture : kind;
    ++kind;
  }
  return kArrays;
}
uint32_t kind_of_state(GLenum name) {
  return fixed_kind(name, {GL_VERTEX_ARRAY, GL_NORMAL_ARRAY, GL_COLOR_ARRAY, GL_SECONDARY_COLOR_ARRAY,
                           GL_FOG_COORD_ARRAY, GL_INDEX_ARRAY, GL_EDGE_FLAG_ARRAY, GL_TEXTURE_COORD_ARRAY});
}
void enable_kind(uint32_t kind, bool on) {
  if (outside() && kind < kArrays) m.now().array[kind].enabled = on;
}
void set_enabled(GLenum name, bool on) {
  if (name == GL_PRIMITIVE_RESTART && outside()) m.restarts = on;
  enable_kind(kind_of_state(name), on);
}
uint32_t generic(GLuint index) { return std::min<uint32_t>(kGenericArray + std::min(index, 16U), kArrays); }

void get_attribute(GLuint index, GLenum name, GLint* value) {
  if (!outside() || index >= 16) return fail(GL_INVALID_VALUE);
  const Array& array = m.now().array[generic(index)];
  switch (name) {
    case GL_VERTEX_ATTRIB_ARRAY_BUFFER_BINDING:
      *value = static_cast<GLint>(array.buffer);
      break;
    case GL_VERTEX_ATTRIB_ARRAY_SIZE:
      *value = array.size;
      break;
    case GL_VERTEX_ATTRIB_ARRAY_TYPE:
      *value = static_cast<GLint>(array.type);
      break;
    case GL_VERTEX_ATTRIB_ARRAY_STRIDE:
      *value = array.stride;
      break;
    case GL_VERTEX_ATTRIB_ARRAY_DIVISOR:
      *value = static_cast<GLint>(array.divisor);
      break;
    default:
      *value = array.enabled ? 1 : 0;
  }
}

void get_pointer(GLenum name, void** at) {
  if (name == GL_FEEDBACK_BUFFER_POINTER) *at = m.feedback;
  if (name == GL_SELECTION_BUFFER_POINTER) *at = m.selection;
  const uint32_t kind =
      fixed_kind(name, {GL_VERTEX_ARRAY_POINTER, GL_NORMAL_ARRAY_POINTER, GL_COLOR_ARRAY_POINTER,
                        GL_SECONDARY_COLOR_ARRAY_POINTER, GL_FOG_COORD_ARRAY_POINTER, GL_INDEX_ARRAY_POINTER,
                        GL_EDGE_FLAG_ARRAY_POINTER, GL_TEXTURE_COORD_ARRAY_POINTER});
  if (kind < kArrays) *at = const_cast<char*>(m.now().array[kind].at);
}

// --- Numbers

bool array_number(GLenum name, GLint& value) {
  struct Question {
    std::initializer_list<GLenum> names;
    GLint (*get)(const Array&);
  };
  static const Question kQuestions[] = {
      {{GL_VERTEX_ARRAY_BUFFER_BINDING, GL_NORMAL_ARRAY_BUFFER_BINDING, GL_COLOR_ARRAY_BUFFER_BINDING,
        GL_SECONDARY_COLOR_ARRAY_BUFFER_BINDING, GL_FOG_COORD_ARRAY_BUFFER_BINDING,
        GL_INDEX_ARRAY_BUFFER_BINDING, GL_EDGE_FLAG_ARRAY_BUFFER_BINDING,
        GL_TEXTURE_COORD_ARRAY_BUFFER_BINDING},
       [](const Array& a) { return static_cast<GLint>(a.buffer); }},
      {{GL_VERTEX_ARRAY_SIZE, 1, GL_COLOR_ARRAY_SIZE, GL_SECONDARY_COLOR_ARRAY_SIZE, 1, 1, 1,
        GL_TEXTURE_COORD_ARRAY_SIZE},
       [](const Array& a) { return a.size; }},
      {{GL_VERTEX_ARRAY_TYPE, GL_NORMAL_ARRAY_TYPE, GL_COLOR_ARRAY_TYPE, GL_SECONDARY_COLOR_ARRAY_TYPE,
        GL_FOG_COORD_ARRAY_TYPE, GL_INDEX_ARRAY_TYPE, 1, GL_TEXTURE_COORD_ARRAY_TYPE},
       [](const Array& a) { return static_cast<GLint>(a.type); }},
      {{GL_VERTEX_ARRAY_STRIDE, GL_NORMAL_ARRAY_STRIDE, GL_COLOR_ARRAY_STRIDE,
        GL_SECONDARY_COLOR_ARRAY_STRIDE, GL_FOG_COORD_ARRAY_STRIDE, GL_INDEX_ARRAY_STRIDE,
        GL_EDGE_FLAG_ARRAY_STRIDE, GL_TEXTURE_COORD_ARRAY_STRIDE},
       [](const Array& a) { return GLint{a.stride}; }}};
  for (const Question& one : kQuestions) {
    const uint32_t kind = fixed_kind(name, one.names);
    if (kind >= kArrays) continue;
    value = one.get(m.now().array[kind]);
    return true;
  }
  return false;
}

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

// --- Draws

// Vertices of all enabled arrays. The driver looks after those in buffers, unless it reads at once.
void read_vertices(int64_t first, int64_t last, GLsizei instances, bool at_once) {
  if (last < first) return;
  for (const Array& array : m.now().array) {
    if (!array.enabled) continue;
    const int64_t from = array.divisor != 0 ? 0 : first;
    const int64_t to = array.divisor != 0 ? (instances - 1) / static_cast<int64_t>(array.divisor) : last;
    const auto step = static_cast<int64_t>(array.step());
    if (array.buffer != 0) {
      if (!at_once) continue;
      __extension__ using Wide = __int128;
      const Wide start = Wide{reinterpret_cast<uint64_t>(array.at)} + Wide{from} * step;
      const Wide end = Wide{reinterpret_cast<uint64_t>(array.at)} + Wide{to} * step + array.element();
      if (start < 0 || end > m.buffers[array.buffer].size()) caught("a vertex beyond its buffer");
      continue;
    }
    const auto at = reinterpret_cast<int64_t>(array.at);
    touch(reinterpret_cast<const void*>(at + from * step),
          static_cast<size_t>((to - from) * step) + array.element());
  }
}

void draw_arrays(GLenum, GLint first, GLsizei count, GLsizei instances) {
  if (!outside() || first < 0 || count <= 0 || instances <= 0) return;
  ++m.draws;
  read_vertices(first, int64_t{first} + count - 1, instances, m.list != 0);
}

void draw_elements(GLenum, GLsizei count, GLenum type, const void* indices, GLsizei instances, GLint base) {
  const bool is_type = type == GL_UNSIGNED_BYTE || type == GL_UNSIGNED_SHORT || type == GL_UNSIGNED_INT;
  if (!outside() || count <= 0 || instances <= 0 || !is_type) return;
  ++m.draws;
  size_t number = elements(count);
  const size_t size = type_size(type);
  const auto* at = static_cast<const char*>(indices);
  if (const GLuint name = m.now().elements; name != 0) {
    const std::vector<char>& buffer = m.buffers[name];
    const auto offset = reinterpret_cast<uint64_t>(indices);
    const size_t there = offset < buffer.size() ? (buffer.size() - offset) / size : 0;
    if (m.list != 0 && there < number) caught("indices beyond their buffer");
    number = std::min(number, there);
    at = buffer.data() + offset;
  }
  if (number == 0) return;
  touch(at, number * size);
  for (size_t i = 0; i < number; ++i) {
    uint32_t index = 0;
    std::memcpy(&index, at + i * size, size);
    if (m.restarts && index == m.restart_index) continue;
    const int64_t vertex = int64_t{index} + base;
    read_vertices(vertex, vertex, instances, m.list != 0);
  }
}

// --- Pixels

struct Pixels {
  GLsizei width, height, depth;
  GLenum format, type;
};

// The bytes from the first to the last pixel, and where they begin.
void use_pixels(bool pack, const void* at, const Pixels& image, void (*use)(void*, size_t)) {
  if (!outside() || image.width <= 0 || image.height <= 0 || image.depth <= 0) return;
  auto store = [&](GLenum unpack_name, GLenum pack_name) {
    const auto found = m.store.find(pack ? pack_name : unpack_name);
    return found == m.store.end() ? size_t{0} : elements(found->second);
  };
  const size_t alignment = std::max<size_t>(store(GL_UNPACK_ALIGNMENT, GL_PACK_ALIGNMENT), 1);
  const size_t row_length = store(GL_UNPACK_ROW_LENGTH, GL_PACK_ROW_LENGTH);
  const size_t image_height = store(GL_UNPACK_IMAGE_HEIGHT, GL_PACK_IMAGE_HEIGHT);
  const size_t skip_pixels = store(GL_UNPACK_SKIP_PIXELS, GL_PACK_SKIP_PIXELS);
  const size_t known = pixel_size(image.format, image.type);
  // What the renderer does not know, some driver may know.
  const size_t pixel = known != 0 ? known : 16;
  const size_t pixels = row_length != 0 ? row_length : elements(image.width);
  const bool bits = image.type == GL_BITMAP;
  const size_t bytes = bits ? (pixels + 7) / 8 : pixels * pixel;
  const size_t stride = (bytes + alignment - 1) / alignment * alignment;
  const size_t rows = image.depth > 1 && image_height != 0 ? image_height : elements(image.height);
  const size_t row = bits ? (elements(image.width) + 7) / 8 : elements(image.width) * pixel;
  const size_t start =
      (bits ? skip_pixels / 8 : skip_pixels * pixel) + store(GL_UNPACK_SKIP_ROWS, GL_PACK_SKIP_ROWS) * stride;
  const size_t size =
      (elements(image.depth) - 1) * rows * stride + (elements(image.height) - 1) * stride + row;
  const GLuint name = m.bound[pack ? GL_PIXEL_PACK_BUFFER : GL_PIXEL_UNPACK_BUFFER];
  if (name == 0) return use(const_cast<char*>(static_cast<const char*>(at)) + start, size);
  // A driver does compare, but in numbers that overflow.
  std::vector<char>& buffer = m.buffers[name];
  const auto offset = reinterpret_cast<uint64_t>(at);
  if (offset > buffer.size()) return fail(GL_INVALID_OPERATION);
  if (start + size > buffer.size() - offset) caught("pixels beyond their buffer");
  use(buffer.data() + offset + start, size);
}

void read_source(const void* at, size_t size) {
  const GLuint name = m.bound[GL_PIXEL_UNPACK_BUFFER];
  if (name == 0) {
    if (at != nullptr) touch(at, size);
    return;
  }
  const auto offset = reinterpret_cast<uint64_t>(at);
  if (offset + size <= m.buffers[name].size() && offset > m.buffers[name].size())
    caught("an offset into a buffer that has overflowed");
}

void upload(const void* at, const Pixels& image) {
  if (at == nullptr && m.bound[GL_PIXEL_UNPACK_BUFFER] == 0) return;
  use_pixels(false, at, image, [](void* from, size_t bytes) { touch(from, bytes); });
}
void write_pixels(void* at, const Pixels& image) { use_pixels(true, at, image, fill); }

void make_image(GLenum target, GLint level, GLsizei width, GLsizei height, GLsizei depth,
                GLint compressed = 0) {
  constexpr GLsizei kMost = 64;
  const bool fits =
      width >= 0 && height >= 0 && depth >= 0 && width <= kMost && height <= kMost && depth <= kMost;
  if (!fits || !outside() || m.images.size() > 64) return fail(GL_INVALID_VALUE);
  m.images[{target, level}] = {width, height, depth, compressed};
}
void compressed_image(GLenum target, GLint level, GLsizei width, GLsizei height, GLsizei depth, GLsizei size,
                      const void* at) {
  if (size < 0) return fail(GL_INVALID_VALUE);
  read_source(at, elements(size));
  make_image(target, level, width, height, depth, std::min(size, 1 << 16));
}

template <typename T>
void get_level(GLenum target, GLint level, GLenum name, T* value) {
  if (!outside()) return;
  const Image image = m.images.contains({target, level}) ? m.images[{target, level}] : Image{};
  switch (name) {
    case GL_TEXTURE_WIDTH:
      *value = static_cast<T>(image.width);
      break;
    case GL_TEXTURE_HEIGHT:
      *value = static_cast<T>(image.height);
      break;
    case GL_TEXTURE_DEPTH:
      *value = static_cast<T>(image.depth);
      break;
    case GL_TEXTURE_COMPRESSED_IMAGE_SIZE:
      *value = static_cast<T>(image.compressed);
      break;
    default:
      *value = T{0};
  }
}

template <typename T>
void set_pixel_map(GLenum map, GLsizei size, const T* values) {
  constexpr GLsizei kMost = 65536;
  if (!outside() || size < 1 || size > kMost) return fail(GL_INVALID_VALUE);
  if (values == nullptr && m.bound[GL_PIXEL_UNPACK_BUFFER] == 0 && m.list != 0)
    caught("a pixel map of nothing");
  read_source(values, elements(size) * sizeof(T));
  m.pixel_maps[map] = size;
}
template <typename T>
void get_pixel_map(GLenum map, T* values) {
  if (!outside() || map < GL_PIXEL_MAP_I_TO_I || map > GL_PIXEL_MAP_A_TO_A) return;
  const size_t size = elements(std::max(m.pixel_maps[map], 1)) * sizeof(T);
  const GLuint name = m.bound[GL_PIXEL_PACK_BUFFER];
  if (name == 0) return fill(values, size);
  const auto offset = reinterpret_cast<uint64_t>(values);
  if (offset > m.buffers[name].size()) return;
  if (size > m.buffers[name].size() - offset) caught("a pixel map beyond its buffer");
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

template <typename F>
void* address(F* function) {
  return reinterpret_cast<void*>(function);
}

const std::map<std::string, void*>& by_hand() {
  static const std::map<std::string, void*> kFunctions = {
      {"glGenBuffers", address(gen_names)},
      {"glGenTextures", address(gen_names)},
      {"glGenVertexArrays", address(gen_names)},
      {"glGenFramebuffers", address(gen_names)},
      {"glGenRenderbuffers", address(gen_names)},
      {"glGenQueries", address(gen_names)},
      {"glGenProgramsARB", address(gen_names)},
      {"glBindBuffer", address(bind_buffer)},
      {"glDeleteBuffers", address(delete_buffers)},
      {"glBufferData", address(buffer_data)},
      {"glBufferSubData", address(buffer_sub_data)},
      {"glGetBufferSubData", address(get_buffer_sub_data)},
      {"glCopyBufferSubData", address(copy_buffer_sub_data)},
      {"glMapBufferRange", address(map_buffer_range)},
      {"glMapBuffer", address(map_buffer)},
      {"glGetBufferParameteriv", address(get_buffer_parameter<GLint>)},
      {"glGetBufferParameteri64v", address(get_buffer_parameter<GLint64>)},
      {"glBindVertexArray", address(+[](GLuint name) {
         if (outside() && name != kNoName) m.object = name;
       })},
      {"glDeleteVertexArrays", address(+[](GLsizei n, const GLuint* names) {
         touch(names, elements(n) * sizeof *names);
         for (GLsizei i = 0; outside() && i < n; ++i) {
           if (names[i] == 0) continue;
           m.objects.erase(names[i]);
           if (m.object == names[i]) m.object = 0;
         }
       })},
      {"glVertexPointer", address(+[](GLint size, GLenum type, GLsizei stride, const void* at) {
         set_array(kVertexArray, size, type, stride, at);
       })},
      {"glNormalPointer", address(+[](GLenum type, GLsizei stride, const void* at) {
         set_array(kNormalArray, 3, type, stride, at);
       })},
      {"glColorPointer", address(+[](GLint size, GLenum type, GLsizei stride, const void* at) {
         set_array(kColorArray, size, type, stride, at);
       })},
      {"glSecondaryColorPointer", address(+[](GLint size, GLenum type, GLsizei stride, const void* at) {
         set_array(kSecondaryColorArray, size, type, stride, at);
       })},
      {"glFogCoordPointer", address(+[](GLenum type, GLsizei stride, const void* at) {
         set_array(kFogCoordArray, 1, type, stride, at);
       })},
      {"glIndexPointer", address(+[](GLenum type, GLsizei stride, const void* at) {
         set_array(kIndexArray, 1, type, stride, at);
       })},
      {"glEdgeFlagPointer", address(+[](GLsizei stride, const void* at) {
         set_array(kEdgeFlagArray, 1, GL_UNSIGNED_BYTE, stride, at);
       })},
      {"glTexCoordPointer", address(+[](GLint size, GLenum type, GLsizei stride, const void* at) {
         set_array(kTexCoordArray + m.client_texture, size, type, stride, at);
       })},
      {"glVertexAttribPointer",
       address(+[](GLuint index, GLint size, GLenum type, GLboolean, GLsizei stride, const void* at) {
         set_array(generic(index), size, type, stride, at);
       })},
      {"glVertexAttribIPointer",
       address(+[](GLuint index, GLint size, GLenum type, GLsizei stride, const void* at) {
         set_array(generic(index), size, type, stride, at);
       })},
      {"glEnable", address(+[](GLenum name) { set_enabled(name, true); })},
      {"glDisable", address(+[](GLenum name) { set_enabled(name, false); })},
      {"glEnableClientState", address(+[](GLenum name) { set_enabled(name, true); })},
      {"glDisableClientState", address(+[](GLenum name) { set_enabled(name, false); })},
      {"glIsEnabled", address(+[](GLenum name) -> GLboolean {
         if (!outside()) return 0;
         if (name == GL_PRIMITIVE_RESTART) return m.restarts;
         const uint32_t kind = kind_of_state(name);
         return kind < kArrays && m.now().array[kind].enabled;
       })},
      {"glEnableVertexAttribArray", address(+[](GLuint index) { enable_kind(generic(index), true); })},
      {"glDisableVertexAttribArray", address(+[](GLuint index) { enable_kind(generic(index), false); })},
      {"glVertexAttribDivisor", address(+[](GLuint index, GLuint divisor) {
         if (outside() && index < 16) m.now().array[generic(index)].divisor = divisor;
       })},
      {"glClientActiveTexture", address(+[](GLenum texture) {
         if (outside() && texture >= GL_TEXTURE0 && texture < GL_TEXTURE0 + 8)
           m.client_texture = texture - GL_TEXTURE0;
       })},
      {"glPrimitiveRestartIndex", address(+[](GLuint index) { m.restart_index = index; })},
      {"glGetVertexAttribiv", address(get_attribute)},
      {"glGetVertexAttribPointerv", address(+[](GLuint index, GLenum, void** at) {
         if (index < 16) *at = const_cast<char*>(m.now().array[generic(index)].at);
       })},
      {"glGetPointerv", address(get_pointer)},
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
      {"glDrawArrays",
       address(+[](GLenum mode, GLint first, GLsizei count) { draw_arrays(mode, first, count, 1); })},
      {"glDrawArraysInstanced", address(draw_arrays)},
      {"glDrawElements", address(+[](GLenum mode, GLsizei count, GLenum type, const void* indices) {
         draw_elements(mode, count, type, indices, 1, 0);
       })},
      {"glDrawRangeElements",
       address(+[](GLenum mode, GLuint, GLuint, GLsizei count, GLenum type, const void* indices) {
         draw_elements(mode, count, type, indices, 1, 0);
       })},
      {"glDrawElementsInstanced",
       address(+[](GLenum mode, GLsizei count, GLenum type, const void* indices, GLsizei instances) {
         draw_elements(mode, count, type, indices, instances, 0);
       })},
      {"glDrawElementsBaseVertex",
       address(+[](GLenum mode, GLsizei count, GLenum type, const void* indices, GLint base) {
         draw_elements(mode, count, type, indices, 1, base);
       })},
      {"glDrawRangeElementsBaseVertex",
       address(+[](GLenum mode, GLuint, GLuint, GLsizei count, GLenum type, const void* indices, GLint base) {
         draw_elements(mode, count, type, indices, 1, base);
       })},
      {"glDrawElementsInstancedBaseVertex", address(draw_elements)},
      {"glArrayElement", address(+[](GLint index) {
         ++m.draws;
         read_vertices(index, index, 1, true);
       })},
      {"glPixelStorei", address(+[](GLenum name, GLint value) {
         const bool is_alignment = name == GL_PACK_ALIGNMENT || name == GL_UNPACK_ALIGNMENT;
         const bool is_power = value == 1 || value == 2 || value == 4 || value == 8;
         if (outside() && value >= 0 && (!is_alignment || is_power)) m.store[name] = value;
       })},
      {"glTexImage1D", address(+[](GLenum target, GLint level, GLint, GLsizei width, GLint, GLenum format,
                                   GLenum type, const void* at) {
         upload(at, {width, 1, 1, format, type});
         make_image(target, level, width, 1, 1);
       })},
      {"glTexImage2D", address(+[](GLenum target, GLint level, GLint, GLsizei width, GLsizei height, GLint,
                                   GLenum format, GLenum type, const void* at) {
         upload(at, {width, height, 1, format, type});
         make_image(target, level, width, height, 1);
       })},
      {"glTexImage3D", address(+[](GLenum target, GLint level, GLint, GLsizei width, GLsizei height,
                                   GLsizei depth, GLint, GLenum format, GLenum type, const void* at) {
         upload(at, {width, height, depth, format, type});
         make_image(target, level, width, height, depth);
       })},
      {"glTexSubImage1D",
       address(+[](GLenum, GLint, GLint, GLsizei width, GLenum format, GLenum type, const void* at) {
         upload(at, {width, 1, 1, format, type});
       })},
      {"glTexSubImage2D", address(+[](GLenum, GLint, GLint, GLint, GLsizei width, GLsizei height,
                                      GLenum format, GLenum type, const void* at) {
         upload(at, {width, height, 1, format, type});
       })},
      {"glTexSubImage3D", address(+[](GLenum, GLint, GLint, GLint, GLint, GLsizei width, GLsizei height,
                                      GLsizei depth, GLenum format, GLenum type, const void* at) {
         upload(at, {width, height, depth, format, type});
       })},
      {"glDrawPixels",
       address(+[](GLsizei width, GLsizei height, GLenum format, GLenum type, const void* at) {
         upload(at, {width, height, 1, format, type});
       })},
      {"glBitmap",
       address(+[](GLsizei width, GLsizei height, GLfloat, GLfloat, GLfloat, GLfloat, const GLubyte* at) {
         upload(at, {width, height, 1, GL_COLOR_INDEX, GL_BITMAP});
       })},
      {"glPolygonStipple", address(+[](const GLubyte* at) {
         upload(at, {32, 32, 1, GL_COLOR_INDEX, GL_BITMAP});
       })},
      {"glReadPixels",
       address(+[](GLint, GLint, GLsizei width, GLsizei height, GLenum format, GLenum type, void* at) {
         write_pixels(at, {width, height, 1, format, type});
       })},
      {"glGetTexImage", address(+[](GLenum target, GLint level, GLenum format, GLenum type, void* at) {
         const auto found = m.images.find({target, level});
         if (found == m.images.end()) return fail(GL_INVALID_ENUM);
         write_pixels(at, {found->second.width, found->second.height, found->second.depth, format, type});
       })},
      {"glGetPolygonStipple", address(+[](GLubyte* at) {
         write_pixels(at, {32, 32, 1, GL_COLOR_INDEX, GL_BITMAP});
       })},
      {"glGetCompressedTexImage", address(+[](GLenum target, GLint level, void* at) {
         const auto found = m.images.find({target, level});
         if (!outside() || found == m.images.end()) return fail(GL_INVALID_ENUM);
         const size_t size = elements(found->second.compressed);
         const GLuint name = m.bound[GL_PIXEL_PACK_BUFFER];
         if (name == 0) return fill(at, size);
         if (reinterpret_cast<uint64_t>(at) <= m.buffers[name].size() &&
             size > m.buffers[name].size() - reinterpret_cast<uint64_t>(at))
           caught("a compressed image beyond its buffer");
       })},
      {"glGetTexLevelParameteriv", address(get_level<GLint>)},
      {"glGetTexLevelParameterfv", address(get_level<GLfloat>)},
      {"glCompressedTexImage1D",
       address(+[](GLenum target, GLint level, GLenum, GLsizei width, GLint, GLsizei size, const void* at) {
         compressed_image(target, level, width, 1, 1, size, at);
       })},
      {"glCompressedTexImage2D",
       address(+[](GLenum target, GLint level, GLenum, GLsizei width, GLsizei height, GLint, GLsizei size,
                   const void* at) { compressed_image(target, level, width, height, 1, size, at); })},
      {"glCompressedTexImage3D",
       address(+[](GLenum target, GLint level, GLenum, GLsizei width, GLsizei height, GLsizei depth, GLint,
                   GLsizei size,
                   const void* at) { compressed_image(target, level, width, height, depth, size, at); })},
      {"glCompressedTexSubImage1D", address(+[](GLenum, GLint, GLint, GLsizei, GLenum, GLsizei size,
                                                const void* at) { read_source(at, elements(size)); })},
      {"glCompressedTexSubImage2D",
       address(+[](GLenum, GLint, GLint, GLint, GLsizei, GLsizei, GLenum, GLsizei size, const void* at) {
         read_source(at, elements(size));
       })},
      {"glCompressedTexSubImage3D",
       address(+[](GLenum, GLint, GLint, GLint, GLint, GLsizei, GLsizei, GLsizei, GLenum, GLsizei size,
                   const void* at) { read_source(at, elements(size)); })},
      {"glPixelMapfv", address(set_pixel_map<GLfloat>)},
      {"glPixelMapuiv", address(set_pixel_map<GLuint>)},
      {"glPixelMapusv", address(set_pixel_map<GLushort>)},
      {"glGetPixelMapfv", address(get_pixel_map<GLfloat>)},
      {"glGetPixelMapuiv", address(get_pixel_map<GLuint>)},
      {"glGetPixelMapusv", address(get_pixel_map<GLushort>)},
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
  return kFunctions;
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

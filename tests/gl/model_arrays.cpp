// Buffers, arrays, and the draws that read them.
#include <algorithm>
#include <cstring>

#include "tests/gl/model.h"

namespace stasis::gl {

namespace {

// --- Buffers

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

}  // namespace

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

void add_array_calls(Calls& calls) {
  calls.insert({
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
  });
}

}  // namespace stasis::gl

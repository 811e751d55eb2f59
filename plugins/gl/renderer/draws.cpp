// Draws. What they read in the packet is checked here, and that there is something to read; what lies in
// buffers the driver checks, but not for what goes into a list, nor for single elements.
#include <algorithm>
#include <cstring>
#include <optional>

#include "generated/commands.h"
#include "renderer/renderer.h"
#include "wire/sizes.h"

namespace stasis::gl {

namespace {

struct Range {
  int64_t first, last;  // none when `last` is less
};
constexpr Range kNothing = {0, -1};

size_t index_size(GLenum type) {
  const bool is_index = type == GL_UNSIGNED_BYTE || type == GL_UNSIGNED_SHORT || type == GL_UNSIGNED_INT;
  return is_index ? type_size(type) : 0;
}

template <typename T>
Range range_of(const char* indices, size_t count, std::optional<int64_t> restart) {
  auto index_at = [&](size_t i) {
    T index;
    std::memcpy(&index, indices + i * sizeof index, sizeof index);
    return index;
  };
  if (!restart && count != 0) {  // a loop for vector instructions
    T low = index_at(0), high = low;
    for (size_t i = 1; i < count; ++i) {
      const T index = index_at(i);
      low = index < low ? index : low;
      high = index > high ? index : high;
    }
    return {low, high};
  }
  Range range = {int64_t{1} << 32, -1};
  for (size_t i = 0; i < count; ++i) {
    const T index = index_at(i);
    if (restart && index == *restart) continue;
    range.first = std::min<int64_t>(range.first, index);
    range.last = std::max<int64_t>(range.last, index);
  }
  return range;
}
Range range_of(GLenum type, const char* indices, size_t count, std::optional<int64_t> restart = {}) {
  switch (type) {
    case GL_UNSIGNED_BYTE:
      return range_of<GLubyte>(indices, count, restart);
    case GL_UNSIGNED_SHORT:
      return range_of<GLushort>(indices, count, restart);
    default:
      return range_of<GLuint>(indices, count, restart);
  }
}

// The index that begins a new primitive and is none.
std::optional<int64_t> restart_index(Renderer& r, GLenum type) {
  const auto& gl = r.gl;
  if (const GLenum error = gl.GetError(); error != GL_NO_ERROR && r.current->pending_error == GL_NO_ERROR)
    r.current->pending_error = error;
  std::optional<int64_t> found;
  if (!r.current->is_es && gl.IsEnabled(GL_PRIMITIVE_RESTART) != 0)
    found = static_cast<GLuint>(ask(GL_PRIMITIVE_RESTART_INDEX));
  if (gl.IsEnabled(GL_PRIMITIVE_RESTART_FIXED_INDEX) != 0) found = (int64_t{1} << index_size(type) * 8) - 1;
  (void)gl.GetError();  // not every context has both
  return found;
}

// The indices of a draw that lie in the element buffer.
std::vector<char> read_indices(Renderer& r, uint64_t offset, size_t bytes) {
  const size_t there = size_of_buffer(GL_ELEMENT_ARRAY_BUFFER);
  if (offset > there || bytes > there - offset)
    throw BadStream{"indices beyond their buffer, which has " + std::to_string(there) + " bytes"};
  std::vector<char> found(bytes);
  if (bytes == 0) return found;
  const auto from = static_cast<GLintptr>(offset);
  const auto size = static_cast<GLsizeiptr>(bytes);
  if (!r.current->is_es) {
    r.gl.GetBufferSubData(GL_ELEMENT_ARRAY_BUFFER, from, size, found.data());
  } else if (const void* at = r.gl.MapBufferRange(GL_ELEMENT_ARRAY_BUFFER, from, size, GL_MAP_READ_BIT)) {
    std::memcpy(found.data(), at, bytes);
    r.gl.UnmapBuffer(GL_ELEMENT_ARRAY_BUFFER);
  }
  return found;
}

void require_vertices(Renderer& r, Range range) {
  if (range.last < range.first) return;
  if (range.first < 0) throw BadStream{"a negative vertex"};
  require_vertices(r, static_cast<uint64_t>(range.last) + 1);
}

struct Elements {
  GLsizei count;
  GLenum type;
  GLsizei instances = 1;
  GLint base = 0;
  bool reads() const { return count > 0 && instances > 0 && index_size(type) != 0; }
};

// Of a draw whose arrays are all in buffers. False: the program has an error.
bool may_draw(Renderer& r, Range range) {
  if (!have_memory(r)) return false;
  if (is_compiling(r)) require_vertices(r, range);
  return true;
}
template <typename P>
bool may_draw_elements(Renderer& r, const P& p, const Elements& elements) {
  if (p.indices_bytes != kOffset) throw BadStream{"indices in a packet that has no arrays"};
  const GLint buffer = element_buffer(r);
  if (buffer < 0) {
    raise_error(GL_INVALID_OPERATION);
    return false;
  }
  if (buffer == 0 && elements.reads()) throw BadStream{"indices where no buffer is bound"};
  if (!have_memory(r)) return false;
  if (!elements.reads() || !is_compiling(r)) return true;
  const size_t count = count_in(elements.count);
  const std::vector<char> indices = read_indices(r, p.indices, count * index_size(elements.type));
  const Range range = range_of(elements.type, indices.data(), count, restart_index(r, elements.type));
  require_vertices(r, Range{range.first + elements.base, range.last + elements.base});
  return true;
}

// Without a buffer it is an error of another kind, for which nothing is read.
template <typename P>
const void* indices_of(Renderer& r, const P& p) {
  return element_buffer(r) > 0 ? reinterpret_cast<const void*>(p.indices) : nullptr;
}

}  // namespace

void own_Begin(Renderer& r, const Packet& header) {
  VertexArrays& arrays = r.current->arrays;
  // Within the primitive the driver cannot be asked how much may be drawn from buffers.
  if (arrays.now->enabled != 0 && is_outside(r) && have_memory(r)) require_vertices(r, 0);
  r.gl.Begin(view<PBegin>(header).mode);
  arrays.maybe_inside = true;
}

void own_DrawArrays(Renderer& r, const Packet& header) {
  const auto& p = view<PDrawArrays>(header);
  if (may_draw(r, {p.first, int64_t{p.first} + p.count - 1})) r.gl.DrawArrays(p.mode, p.first, p.count);
}
void own_DrawArraysInstanced(Renderer& r, const Packet& header) {
  const auto& p = view<PDrawArraysInstanced>(header);
  if (may_draw(r, {p.first, int64_t{p.first} + p.count - 1}))
    r.gl.DrawArraysInstanced(p.mode, p.first, p.count, p.instancecount);
}
void own_DrawElements(Renderer& r, const Packet& header) {
  const auto& p = view<PDrawElements>(header);
  if (may_draw_elements(r, p, {p.count, p.type}))
    r.gl.DrawElements(p.mode, p.count, p.type, indices_of(r, p));
}
void own_DrawRangeElements(Renderer& r, const Packet& header) {
  const auto& p = view<PDrawRangeElements>(header);
  if (may_draw_elements(r, p, {p.count, p.type}))
    r.gl.DrawRangeElements(p.mode, p.start, p.end, p.count, p.type, indices_of(r, p));
}
void own_DrawElementsInstanced(Renderer& r, const Packet& header) {
  const auto& p = view<PDrawElementsInstanced>(header);
  if (may_draw_elements(r, p, {p.count, p.type, p.instancecount}))
    r.gl.DrawElementsInstanced(p.mode, p.count, p.type, indices_of(r, p), p.instancecount);
}
void own_DrawElementsBaseVertex(Renderer& r, const Packet& header) {
  const auto& p = view<PDrawElementsBaseVertex>(header);
  if (may_draw_elements(r, p, {p.count, p.type, 1, p.basevertex}))
    r.gl.DrawElementsBaseVertex(p.mode, p.count, p.type, indices_of(r, p), p.basevertex);
}
void own_DrawRangeElementsBaseVertex(Renderer& r, const Packet& header) {
  const auto& p = view<PDrawRangeElementsBaseVertex>(header);
  if (may_draw_elements(r, p, {p.count, p.type, 1, p.basevertex}))
    r.gl.DrawRangeElementsBaseVertex(p.mode, p.start, p.end, p.count, p.type, indices_of(r, p), p.basevertex);
}
void own_DrawElementsInstancedBaseVertex(Renderer& r, const Packet& header) {
  const auto& p = view<PDrawElementsInstancedBaseVertex>(header);
  if (may_draw_elements(r, p, {p.count, p.type, p.instancecount, p.basevertex}))
    r.gl.DrawElementsInstancedBaseVertex(p.mode, p.count, p.type, indices_of(r, p), p.instancecount,
                                         p.basevertex);
}

// --- Draws whose arrays are in the packet

namespace {

class ClientDraw {
 public:
  ClientDraw(Renderer& renderer, const Packet& packet)
      : r(renderer), p(view<DrawClient>(packet)), base(reinterpret_cast<const char*>(&packet)) {
    if (p.arrays > kArrays || sizeof p + p.arrays * sizeof(ClientArray) > packet.size)
      throw BadStream{std::to_string(p.arrays) + " arrays in a packet that has no room for them"};
    if (p.client_texture >= kGenericArray - kTexCoordArray)
      throw BadStream{"a texture unit that is not there"};
    arrays = reinterpret_cast<const ClientArray*>(&p + 1);
    reads = static_cast<int32_t>(p.count) > 0;
    if (is_instanced()) reads = reads && static_cast<int32_t>(p.instances) > 0;
  }

  void check() {
    if (is_elements()) find_indices();
    range = vertices();
    if (reaches_beyond(range) && is_elements()) {
      // Maybe the largest index is not one.
      range = with_base(range_of(p.index_type, indices, p.count, restart_index(r, p.index_type)));
    }
    for (uint32_t i = 0; reads && i < p.arrays; ++i) check_array(arrays[i], range);
  }

  void draw() {
    if (p.arrays != 0) point();
    if (!have_memory(r, came_along_)) return;
    if (is_compiling(r)) {
      const Range all =
          is_elements() && reads
              ? with_base(range_of(p.index_type, indices, p.count, restart_index(r, p.index_type)))
              : range;
      require_vertices(r, all);
    }
    issue();
  }

 private:
  bool is_instanced() const {
    return p.command == kOpDrawArraysInstanced || p.command == kOpDrawElementsInstanced ||
           p.command == kOpDrawElementsInstancedBaseVertex;
  }
  bool is_elements() const {
    return p.command == kOpDrawElements || p.command == kOpDrawElementsInstanced ||
           p.command == kOpDrawElementsBaseVertex || p.command == kOpDrawElementsInstancedBaseVertex;
  }
  bool has_base() const {
    return p.command == kOpDrawElementsBaseVertex || p.command == kOpDrawElementsInstancedBaseVertex;
  }
  Range with_base(Range found) const {
    const int64_t more = has_base() ? p.base_vertex : 0;
    return found.last < found.first ? kNothing : Range{found.first + more, found.last + more};
  }

  void find_indices() {
    const size_t size = index_size(p.index_type);
    if (size == 0) throw BadStream{"indices of no type"};
    const size_t bytes = reads ? size_t{p.count} * size : 0;
    if (p.index_bytes != kOffset) {
      if (p.index_offset > p.header.size || p.index_bytes > p.header.size - p.index_offset)
        throw BadStream{"indices beyond the packet"};
      Payload::require(p.index_bytes, bytes);
      if (element_buffer(r) != 0) throw BadStream{"indices in a packet, and a buffer for them"};
      indices = base + p.index_offset;
      at_driver = indices;
      return;
    }
    if (element_buffer(r) <= 0) throw BadStream{"indices where no buffer is bound"};
    at_driver = reinterpret_cast<const void*>(p.index_offset);
    of_buffer_ = read_indices(r, p.index_offset, bytes);
    indices = of_buffer_.data();
  }

  Range vertices() const {
    if (!reads) return kNothing;
    if (is_elements()) return with_base(range_of(p.index_type, indices, p.count));
    return {p.first, int64_t{p.first} + p.count - 1};
  }

  // In numbers of 128 bits, since all of them are the stream's.
  bool reaches_beyond(const ClientArray& array, Range of) const {
    __extension__ using Wide = __int128;
    const auto element = static_cast<int64_t>(
        element_size(array.size == 255 ? int32_t{GL_BGRA} : int32_t{array.size}, array.type));
    const int64_t stride = array.stride != 0 ? array.stride : element;
    const Wide first = Wide{static_cast<int64_t>(array.offset)} + Wide{of.first} * stride;
    const Wide end = Wide{static_cast<int64_t>(array.offset)} + Wide{of.last} * stride + element;
    return first < 0 || end > p.header.size;
  }
  bool reaches_beyond(Range of) const {
    for (uint32_t i = 0; reads && of.first <= of.last && i < p.arrays; ++i) {
      if (arrays[i].kind < kArrays && divisor_of(arrays[i]) == 0 && reaches_beyond(arrays[i], of))
        return true;
    }
    return false;
  }
  // The driver's, not the packet's.
  GLuint divisor_of(const ClientArray& array) const {
    return array.kind < kGenericArray ? 0 : r.current->arrays.now->divisor[array.kind - kGenericArray];
  }

  void check_array(const ClientArray& array, Range of) const {
    if (array.kind >= kArrays) throw BadStream{"an unknown array"};
    const bool has_size = array.size == 255 || (array.size >= 1 && array.size <= 4);
    if (!has_size || type_of(array) == 0 || array.stride < 0)
      throw BadStream{"an array of " + std::to_string(array.size) + " values of type " +
                      std::to_string(array.type) + " with a stride of " + std::to_string(array.stride)};
    if (const GLuint divisor = divisor_of(array); divisor != 0)
      of = {0, ((is_instanced() ? int64_t{p.instances} : 1) - 1) / divisor};
    if (of.last < of.first || !reaches_beyond(array, of)) return;
    throw BadStream{"vertices " + std::to_string(of.first) + " to " + std::to_string(of.last) + " of array " +
                    std::to_string(array.kind) + ", which are not all in the packet of " +
                    std::to_string(p.header.size) + " bytes"};
  }
  static size_t type_of(const ClientArray& array) { return element_size(1, array.type); }

  void point() {
    const auto& gl = r.gl;
    const GLint before = array_buffer(r);
    if (before > 0) gl.BindBuffer(GL_ARRAY_BUFFER, 0);
    for (uint32_t i = 0; reads && i < p.arrays; ++i) {
      if (point_at(r, arrays[i], base + arrays[i].offset)) came_along_ |= 1U << arrays[i].kind;
    }
    if (before > 0) gl.BindBuffer(GL_ARRAY_BUFFER, static_cast<GLuint>(before));
  }

  void issue() const {
    const auto& gl = r.gl;
    const auto count = static_cast<GLsizei>(p.count), instances = static_cast<GLsizei>(p.instances);
    switch (p.command) {
      case kOpDrawArrays:
        return gl.DrawArrays(p.mode, p.first, count);
      case kOpDrawArraysInstanced:
        return gl.DrawArraysInstanced(p.mode, p.first, count, instances);
      case kOpDrawElements:
        // What the program promises of its indices may be more than what has come with them.
        if (p.end != ~0U && range.first <= range.last)
          return gl.DrawRangeElements(p.mode, static_cast<GLuint>(range.first),
                                      static_cast<GLuint>(range.last), count, p.index_type, at_driver);
        return gl.DrawElements(p.mode, count, p.index_type, at_driver);
      case kOpDrawElementsInstanced:
        return gl.DrawElementsInstanced(p.mode, count, p.index_type, at_driver, instances);
      case kOpDrawElementsBaseVertex:
        return gl.DrawElementsBaseVertex(p.mode, count, p.index_type, at_driver, p.base_vertex);
      case kOpDrawElementsInstancedBaseVertex:
        return gl.DrawElementsInstancedBaseVertex(p.mode, count, p.index_type, at_driver, instances,
                                                  p.base_vertex);
    }
    throw BadStream{"an unknown draw"};
  }

  Renderer& r;
  const DrawClient& p;
  const char* base;
  const ClientArray* arrays = nullptr;
  bool reads = false;
  const char* indices = nullptr;
  const void* at_driver = nullptr;
  Range range = kNothing;
  std::vector<char> of_buffer_;
  uint32_t came_along_ = 0;
};

void draw_element(Renderer& r, const DrawClient& p) {
  if (p.arrays != 0) throw BadStream{"an element with arrays"};
  if (p.first < 0) throw BadStream{"a negative vertex"};
  const VertexArrays& arrays = r.current->arrays;
  if ((arrays.now->enabled & ~arrays.now->in_buffer) != 0 && (!is_outside(r) || !have_memory(r)))
    throw BadStream{"its arrays were changed within a primitive"};
  if (arrays.now->enabled != 0) require_vertices(r, static_cast<uint64_t>(p.first) + 1);
  r.gl.ArrayElement(p.first);
}

}  // namespace

void draw_client(Renderer& r, const Packet& packet) {
  const auto& p = view<DrawClient>(packet);
  if (p.command == kOpArrayElement) return draw_element(r, p);
  if (!is_outside(r)) return raise_error(GL_INVALID_OPERATION);
  ClientDraw draw(r, packet);
  draw.check();
  draw.draw();
}

}  // namespace stasis::gl

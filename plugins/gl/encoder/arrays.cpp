// Vertex arrays. What lies in the program's own memory goes along with each draw, as the driver would read it
// then.
#include <cstdlib>

#include "encoder/program.h"
#include "generated/packets.h"

namespace stasis::gl {

namespace {

void refresh(VertexArrays& v, uint32_t kind) {
  const Array& array = v.array[kind];
  const bool client = array.enabled && array.buffer == 0 && array.pointer != nullptr;
  v.client_mask = client ? v.client_mask | (1U << kind) : v.client_mask & ~(1U << kind);
}
static_assert(kArrays <= 32);

// What an array may consist of.
enum TypeBit : uint32_t {
  kByte = 1,
  kUbyte = 2,
  kShort = 4,
  kUshort = 8,
  kInt = 0x10,
  kUint = 0x20,
  kFloat = 0x40,
  kDouble = 0x80,
  kHalf = 0x100,
  kFixed = 0x200,
  kPacked = 0x400,  // four components in one word
  kPackedFloats = 0x800,
};
constexpr uint32_t kIntegers = kByte | kUbyte | kShort | kUshort | kInt | kUint;

uint32_t bit_of(GLenum type) {
  switch (type) {
    case GL_BYTE:
      return kByte;
    case GL_UNSIGNED_BYTE:
      return kUbyte;
    case GL_SHORT:
      return kShort;
    case GL_UNSIGNED_SHORT:
      return kUshort;
    case GL_INT:
      return kInt;
    case GL_UNSIGNED_INT:
      return kUint;
    case GL_FLOAT:
      return kFloat;
    case GL_DOUBLE:
      return kDouble;
    case GL_HALF_FLOAT:
    case 0x8D61: /* GL_HALF_FLOAT_OES */
      return kHalf;
    case GL_FIXED:
      return kFixed;
    case GL_INT_2_10_10_10_REV:
    case GL_UNSIGNED_INT_2_10_10_10_REV:
      return kPacked;
    case GL_UNSIGNED_INT_10F_11F_11F_REV:
      return kPackedFloats;
  }
  return 0;
}

struct Form {
  int32_t least, most;  // components
  bool bgra;
  uint32_t types;
};

Form form_of(uint32_t kind, uint8_t flags) {
  if (kind >= kGenericArray) {
    if ((flags & kInteger) != 0) return {1, 4, false, kIntegers};
    return {1, 4, true, kIntegers | kFloat | kDouble | kHalf | kFixed | kPacked | kPackedFloats};
  }
  switch (kind) {
    case kVertexArray:
      return {2, 4, false, kShort | kInt | kFloat | kDouble | kHalf | kPacked};
    case kNormalArray:
      return {3, 3, false, kByte | kShort | kInt | kFloat | kDouble | kHalf | kPacked};
    case kColorArray:
      return {3, 4, true, kIntegers | kFloat | kDouble | kHalf | kPacked};
    case kSecondaryColorArray:
      return {3, 3, true, kIntegers | kFloat | kDouble | kHalf | kPacked};
    case kFogCoordArray:
      return {1, 1, false, kFloat | kDouble | kHalf};
    case kIndexArray:
      return {1, 1, false, kUbyte | kShort | kInt | kFloat | kDouble};
    case kEdgeFlagArray:
      return {1, 1, false, kUbyte};
    default:
      return {1, 4, false, kShort | kInt | kFloat | kDouble | kHalf | kPacked};
  }
}

// False: the driver will say that something is wrong with it, and what.
bool is_valid(const Context& c, uint32_t kind, int32_t size, uint32_t type, int32_t stride,
              const void* pointer, uint8_t flags) {
  if (c.in_primitive || stride < 0) return false;
  // The program's own memory serves the array object 0 of compatible contexts only.
  if (pointer != nullptr && c.bound[kArrayTarget] == 0 && (c.is_core || c.vertex_array != 0)) return false;
  const Form form = form_of(kind, flags);
  if ((form.types & bit_of(type)) == 0) return false;
  return (size >= form.least && size <= form.most) || (form.bgra && size == GL_BGRA);
}

// True when the driver has to know, too: it lies in a buffer, or is an error.
bool set(Stream& s, uint32_t kind, int32_t size, uint32_t type, int32_t stride, const void* pointer,
         uint8_t flags = 0) {
  Context& c = context_of(s);
  if (!is_valid(c, kind, size, type, stride, pointer, flags)) return true;
  Array& array = c.vertices->array[kind];
  array.given_stride = stride;
  array.size = size;
  array.type = type;
  array.flags = flags;
  array.buffer = c.bound[kArrayTarget];
  array.pointer = array.told_pointer = static_cast<const char*>(pointer);
  array.stride = stride != 0 ? stride : static_cast<int32_t>(element_size(array.size, array.type));
  refresh(*c.vertices, kind);
  return array.buffer != 0 || pointer == nullptr;
}

void enable(Stream& s, uint32_t kind, bool on) {
  if (kind >= kArrays) return;
  context_of(s).vertices->array[kind].enabled = on;
  refresh(*context_of(s).vertices, kind);
}

constexpr uint32_t kNoArray = kArrays;
uint32_t generic(GLuint index) { return index < kArrays - kGenericArray ? kGenericArray + index : kNoArray; }

uint32_t kind_of(const Context& c, GLenum array) {
  switch (array) {
    case GL_VERTEX_ARRAY:
      return kVertexArray;
    case GL_NORMAL_ARRAY:
      return kNormalArray;
    case GL_COLOR_ARRAY:
      return kColorArray;
    case GL_SECONDARY_COLOR_ARRAY:
      return kSecondaryColorArray;
    case GL_FOG_COORD_ARRAY:
      return kFogCoordArray;
    case GL_INDEX_ARRAY:
      return kIndexArray;
    case GL_EDGE_FLAG_ARRAY:
      return kEdgeFlagArray;
    case GL_TEXTURE_COORD_ARRAY:
      return kTexCoordArray + c.client_texture;
  }
  return kArrays;
}

constexpr uint64_t pointer_value(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

struct Range {
  int64_t first, last;
};

// `restart` is compared with the whole index: one that the type cannot hold is none.
template <typename T>
Range range_of(const void* indices, GLsizei count, int64_t restart) {
  const T* at = static_cast<const T*>(indices);
  T low = static_cast<T>(~T{0}), high = 0;
  for (GLsizei i = 0; i < count; ++i) {
    if (at[i] == restart) continue;
    low = at[i] < low ? at[i] : low;
    high = at[i] > high ? at[i] : high;
  }
  return {low, high};
}

Range index_range(const Context& c, GLenum type, const void* indices, GLsizei count) {
  const int64_t largest = (int64_t{1} << type_size(type) * 8) - 1;
  const int64_t restart = c.restarts_fixed ? largest : c.restarts ? int64_t{c.restart_index} : -1;
  switch (type) {
    case GL_UNSIGNED_BYTE:
      return range_of<uint8_t>(indices, count, restart);
    case GL_UNSIGNED_SHORT:
      return range_of<uint16_t>(indices, count, restart);
    default:
      return range_of<uint32_t>(indices, count, restart);
  }
}

// A piece of the program's memory that one or more arrays need.
struct Block {
  const char* from;
  const char* to;
  size_t place;  // in the packet
};

struct Draw {
  uint16_t op;  // kOpClientArrays, kOpClientElements, kOpClientElement
  uint32_t command;
  GLenum mode;
  Range vertices;
  GLsizei count;
  GLenum index_type;
  const void* indices;
  bool indices_in_memory;
  GLuint start, end;
  GLint base_vertex;
  GLsizei instances;
};

// Interleaved arrays lie in one piece of memory, which is sent once.
size_t find_blocks(const VertexArrays& v, const Draw& draw, Block (&blocks)[kArrays],
                   uint8_t (&block_of)[kArrays]) {
  size_t count = 0;
  for (uint32_t mask = v.client_mask; mask != 0; mask &= mask - 1) {
    const auto kind = static_cast<uint32_t>(__builtin_ctz(mask));
    const Array& array = v.array[kind];
    Range range = draw.vertices;
    if (array.divisor != 0) range = {0, (draw.instances - 1) / static_cast<int64_t>(array.divisor)};
    const char* from = array.pointer + range.first * array.stride;
    const char* to = array.pointer + range.last * array.stride + element_size(array.size, array.type);
    size_t i = 0;
    while (i < count && !(from <= blocks[i].to && blocks[i].from <= to)) ++i;
    if (i == count) {
      blocks[count++] = {from, to, 0};
    } else {
      if (from < blocks[i].from) blocks[i].from = from;
      if (to > blocks[i].to) blocks[i].to = to;
    }
    block_of[kind] = static_cast<uint8_t>(i);
  }
  return count;
}

constexpr size_t at_16(size_t bytes) { return (bytes + 15) & ~size_t{15}; }

void send(Stream& s, const Draw& draw) {
  Context& c = context_of(s);
  const VertexArrays& v = *c.vertices;
  Block blocks[kArrays];
  uint8_t block_of[kArrays];
  const size_t block_count = find_blocks(v, draw, blocks, block_of);
  const auto arrays = static_cast<uint32_t>(__builtin_popcount(v.client_mask));
  size_t total = at_16(sizeof(DrawClient) + arrays * sizeof(ClientArray));
  for (size_t i = 0; i < block_count; ++i) {
    blocks[i].place = total;
    total += at_16(static_cast<size_t>(blocks[i].to - blocks[i].from));
  }
  const size_t index_place = total;
  const size_t index_bytes =
      draw.indices_in_memory ? static_cast<size_t>(draw.count) * type_size(draw.index_type) : 0;
  total += index_bytes;

  auto* packet = static_cast<DrawClient*>(s.begin(draw.op, total));
  packet->command = draw.command;
  packet->arrays = arrays;
  packet->mode = draw.mode;
  packet->first = static_cast<int32_t>(draw.vertices.first);
  packet->count = static_cast<uint32_t>(draw.count);
  packet->index_type = draw.index_type;
  packet->index_bytes = draw.indices_in_memory ? static_cast<uint32_t>(index_bytes) : kOffset;
  packet->start = draw.start;
  packet->end = draw.end;
  packet->base_vertex = draw.base_vertex;
  packet->instances = static_cast<uint32_t>(draw.instances);
  packet->array_buffer = c.bound[kArrayTarget];
  packet->client_texture = c.client_texture;
  packet->index_offset = draw.indices_in_memory ? index_place : pointer_value(draw.indices);
  char* base = reinterpret_cast<char*>(packet);
  auto* description = reinterpret_cast<ClientArray*>(packet + 1);
  for (uint32_t mask = v.client_mask; mask != 0; mask &= mask - 1) {
    const auto kind = static_cast<uint32_t>(__builtin_ctz(mask));
    const Array& array = v.array[kind];
    const Block& block = blocks[block_of[kind]];
    *description++ = {.kind = static_cast<uint8_t>(kind),
                      .size = static_cast<uint8_t>(array.size == GL_BGRA ? 255 : array.size),
                      .flags = array.flags,
                      .pad = 0,
                      .type = array.type,
                      .stride = array.stride,
                      .divisor = array.divisor,
                      .offset = block.place + static_cast<uint64_t>(array.pointer - block.from)};
  }
  for (size_t i = 0; i < block_count; ++i)
    memcpy(base + blocks[i].place, blocks[i].from, static_cast<size_t>(blocks[i].to - blocks[i].from));
  if (index_bytes != 0) memcpy(base + index_place, draw.indices, index_bytes);
  s.commit();
}

void draw_arrays(Stream& s, uint32_t command, GLenum mode, GLint first, GLsizei count, GLsizei instances) {
  if (count <= 0 || instances <= 0) {  // nothing, or an error
    begin_DrawArraysInstanced(s, mode, first, count, instances);
    return s.commit_small();
  }
  if (first < 0) return raise(s, GL_INVALID_VALUE);
  send(s, {.op = kOpClientArrays,
           .command = command,
           .mode = mode,
           .vertices = {first, first + count - 1},
           .count = count,
           .index_type = 0,
           .indices = nullptr,
           .indices_in_memory = false,
           .start = 0,
           .end = 0,
           .base_vertex = 0,
           .instances = instances});
}

// Of indices that lie in a buffer.
Range index_range_in_buffer(const Context& c, GLenum type, const void* offset, GLsizei count) {
  const size_t bytes = static_cast<size_t>(count) * type_size(type);
  void* copy = malloc(bytes);
  stub_GetBufferSubData(GL_ELEMENT_ARRAY_BUFFER, reinterpret_cast<GLintptr>(offset),
                        static_cast<GLsizeiptr>(bytes), copy);
  const Range range = index_range(c, type, copy, count);
  free(copy);
  return range;
}

// False: there is nothing of the program's memory in it.
bool draw_elements(Stream& s, uint32_t command, GLenum mode, GLuint start, GLuint end, GLsizei count,
                   GLenum type, const void* indices, GLsizei instances, GLint base_vertex) {
  Context& c = context_of(s);
  const bool in_memory = c.vertices->element_buffer == 0;
  if (c.vertices->client_mask == 0 && !in_memory) return false;
  // Nothing, or an error.
  if (count <= 0 || instances <= 0 ||
      (type != GL_UNSIGNED_BYTE && type != GL_UNSIGNED_SHORT && type != GL_UNSIGNED_INT))
    return false;
  if (in_memory && indices == nullptr) return true;
  Range range = {0, 0};
  if (c.vertices->client_mask != 0) {
    if (in_memory) {
      range = index_range(c, type, indices, count);
    } else if (end != ~0U && end >= start && end - start < (1U << 24)) {
      range = {start, end};
    } else {
      range = index_range_in_buffer(c, type, indices, count);
    }
  }
  if (range.last < range.first) return true;
  send(s, {.op = kOpClientElements,
           .command = command,
           .mode = mode,
           .vertices = {range.first + base_vertex, range.last + base_vertex},
           .count = count,
           .index_type = type,
           .indices = indices,
           .indices_in_memory = in_memory,
           .start = start,
           .end = end,
           .base_vertex = base_vertex,
           .instances = instances});
  return true;
}

// The packet needs only where the array is.
template <typename P>
void send_pointer(Stream& s, P* packet, const void* pointer) {
  packet->pointer = pointer_value(pointer);
  s.commit_small();
}

}  // namespace

void stub_VertexPointer(GLint size, GLenum type, GLsizei stride, const void* pointer) {
  STREAM_OR_RETURN();
  if (set(*s, kVertexArray, size, type, stride, pointer))
    send_pointer(*s, begin_VertexPointer(*s, size, type, stride, kOffset), pointer);
}
void stub_NormalPointer(GLenum type, GLsizei stride, const void* pointer) {
  STREAM_OR_RETURN();
  if (set(*s, kNormalArray, 3, type, stride, pointer))
    send_pointer(*s, begin_NormalPointer(*s, type, stride, kOffset), pointer);
}
void stub_ColorPointer(GLint size, GLenum type, GLsizei stride, const void* pointer) {
  STREAM_OR_RETURN();
  if (set(*s, kColorArray, size, type, stride, pointer))
    send_pointer(*s, begin_ColorPointer(*s, size, type, stride, kOffset), pointer);
}
void stub_SecondaryColorPointer(GLint size, GLenum type, GLsizei stride, const void* pointer) {
  STREAM_OR_RETURN();
  if (set(*s, kSecondaryColorArray, size, type, stride, pointer))
    send_pointer(*s, begin_SecondaryColorPointer(*s, size, type, stride, kOffset), pointer);
}
void stub_FogCoordPointer(GLenum type, GLsizei stride, const void* pointer) {
  STREAM_OR_RETURN();
  if (set(*s, kFogCoordArray, 1, type, stride, pointer))
    send_pointer(*s, begin_FogCoordPointer(*s, type, stride, kOffset), pointer);
}
void stub_IndexPointer(GLenum type, GLsizei stride, const void* pointer) {
  STREAM_OR_RETURN();
  if (set(*s, kIndexArray, 1, type, stride, pointer))
    send_pointer(*s, begin_IndexPointer(*s, type, stride, kOffset), pointer);
}
void stub_EdgeFlagPointer(GLsizei stride, const void* pointer) {
  STREAM_OR_RETURN();
  if (set(*s, kEdgeFlagArray, 1, GL_UNSIGNED_BYTE, stride, pointer))
    send_pointer(*s, begin_EdgeFlagPointer(*s, stride, kOffset), pointer);
}
void stub_TexCoordPointer(GLint size, GLenum type, GLsizei stride, const void* pointer) {
  STREAM_OR_RETURN();
  if (set(*s, kTexCoordArray + context_of(*s).client_texture, size, type, stride, pointer))
    send_pointer(*s, begin_TexCoordPointer(*s, size, type, stride, kOffset), pointer);
}
void stub_VertexAttribPointer(GLuint index, GLint size, GLenum type, GLboolean normalized, GLsizei stride,
                              const void* pointer) {
  STREAM_OR_RETURN();
  constexpr GLuint kGeneric = kArrays - kGenericArray;
  if (index >= kGeneric ||
      set(*s, kGenericArray + index, size, type, stride, pointer, normalized ? kNormalized : 0))
    send_pointer(*s, begin_VertexAttribPointer(*s, index, size, type, normalized, stride, kOffset), pointer);
}
void stub_VertexAttribIPointer(GLuint index, GLint size, GLenum type, GLsizei stride, const void* pointer) {
  STREAM_OR_RETURN();
  constexpr GLuint kGeneric = kArrays - kGenericArray;
  if (index >= kGeneric || set(*s, kGenericArray + index, size, type, stride, pointer, kInteger))
    send_pointer(*s, begin_VertexAttribIPointer(*s, index, size, type, stride, kOffset), pointer);
}

namespace {

void note_restart(Context& c, GLenum capability, bool on) {
  if (capability == GL_PRIMITIVE_RESTART || capability == 0x8558 /* GL_PRIMITIVE_RESTART_NV */)
    c.restarts = on;
  if (capability == GL_PRIMITIVE_RESTART_FIXED_INDEX) c.restarts_fixed = on;
}

}  // namespace

namespace {

bool is_client_array(const Context& c, GLenum capability) {
  return !c.is_core && !c.is_es && kind_of(c, capability) < kArrays;
}

}  // namespace

// Some programs say glEnable for arrays, and drivers take it.
void stub_Enable(GLenum capability) {
  STREAM_OR_RETURN();
  note_restart(context_of(*s), capability, true);
  if (is_client_array(context_of(*s), capability)) return stub_EnableClientState(capability);
  begin_Enable(*s, capability);
  s->commit_small();
}
void stub_Disable(GLenum capability) {
  STREAM_OR_RETURN();
  note_restart(context_of(*s), capability, false);
  if (is_client_array(context_of(*s), capability)) return stub_DisableClientState(capability);
  begin_Disable(*s, capability);
  s->commit_small();
}

void stub_PrimitiveRestartIndex(GLuint index) {
  STREAM_OR_RETURN();
  context_of(*s).restart_index = index;
  begin_PrimitiveRestartIndex(*s, index);
  s->commit_small();
}
void stub_EnableClientState(GLenum array) {
  STREAM_OR_RETURN();
  note_restart(context_of(*s), array, true);
  enable(*s, kind_of(context_of(*s), array), true);
  begin_EnableClientState(*s, array);
  s->commit_small();
}
void stub_DisableClientState(GLenum array) {
  STREAM_OR_RETURN();
  note_restart(context_of(*s), array, false);
  enable(*s, kind_of(context_of(*s), array), false);
  begin_DisableClientState(*s, array);
  s->commit_small();
}
void stub_EnableVertexAttribArray(GLuint index) {
  STREAM_OR_RETURN();
  enable(*s, generic(index), true);
  begin_EnableVertexAttribArray(*s, index);
  s->commit_small();
}
void stub_DisableVertexAttribArray(GLuint index) {
  STREAM_OR_RETURN();
  enable(*s, generic(index), false);
  begin_DisableVertexAttribArray(*s, index);
  s->commit_small();
}
void stub_VertexAttribDivisor(GLuint index, GLuint divisor) {
  STREAM_OR_RETURN();
  if (index < kArrays - kGenericArray)
    context_of(*s).vertices->array[kGenericArray + index].divisor = divisor;
  begin_VertexAttribDivisor(*s, index, divisor);
  s->commit_small();
}
void stub_ClientActiveTexture(GLenum texture) {
  STREAM_OR_RETURN();
  if (texture >= GL_TEXTURE0 && texture < GL_TEXTURE0 + 8)
    context_of(*s).client_texture = texture - GL_TEXTURE0;
  begin_ClientActiveTexture(*s, texture);
  s->commit_small();
}
void stub_BindVertexArray(GLuint name) {
  STREAM_OR_RETURN();
  Context& c = context_of(*s);
  if (name >= c.share->next_name[kVertexArrayName].load(std::memory_order_relaxed))
    return raise(*s, GL_INVALID_OPERATION);  // only one that was generated
  c.vertex_array = name;
  c.vertices = name == 0 ? &c.default_vertices : &c.vertex_arrays.at(name);
  c.vertices->exists = true;
  begin_BindVertexArray(*s, name);
  s->commit_small();
}

void stub_DrawArrays(GLenum mode, GLint first, GLsizei count) {
  STREAM_OR_RETURN();
  if (context_of(*s).vertices->client_mask != 0) return draw_arrays(*s, kOpDrawArrays, mode, first, count, 1);
  begin_DrawArrays(*s, mode, first, count);
  s->commit_small();
}
void stub_DrawArraysInstanced(GLenum mode, GLint first, GLsizei count, GLsizei instances) {
  STREAM_OR_RETURN();
  if (context_of(*s).vertices->client_mask != 0)
    return draw_arrays(*s, kOpDrawArraysInstanced, mode, first, count, instances);
  begin_DrawArraysInstanced(*s, mode, first, count, instances);
  s->commit_small();
}
namespace {

// What is wrong with one of many is wrong with all of them.
bool is_error_of_many(const GLsizei* count, GLsizei draws) {
  bool negative = draws < 0;
  for (GLsizei i = 0; i < draws; ++i) negative = negative || count[i] < 0;
  if (!negative) return false;
  if (Stream* s = stream()) raise(*s, GL_INVALID_VALUE);
  return true;
}

}  // namespace

void stub_MultiDrawArrays(GLenum mode, const GLint* first, const GLsizei* count, GLsizei draws) {
  if (is_error_of_many(count, draws)) return;
  for (GLsizei i = 0; i < draws; ++i) stub_DrawArrays(mode, first[i], count[i]);
}
void stub_DrawElements(GLenum mode, GLsizei count, GLenum type, const void* indices) {
  STREAM_OR_RETURN();
  if (draw_elements(*s, kOpDrawElements, mode, 0, ~0U, count, type, indices, 1, 0)) return;
  begin_DrawElements(*s, mode, count, type, kOffset)->indices = pointer_value(indices);
  s->commit_small();
}
void stub_DrawRangeElements(GLenum mode, GLuint start, GLuint end, GLsizei count, GLenum type,
                            const void* indices) {
  STREAM_OR_RETURN();
  if (draw_elements(*s, kOpDrawElements, mode, start, end, count, type, indices, 1, 0)) return;
  begin_DrawRangeElements(*s, mode, start, end, count, type, kOffset)->indices = pointer_value(indices);
  s->commit_small();
}
void stub_DrawElementsInstanced(GLenum mode, GLsizei count, GLenum type, const void* indices,
                                GLsizei instances) {
  STREAM_OR_RETURN();
  if (draw_elements(*s, kOpDrawElementsInstanced, mode, 0, ~0U, count, type, indices, instances, 0)) return;
  begin_DrawElementsInstanced(*s, mode, count, type, instances, kOffset)->indices = pointer_value(indices);
  s->commit_small();
}
void stub_DrawElementsBaseVertex(GLenum mode, GLsizei count, GLenum type, const void* indices, GLint base) {
  STREAM_OR_RETURN();
  if (draw_elements(*s, kOpDrawElementsBaseVertex, mode, 0, ~0U, count, type, indices, 1, base)) return;
  begin_DrawElementsBaseVertex(*s, mode, count, type, base, kOffset)->indices = pointer_value(indices);
  s->commit_small();
}
void stub_DrawRangeElementsBaseVertex(GLenum mode, GLuint start, GLuint end, GLsizei count, GLenum type,
                                      const void* indices, GLint base) {
  STREAM_OR_RETURN();
  if (draw_elements(*s, kOpDrawElementsBaseVertex, mode, start, end, count, type, indices, 1, base)) return;
  begin_DrawRangeElementsBaseVertex(*s, mode, start, end, count, type, base, kOffset)->indices =
      pointer_value(indices);
  s->commit_small();
}
void stub_DrawElementsInstancedBaseVertex(GLenum mode, GLsizei count, GLenum type, const void* indices,
                                          GLsizei instances, GLint base) {
  STREAM_OR_RETURN();
  if (draw_elements(*s, kOpDrawElementsInstancedBaseVertex, mode, 0, ~0U, count, type, indices, instances,
                    base))
    return;
  begin_DrawElementsInstancedBaseVertex(*s, mode, count, type, instances, base, kOffset)->indices =
      pointer_value(indices);
  s->commit_small();
}
void stub_MultiDrawElements(GLenum mode, const GLsizei* count, GLenum type, const void* const* indices,
                            GLsizei draws) {
  if (is_error_of_many(count, draws)) return;
  for (GLsizei i = 0; i < draws; ++i) stub_DrawElements(mode, count[i], type, indices[i]);
}
void stub_MultiDrawElementsBaseVertex(GLenum mode, const GLsizei* count, GLenum type,
                                      const void* const* indices, GLsizei draws, const GLint* base) {
  if (is_error_of_many(count, draws)) return;
  for (GLsizei i = 0; i < draws; ++i) stub_DrawElementsBaseVertex(mode, count[i], type, indices[i], base[i]);
}
void stub_ArrayElement(GLint index) {
  STREAM_OR_RETURN();
  const Context& c = context_of(*s);
  if (index < 0) return raise(*s, GL_INVALID_VALUE);
  if (c.restarts && static_cast<GLuint>(index) == c.restart_index) {
    begin_PrimitiveRestartNV(*s);
    return s->commit_small();
  }
  if (c.vertices->client_mask != 0) return send_element(*c.vertices, index);
  send(*s, {.op = kOpClientElement,
            .command = kOpArrayElement,
            .mode = 0,
            .vertices = {index, index},
            .count = 1,
            .index_type = 0,
            .indices = nullptr,
            .indices_in_memory = false,
            .start = 0,
            .end = 0,
            .base_vertex = 0,
            .instances = 1});
}

// The arrays do not change until they are unlocked: there is nothing to do as long as each draw brings its
// own.
void stub_LockArraysEXT(GLint, GLsizei) {}
void stub_UnlockArraysEXT() {}

void stub_InterleavedArrays(GLenum format, GLsizei stride, const void* pointer) {
  STREAM_OR_RETURN();
  struct Format {
    GLenum name;
    int texture, color, normal, vertex;  // components
    GLenum color_type;
    int color_at, normal_at, vertex_at, size;
  };
  constexpr int f = sizeof(GLfloat);
  static const Format kFormats[] = {
      {GL_V2F, 0, 0, 0, 2, 0, 0, 0, 0, 2 * f},
      {GL_V3F, 0, 0, 0, 3, 0, 0, 0, 0, 3 * f},
      {GL_C4UB_V2F, 0, 4, 0, 2, GL_UNSIGNED_BYTE, 0, 0, 4, 4 + 2 * f},
      {GL_C4UB_V3F, 0, 4, 0, 3, GL_UNSIGNED_BYTE, 0, 0, 4, 4 + 3 * f},
      {GL_C3F_V3F, 0, 3, 0, 3, GL_FLOAT, 0, 0, 3 * f, 6 * f},
      {GL_N3F_V3F, 0, 0, 3, 3, 0, 0, 0, 3 * f, 6 * f},
      {GL_C4F_N3F_V3F, 0, 4, 3, 3, GL_FLOAT, 0, 4 * f, 7 * f, 10 * f},
      {GL_T2F_V3F, 2, 0, 0, 3, 0, 0, 0, 2 * f, 5 * f},
      {GL_T4F_V4F, 4, 0, 0, 4, 0, 0, 0, 4 * f, 8 * f},
      {GL_T2F_C4UB_V3F, 2, 4, 0, 3, GL_UNSIGNED_BYTE, 2 * f, 0, 2 * f + 4, 5 * f + 4},
      {GL_T2F_C3F_V3F, 2, 3, 0, 3, GL_FLOAT, 2 * f, 0, 5 * f, 8 * f},
      {GL_T2F_N3F_V3F, 2, 0, 3, 3, 0, 0, 2 * f, 5 * f, 8 * f},
      {GL_T2F_C4F_N3F_V3F, 2, 4, 3, 3, GL_FLOAT, 2 * f, 6 * f, 9 * f, 12 * f},
      {GL_T4F_C4F_N3F_V4F, 4, 4, 3, 4, GL_FLOAT, 4 * f, 8 * f, 11 * f, 15 * f},
  };
  for (const Format& one : kFormats) {
    if (one.name != format) continue;
    const char* at = static_cast<const char*>(pointer);
    if (stride == 0) stride = one.size;
    stub_DisableClientState(GL_EDGE_FLAG_ARRAY);
    stub_DisableClientState(GL_INDEX_ARRAY);
    auto use = [](GLenum array, bool on) {
      on ? stub_EnableClientState(array) : stub_DisableClientState(array);
    };
    use(GL_TEXTURE_COORD_ARRAY, one.texture != 0);
    use(GL_COLOR_ARRAY, one.color != 0);
    use(GL_NORMAL_ARRAY, one.normal != 0);
    use(GL_VERTEX_ARRAY, true);
    if (one.texture != 0) stub_TexCoordPointer(one.texture, GL_FLOAT, stride, at);
    if (one.color != 0) stub_ColorPointer(one.color, one.color_type, stride, at + one.color_at);
    if (one.normal != 0) stub_NormalPointer(GL_FLOAT, stride, at + one.normal_at);
    stub_VertexPointer(one.vertex, GL_FLOAT, stride, at + one.vertex_at);
  }
}

}  // namespace stasis::gl

// Buffers and their mappings, shaders, lists, sync objects: calls whose arguments the rules cannot describe.
#include <cstdlib>

#include "encoder/matrices.h"
#include "encoder/program.h"
#include "generated/packets.h"
#include "wire/names.h"

namespace stasis::gl {

void* zeroed(size_t bytes) { return calloc(1, bytes); }

void raise(Stream& s, GLenum error) {
  auto* packet = static_cast<SurfaceCall*>(s.begin(kOpRaise, sizeof(SurfaceCall)));
  packet->surface = 0;
  packet->value = static_cast<int32_t>(error);
  packet->more = 0;
  s.commit_small();
}

uint32_t new_names(Stream& s, NameType type, uint32_t count) {
  return context_of(s).share->next_name[type].fetch_add(count);
}

// --- Buffers

namespace {

int target_of(GLenum target) {
  switch (target) {
    case GL_ARRAY_BUFFER:
      return kArrayTarget;
    case GL_PIXEL_PACK_BUFFER:
      return kPixelPackTarget;
    case GL_PIXEL_UNPACK_BUFFER:
      return kPixelUnpackTarget;
    case GL_COPY_READ_BUFFER:
      return kCopyReadTarget;
    case GL_COPY_WRITE_BUFFER:
      return kCopyWriteTarget;
    case GL_UNIFORM_BUFFER:
      return kUniformTarget;
    case GL_TRANSFORM_FEEDBACK_BUFFER:
      return kTransformFeedbackTarget;
    case GL_TEXTURE_BUFFER:
      return kTextureBufferTarget;
  }
  return -1;
}

void remember_binding(Context& c, GLenum target, GLuint buffer) {
  if (target == GL_ELEMENT_ARRAY_BUFFER) {
    c.vertices->element_buffer = buffer;
  } else if (int index = target_of(target); index >= 0) {
    c.bound[index] = buffer;
  }
}

BufferInfo* bound_buffer(Context& c, GLenum target) {
  uint32_t name = 0;
  if (target == GL_ELEMENT_ARRAY_BUFFER) {
    name = c.vertices->element_buffer;
  } else if (int index = target_of(target); index >= 0) {
    name = c.bound[index];
  }
  return name == 0 ? nullptr : &c.share->buffers.at(name);
}

}  // namespace

void stub_BindBuffer(GLenum target, GLuint buffer) {
  STREAM_OR_RETURN();
  note_name(*s, kBuffer, buffer);
  remember_binding(context_of(*s), target, buffer);
  begin_BindBuffer(*s, target, buffer);
  s->commit_small();
}
void stub_BindBufferBase(GLenum target, GLuint index, GLuint buffer) {
  STREAM_OR_RETURN();
  note_name(*s, kBuffer, buffer);
  remember_binding(context_of(*s), target, buffer);
  begin_BindBufferBase(*s, target, index, buffer);
  s->commit_small();
}
void stub_BindBufferRange(GLenum target, GLuint index, GLuint buffer, GLintptr offset, GLsizeiptr size) {
  STREAM_OR_RETURN();
  note_name(*s, kBuffer, buffer);
  remember_binding(context_of(*s), target, buffer);
  begin_BindBufferRange(*s, target, index, buffer, offset, size);
  s->commit_small();
}

// The program writes into a shadow, which is sent when it unmaps. What the driver has is fetched first unless
// the program says that it does not want it.
void* stub_MapBufferRange(GLenum target, GLintptr offset, GLsizeiptr length, GLbitfield access) {
  STREAM_OR_RETURN(nullptr);
  Context& c = context_of(*s);
  BufferInfo* buffer = bound_buffer(c, target);
  GLint size = 0;
  if (buffer != nullptr) stub_GetBufferParameteriv(target, GL_BUFFER_SIZE, &size);
  constexpr GLbitfield kUnread =
      GL_MAP_INVALIDATE_RANGE_BIT | GL_MAP_INVALIDATE_BUFFER_BIT | GL_MAP_UNSYNCHRONIZED_BIT;
  constexpr GLbitfield kKnown = GL_MAP_READ_BIT | GL_MAP_WRITE_BIT | kUnread | GL_MAP_FLUSH_EXPLICIT_BIT;
  const bool nonsense = (access & ~kKnown) != 0 ||
                        ((access & GL_MAP_READ_BIT) != 0 && (access & kUnread) != 0) ||
                        ((access & GL_MAP_FLUSH_EXPLICIT_BIT) != 0 && (access & GL_MAP_WRITE_BIT) == 0);
  if (buffer != nullptr && buffer->mapped != nullptr) {
    raise(*s, GL_INVALID_OPERATION);
    return nullptr;
  }
  if (buffer == nullptr || nonsense || offset < 0 || length <= 0 || offset + length > size ||
      (access & (GL_MAP_READ_BIT | GL_MAP_WRITE_BIT)) == 0) {
    // Something is wrong with it; the driver knows what.
    begin_MapBufferRange(*s, target, offset, length, access);
    s->commit_small();
    return nullptr;
  }
  // The buffer's beginning is what has to be aligned.
  constexpr size_t kAlignment = 64;
  void* memory = nullptr;
  const size_t start = static_cast<size_t>(offset) % kAlignment;
  if (posix_memalign(&memory, kAlignment, start + static_cast<size_t>(length)) != 0) return nullptr;
  char* shadow = static_cast<char*>(memory) + start;
  const bool discard = (access & (GL_MAP_INVALIDATE_RANGE_BIT | GL_MAP_INVALIDATE_BUFFER_BIT)) != 0;
  if (!discard) stub_GetBufferSubData(target, offset, length, shadow);
  buffer->size = static_cast<uint64_t>(size);
  buffer->mapped = shadow;
  buffer->memory = static_cast<char*>(memory);
  buffer->offset = static_cast<uint64_t>(offset);
  buffer->length = static_cast<uint64_t>(length);
  buffer->access = access;
  return shadow;
}

void* stub_MapBuffer(GLenum target, GLenum access) {
  STREAM_OR_RETURN(nullptr);
  GLint size = 0;
  if (access != GL_READ_ONLY && access != GL_WRITE_ONLY && access != GL_READ_WRITE) {
    raise(*s, GL_INVALID_ENUM);
    return nullptr;
  }
  if (bound_buffer(context_of(*s), target) != nullptr)
    stub_GetBufferParameteriv(target, GL_BUFFER_SIZE, &size);
  GLbitfield bits = 0;
  if (access != GL_WRITE_ONLY) bits |= GL_MAP_READ_BIT;
  if (access != GL_READ_ONLY) bits |= GL_MAP_WRITE_BIT;
  return stub_MapBufferRange(target, 0, size, bits);
}

void stub_FlushMappedBufferRange(GLenum target, GLintptr offset, GLsizeiptr length) {
  STREAM_OR_RETURN();
  BufferInfo* buffer = bound_buffer(context_of(*s), target);
  if (buffer == nullptr || buffer->mapped == nullptr || (buffer->access & GL_MAP_FLUSH_EXPLICIT_BIT) == 0)
    return raise(*s, GL_INVALID_OPERATION);
  if (offset < 0 || length < 0 || static_cast<uint64_t>(offset + length) > buffer->length)
    return raise(*s, GL_INVALID_VALUE);
  stub_BufferSubData(target, static_cast<GLintptr>(buffer->offset) + offset, length, buffer->mapped + offset);
}

GLboolean stub_UnmapBuffer(GLenum target) {
  STREAM_OR_RETURN(GL_FALSE);
  BufferInfo* buffer = bound_buffer(context_of(*s), target);
  if (buffer == nullptr || buffer->mapped == nullptr) {
    begin_UnmapBuffer(*s, target);
    s->commit_small();
    return GL_FALSE;
  }
  if ((buffer->access & GL_MAP_WRITE_BIT) != 0 && (buffer->access & GL_MAP_FLUSH_EXPLICIT_BIT) == 0) {
    stub_BufferSubData(target, static_cast<GLintptr>(buffer->offset), static_cast<GLsizeiptr>(buffer->length),
                       buffer->mapped);
  }
  free(buffer->memory);
  *buffer = {};
  return GL_TRUE;
}

void stub_GetBufferPointerv(GLenum target, GLenum name, void** pointer) {
  STREAM_OR_RETURN();
  if (name != GL_BUFFER_MAP_POINTER) return raise(*s, GL_INVALID_ENUM);
  BufferInfo* buffer = bound_buffer(context_of(*s), target);
  if (buffer == nullptr) return raise(*s, GL_INVALID_OPERATION);
  *pointer = buffer->mapped;
}

namespace {

// What the driver does not know, since nothing stays mapped there.
bool mapping_parameter(Stream& s, GLenum target, GLenum name, int64_t& value) {
  const BufferInfo* buffer = bound_buffer(context_of(s), target);
  if (buffer == nullptr || buffer->mapped == nullptr) return false;
  switch (name) {
    case GL_BUFFER_MAPPED:
      value = GL_TRUE;
      return true;
    case GL_BUFFER_ACCESS:
      value = (buffer->access & GL_MAP_WRITE_BIT) == 0  ? GL_READ_ONLY
              : (buffer->access & GL_MAP_READ_BIT) == 0 ? GL_WRITE_ONLY
                                                        : GL_READ_WRITE;
      return true;
    case GL_BUFFER_ACCESS_FLAGS:
      value = buffer->access;
      return true;
    case GL_BUFFER_MAP_OFFSET:
      value = static_cast<int64_t>(buffer->offset);
      return true;
    case GL_BUFFER_MAP_LENGTH:
      value = static_cast<int64_t>(buffer->length);
      return true;
  }
  return false;
}

}  // namespace

void stub_GetBufferParameteriv(GLenum target, GLenum name, GLint* values) {
  STREAM_OR_RETURN();
  if (int64_t value = 0; mapping_parameter(*s, target, name, value)) {
    *values = static_cast<GLint>(value);
    return;
  }
  begin_GetBufferParameteriv(*s, target, name);
  s->ask().take(values, sizeof *values);
}
void stub_GetBufferParameteri64v(GLenum target, GLenum name, GLint64* values) {
  STREAM_OR_RETURN();
  if (int64_t value = 0; mapping_parameter(*s, target, name, value)) {
    *values = value;
    return;
  }
  begin_GetBufferParameteri64v(*s, target, name);
  s->ask().take(values, sizeof *values);
}

// In pieces that an answer has room for.
void stub_GetBufferSubData(GLenum target, GLintptr offset, GLsizeiptr size, void* data) {
  STREAM_OR_RETURN();
  constexpr GLsizeiptr kPiece = GLsizeiptr{16} << 20;
  auto* into = static_cast<char*>(data);
  do {
    const GLsizeiptr piece = size < kPiece ? size : kPiece;
    begin_GetBufferSubData(*s, target, offset, piece);
    s->ask().take(into, piece > 0 ? static_cast<size_t>(piece) : 0);
    offset += piece;
    size -= piece;
    into += piece;
  } while (size > 0);
}

// What is deleted is bound no longer.
void stub_DeleteBuffers(GLsizei count, const GLuint* names) {
  STREAM_OR_RETURN();
  Context& c = context_of(*s);
  for (GLsizei i = 0; i < count; ++i) {
    if (names[i] == 0) continue;
    for (uint32_t& bound : c.bound) {
      if (bound == names[i]) bound = 0;
    }
    if (c.vertices->element_buffer == names[i]) c.vertices->element_buffer = 0;
    for (Array& array : c.vertices->array) {
      if (array.buffer != names[i]) continue;
      array.buffer = 0;
      array.pointer = nullptr;
    }
    if (BufferInfo* buffer = c.share->buffers.find(names[i])) {
      free(buffer->memory);
      *buffer = {};
    }
  }
  const size_t bytes = count < 0 ? 0 : bytes_of(static_cast<size_t>(count), sizeof(GLuint));
  auto* packet = begin_DeleteBuffers(*s, count, bytes);
  put_payload(reinterpret_cast<char*>(packet) + padded(sizeof *packet), names, bytes);
  s->commit();
}

void stub_DeleteVertexArrays(GLsizei count, const GLuint* names) {
  STREAM_OR_RETURN();
  Context& c = context_of(*s);
  for (GLsizei i = 0; i < count; ++i) {
    if (names[i] == 0) continue;
    if (c.vertex_array == names[i]) {
      c.vertex_array = 0;
      c.vertices = &c.default_vertices;
    }
    c.vertex_arrays.remove(names[i]);
  }
  const size_t bytes = count < 0 ? 0 : bytes_of(static_cast<size_t>(count), sizeof(GLuint));
  auto* packet = begin_DeleteVertexArrays(*s, count, bytes);
  put_payload(reinterpret_cast<char*>(packet) + padded(sizeof *packet), names, bytes);
  s->commit();
}

// --- Shaders

namespace {

// Strings one after the other, each with its end.
size_t joined_size(GLsizei count, const GLchar* const* texts, const GLint* lengths) {
  size_t total = 0;
  for (GLsizei i = 0; i < count; ++i)
    total += (lengths != nullptr && lengths[i] >= 0 ? static_cast<size_t>(lengths[i]) : strlen(texts[i])) + 1;
  return total;
}
void join(char* into, GLsizei count, const GLchar* const* texts, const GLint* lengths) {
  for (GLsizei i = 0; i < count; ++i) {
    const size_t length =
        lengths != nullptr && lengths[i] >= 0 ? static_cast<size_t>(lengths[i]) : strlen(texts[i]);
    memcpy(into, texts[i], length);
    into[length] = '\0';
    into += length + 1;
  }
}

}  // namespace

// Sent as one string: what is between two is nothing to the compiler.
void stub_ShaderSource(GLuint shader, GLsizei count, const GLchar* const* texts, const GLint* lengths) {
  STREAM_OR_RETURN();
  if (count < 0 || texts == nullptr) return raise(*s, GL_INVALID_VALUE);
  // The texts of what is no shader are not looked at.
  if (!stub_IsShader(shader))
    return raise(*s, stub_IsProgram(shader) ? GL_INVALID_OPERATION : GL_INVALID_VALUE);
  for (GLsizei i = 0; i < count; ++i) {
    if (texts[i] == nullptr) return raise(*s, GL_INVALID_OPERATION);
  }
  size_t total = 1;
  for (GLsizei i = 0; i < count; ++i)
    total += lengths != nullptr && lengths[i] >= 0 ? static_cast<size_t>(lengths[i]) : strlen(texts[i]);
  auto* packet = begin_ShaderSource(*s, shader, 1, total, kNull);
  char* at = reinterpret_cast<char*>(packet) + padded(sizeof *packet);
  for (GLsizei i = 0; i < count; ++i) {
    const size_t length =
        lengths != nullptr && lengths[i] >= 0 ? static_cast<size_t>(lengths[i]) : strlen(texts[i]);
    memcpy(at, texts[i], length);
    at += length;
  }
  *at = '\0';
  s->commit();
}

void stub_TransformFeedbackVaryings(GLuint program, GLsizei count, const GLchar* const* names, GLenum mode) {
  STREAM_OR_RETURN();
  auto* packet =
      begin_TransformFeedbackVaryings(*s, program, count, mode, joined_size(count, names, nullptr));
  join(reinterpret_cast<char*>(packet) + padded(sizeof *packet), count, names, nullptr);
  s->commit();
}

void stub_GetUniformIndices(GLuint program, GLsizei count, const GLchar* const* names, GLuint* indices) {
  STREAM_OR_RETURN();
  auto* packet = begin_GetUniformIndices(*s, program, count, joined_size(count, names, nullptr));
  join(reinterpret_cast<char*>(packet) + padded(sizeof *packet), count, names, nullptr);
  s->ask().take(indices, bytes_of(static_cast<size_t>(count), sizeof(GLuint)));
}

// --- Lists

GLuint stub_GenLists(GLsizei range) {
  STREAM_OR_RETURN(0);
  if (range <= 0) return 0;
  const GLuint first = new_names(*s, kList, static_cast<uint32_t>(range));
  // There is an empty list of each name from now on.
  struct Request : PGenLists {
    GLuint first;
  };
  auto* packet = static_cast<Request*>(s->begin(kOpGenLists, sizeof(Request)));
  packet->range = range;
  packet->first = first;
  s->commit_small();
  return first;
}

void stub_NewList(GLuint list, GLenum mode) {
  STREAM_OR_RETURN();
  note_name(*s, kList, list);
  Context& c = context_of(*s);
  if (list != 0 && c.list_mode == 0 && !c.in_primitive &&
      (mode == GL_COMPILE || mode == GL_COMPILE_AND_EXECUTE)) {
    c.list_mode = mode;
    c.list = list;
  }
  begin_NewList(*s, list, mode);
  s->commit_small();
}

void stub_EndList() {
  STREAM_OR_RETURN();
  Context& c = context_of(*s);
  if (!c.in_primitive && c.list_mode != 0) {
    c.list_mode = 0;
    note_end_of_list(c);
  }
  begin_EndList(*s);
  s->commit_small();
}

void stub_Begin(GLenum mode) {
  STREAM_OR_RETURN();
  constexpr GLenum kLastMode = GL_TRIANGLE_STRIP_ADJACENCY;
  if (context_of(*s).list_mode != GL_COMPILE && mode <= kLastMode) context_of(*s).in_primitive = true;
  begin_Begin(*s, mode);
  s->commit_small();
}

void stub_End() {
  STREAM_OR_RETURN();
  context_of(*s).in_primitive = false;
  begin_End(*s);
  s->commit_small();
}

// What is in a list may begin or end a primitive; then errors within one are not found on this side.
void stub_CallList(GLuint list) {
  STREAM_OR_RETURN();
  if (context_of(*s).list_mode != GL_COMPILE) context_of(*s).in_primitive = false;
  begin_CallList(*s, list);
  s->commit_small();
  note_call_of_list(*s, list);
}
void stub_CallLists(GLsizei count, GLenum type, const void* lists) {
  STREAM_OR_RETURN();
  if (context_of(*s).list_mode != GL_COMPILE) context_of(*s).in_primitive = false;
  const size_t bytes = bytes_of(static_cast<size_t>(count), size_of_list_name(type));
  auto* packet = begin_CallLists(*s, count, type, bytes);
  put_payload(reinterpret_cast<char*>(packet) + padded(sizeof *packet), lists, bytes);
  s->commit();
  if (count > 0) note_call_of_lists(*s, static_cast<size_t>(count));
}

// --- Evaluators: the points of a map, without gaps

namespace {

template <typename T>
void gather_points(T* into, const T* from, GLint components, GLint u_stride, GLint u_order, GLint v_stride,
                   GLint v_order) {
  for (GLint u = 0; u < u_order; ++u) {
    for (GLint v = 0; v < v_order; ++v) {
      for (GLint i = 0; i < components; ++i) *into++ = from[u * u_stride + v * v_stride + i];
    }
  }
}

template <typename T, typename Begin>
void map1(GLenum target, GLint stride, GLint order, const T* points, Begin begin) {
  STREAM_OR_RETURN();
  const GLint n = components_of_map(target);
  const bool valid = is_order(order) && stride >= n && points != nullptr;
  const size_t bytes = valid ? static_cast<size_t>(order * n) * sizeof(T) : 0;
  auto* packet = begin(*s, valid ? n : stride, bytes);
  if (valid)
    gather_points(reinterpret_cast<T*>(reinterpret_cast<char*>(packet) + padded(sizeof *packet)), points, n,
                  stride, order, 0, 1);
  s->commit();
}

template <typename T, typename Begin>
void map2(GLenum target, GLint u_stride, GLint u_order, GLint v_stride, GLint v_order, const T* points,
          Begin begin) {
  STREAM_OR_RETURN();
  const GLint n = components_of_map(target);
  const bool valid =
      is_order(u_order) && is_order(v_order) && u_stride >= n && v_stride >= n && points != nullptr;
  const size_t bytes = valid ? static_cast<size_t>(u_order * v_order * n) * sizeof(T) : 0;
  auto* packet = begin(*s, valid ? v_order * n : u_stride, valid ? n : v_stride, bytes);
  if (valid)
    gather_points(reinterpret_cast<T*>(reinterpret_cast<char*>(packet) + padded(sizeof *packet)), points, n,
                  u_stride, u_order, v_stride, v_order);
  s->commit();
}

}  // namespace

void stub_Map1f(GLenum target, GLfloat u1, GLfloat u2, GLint stride, GLint order, const GLfloat* points) {
  map1(target, stride, order, points, [&](Stream& s, GLint dense, size_t bytes) {
    return begin_Map1f(s, target, u1, u2, dense, order, bytes);
  });
}
void stub_Map1d(GLenum target, GLdouble u1, GLdouble u2, GLint stride, GLint order, const GLdouble* points) {
  map1(target, stride, order, points, [&](Stream& s, GLint dense, size_t bytes) {
    return begin_Map1d(s, target, u1, u2, dense, order, bytes);
  });
}
void stub_Map2f(GLenum target, GLfloat u1, GLfloat u2, GLint us, GLint uo, GLfloat v1, GLfloat v2, GLint vs,
                GLint vo, const GLfloat* points) {
  map2(target, us, uo, vs, vo, points, [&](Stream& s, GLint u, GLint v, size_t bytes) {
    return begin_Map2f(s, target, u1, u2, u, uo, v1, v2, v, vo, bytes);
  });
}
void stub_Map2d(GLenum target, GLdouble u1, GLdouble u2, GLint us, GLint uo, GLdouble v1, GLdouble v2,
                GLint vs, GLint vo, const GLdouble* points) {
  map2(target, us, uo, vs, vo, points, [&](Stream& s, GLint u, GLint v, size_t bytes) {
    return begin_Map2d(s, target, u1, u2, u, uo, v1, v2, v, vo, bytes);
  });
}

// --- Sync objects: the program's are numbers that we choose

GLsync stub_FenceSync(GLenum condition, GLbitfield flags) {
  STREAM_OR_RETURN(nullptr);
  const uint64_t number = context_of(*s).share->next_sync.fetch_add(1) + 1;
  struct Request : PFenceSync {
    uint64_t number;
  };
  auto* packet = static_cast<Request*>(s->begin(kOpFenceSync, sizeof(Request)));
  packet->condition = condition;
  packet->flags = flags;
  packet->number = number << 4;
  s->commit_small();
  return reinterpret_cast<GLsync>(number << 4);
}

void stub_DeleteSync(GLsync sync) {
  STREAM_OR_RETURN();
  begin_DeleteSync(*s, sync);
  s->commit_small();
}

void stub_GetSynciv(GLsync sync, GLenum name, GLsizei size, GLsizei* length, GLint* values) {
  STREAM_OR_RETURN();
  begin_GetSynciv(*s, sync, name, size);
  Answer answer = s->ask();
  answer.take(length, sizeof *length);
  answer.take(values, bytes_of(static_cast<size_t>(size), sizeof(GLint)));
}

}  // namespace stasis::gl

#include "renderer/arrays.h"

#include <GL/glext.h>

#include <algorithm>
#include <iterator>

#include "generated/commands.h"
#include "renderer/renderer.h"
#include "wire/sizes.h"

namespace stasis::gl {

namespace {

const Functions& gl = Renderer::gl;

constexpr uint32_t bit(uint32_t kind) { return uint32_t{1} << kind; }

// The names under which the driver knows what OpenGL 1 has. 0: there is no such number, and only one value.
struct FixedArray {
  GLenum state, pointer, buffer, size, type, stride;
  GLint only_size;
};
constexpr FixedArray kFixed[] = {
    {GL_VERTEX_ARRAY, GL_VERTEX_ARRAY_POINTER, GL_VERTEX_ARRAY_BUFFER_BINDING, GL_VERTEX_ARRAY_SIZE,
     GL_VERTEX_ARRAY_TYPE, GL_VERTEX_ARRAY_STRIDE, 0},
    {GL_NORMAL_ARRAY, GL_NORMAL_ARRAY_POINTER, GL_NORMAL_ARRAY_BUFFER_BINDING, 0, GL_NORMAL_ARRAY_TYPE,
     GL_NORMAL_ARRAY_STRIDE, 3},
    {GL_COLOR_ARRAY, GL_COLOR_ARRAY_POINTER, GL_COLOR_ARRAY_BUFFER_BINDING, GL_COLOR_ARRAY_SIZE,
     GL_COLOR_ARRAY_TYPE, GL_COLOR_ARRAY_STRIDE, 0},
    {GL_SECONDARY_COLOR_ARRAY, GL_SECONDARY_COLOR_ARRAY_POINTER, GL_SECONDARY_COLOR_ARRAY_BUFFER_BINDING,
     GL_SECONDARY_COLOR_ARRAY_SIZE, GL_SECONDARY_COLOR_ARRAY_TYPE, GL_SECONDARY_COLOR_ARRAY_STRIDE, 0},
    {GL_FOG_COORD_ARRAY, GL_FOG_COORD_ARRAY_POINTER, GL_FOG_COORD_ARRAY_BUFFER_BINDING, 0,
     GL_FOG_COORD_ARRAY_TYPE, GL_FOG_COORD_ARRAY_STRIDE, 1},
    {GL_INDEX_ARRAY, GL_INDEX_ARRAY_POINTER, GL_INDEX_ARRAY_BUFFER_BINDING, 0, GL_INDEX_ARRAY_TYPE,
     GL_INDEX_ARRAY_STRIDE, 1},
    {GL_EDGE_FLAG_ARRAY, GL_EDGE_FLAG_ARRAY_POINTER, GL_EDGE_FLAG_ARRAY_BUFFER_BINDING, 0, 0,
     GL_EDGE_FLAG_ARRAY_STRIDE, 1},
    {GL_TEXTURE_COORD_ARRAY, GL_TEXTURE_COORD_ARRAY_POINTER, GL_TEXTURE_COORD_ARRAY_BUFFER_BINDING,
     GL_TEXTURE_COORD_ARRAY_SIZE, GL_TEXTURE_COORD_ARRAY_TYPE, GL_TEXTURE_COORD_ARRAY_STRIDE, 0},
};
static_assert(std::size(kFixed) == kTexCoordArray + 1);

const FixedArray& fixed(uint32_t kind) { return kFixed[std::min<uint32_t>(kind, kTexCoordArray)]; }

// Texture coordinates are those of the active unit: it is the one of `kind` while this lives.
class ActiveUnit {
 public:
  ActiveUnit(const VertexArrays& arrays, uint32_t kind)
      : before_(arrays.client_texture),
        changes_(kind >= kTexCoordArray && kind < kGenericArray && kind - kTexCoordArray != before_) {
    if (changes_) gl.ClientActiveTexture(GL_TEXTURE0 + kind - kTexCoordArray);
  }
  ~ActiveUnit() {
    if (changes_) gl.ClientActiveTexture(GL_TEXTURE0 + before_);
  }
  ActiveUnit(const ActiveUnit&) = delete;
  ActiveUnit& operator=(const ActiveUnit&) = delete;

 private:
  uint32_t before_;
  bool changes_;
};

GLint attribute(uint32_t kind, GLenum name) {
  GLint value = 0;
  gl.GetVertexAttribiv(kind - kGenericArray, name, &value);
  return value;
}

bool lies_in_buffer(const VertexArrays& arrays, uint32_t kind) {
  const ActiveUnit unit(arrays, kind);
  return kind >= kGenericArray ? attribute(kind, GL_VERTEX_ATTRIB_ARRAY_BUFFER_BINDING) > 0
                               : ask(fixed(kind).buffer) > 0;
}

void note_where_it_lies(VertexArrays& arrays, uint32_t kind) {
  if (lies_in_buffer(arrays, kind)) {
    arrays.now->in_buffer |= bit(kind);
  } else {
    arrays.now->in_buffer &= ~bit(kind);
  }
}

const void* pointer_of(const VertexArrays& arrays, uint32_t kind) {
  const ActiveUnit unit(arrays, kind);
  void* at = nullptr;
  if (kind >= kGenericArray) {
    gl.GetVertexAttribPointerv(kind - kGenericArray, GL_VERTEX_ATTRIB_ARRAY_POINTER, &at);
  } else {
    gl.GetPointerv(fixed(kind).pointer, &at);
  }
  return at;
}

void set_pointer(uint32_t kind, GLint size, GLenum type, uint8_t flags, GLsizei stride, const void* at) {
  switch (kind) {
    case kVertexArray:
      return gl.VertexPointer(size, type, stride, at);
    case kNormalArray:
      return gl.NormalPointer(type, stride, at);
    case kColorArray:
      return gl.ColorPointer(size, type, stride, at);
    case kSecondaryColorArray:
      return gl.SecondaryColorPointer(size, type, stride, at);
    case kFogCoordArray:
      return gl.FogCoordPointer(type, stride, at);
    case kIndexArray:
      return gl.IndexPointer(type, stride, at);
    case kEdgeFlagArray:
      return gl.EdgeFlagPointer(stride, at);
  }
  if (kind < kGenericArray) return gl.TexCoordPointer(size, type, stride, at);
  const GLuint index = kind - kGenericArray;
  if ((flags & kInteger) != 0) return gl.VertexAttribIPointer(index, size, type, stride, at);
  gl.VertexAttribPointer(index, size, type, (flags & kNormalized) != 0, stride, at);
}

bool become_zeros(Renderer& r, uint32_t kind) {
  VertexArrays& arrays = r.current->arrays;
  const GLint before = array_buffer(r);
  if (before < 0) return false;
  constexpr GLfloat kZeros[64] = {};
  const bool is_new = arrays.zeros == 0;
  if (is_new) gl.GenBuffers(1, &arrays.zeros);
  gl.BindBuffer(GL_ARRAY_BUFFER, arrays.zeros);
  if (is_new) gl.BufferData(GL_ARRAY_BUFFER, sizeof kZeros, kZeros, GL_STATIC_DRAW);
  const GLint size = kind == kNormalArray || kind == kSecondaryColorArray ? 3 : 4;
  {
    const ActiveUnit unit(arrays, kind);
    set_pointer(kind, size, GL_FLOAT, 0, 0, nullptr);
  }
  gl.BindBuffer(GL_ARRAY_BUFFER, static_cast<GLuint>(before));
  note_where_it_lies(arrays, kind);
  arrays.vertices_known = false;
  return (arrays.now->in_buffer & bit(kind)) != 0;
}

// How many elements of an array are in its buffer.
uint64_t elements_of(const VertexArrays& arrays, uint32_t kind) {
  GLint size = 0, type = GL_UNSIGNED_BYTE, stride = 0, buffer = 0;
  {
    const ActiveUnit unit(arrays, kind);
    if (kind >= kGenericArray) {
      size = attribute(kind, GL_VERTEX_ATTRIB_ARRAY_SIZE);
      type = attribute(kind, GL_VERTEX_ATTRIB_ARRAY_TYPE);
      stride = attribute(kind, GL_VERTEX_ATTRIB_ARRAY_STRIDE);
      buffer = attribute(kind, GL_VERTEX_ATTRIB_ARRAY_BUFFER_BINDING);
    } else {
      const FixedArray& names = fixed(kind);
      size = names.size != 0 ? ask(names.size) : names.only_size;
      if (names.type != 0) type = ask(names.type);
      stride = ask(names.stride);
      buffer = ask(names.buffer);
    }
  }
  const size_t element = element_size(size, static_cast<uint32_t>(type));
  if (buffer <= 0 || stride < 0 || element == 0) return 0;
  gl.BindBuffer(GL_ARRAY_BUFFER, static_cast<GLuint>(buffer));
  const size_t bytes = size_of_buffer(GL_ARRAY_BUFFER);
  const auto offset = reinterpret_cast<uint64_t>(pointer_of(arrays, kind));
  if (offset > bytes || element > bytes - offset) return 0;
  return (bytes - offset - element) / (stride != 0 ? static_cast<size_t>(stride) : element) + 1;
}

void count_vertices(Renderer& r) {
  VertexArrays& arrays = r.current->arrays;
  const uint64_t changes = r.current->share->buffer_changes.load();
  if (arrays.vertices_known && arrays.buffer_changes == changes) return;
  if (!is_outside(r)) throw BadStream{"its arrays were changed within a primitive"};
  const GLint before = array_buffer(r);
  arrays.vertices = ~uint64_t{0};
  for (uint32_t kind = 0; kind < kArrays; ++kind) {
    if ((arrays.now->enabled & arrays.now->in_buffer & bit(kind)) != 0)
      arrays.vertices = std::min(arrays.vertices, elements_of(arrays, kind));
  }
  gl.BindBuffer(GL_ARRAY_BUFFER, static_cast<GLuint>(before));
  arrays.vertices_known = true;
  arrays.buffer_changes = changes;
}

}  // namespace

bool is_outside(Renderer& r) {
  VertexArrays& arrays = r.current->arrays;
  if (arrays.maybe_inside) arrays.maybe_inside = ask(GL_ARRAY_BUFFER_BINDING) < 0;
  return !arrays.maybe_inside;
}

GLint array_buffer(Renderer& r) {
  GLint& known = r.current->arrays.array_buffer;
  if (known < 0) known = ask(GL_ARRAY_BUFFER_BINDING);
  return known;
}

GLint element_buffer(Renderer& r) {
  GLint& known = r.current->arrays.now->element_buffer;
  if (known < 0) known = ask(GL_ELEMENT_ARRAY_BUFFER_BINDING);
  return known;
}

bool have_memory(Renderer& r, uint32_t came_along) {
  const VertexArrays::Object& now = *r.current->arrays.now;
  uint32_t missing = now.enabled & ~now.in_buffer & ~came_along;
  bool found = true;
  for (; missing != 0; missing &= missing - 1)
    found = is_outside(r) && become_zeros(r, static_cast<uint32_t>(__builtin_ctz(missing))) && found;
  if (!found) raise_error(GL_INVALID_OPERATION);
  return found;
}

bool is_compiling(Renderer& r) {
  bool& maybe = r.current->arrays.maybe_compiling;
  // Negative: a name beyond 2^31, or no answer, within a primitive.
  if (maybe) maybe = ask(GL_LIST_INDEX) != 0;
  return maybe;
}

void require_vertices(Renderer& r, uint64_t count) {
  count_vertices(r);
  if (count > r.current->arrays.vertices)
    throw BadStream{"a vertex beyond the buffer of an array, which has " +
                    std::to_string(r.current->arrays.vertices)};
}

bool point_at(Renderer& r, const ClientArray& array, const void* at) {
  VertexArrays& arrays = r.current->arrays;
  const ActiveUnit unit(arrays, array.kind);
  set_pointer(array.kind, array.size == 255 ? GLint{GL_BGRA} : array.size, array.type, array.flags,
              array.stride, at);
  arrays.now->in_buffer &= ~bit(array.kind);
  // Types are numbers of 16 bits. What the driver has taken once it takes again; that it has not is seen by
  // the pointer that it keeps.
  const uint64_t form = uint64_t{array.size} << 56 | uint64_t{array.flags} << 48 |
                        uint64_t{array.type & 0xffff} << 32 | static_cast<uint32_t>(array.stride);
  uint64_t& accepted = arrays.now->accepted[array.kind];
  if (accepted == form) return true;
  if (pointer_of(arrays, array.kind) != at) return false;
  accepted = form;
  return true;
}

// --- Calls that change arrays

namespace {

template <typename P, typename Set>
void own_pointer(Renderer& r, const Packet& header, uint32_t kind, Set set) {
  const auto& p = view<P>(header);
  if (p.pointer_bytes != kOffset) throw BadStream{"an array in a packet that draws nothing"};
  if (kind >= kArrays) return raise_error(GL_INVALID_VALUE);
  if (!is_outside(r)) return raise_error(GL_INVALID_OPERATION);
  VertexArrays& arrays = r.current->arrays;
  const auto* at = reinterpret_cast<const void*>(p.pointer);
  arrays.vertices_known = false;
  set(p, at);
  // The driver may have refused it, and what was there before is there still.
  if (array_buffer(r) > 0 && (arrays.now->in_buffer & bit(kind)) != 0) return;
  note_where_it_lies(arrays, kind);
  if (at == nullptr || (arrays.now->in_buffer & bit(kind)) != 0 || pointer_of(arrays, kind) != at) return;
  set(p, nullptr);
  throw BadStream{"an array in memory that has not come with it"};
}

// kArrays, where there is none.
uint32_t generic(GLuint index) { return kGenericArray + std::min(index, VertexArrays::kGeneric); }

uint32_t kind_of(const VertexArrays& arrays, GLenum state) {
  for (uint32_t kind = 0; kind < kTexCoordArray; ++kind) {
    if (kFixed[kind].state == state) return kind;
  }
  if (state == GL_TEXTURE_COORD_ARRAY) return kTexCoordArray + arrays.client_texture;
  return kArrays;
}

// After the call.
void note_enabled(Renderer& r, uint32_t kind, bool on) {
  VertexArrays& arrays = r.current->arrays;
  if (kind >= kArrays || !is_outside(r)) return;
  arrays.vertices_known = false;
  if (!on) {
    arrays.now->enabled &= ~bit(kind);
  } else if ((arrays.now->enabled & bit(kind)) == 0) {
    const ActiveUnit unit(arrays, kind);
    if (kind < kGenericArray && !arrays.has_fixed) arrays.has_fixed = gl.IsEnabled(fixed(kind).state) != 0;
    if (kind >= kGenericArray || arrays.has_fixed) arrays.now->enabled |= bit(kind);
  }
}

}  // namespace

void own_VertexPointer(Renderer& r, const Packet& header) {
  own_pointer<PVertexPointer>(r, header, kVertexArray, [](const auto& p, const void* at) {
    gl.VertexPointer(p.size, p.type, p.stride, at);
  });
}
void own_NormalPointer(Renderer& r, const Packet& header) {
  own_pointer<PNormalPointer>(r, header, kNormalArray,
                              [](const auto& p, const void* at) { gl.NormalPointer(p.type, p.stride, at); });
}
void own_ColorPointer(Renderer& r, const Packet& header) {
  own_pointer<PColorPointer>(r, header, kColorArray, [](const auto& p, const void* at) {
    gl.ColorPointer(p.size, p.type, p.stride, at);
  });
}
void own_SecondaryColorPointer(Renderer& r, const Packet& header) {
  own_pointer<PSecondaryColorPointer>(r, header, kSecondaryColorArray, [](const auto& p, const void* at) {
    gl.SecondaryColorPointer(p.size, p.type, p.stride, at);
  });
}
void own_FogCoordPointer(Renderer& r, const Packet& header) {
  own_pointer<PFogCoordPointer>(r, header, kFogCoordArray, [](const auto& p, const void* at) {
    gl.FogCoordPointer(p.type, p.stride, at);
  });
}
void own_IndexPointer(Renderer& r, const Packet& header) {
  own_pointer<PIndexPointer>(r, header, kIndexArray,
                             [](const auto& p, const void* at) { gl.IndexPointer(p.type, p.stride, at); });
}
void own_EdgeFlagPointer(Renderer& r, const Packet& header) {
  own_pointer<PEdgeFlagPointer>(r, header, kEdgeFlagArray,
                                [](const auto& p, const void* at) { gl.EdgeFlagPointer(p.stride, at); });
}
void own_TexCoordPointer(Renderer& r, const Packet& header) {
  own_pointer<PTexCoordPointer>(
      r, header, kTexCoordArray + r.current->arrays.client_texture,
      [](const auto& p, const void* at) { gl.TexCoordPointer(p.size, p.type, p.stride, at); });
}
void own_VertexAttribPointer(Renderer& r, const Packet& header) {
  own_pointer<PVertexAttribPointer>(
      r, header, generic(view<PVertexAttribPointer>(header).index), [](const auto& p, const void* at) {
        gl.VertexAttribPointer(p.index, p.size, p.type, p.normalized, p.stride, at);
      });
}
void own_VertexAttribIPointer(Renderer& r, const Packet& header) {
  own_pointer<PVertexAttribIPointer>(
      r, header, generic(view<PVertexAttribIPointer>(header).index),
      [](const auto& p, const void* at) { gl.VertexAttribIPointer(p.index, p.size, p.type, p.stride, at); });
}

namespace {

void switch_state(Renderer& r, GLenum state, bool on, void (*call)(GLenum)) {
  call(state);
  note_enabled(r, kind_of(r.current->arrays, state), on);
}

}  // namespace

void own_EnableClientState(Renderer& r, const Packet& header) {
  switch_state(r, view<PEnableClientState>(header).array, true, gl.EnableClientState);
}
void own_DisableClientState(Renderer& r, const Packet& header) {
  switch_state(r, view<PDisableClientState>(header).array, false, gl.DisableClientState);
}
// Drivers take the names of arrays here, too.
void own_Enable(Renderer& r, const Packet& header) {
  switch_state(r, view<PEnable>(header).cap, true, gl.Enable);
}
void own_Disable(Renderer& r, const Packet& header) {
  switch_state(r, view<PDisable>(header).cap, false, gl.Disable);
}
void own_EnableVertexAttribArray(Renderer& r, const Packet& header) {
  const GLuint index = view<PEnableVertexAttribArray>(header).index;
  if (generic(index) == kArrays) return raise_error(GL_INVALID_VALUE);
  gl.EnableVertexAttribArray(index);
  note_enabled(r, generic(index), true);
}
void own_DisableVertexAttribArray(Renderer& r, const Packet& header) {
  const GLuint index = view<PDisableVertexAttribArray>(header).index;
  if (generic(index) == kArrays) return raise_error(GL_INVALID_VALUE);
  gl.DisableVertexAttribArray(index);
  note_enabled(r, generic(index), false);
}
void own_VertexAttribDivisor(Renderer& r, const Packet& header) {
  const auto& p = view<PVertexAttribDivisor>(header);
  if (generic(p.index) == kArrays) return raise_error(GL_INVALID_VALUE);
  gl.VertexAttribDivisor(p.index, p.divisor);
  if (is_outside(r))
    r.current->arrays.now->divisor[p.index] =
        static_cast<GLuint>(attribute(kGenericArray + p.index, GL_VERTEX_ATTRIB_ARRAY_DIVISOR));
}
void own_ClientActiveTexture(Renderer& r, const Packet& header) {
  const GLenum texture = view<PClientActiveTexture>(header).texture;
  if (!is_outside(r) || texture < GL_TEXTURE0 || texture - GL_TEXTURE0 >= kGenericArray - kTexCoordArray)
    return raise_error(is_outside(r) ? GL_INVALID_ENUM : GL_INVALID_OPERATION);
  gl.ClientActiveTexture(texture);
  r.current->arrays.client_texture = texture - GL_TEXTURE0;
}

void own_BindVertexArray(Renderer& r, const Packet& header) {
  const GLuint name = view<PBindVertexArray>(header).array;
  const GLuint real = r.names(kVertexArrayName).find(name, true);
  gl.BindVertexArray(real);
  VertexArrays& arrays = r.current->arrays;
  if (real == kNoName || !is_outside(r)) return;
  arrays.now = name == 0 ? &arrays.first : &arrays.objects[name];
  arrays.vertices_known = false;
}
void own_DeleteVertexArrays(Renderer& r, const Packet& header) {
  const auto& p = view<PDeleteVertexArrays>(header);
  Payload payload(header, sizeof p);
  const auto* names = payload.array<GLuint>(p.arrays_bytes, count_in(p.n) * sizeof(GLuint));
  auto real = r.names(kVertexArrayName).find_all(names, p.arrays_bytes);
  if (!is_outside(r)) return raise_error(GL_INVALID_OPERATION);
  gl.DeleteVertexArrays(p.n, real.data());
  r.names(kVertexArrayName).remove_all(names, p.arrays_bytes);
  VertexArrays& arrays = r.current->arrays;
  for (size_t i = 0; i < count_in(p.n); ++i) {
    const auto found = arrays.objects.find(names[i]);
    if (found == arrays.objects.end()) continue;
    if (arrays.now == &found->second) arrays.now = &arrays.first;
    arrays.objects.erase(found);
  }
  arrays.forget_buffers();
}

void own_BindBuffer(Renderer& r, const Packet& header) {
  const auto& p = view<PBindBuffer>(header);
  const GLuint real = r.names(kBuffer).find(p.buffer, true);
  gl.BindBuffer(p.target, real);
  if (p.target == GL_PIXEL_PACK_BUFFER || p.target == GL_PIXEL_UNPACK_BUFFER)
    r.current->uses_pixel_buffers = true;
  if (p.target != GL_ARRAY_BUFFER && p.target != GL_ELEMENT_ARRAY_BUFFER) return;
  VertexArrays& arrays = r.current->arrays;
  // Outside of primitives a driver binds each name that it has given.
  const GLint bound = real == kNoName || !is_outside(r) ? -1 : static_cast<GLint>(real);
  (p.target == GL_ARRAY_BUFFER ? arrays.array_buffer : arrays.now->element_buffer) = bound;
}
void own_DeleteBuffers(Renderer& r, const Packet& header) {
  const auto& p = view<PDeleteBuffers>(header);
  Payload payload(header, sizeof p);
  const auto* names = payload.array<GLuint>(p.buffers_bytes, count_in(p.n) * sizeof(GLuint));
  auto real = r.names(kBuffer).find_all(names, p.buffers_bytes);
  if (!is_outside(r)) return raise_error(GL_INVALID_OPERATION);
  gl.DeleteBuffers(p.n, real.data());
  r.names(kBuffer).remove_all(names, p.buffers_bytes);
  VertexArrays& arrays = r.current->arrays;
  arrays.forget_buffers();
  // Arrays of the object that is bound are in it no longer; those of others keep it.
  for (uint32_t kind = 0; kind < kArrays; ++kind) {
    if ((arrays.now->in_buffer & bit(kind)) != 0) note_where_it_lies(arrays, kind);
  }
}

}  // namespace stasis::gl

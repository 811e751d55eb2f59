// Calls whose decoder the rules cannot describe.
#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "generated/commands.h"
#include "renderer/renderer.h"
#include "wire/sizes.h"

namespace stasis::gl {

namespace {

// Texts one after the other, each with its end.
std::vector<const GLchar*> split(Payload& payload, uint32_t bytes, GLsizei count) {
  std::vector<const GLchar*> found;
  const auto* texts = payload.array<GLchar>(bytes, count_in(count));
  size_t at = 0;
  for (GLsizei i = 0; i < count; ++i) {
    const size_t length = at < bytes ? ::strnlen(texts + at, bytes - at) : bytes;
    if (at + length >= bytes) throw BadStream{"a text without an end"};
    found.push_back(texts + at);
    at += length + 1;
  }
  if (found.empty()) found.push_back(nullptr);
  return found;
}

}  // namespace

void own_GenLists(Renderer& r, const Packet& header) {
  struct Request : PGenLists {
    GLuint first;
  };
  const auto& p = view<Request>(header);
  constexpr GLsizei kMost = 1 << 20;
  if (p.range < 0 || p.range > kMost) throw BadStream{"too many lists"};
  for (GLsizei i = 0; i < p.range; ++i) {
    r.gl.NewList(p.first + static_cast<GLuint>(i), GL_COMPILE);
    r.gl.EndList();
  }
}

void own_CallLists(Renderer& r, const Packet& header) {
  const auto& p = view<PCallLists>(header);
  Payload payload(header, sizeof p);
  const void* lists = payload.bytes(p.lists_bytes, count_in(p.n) * size_of_list_name(p.type));
  r.gl.CallLists(p.n, p.type, lists);
  r.current->arrays.maybe_inside = true;
}
void own_CallList(Renderer& r, const Packet& header) {
  r.gl.CallList(view<PCallList>(header).list);
  r.current->arrays.maybe_inside = true;
}

void own_NewList(Renderer& r, const Packet& header) {
  const auto& p = view<PNewList>(header);
  r.gl.NewList(p.list, p.mode);
  r.current->arrays.maybe_compiling = true;
}

void own_DeleteShader(Renderer& r, const Packet& header) {
  r.gl.DeleteShader(r.names(kProgram).find(view<PDeleteShader>(header).shader, false));
}
void own_DeleteProgram(Renderer& r, const Packet& header) {
  r.gl.DeleteProgram(r.names(kProgram).find(view<PDeleteProgram>(header).program, false));
}

namespace {

// A query that is begun anew forgets what another driver has counted.
void forget_result(Share& share, GLuint name) {
  std::lock_guard lock(share.mutex);
  share.results.erase(name);
}

}  // namespace

void own_BeginQuery(Renderer& r, const Packet& header) {
  const auto& p = view<PBeginQuery>(header);
  forget_result(*r.current->share, p.id);
  r.gl.BeginQuery(p.target, r.names(kQuery).find(p.id, true));
}
void own_QueryCounter(Renderer& r, const Packet& header) {
  const auto& p = view<PQueryCounter>(header);
  forget_result(*r.current->share, p.id);
  r.gl.QueryCounter(r.names(kQuery).find(p.id, true), p.target);
}

namespace {

// Throws unless so many points are there. What is no map is the driver's to say.
template <typename T>
const T* points_of(Payload& payload, uint32_t bytes, GLenum target, GLint stride, GLint order,
                   GLint v_stride = 0, GLint v_order = 1) {
  if (!is_order(order) || !is_order(v_order) || stride < 0 || v_stride < 0) return payload.array<T>(bytes, 0);
  const size_t last = static_cast<size_t>(order - 1) * static_cast<size_t>(stride) +
                      static_cast<size_t>(v_order - 1) * static_cast<size_t>(v_stride);
  return payload.array<T>(bytes, (last + static_cast<size_t>(components_of_map(target))) * sizeof(T));
}

template <typename P, typename T>
void map1(const Packet& header, void (*call)(GLenum, T, T, GLint, GLint, const T*)) {
  const auto& p = view<P>(header);
  Payload payload(header, sizeof p);
  if (p.points_bytes == 0) return call(p.target, p.u1, p.u2, 0, 0, nullptr);  // an error, as it was
  call(p.target, p.u1, p.u2, p.stride, p.order,
       points_of<T>(payload, p.points_bytes, p.target, p.stride, p.order));
}
template <typename P, typename T>
void map2(const Packet& header, void (*call)(GLenum, T, T, GLint, GLint, T, T, GLint, GLint, const T*)) {
  const auto& p = view<P>(header);
  Payload payload(header, sizeof p);
  if (p.points_bytes == 0) return call(p.target, p.u1, p.u2, 0, 0, p.v1, p.v2, 0, 0, nullptr);
  call(p.target, p.u1, p.u2, p.ustride, p.uorder, p.v1, p.v2, p.vstride, p.vorder,
       points_of<T>(payload, p.points_bytes, p.target, p.ustride, p.uorder, p.vstride, p.vorder));
}

}  // namespace

void own_Map1f(Renderer& r, const Packet& header) { map1<PMap1f, GLfloat>(header, r.gl.Map1f); }
void own_Map1d(Renderer& r, const Packet& header) { map1<PMap1d, GLdouble>(header, r.gl.Map1d); }
void own_Map2f(Renderer& r, const Packet& header) { map2<PMap2f, GLfloat>(header, r.gl.Map2f); }
void own_Map2d(Renderer& r, const Packet& header) { map2<PMap2d, GLdouble>(header, r.gl.Map2d); }

namespace {

template <typename P, typename T>
void get_query_object(Renderer& r, const Packet& header, void (*ask)(GLuint, GLenum, T*)) {
  const auto& p = view<P>(header);
  const GLuint name = r.names(kQuery).find(p.id, false);
  const std::optional<GLuint64> known = r.current->share->result_of(p.id);
  r.answer_outputs(header, {sizeof(T)}, [&](void* const* out) {
    auto* value = static_cast<T*>(out[0]);
    if (!known || (p.pname != GL_QUERY_RESULT && p.pname != GL_QUERY_RESULT_AVAILABLE)) {
      ask(name, p.pname, value);
    } else {
      const GLuint64 most = std::numeric_limits<T>::max();
      *value = static_cast<T>(p.pname == GL_QUERY_RESULT ? std::min(*known, most) : GLuint64{1});
    }
    return uint64_t{0};
  });
}

}  // namespace

void own_GetQueryObjectiv(Renderer& r, const Packet& header) {
  get_query_object<PGetQueryObjectiv>(r, header, r.gl.GetQueryObjectiv);
}
void own_GetQueryObjectuiv(Renderer& r, const Packet& header) {
  get_query_object<PGetQueryObjectuiv>(r, header, r.gl.GetQueryObjectuiv);
}
void own_GetQueryObjecti64v(Renderer& r, const Packet& header) {
  get_query_object<PGetQueryObjecti64v>(r, header, r.gl.GetQueryObjecti64v);
}
void own_GetQueryObjectui64v(Renderer& r, const Packet& header) {
  get_query_object<PGetQueryObjectui64v>(r, header, r.gl.GetQueryObjectui64v);
}

void own_GetProgramStringARB(Renderer& r, const Packet& header) {
  const auto& p = view<PGetProgramStringARB>(header);
  GLint length = 0;
  r.gl.GetProgramivARB(p.target, 0x8627 /* GL_PROGRAM_LENGTH_ARB */, &length);
  r.answer_outputs(header, {static_cast<size_t>(std::max(length, 0))}, [&](void* const* o) {
    r.gl.GetProgramStringARB(p.target, p.pname, o[0]);
    return uint64_t{0};
  });
}

void own_FenceSync(Renderer& r, const Packet& header) {
  struct Request : PFenceSync {
    uint64_t number;
  };
  const auto& p = view<Request>(header);
  GLsync made = r.gl.FenceSync(p.condition, p.flags);
  std::lock_guard lock(r.current->share->mutex);
  r.current->share->syncs[p.number] = made;
}
void own_DeleteSync(Renderer& r, const Packet& header) {
  const auto& p = view<PDeleteSync>(header);
  GLsync sync = r.syncs.find(p.sync);
  if (sync == nullptr && p.sync != 0) return raise_error(GL_INVALID_VALUE);
  r.gl.DeleteSync(sync);
  std::lock_guard lock(r.current->share->mutex);
  r.current->share->syncs.erase(p.sync);
}
void own_GetSynciv(Renderer& r, const Packet& header) {
  const auto& p = view<PGetSynciv>(header);
  r.answer_outputs(header, {sizeof(GLsizei), kAnyOutput}, [&](void* const* o) {
    r.gl.GetSynciv(r.syncs.find(p.sync), p.pname, std::min(p.count, 64), static_cast<GLsizei*>(o[0]),
                   static_cast<GLint*>(o[1]));
    return uint64_t{0};
  });
}

// What failed on the program's side fails here, for the error that it leaves.
void own_MapBuffer(Renderer& r, const Packet& header) {
  const auto& p = view<PMapBuffer>(header);
  if (r.gl.MapBuffer(p.target, p.access) != nullptr) r.gl.UnmapBuffer(p.target);
}
void own_MapBufferRange(Renderer& r, const Packet& header) {
  const auto& p = view<PMapBufferRange>(header);
  if (!is_range(p.offset, p.length)) return;
  if (r.gl.MapBufferRange(p.target, p.offset, p.length, p.access) != nullptr) r.gl.UnmapBuffer(p.target);
}
void own_UnmapBuffer(Renderer& r, const Packet& header) {
  r.gl.UnmapBuffer(view<PUnmapBuffer>(header).target);
}

void own_ShaderSource(Renderer& r, const Packet& header) {
  const auto& p = view<PShaderSource>(header);
  Payload payload(header, sizeof p);
  const char* text = payload.array<char>(p.string_bytes, 1);
  const auto length = static_cast<GLint>(p.string_bytes - 1);
  r.gl.ShaderSource(r.names(kProgram).find(p.shader, false), 1, &text, &length);
}
void own_TransformFeedbackVaryings(Renderer& r, const Packet& header) {
  const auto& p = view<PTransformFeedbackVaryings>(header);
  Payload payload(header, sizeof p);
  auto names = split(payload, p.varyings_bytes, p.count);
  r.gl.TransformFeedbackVaryings(r.names(kProgram).find(p.program, false), p.count, names.data(),
                                 p.bufferMode);
}
void own_GetUniformIndices(Renderer& r, const Packet& header) {
  const auto& p = view<PGetUniformIndices>(header);
  Payload payload(header, sizeof p);
  auto names = split(payload, p.uniformNames_bytes, p.uniformCount);
  r.answer_outputs(header, {names.size() * sizeof(GLuint)}, [&](void* const* o) {
    r.gl.GetUniformIndices(r.names(kProgram).find(p.program, false), p.uniformCount, names.data(),
                           static_cast<GLuint*>(o[0]));
    return uint64_t{0};
  });
}

namespace {

bool is_of_pixel_store(GLenum name) {
  return (name >= GL_UNPACK_SWAP_BYTES && name <= GL_UNPACK_ALIGNMENT) ||
         (name >= GL_PACK_SWAP_BYTES && name <= GL_PACK_ALIGNMENT) ||
         (name >= GL_PACK_SKIP_IMAGES && name <= GL_UNPACK_IMAGE_HEIGHT) || name == GL_PACK_INVERT_MESA;
}

// Of the pixel store, but not in OpenGL ES.
bool is_of_desktop(GLenum name) {
  switch (name) {
    case GL_UNPACK_SWAP_BYTES:
    case GL_UNPACK_LSB_FIRST:
    case GL_PACK_SWAP_BYTES:
    case GL_PACK_LSB_FIRST:
    case GL_PACK_IMAGE_HEIGHT:
    case GL_PACK_SKIP_IMAGES:
      return true;
  }
  return false;
}

}  // namespace

void own_PixelStorei(Renderer& r, const Packet& header) {
  const auto& p = view<PPixelStorei>(header);
  // Others would change what the driver reads of an image behind our back.
  if (!is_of_pixel_store(p.pname)) return raise_error(GL_INVALID_ENUM);
  r.gl.PixelStorei(p.pname, p.param);  // for its errors
  if (r.current->is_es && is_of_desktop(p.pname)) return;
  r.current->pixel_store[p.pname] = p.param;
  r.current->unpacking = RenderContext::kUnknown;
}

void own_BufferData(Renderer& r, const Packet& header) {
  const auto& p = view<PBufferData>(header);
  Payload payload(header, sizeof p);
  const void* data = p.data_bytes == kNull ? nullptr : payload.bytes(p.data_bytes, count_in(p.size));
  r.gl.BufferData(p.target, p.size, data, p.usage);
  ++r.current->share->buffer_changes;
}
void own_BufferSubData(Renderer& r, const Packet& header) {
  const auto& p = view<PBufferSubData>(header);
  Payload payload(header, sizeof p);
  const void* data = payload.bytes(p.data_bytes, count_in(p.size));
  if (is_range(p.offset, p.size)) r.gl.BufferSubData(p.target, p.offset, p.size, data);
}
void own_CopyBufferSubData(Renderer& r, const Packet& header) {
  const auto& p = view<PCopyBufferSubData>(header);
  if (is_range(p.readOffset, p.size) && is_range(p.writeOffset, p.size))
    r.gl.CopyBufferSubData(p.readTarget, p.writeTarget, p.readOffset, p.writeOffset, p.size);
}

// OpenGL ES has mappings only.
void own_GetBufferSubData(Renderer& r, const Packet& header) {
  const auto& p = view<PGetBufferSubData>(header);
  const size_t size = count_in(p.size);
  if (!is_range(p.offset, p.size))
    return r.answer_outputs(header, {0}, [](void* const*) { return uint64_t{0}; });
  r.answer_outputs(header, {size}, [&](void* const* out) {
    if (!r.current->is_es) {
      r.gl.GetBufferSubData(p.target, p.offset, p.size, out[0]);
    } else if (const void* mapped = r.gl.MapBufferRange(p.target, p.offset, p.size, GL_MAP_READ_BIT)) {
      std::memcpy(out[0], mapped, size);
      r.gl.UnmapBuffer(p.target);
    }
    return uint64_t{0};
  });
}

void own_Finish(Renderer& r, const Packet& header) {
  r.gl.Finish();
  r.answer_result(header, 0);
}

void own_GetError(Renderer& r, const Packet& header) {
  const GLenum pending = std::exchange(r.current->pending_error, GLenum{GL_NO_ERROR});
  r.answer_result(header, pending != GL_NO_ERROR ? pending : r.gl.GetError());
}

void own_GetString(Renderer& r, const Packet& header) {
  const auto name = view<PGetString>(header).name;
  const auto* text = reinterpret_cast<const char*>(r.gl.GetString(name));
  std::string joined;
  if (text == nullptr && name == GL_EXTENSIONS) {  // a core context has them one by one only
    (void)r.gl.GetError();
    GLint count = 0;
    r.gl.GetIntegerv(GL_NUM_EXTENSIONS, &count);
    for (GLint i = 0; i < count; ++i)
      joined += reinterpret_cast<const char*>(r.gl.GetStringi(GL_EXTENSIONS, static_cast<GLuint>(i))) +
                std::string(" ");
    text = joined.c_str();
  }
  r.answer_bytes(header, text, text == nullptr ? 0 : std::strlen(text));
}

namespace {

// A driver that does not take the new memory goes on with the one before.
template <typename T, typename Use>
void exchange(std::vector<T>& kept, GLsizei size, GLenum pointer_name, Use use) {
  constexpr GLsizei kMost = 1 << 22;
  if (size > kMost) throw BadStream{"room for " + std::to_string(size) + " values"};
  std::vector<T> made(count_in(size) + 1);  // never at no address
  use(made.data());
  void* at = nullptr;
  Renderer::gl.GetPointerv(pointer_name, &at);
  if (at == made.data()) kept = std::move(made);
}

template <typename T>
size_t bytes_in(const std::vector<T>& kept) {
  return kept.empty() ? 0 : (kept.size() - 1) * sizeof(T);
}

}  // namespace

void own_FeedbackBuffer(Renderer& r, const Packet& header) {
  const auto& p = view<PFeedbackBuffer>(header);
  exchange(r.current->feedback, p.size, GL_FEEDBACK_BUFFER_POINTER,
           [&](GLfloat* at) { r.gl.FeedbackBuffer(p.size, p.type, at); });
}
void own_SelectBuffer(Renderer& r, const Packet& header) {
  const auto& p = view<PSelectBuffer>(header);
  exchange(r.current->selection, p.size, GL_SELECTION_BUFFER_POINTER,
           [&](GLuint* at) { r.gl.SelectBuffer(p.size, at); });
}
void own_RenderMode(Renderer& r, const Packet& header) {
  const uint64_t result = static_cast<uint32_t>(r.gl.RenderMode(view<PRenderMode>(header).mode));
  const size_t feedback = bytes_in(r.current->feedback);
  const size_t selection = bytes_in(r.current->selection);
  char* room = r.answer_room(32 + feedback + selection);
  char* at = room;
  auto put = [&](const void* from, size_t size) {
    std::memcpy(at, from, size);
    at += (size + 7) & ~size_t{7};
  };
  put(&result, 8);
  const uint64_t sizes[] = {feedback, selection};
  put(&sizes[0], 8);
  if (feedback != 0) put(r.current->feedback.data(), feedback);
  put(&sizes[1], 8);
  if (selection != 0) put(r.current->selection.data(), selection);
  r.send_answer(header, static_cast<size_t>(at - room));
}

}  // namespace stasis::gl

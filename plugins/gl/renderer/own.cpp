// Calls whose decoder the rules cannot describe.
#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "generated/commands.h"
#include "renderer/renderer.h"

namespace stasis::gl {

namespace {

// Texts one after the other, each with its end.
std::vector<const GLchar*> split(const char* texts, uint32_t bytes, GLsizei count) {
  std::vector<const GLchar*> found;
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
  const void* lists = payload.bytes(p.lists_bytes);
  const size_t size = size_of_list_name(p.type);
  if (p.n > 0 && size != 0)
    Payload::require(lists != nullptr && static_cast<size_t>(p.n) <= p.lists_bytes / size);
  r.gl.CallLists(p.n, p.type, lists);
}

void own_DeleteShader(Renderer& r, const Packet& header) {
  r.gl.DeleteShader(r.names(kProgram).find(view<PDeleteShader>(header).shader, false));
}
void own_DeleteProgram(Renderer& r, const Packet& header) {
  r.gl.DeleteProgram(r.names(kProgram).find(view<PDeleteProgram>(header).program, false));
}

// A query that is begun anew forgets what another driver has counted.
void own_BeginQuery(Renderer& r, const Packet& header) {
  const auto& p = view<PBeginQuery>(header);
  r.current->share->results.erase(p.id);
  r.gl.BeginQuery(p.target, r.names(kQuery).find(p.id, true));
}
void own_QueryCounter(Renderer& r, const Packet& header) {
  const auto& p = view<PQueryCounter>(header);
  r.current->share->results.erase(p.id);
  r.gl.QueryCounter(r.names(kQuery).find(p.id, true), p.target);
}

namespace {

template <typename P, typename T>
void get_query_object(Renderer& r, const Packet& header, void (*ask)(GLuint, GLenum, T*)) {
  const auto& p = view<P>(header);
  const GLuint name = r.names(kQuery).find(p.id, false);
  const auto& results = r.current->share->results;
  const auto known = results.find(p.id);
  r.answer_outputs(header, {sizeof(T)}, [&](void* const* out) {
    auto* value = static_cast<T*>(out[0]);
    if (known == results.end() || (p.pname != GL_QUERY_RESULT && p.pname != GL_QUERY_RESULT_AVAILABLE)) {
      ask(name, p.pname, value);
    } else {
      const GLuint64 most = std::numeric_limits<T>::max();
      *value = static_cast<T>(p.pname == GL_QUERY_RESULT ? std::min(known->second, most) : GLuint64{1});
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
  if (r.gl.MapBufferRange(p.target, p.offset, p.length, p.access) != nullptr) r.gl.UnmapBuffer(p.target);
}
void own_UnmapBuffer(Renderer& r, const Packet& header) {
  r.gl.UnmapBuffer(view<PUnmapBuffer>(header).target);
}

void own_ShaderSource(Renderer& r, const Packet& header) {
  const auto& p = view<PShaderSource>(header);
  Payload payload(header, sizeof p);
  const auto* text = payload.array<GLchar>(p.string_bytes);
  if (text == nullptr || p.string_bytes == 0) throw BadStream{"no source"};
  const auto length = static_cast<GLint>(p.string_bytes - 1);
  r.gl.ShaderSource(r.names(kProgram).find(p.shader, false), 1, &text, &length);
}
void own_TransformFeedbackVaryings(Renderer& r, const Packet& header) {
  const auto& p = view<PTransformFeedbackVaryings>(header);
  Payload payload(header, sizeof p);
  auto names = split(payload.array<GLchar>(p.varyings_bytes), p.varyings_bytes, p.count);
  r.gl.TransformFeedbackVaryings(r.names(kProgram).find(p.program, false), p.count, names.data(),
                                 p.bufferMode);
}
void own_GetUniformIndices(Renderer& r, const Packet& header) {
  const auto& p = view<PGetUniformIndices>(header);
  Payload payload(header, sizeof p);
  auto names = split(payload.array<GLchar>(p.uniformNames_bytes), p.uniformNames_bytes, p.uniformCount);
  r.answer_outputs(header, {names.size() * sizeof(GLuint)}, [&](void* const* o) {
    r.gl.GetUniformIndices(r.names(kProgram).find(p.program, false), p.uniformCount, names.data(),
                           static_cast<GLuint*>(o[0]));
    return uint64_t{0};
  });
}

namespace {

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
  r.gl.PixelStorei(p.pname, p.param);  // for its errors
  if (r.current->is_es && is_of_desktop(p.pname)) return;
  r.current->pixel_store[p.pname] = p.param;
  r.current->unpacking = RenderContext::kUnknown;
}

// OpenGL ES has mappings only.
void own_GetBufferSubData(Renderer& r, const Packet& header) {
  const auto& p = view<PGetBufferSubData>(header);
  const auto size = static_cast<size_t>(std::max<GLsizeiptr>(p.size, 0));
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

void own_FeedbackBuffer(Renderer& r, const Packet& header) {
  const auto& p = view<PFeedbackBuffer>(header);
  constexpr GLsizei kMost = 1 << 22;
  if (p.size > kMost) throw BadStream{"a feedback buffer is too large"};
  r.current->feedback.assign(static_cast<size_t>(std::max(p.size, 0)), 0.0F);
  r.gl.FeedbackBuffer(p.size, p.type, r.current->feedback.data());
}
void own_SelectBuffer(Renderer& r, const Packet& header) {
  const auto& p = view<PSelectBuffer>(header);
  constexpr GLsizei kMost = 1 << 22;
  if (p.size > kMost) throw BadStream{"a selection buffer is too large"};
  r.current->selection.assign(static_cast<size_t>(std::max(p.size, 0)), 0U);
  r.gl.SelectBuffer(p.size, r.current->selection.data());
}
void own_RenderMode(Renderer& r, const Packet& header) {
  const uint64_t result = static_cast<uint32_t>(r.gl.RenderMode(view<PRenderMode>(header).mode));
  const size_t feedback = r.current->feedback.size() * sizeof(GLfloat);
  const size_t selection = r.current->selection.size() * sizeof(GLuint);
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

// --- Draws whose arrays are in the packet

namespace {

void point_at(Renderer& r, const ClientArray& array, const void* at) {
  const auto& gl = r.gl;
  const GLint size = array.size == 255 ? GL_BGRA : array.size;
  switch (array.kind) {
    case kVertexArray:
      return gl.VertexPointer(size, array.type, array.stride, at);
    case kNormalArray:
      return gl.NormalPointer(array.type, array.stride, at);
    case kColorArray:
      return gl.ColorPointer(size, array.type, array.stride, at);
    case kSecondaryColorArray:
      return gl.SecondaryColorPointer(size, array.type, array.stride, at);
    case kFogCoordArray:
      return gl.FogCoordPointer(array.type, array.stride, at);
    case kIndexArray:
      return gl.IndexPointer(array.type, array.stride, at);
    case kEdgeFlagArray:
      return gl.EdgeFlagPointer(array.stride, at);
  }
  if (array.kind < kGenericArray) {
    gl.ClientActiveTexture(GL_TEXTURE0 + array.kind - kTexCoordArray);
    return gl.TexCoordPointer(size, array.type, array.stride, at);
  }
  const GLuint index = array.kind - kGenericArray;
  if (index >= kArrays - kGenericArray) throw BadStream{"an unknown array"};
  if ((array.flags & kInteger) != 0)
    return gl.VertexAttribIPointer(index, size, array.type, array.stride, at);
  gl.VertexAttribPointer(index, size, array.type, (array.flags & kNormalized) != 0, array.stride, at);
}

}  // namespace

void draw_client(Renderer& r, const Packet& packet) {
  const auto& p = view<DrawClient>(packet);
  const auto& gl = r.gl;
  const char* base = reinterpret_cast<const char*>(&packet);
  if (p.arrays > kArrays || sizeof p + p.arrays * sizeof(ClientArray) > packet.size)
    throw BadStream{"too many arrays"};
  const auto* arrays = reinterpret_cast<const ClientArray*>(&p + 1);
  const bool unbinds = p.array_buffer != 0 && p.arrays != 0;
  if (unbinds) gl.BindBuffer(GL_ARRAY_BUFFER, 0);
  bool textures = false;
  for (uint32_t i = 0; i < p.arrays; ++i) {
    textures |= arrays[i].kind >= kTexCoordArray && arrays[i].kind < kGenericArray;
    point_at(r, arrays[i], base + arrays[i].offset);
  }
  if (textures) gl.ClientActiveTexture(GL_TEXTURE0 + p.client_texture);
  if (unbinds) gl.BindBuffer(GL_ARRAY_BUFFER, r.names(kBuffer).find(p.array_buffer, false));
  const void* indices = reinterpret_cast<const void*>(p.index_offset);
  if (p.index_bytes != kOffset) {
    if (p.index_offset > packet.size || p.index_bytes > packet.size - p.index_offset)
      throw BadStream{"indices beyond the packet"};
    indices = base + p.index_offset;
  }
  const auto count = static_cast<GLsizei>(p.count);
  switch (p.command) {
    case kOpDrawArrays:
      return gl.DrawArrays(p.mode, p.first, count);
    case kOpDrawArraysInstanced:
      return gl.DrawArraysInstanced(p.mode, p.first, count, static_cast<GLsizei>(p.instances));
    case kOpDrawElements:
      if (p.end != ~0U) return gl.DrawRangeElements(p.mode, p.start, p.end, count, p.index_type, indices);
      return gl.DrawElements(p.mode, count, p.index_type, indices);
    case kOpDrawElementsInstanced:
      return gl.DrawElementsInstanced(p.mode, count, p.index_type, indices,
                                      static_cast<GLsizei>(p.instances));
    case kOpDrawElementsBaseVertex:
      return gl.DrawElementsBaseVertex(p.mode, count, p.index_type, indices, p.base_vertex);
    case kOpDrawElementsInstancedBaseVertex:
      return gl.DrawElementsInstancedBaseVertex(p.mode, count, p.index_type, indices,
                                                static_cast<GLsizei>(p.instances), p.base_vertex);
    case kOpArrayElement:
      return gl.ArrayElement(p.first);
  }
  throw BadStream{"an unknown draw"};
}

}  // namespace stasis::gl

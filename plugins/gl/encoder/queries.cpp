// What is answered on the program's side, and questions whose answers need a hand.
#include <cstdio>
#include <cstdlib>

#include "encoder/program.h"
#include "generated/packets.h"

namespace stasis::gl {

void* find_exported(const char* name) {
  size_t low = 0, high = kExportedCount;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    const int order = strcmp(name, kExported[middle].name);
    if (order == 0) return kExported[middle].function;
    if (order < 0) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return nullptr;
}

// --- Texts

namespace {

// What the driver says of its version, but not more than what is recorded.
char* limited_version(const char* said, const char* prefix, int major, int minor) {
  const size_t skip = strlen(prefix);
  int its_major = 0, its_minor = 0;
  if (strncmp(said, prefix, skip) != 0 || sscanf(said + skip, "%d.%d", &its_major, &its_minor) != 2)
    return strdup(said);
  const char* rest = said + skip + strspn(said + skip, "0123456789.");
  if (its_major < major || (its_major == major && its_minor <= minor)) return strdup(said);
  char* text = nullptr;
  if (asprintf(&text, strstr(said, "GLSL") != nullptr || minor >= 10 ? "%s%d.%02d%s" : "%s%d.%d%s", prefix,
               major, minor, rest) < 0)
    return nullptr;
  return text;
}

void add_extension(Context& c, const char* name, size_t length) {
  for (size_t i = 0; i < kExtensionCount; ++i) {
    if (strlen(kExtensions[i]) != length || strncmp(kExtensions[i], name, length) != 0) continue;
    c.extensions = static_cast<char**>(
        realloc(c.extensions, static_cast<size_t>(c.extension_count + 1) * sizeof(char*)));
    c.extensions[c.extension_count++] = strndup(name, length);
    return;
  }
}

// Those of the driver of which we know every command.
char* limited_extensions(Context& c, const char* said) {
  for (const char* at = said; *at != '\0';) {
    const size_t length = strcspn(at, " ");
    add_extension(c, at, length);
    at += length + strspn(at + length, " ");
  }
  size_t total = 1;
  for (int i = 0; i < c.extension_count; ++i) total += strlen(c.extensions[i]) + 1;
  char* text = static_cast<char*>(zeroed(total));
  for (int i = 0; i < c.extension_count; ++i) {
    strcat(text, c.extensions[i]);
    strcat(text, " ");
  }
  return text;
}

char* ask_for_text(Stream& s, GLenum name) {
  begin_GetString(s, name);
  size_t size = 0;
  const char* text = s.ask().next(size);
  return size == 0 ? nullptr : strndup(text, size);
}

char* text_of(Stream& s, GLenum name) {
  char* said = ask_for_text(s, name);
  if (said == nullptr) return nullptr;
  char* text = said;
  Context& c = context_of(s);
  if (name == GL_EXTENSIONS) {
    text = limited_extensions(c, said);
  } else if (name == GL_VERSION) {
    text = c.is_es ? limited_version(said, "OpenGL ES ", 3, 0) : limited_version(said, "", 3, 3);
  } else if (name == GL_SHADING_LANGUAGE_VERSION) {
    text = c.is_es ? limited_version(said, "OpenGL ES GLSL ES ", 3, 0) : limited_version(said, "", 3, 30);
  }
  if (text != said) free(said);
  return text;
}

}  // namespace

const char* context_text(Stream& s, uint32_t name) {
  Context& c = context_of(s);
  for (Text& one : c.texts) {
    if (one.name == name) return one.text;
    if (one.name != 0) continue;
    char* text = text_of(s, name);
    if (text == nullptr) return nullptr;
    one = {name, text};
    return text;
  }
  return nullptr;
}

const GLubyte* stub_GetString(GLenum name) {
  STREAM_OR_RETURN(nullptr);
  if (context_of(*s).in_primitive) {
    raise(*s, GL_INVALID_OPERATION);
    return nullptr;
  }
  return reinterpret_cast<const GLubyte*>(context_text(*s, name));
}

const GLubyte* stub_GetStringi(GLenum name, GLuint index) {
  STREAM_OR_RETURN(nullptr);
  Context& c = context_of(*s);
  (void)context_text(*s, GL_EXTENSIONS);
  if (name != GL_EXTENSIONS || index >= static_cast<GLuint>(c.extension_count)) {
    raise(*s, name != GL_EXTENSIONS ? GL_INVALID_ENUM : GL_INVALID_VALUE);
    return nullptr;
  }
  return reinterpret_cast<const GLubyte*>(c.extensions[index]);
}

// --- Numbers

namespace {

bool is_limit(GLenum name) {
  switch (name) {
    case GL_MAX_TEXTURE_SIZE:
    case GL_MAX_3D_TEXTURE_SIZE:
    case GL_MAX_CUBE_MAP_TEXTURE_SIZE:
    case GL_MAX_TEXTURE_UNITS:
    case GL_MAX_TEXTURE_COORDS:
    case GL_MAX_TEXTURE_IMAGE_UNITS:
    case GL_MAX_COMBINED_TEXTURE_IMAGE_UNITS:
    case GL_MAX_VERTEX_TEXTURE_IMAGE_UNITS:
    case GL_MAX_VERTEX_ATTRIBS:
    case GL_MAX_VERTEX_UNIFORM_COMPONENTS:
    case GL_MAX_FRAGMENT_UNIFORM_COMPONENTS:
    case GL_MAX_VARYING_FLOATS:
    case GL_MAX_DRAW_BUFFERS:
    case GL_MAX_COLOR_ATTACHMENTS:
    case GL_MAX_RENDERBUFFER_SIZE:
    case GL_MAX_SAMPLES:
    case GL_MAX_LIGHTS:
    case GL_MAX_CLIP_PLANES:
    case GL_MAX_ELEMENTS_VERTICES:
    case GL_MAX_ELEMENTS_INDICES:
    case GL_MAX_UNIFORM_BUFFER_BINDINGS:
    case GL_MAX_ARRAY_TEXTURE_LAYERS:
    case GL_MAX_RECTANGLE_TEXTURE_SIZE:
    case GL_MAX_MODELVIEW_STACK_DEPTH:
    case GL_MAX_PROJECTION_STACK_DEPTH:
    case GL_MAX_TEXTURE_STACK_DEPTH:
      return true;
  }
  return false;
}

// One that never changes is asked for once.
GLint limit(Stream& s, GLenum name) {
  Context& c = context_of(s);
  for (auto& one : c.limits) {
    if (one.known && one.name == name) return one.value;
    if (one.known) continue;
    begin_GetIntegerv(s, name);
    GLint value = 0;
    s.ask().take(&value, sizeof value);
    one = {name, value, true};
    return value;
  }
  return 0;
}

// Of the array with that name: what lies in the program's memory is not known to the driver.
bool array_parameter(const Context& c, GLenum name, GLint& value) {
  enum Part : uint8_t { kSize, kType, kStride, kBuffer };
  struct One {
    GLenum name;
    ArrayKind kind;
    Part part;
  };
  static const One kNames[] = {
      {GL_VERTEX_ARRAY_SIZE, kVertexArray, kSize},
      {GL_VERTEX_ARRAY_TYPE, kVertexArray, kType},
      {GL_VERTEX_ARRAY_STRIDE, kVertexArray, kStride},
      {GL_VERTEX_ARRAY_BUFFER_BINDING, kVertexArray, kBuffer},
      {GL_NORMAL_ARRAY_TYPE, kNormalArray, kType},
      {GL_NORMAL_ARRAY_STRIDE, kNormalArray, kStride},
      {GL_NORMAL_ARRAY_BUFFER_BINDING, kNormalArray, kBuffer},
      {GL_COLOR_ARRAY_SIZE, kColorArray, kSize},
      {GL_COLOR_ARRAY_TYPE, kColorArray, kType},
      {GL_COLOR_ARRAY_STRIDE, kColorArray, kStride},
      {GL_COLOR_ARRAY_BUFFER_BINDING, kColorArray, kBuffer},
      {GL_SECONDARY_COLOR_ARRAY_SIZE, kSecondaryColorArray, kSize},
      {GL_SECONDARY_COLOR_ARRAY_TYPE, kSecondaryColorArray, kType},
      {GL_SECONDARY_COLOR_ARRAY_STRIDE, kSecondaryColorArray, kStride},
      {GL_SECONDARY_COLOR_ARRAY_BUFFER_BINDING, kSecondaryColorArray, kBuffer},
      {GL_FOG_COORD_ARRAY_TYPE, kFogCoordArray, kType},
      {GL_FOG_COORD_ARRAY_STRIDE, kFogCoordArray, kStride},
      {GL_FOG_COORD_ARRAY_BUFFER_BINDING, kFogCoordArray, kBuffer},
      {GL_INDEX_ARRAY_TYPE, kIndexArray, kType},
      {GL_INDEX_ARRAY_STRIDE, kIndexArray, kStride},
      {GL_INDEX_ARRAY_BUFFER_BINDING, kIndexArray, kBuffer},
      {GL_EDGE_FLAG_ARRAY_STRIDE, kEdgeFlagArray, kStride},
      {GL_EDGE_FLAG_ARRAY_BUFFER_BINDING, kEdgeFlagArray, kBuffer},
      {GL_TEXTURE_COORD_ARRAY_SIZE, kTexCoordArray, kSize},
      {GL_TEXTURE_COORD_ARRAY_TYPE, kTexCoordArray, kType},
      {GL_TEXTURE_COORD_ARRAY_STRIDE, kTexCoordArray, kStride},
      {GL_TEXTURE_COORD_ARRAY_BUFFER_BINDING, kTexCoordArray, kBuffer},
  };
  if (c.is_core || c.is_es) return false;
  for (const One& one : kNames) {
    if (one.name != name) continue;
    const Array& array = c.vertices->array[one.kind + (one.kind == kTexCoordArray ? c.client_texture : 0)];
    const bool never_set = array.type == 0;
    switch (one.part) {
      case kSize:
        value = !never_set ? array.size : one.kind == kSecondaryColorArray ? 3 : 4;
        break;
      case kType:
        value = static_cast<GLint>(never_set ? GL_FLOAT : array.type);
        break;
      case kStride:
        value = array.given_stride;
        break;
      case kBuffer:
        value = static_cast<GLint>(array.buffer);
        break;
    }
    return true;
  }
  return false;
}

bool known_integer(Stream& s, GLenum name, GLint& value) {
  Context& c = context_of(s);
  if (c.in_primitive) return false;  // an error
  if (const int32_t* stored = pixel_store(c, name)) {
    value = *stored;
    return true;
  }
  if (array_parameter(c, name, value)) return true;
  switch (name) {
    case GL_CLIENT_ACTIVE_TEXTURE:
      if (c.is_core || c.is_es) return false;
      value = static_cast<GLint>(GL_TEXTURE0 + c.client_texture);
      return true;
    case GL_CLIENT_ATTRIB_STACK_DEPTH:
      if (c.is_core || c.is_es) return false;
      value = c.saved_count;
      return true;
    case GL_NUM_EXTENSIONS:
      (void)context_text(s, GL_EXTENSIONS);
      value = c.extension_count;
      return true;
    case GL_MAJOR_VERSION:
    case GL_MINOR_VERSION: {
      const char* text = context_text(s, GL_VERSION);
      int major = 0, minor = 0;
      if (text == nullptr || sscanf(text + strcspn(text, "0123456789"), "%d.%d", &major, &minor) != 2)
        return false;
      value = name == GL_MAJOR_VERSION ? major : minor;
      return true;
    }
    case GL_NUM_SHADER_BINARY_FORMATS:
    case GL_NUM_PROGRAM_BINARY_FORMATS:
      // Of ES, where the commands for them are absent all the same.
      if (!c.is_es) return false;
      value = 0;
      return true;
    case GL_ARRAY_BUFFER_BINDING:
      value = static_cast<GLint>(c.bound[kArrayTarget]);
      return true;
    case GL_ELEMENT_ARRAY_BUFFER_BINDING:
      value = static_cast<GLint>(c.vertices->element_buffer);
      return true;
    case GL_PIXEL_PACK_BUFFER_BINDING:
      value = static_cast<GLint>(c.bound[kPixelPackTarget]);
      return true;
    case GL_PIXEL_UNPACK_BUFFER_BINDING:
      value = static_cast<GLint>(c.bound[kPixelUnpackTarget]);
      return true;
    case GL_VERTEX_ARRAY_BINDING:
      value = static_cast<GLint>(c.vertex_array);
      return true;
  }
  if (is_limit(name)) {
    value = limit(s, name);
    return true;
  }
  return false;
}

}  // namespace

void stub_GetIntegerv(GLenum name, GLint* data) {
  STREAM_OR_RETURN();
  if (known_integer(*s, name, *data)) return;
  begin_GetIntegerv(*s, name);
  s->ask().take(data, kAnySize);
}

void stub_GetFloatv(GLenum name, GLfloat* data) {
  STREAM_OR_RETURN();
  if (GLint value = 0; known_integer(*s, name, value)) {
    *data = static_cast<GLfloat>(value);
    return;
  }
  begin_GetFloatv(*s, name);
  s->ask().take(data, kAnySize);
}
void stub_GetDoublev(GLenum name, GLdouble* data) {
  STREAM_OR_RETURN();
  if (GLint value = 0; known_integer(*s, name, value)) {
    *data = value;
    return;
  }
  begin_GetDoublev(*s, name);
  s->ask().take(data, kAnySize);
}
void stub_GetBooleanv(GLenum name, GLboolean* data) {
  STREAM_OR_RETURN();
  if (GLint value = 0; known_integer(*s, name, value)) {
    *data = value != 0;
    return;
  }
  begin_GetBooleanv(*s, name);
  s->ask().take(data, kAnySize);
}
void stub_GetInteger64v(GLenum name, GLint64* data) {
  STREAM_OR_RETURN();
  if (GLint value = 0; known_integer(*s, name, value)) {
    *data = value;
    return;
  }
  begin_GetInteger64v(*s, name);
  s->ask().take(data, kAnySize);
}

namespace {

bool attribute_parameter(Stream& s, GLuint index, GLenum name, GLint& value) {
  const Context& c = context_of(s);
  if (c.in_primitive || index >= kArrays - kGenericArray) return false;
  const Array& array = c.vertices->array[kGenericArray + index];
  const bool never_set = array.type == 0;
  switch (name) {
    case GL_VERTEX_ATTRIB_ARRAY_ENABLED:
      value = array.enabled;
      return true;
    case GL_VERTEX_ATTRIB_ARRAY_SIZE:
      value = never_set ? 4 : array.size;
      return true;
    case GL_VERTEX_ATTRIB_ARRAY_STRIDE:
      value = array.given_stride;
      return true;
    case GL_VERTEX_ATTRIB_ARRAY_TYPE:
      value = static_cast<GLint>(never_set ? GL_FLOAT : array.type);
      return true;
    case GL_VERTEX_ATTRIB_ARRAY_NORMALIZED:
      value = (array.flags & kNormalized) != 0;
      return true;
    case GL_VERTEX_ATTRIB_ARRAY_INTEGER:
      value = (array.flags & kInteger) != 0;
      return true;
    case GL_VERTEX_ATTRIB_ARRAY_DIVISOR:
      value = static_cast<GLint>(array.divisor);
      return true;
    case GL_VERTEX_ATTRIB_ARRAY_BUFFER_BINDING:
      value = static_cast<GLint>(array.buffer);
      return true;
  }
  return false;
}

template <typename T, typename Begin>
void get_attribute(GLuint index, GLenum name, T* values, Begin begin) {
  STREAM_OR_RETURN();
  if (GLint value = 0; attribute_parameter(*s, index, name, value)) {
    *values = static_cast<T>(value);
    return;
  }
  begin(*s, index, name);
  s->ask().take(values, 4 * sizeof(T));
}

}  // namespace

void stub_GetVertexAttribiv(GLuint index, GLenum name, GLint* values) {
  get_attribute(index, name, values, begin_GetVertexAttribiv);
}
void stub_GetVertexAttribfv(GLuint index, GLenum name, GLfloat* values) {
  get_attribute(index, name, values, begin_GetVertexAttribfv);
}
void stub_GetVertexAttribdv(GLuint index, GLenum name, GLdouble* values) {
  get_attribute(index, name, values, begin_GetVertexAttribdv);
}
void stub_GetVertexAttribIiv(GLuint index, GLenum name, GLint* values) {
  get_attribute(index, name, values, begin_GetVertexAttribIiv);
}
void stub_GetVertexAttribIuiv(GLuint index, GLenum name, GLuint* values) {
  get_attribute(index, name, values, begin_GetVertexAttribIuiv);
}

void stub_GetPointerv(GLenum name, void** pointer) {
  STREAM_OR_RETURN();
  Context& c = context_of(*s);
  if (c.in_primitive) return raise(*s, GL_INVALID_OPERATION);
  auto array = [&](uint32_t kind) { *pointer = const_cast<char*>(c.vertices->array[kind].told_pointer); };
  switch (name) {
    case GL_VERTEX_ARRAY_POINTER:
      return array(kVertexArray);
    case GL_NORMAL_ARRAY_POINTER:
      return array(kNormalArray);
    case GL_COLOR_ARRAY_POINTER:
      return array(kColorArray);
    case GL_SECONDARY_COLOR_ARRAY_POINTER:
      return array(kSecondaryColorArray);
    case GL_FOG_COORD_ARRAY_POINTER:
      return array(kFogCoordArray);
    case GL_INDEX_ARRAY_POINTER:
      return array(kIndexArray);
    case GL_EDGE_FLAG_ARRAY_POINTER:
      return array(kEdgeFlagArray);
    case GL_TEXTURE_COORD_ARRAY_POINTER:
      return array(kTexCoordArray + c.client_texture);
    case GL_FEEDBACK_BUFFER_POINTER:
      *pointer = c.feedback;
      return;
    case GL_SELECTION_BUFFER_POINTER:
      *pointer = c.selection;
      return;
  }
  raise(*s, GL_INVALID_ENUM);
}

void stub_GetVertexAttribPointerv(GLuint index, GLenum name, void** pointer) {
  STREAM_OR_RETURN();
  if (name != GL_VERTEX_ATTRIB_ARRAY_POINTER) return raise(*s, GL_INVALID_ENUM);
  if (index >= kArrays - kGenericArray) return raise(*s, GL_INVALID_VALUE);
  *pointer = const_cast<char*>(context_of(*s).vertices->array[kGenericArray + index].told_pointer);
}

GLenum stub_GetError() {
  STREAM_OR_RETURN(GL_NO_ERROR);
  begin_GetError(*s);
  return s->ask().result<GLenum>();
}

void stub_Finish() {
  STREAM_OR_RETURN();
  begin_Finish(*s);
  (void)s->ask();
}
void stub_Flush() {
  STREAM_OR_RETURN();
  begin_Flush(*s);
  s->commit_small();
  s->publish();
}

// --- Feedback and selection: the driver writes into the renderer's memory, and the program gets it when it
// leaves the mode.

void stub_FeedbackBuffer(GLsizei size, GLenum type, GLfloat* buffer) {
  STREAM_OR_RETURN();
  context_of(*s).feedback = buffer;
  context_of(*s).feedback_size = bytes_of(static_cast<size_t>(size), sizeof(GLfloat));
  begin_FeedbackBuffer(*s, size, type);
  s->commit_small();
}
void stub_SelectBuffer(GLsizei size, GLuint* buffer) {
  STREAM_OR_RETURN();
  context_of(*s).selection = buffer;
  context_of(*s).selection_size = bytes_of(static_cast<size_t>(size), sizeof(GLuint));
  begin_SelectBuffer(*s, size);
  s->commit_small();
}
GLint stub_RenderMode(GLenum mode) {
  STREAM_OR_RETURN(0);
  Context& c = context_of(*s);
  begin_RenderMode(*s, mode);
  Answer answer = s->ask();
  answer.take(c.feedback, c.feedback_size);
  answer.take(c.selection, c.selection_size);
  return answer.result<GLint>();
}

}  // namespace stasis::gl

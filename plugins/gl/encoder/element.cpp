// glArrayElement with arrays in the program's memory: no array can be told to the driver between glBegin and
// glEnd, so it is told the values.
#include "encoder/program.h"
#include "generated/packets.h"

namespace stasis::gl {

namespace {

template <typename T>
T value_at(const char* at, int i) {
  T value;
  memcpy(&value, at + static_cast<size_t>(i) * sizeof(T), sizeof value);
  return value;
}

float component(const Array& array, const char* at, int i) {
  switch (array.type) {
    case GL_BYTE:
      return value_at<GLbyte>(at, i);
    case GL_UNSIGNED_BYTE:
      return value_at<GLubyte>(at, i);
    case GL_SHORT:
      return value_at<GLshort>(at, i);
    case GL_UNSIGNED_SHORT:
      return value_at<GLushort>(at, i);
    case GL_INT:
      return static_cast<float>(value_at<GLint>(at, i));
    case GL_UNSIGNED_INT:
      return static_cast<float>(value_at<GLuint>(at, i));
    case GL_DOUBLE:
      return static_cast<float>(value_at<GLdouble>(at, i));
    default:
      return value_at<GLfloat>(at, i);
  }
}

void send_normal(const Array& array, const char* at, const GLfloat* values) {
  switch (array.type) {
    case GL_BYTE:
      return stub_Normal3bv(reinterpret_cast<const GLbyte*>(at));
    case GL_SHORT:
      return stub_Normal3sv(reinterpret_cast<const GLshort*>(at));
    case GL_INT:
      return stub_Normal3iv(reinterpret_cast<const GLint*>(at));
    default:
      return stub_Normal3fv(values);
  }
}

void send_color(const Array& array, const char* at, const GLfloat* values) {
  const bool three = array.size == 3;
  switch (array.type) {
    case GL_BYTE: {
      const auto* v = reinterpret_cast<const GLbyte*>(at);
      return three ? stub_Color3bv(v) : stub_Color4bv(v);
    }
    case GL_UNSIGNED_BYTE: {
      const auto* v = reinterpret_cast<const GLubyte*>(at);
      if (array.size == GL_BGRA) return stub_Color4ub(v[2], v[1], v[0], v[3]);
      return three ? stub_Color3ubv(v) : stub_Color4ubv(v);
    }
    case GL_SHORT: {
      const auto* v = reinterpret_cast<const GLshort*>(at);
      return three ? stub_Color3sv(v) : stub_Color4sv(v);
    }
    case GL_UNSIGNED_SHORT: {
      const auto* v = reinterpret_cast<const GLushort*>(at);
      return three ? stub_Color3usv(v) : stub_Color4usv(v);
    }
    case GL_INT: {
      const auto* v = reinterpret_cast<const GLint*>(at);
      return three ? stub_Color3iv(v) : stub_Color4iv(v);
    }
    case GL_UNSIGNED_INT: {
      const auto* v = reinterpret_cast<const GLuint*>(at);
      return three ? stub_Color3uiv(v) : stub_Color4uiv(v);
    }
    default:
      return stub_Color4fv(values);
  }
}

void send_secondary_color(const Array& array, const char* at, const GLfloat* values) {
  switch (array.type) {
    case GL_BYTE:
      return stub_SecondaryColor3bv(reinterpret_cast<const GLbyte*>(at));
    case GL_UNSIGNED_BYTE:
      return stub_SecondaryColor3ubv(reinterpret_cast<const GLubyte*>(at));
    case GL_SHORT:
      return stub_SecondaryColor3sv(reinterpret_cast<const GLshort*>(at));
    case GL_UNSIGNED_SHORT:
      return stub_SecondaryColor3usv(reinterpret_cast<const GLushort*>(at));
    default:
      return stub_SecondaryColor3fv(values);
  }
}

void send_value(uint32_t kind, const Array& array, GLint index) {
  const char* at = array.pointer + static_cast<int64_t>(index) * array.stride;
  GLfloat values[4] = {0, 0, 0, 1};
  const int size = array.size == GL_BGRA ? 4 : array.size;
  for (int i = 0; i < size; ++i) values[i] = component(array, at, i);
  switch (kind) {
    case kVertexArray:
      return stub_Vertex4fv(values);
    case kNormalArray:
      return send_normal(array, at, values);
    case kColorArray:
      return send_color(array, at, values);
    case kSecondaryColorArray:
      return send_secondary_color(array, at, values);
    case kFogCoordArray:
      return stub_FogCoordfv(values);
    case kIndexArray:
      return stub_Indexfv(values);
    case kEdgeFlagArray:
      return stub_EdgeFlag(*at != 0);
  }
  if (kind < kGenericArray) return stub_MultiTexCoord4fv(GL_TEXTURE0 + kind - kTexCoordArray, values);
  const GLuint attribute = kind - kGenericArray;
  if ((array.flags & kNormalized) != 0 && array.type == GL_UNSIGNED_BYTE && size == 4)
    return stub_VertexAttrib4Nubv(attribute, reinterpret_cast<const GLubyte*>(at));
  stub_VertexAttrib4fv(attribute, values);
}

}  // namespace

void send_element(const VertexArrays& arrays, GLint index) {
  auto send = [&](uint32_t kind) {
    if ((arrays.client_mask >> kind & 1) != 0) send_value(kind, arrays.array[kind], index);
  };
  // What makes a vertex comes last.
  for (uint32_t kind = kVertexArray + 1; kind < kArrays; ++kind) {
    if (kind != kGenericArray) send(kind);
  }
  send(kVertexArray);
  send(kGenericArray);
}

}  // namespace stasis::gl

// glPushClientAttrib: the state of arrays and of the pixel store is on the program's side.
#include <cstdlib>

#include "encoder/program.h"
#include "generated/packets.h"

namespace stasis::gl {

void stub_PushClientAttrib(GLbitfield mask) {
  STREAM_OR_RETURN();
  Context& c = context_of(*s);
  if (c.in_primitive) return raise(*s, GL_INVALID_OPERATION);
  if (c.saved_count == 16) return raise(*s, GL_STACK_OVERFLOW);
  auto* saved = static_cast<ClientAttributes*>(zeroed(sizeof(ClientAttributes)));
  saved->pixels = (mask & GL_CLIENT_PIXEL_STORE_BIT) != 0;
  saved->arrays = (mask & GL_CLIENT_VERTEX_ARRAY_BIT) != 0;
  saved->pack = c.pack;
  saved->unpack = c.unpack;
  saved->vertices = *c.vertices;
  saved->vertex_array = c.vertex_array;
  saved->restarts = c.restarts;
  saved->restart_index = c.restart_index;
  saved->array_buffer = c.bound[kArrayTarget];
  saved->pack_buffer = c.bound[kPixelPackTarget];
  saved->unpack_buffer = c.bound[kPixelUnpackTarget];
  saved->client_texture = c.client_texture;
  c.saved[c.saved_count++] = saved;
}

namespace {

void put_back_pixels(Context& c, const ClientAttributes& saved) {
  auto put = [](const PixelStore& store, bool pack) {
    auto set = [pack](GLenum unpack_name, GLenum pack_name, GLint value) {
      stub_PixelStorei(pack ? pack_name : unpack_name, value);
    };
    set(GL_UNPACK_SWAP_BYTES, GL_PACK_SWAP_BYTES, store.swap);
    set(GL_UNPACK_LSB_FIRST, GL_PACK_LSB_FIRST, store.lsb_first);
    set(GL_UNPACK_ROW_LENGTH, GL_PACK_ROW_LENGTH, store.row_length);
    set(GL_UNPACK_IMAGE_HEIGHT, GL_PACK_IMAGE_HEIGHT, store.image_height);
    set(GL_UNPACK_SKIP_ROWS, GL_PACK_SKIP_ROWS, store.skip_rows);
    set(GL_UNPACK_SKIP_PIXELS, GL_PACK_SKIP_PIXELS, store.skip_pixels);
    set(GL_UNPACK_SKIP_IMAGES, GL_PACK_SKIP_IMAGES, store.skip_images);
    set(GL_UNPACK_ALIGNMENT, GL_PACK_ALIGNMENT, store.alignment);
  };
  put(saved.pack, true);
  put(saved.unpack, false);
  if (c.bound[kPixelPackTarget] != saved.pack_buffer)
    stub_BindBuffer(GL_PIXEL_PACK_BUFFER, saved.pack_buffer);
  if (c.bound[kPixelUnpackTarget] != saved.unpack_buffer)
    stub_BindBuffer(GL_PIXEL_UNPACK_BUFFER, saved.unpack_buffer);
}

// One that was never set has no type here.
Array as_set(uint32_t kind, Array array) {
  if (array.type == 0) {
    array.type = GL_FLOAT;
    array.size = kind == kSecondaryColorArray ? 3 : 4;
  }
  return array;
}

void put_back_array(uint32_t kind, const Array& array) {
  stub_BindBuffer(GL_ARRAY_BUFFER, array.buffer);
  static const GLenum kNames[] = {GL_VERTEX_ARRAY,          GL_NORMAL_ARRAY,       GL_COLOR_ARRAY,
                                  GL_SECONDARY_COLOR_ARRAY, GL_FOG_COORD_ARRAY,    GL_INDEX_ARRAY,
                                  GL_EDGE_FLAG_ARRAY,       GL_TEXTURE_COORD_ARRAY};
  if (kind >= kGenericArray) {
    const GLuint index = kind - kGenericArray;
    if ((array.flags & kInteger) != 0) {
      stub_VertexAttribIPointer(index, array.size, array.type, array.given_stride, array.pointer);
    } else {
      stub_VertexAttribPointer(index, array.size, array.type, (array.flags & kNormalized) != 0,
                               array.given_stride, array.pointer);
    }
    array.enabled ? stub_EnableVertexAttribArray(index) : stub_DisableVertexAttribArray(index);
    stub_VertexAttribDivisor(index, array.divisor);
    return;
  }
  if (kind >= kTexCoordArray) stub_ClientActiveTexture(GL_TEXTURE0 + kind - kTexCoordArray);
  switch (kind) {
    case kVertexArray:
      stub_VertexPointer(array.size, array.type, array.given_stride, array.pointer);
      break;
    case kNormalArray:
      stub_NormalPointer(array.type, array.given_stride, array.pointer);
      break;
    case kColorArray:
      stub_ColorPointer(array.size, array.type, array.given_stride, array.pointer);
      break;
    case kSecondaryColorArray:
      stub_SecondaryColorPointer(array.size, array.type, array.given_stride, array.pointer);
      break;
    case kFogCoordArray:
      stub_FogCoordPointer(array.type, array.given_stride, array.pointer);
      break;
    case kIndexArray:
      stub_IndexPointer(array.type, array.given_stride, array.pointer);
      break;
    case kEdgeFlagArray:
      stub_EdgeFlagPointer(array.given_stride, array.pointer);
      break;
    default:
      stub_TexCoordPointer(array.size, array.type, array.given_stride, array.pointer);
  }
  const GLenum name = kNames[kind < kTexCoordArray ? kind : uint32_t{kTexCoordArray}];
  array.enabled ? stub_EnableClientState(name) : stub_DisableClientState(name);
}

}  // namespace

void stub_PopClientAttrib() {
  STREAM_OR_RETURN();
  Context& c = context_of(*s);
  if (c.in_primitive) return raise(*s, GL_INVALID_OPERATION);
  if (c.saved_count == 0) return raise(*s, GL_STACK_UNDERFLOW);
  ClientAttributes* saved = c.saved[--c.saved_count];
  if (saved->pixels) put_back_pixels(c, *saved);
  // Nothing is put back into an object that was deleted meanwhile.
  if (saved->arrays && (saved->vertex_array == 0 || c.vertex_arrays.at(saved->vertex_array).exists)) {
    if (c.vertex_array != saved->vertex_array) stub_BindVertexArray(saved->vertex_array);
    for (uint32_t kind = 0; kind < kArrays; ++kind) {
      if (saved->vertices.array[kind] != c.vertices->array[kind])
        put_back_array(kind, as_set(kind, saved->vertices.array[kind]));
      c.vertices->array[kind].told_pointer = saved->vertices.array[kind].told_pointer;
    }
    if (c.bound[kArrayTarget] != saved->array_buffer) stub_BindBuffer(GL_ARRAY_BUFFER, saved->array_buffer);
    if (c.vertices->element_buffer != saved->vertices.element_buffer)
      stub_BindBuffer(GL_ELEMENT_ARRAY_BUFFER, saved->vertices.element_buffer);
    if (c.restarts != saved->restarts)
      saved->restarts ? stub_Enable(GL_PRIMITIVE_RESTART) : stub_Disable(GL_PRIMITIVE_RESTART);
    if (c.restart_index != saved->restart_index) stub_PrimitiveRestartIndex(saved->restart_index);
    if (c.client_texture != saved->client_texture)
      stub_ClientActiveTexture(GL_TEXTURE0 + saved->client_texture);
  }
  free(saved);
}

}  // namespace stasis::gl

// Streams that no encoder would write: each is refused with an error that names the call, and the driver (a
// model that reads all that a real one would) sees nothing of it. A packet ends where its memory does, and
// its memory is gone when it has been executed, so that whoever reads beyond it or later crashes.
#include "renderer/renderer.h"

#include <GL/gl.h>
#include <GL/glext.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "generated/commands.h"
#include "tests/gl/model_driver.h"
#include "wire/egl.h"
#include "wire/pixels.h"

namespace stasis::gl {

namespace {

constexpr size_t kPage = 4096;

// Memory whose last byte is the last before memory that is not there.
class Guarded {
 public:
  explicit Guarded(size_t bytes) : size_((bytes + kPage - 1) / kPage * kPage + kPage) {
    base_ =
        static_cast<char*>(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(base_ + size_ - kPage, kPage, PROT_NONE);
    at_ = base_ + size_ - kPage - bytes;
  }
  // Its addresses are not used again, so that nobody reads something else there.
  ~Guarded() {
    mmap(base_, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  char* at() { return at_; }

 private:
  size_t size_;
  char *base_, *at_;
};

class RendererTest : public testing::Test {
 protected:
  RendererTest() : memory_(kHeaderSize + kReplySize) {
    use_model_driver();
    reset_model_driver();
    renderer_ = std::make_unique<Renderer>(reinterpret_cast<Ring*>(memory_.at()));
    CreateContext create = {};
    create.context = 1;
    create.screen = kSurfacelessPlatform;
    EXPECT_EQ(say(kOpCreateContext, create, {}, kOfEgl), "");
    MakeCurrent current = {};
    current.context = 1;
    current.draw = current.read = kNoSurface;
    EXPECT_EQ(say(kOpMakeCurrent, current), "");
  }
  ~RendererTest() override {
    say(kOpMakeCurrent, MakeCurrent{});
    say(kOpDestroyContext, MakeCurrent{{}, 1, 0, 0, 0});
  }
  RendererTest(const RendererTest&) = delete;
  RendererTest& operator=(const RendererTest&) = delete;

  // What is said to be wrong; empty: nothing.
  template <typename P>
  std::string say(uint16_t op, P packet, const std::string& payload = {}, uint16_t flags = 0) {
    std::string bytes(reinterpret_cast<const char*>(&packet), sizeof packet);
    bytes.resize((bytes.size() + 7) / 8 * 8);
    bytes += payload;
    bytes.resize((bytes.size() + 7) / 8 * 8);
    return say_bytes(op, bytes, flags);
  }
  std::string say_bytes(uint16_t op, const std::string& bytes, uint16_t flags = 0) {
    Guarded room(bytes.size());
    std::memcpy(room.at(), bytes.data(), bytes.size());
    auto& packet = *reinterpret_cast<Packet*>(room.at());
    packet = {static_cast<uint32_t>(bytes.size()), op, flags};
    try {
      renderer_->execute(packet);
    } catch (const BadStream& bad) {
      return bad.what;
    }
    return "";
  }

  void enable(GLenum array) { EXPECT_EQ(say(kOpEnableClientState, PEnableClientState{{}, array}), ""); }
  void bind(GLenum target, GLuint name) { EXPECT_EQ(say(kOpBindBuffer, PBindBuffer{{}, target, name}), ""); }
  void buffer(GLenum target, GLuint name, const std::string& bytes) {
    bind(target, name);
    PBufferData p = {};
    p.target = target;
    p.size = static_cast<GLsizeiptr>(bytes.size());
    p.data_bytes = static_cast<uint32_t>(bytes.size());
    EXPECT_EQ(say(kOpBufferData, p, bytes), "");
  }
  std::string point_at_buffer(uint64_t offset = 0) {
    PVertexPointer p = {};
    p.size = 4;
    p.type = GL_FLOAT;
    p.pointer = offset;
    p.pointer_bytes = kOffset;
    return say(kOpVertexPointer, p);
  }

  static DrawClient draw(uint32_t command, uint32_t count) {
    DrawClient p = {};
    p.command = command;
    p.arrays = 1;
    p.count = count;
    p.instances = 1;
    p.end = ~0U;
    p.index_bytes = kOffset;
    return p;
  }
  static ClientArray array() {
    return {kVertexArray, 4, 0, 0, GL_FLOAT, 16, 0, sizeof(DrawClient) + sizeof(ClientArray)};
  }
  // Four vertices, and behind them 16-bit indices.
  static std::string vertices(const ClientArray& description, const std::vector<uint16_t>& indices = {}) {
    std::string bytes(reinterpret_cast<const char*>(&description), sizeof description);
    bytes += std::string(kVertices, '\1');
    bytes.append(reinterpret_cast<const char*>(indices.data()), indices.size() * sizeof(uint16_t));
    return bytes;
  }
  static constexpr size_t kVertices = size_t{4} * 16;
  std::string draw_elements(const std::vector<uint16_t>& indices, uint32_t count) {
    DrawClient p = draw(kOpDrawElements, count);
    p.index_type = GL_UNSIGNED_SHORT;
    p.index_offset = sizeof(DrawClient) + sizeof(ClientArray) + kVertices;
    p.index_bytes = static_cast<uint32_t>(indices.size() * sizeof(uint16_t));
    return say(kOpClientElements, p, vertices(array(), indices));
  }
  static PTexImage2D image(GLsizei width, GLsizei height, uint32_t bytes) {
    PTexImage2D p = {};
    p.target = GL_TEXTURE_2D;
    p.width = width;
    p.height = height;
    p.format = GL_RGBA;
    p.type = GL_UNSIGNED_BYTE;
    p.pixels_bytes = bytes;
    return p;
  }

  Guarded memory_;
  std::unique_ptr<Renderer> renderer_;
};

#define EXPECT_REFUSED(said, call)                                                       \
  do {                                                                                   \
    const std::string is_said = said;                                                    \
    EXPECT_TRUE(is_said.starts_with(std::string(call) + ": ")) << '"' << is_said << '"'; \
  } while (false)

TEST_F(RendererTest, ADrawReadsTheArraysThatCameWithIt) {
  enable(GL_VERTEX_ARRAY);
  EXPECT_EQ(say(kOpClientArrays, draw(kOpDrawArrays, 4), vertices(array())), "");
  EXPECT_EQ(draw_elements({0, 1, 2, 3}, 4), "");
  EXPECT_EQ(draws_of_model(), 2U);
  EXPECT_EQ(error_of_model(), GLenum{GL_NO_ERROR});
}

TEST_F(RendererTest, ArraysBeyondTheirPacket) {
  enable(GL_VERTEX_ARRAY);
  EXPECT_REFUSED(say(kOpClientArrays, draw(kOpDrawArrays, 5), vertices(array())), "glDrawArrays");
  EXPECT_REFUSED(say(kOpClientArrays, draw(kOpDrawArrays, 0x7fffffff), vertices(array())), "glDrawArrays");
  ClientArray one = array();
  one.offset += 16;
  EXPECT_REFUSED(say(kOpClientArrays, draw(kOpDrawArrays, 4), vertices(one)), "glDrawArrays");
  one.offset = uint64_t{1} << 40;
  EXPECT_REFUSED(say(kOpClientArrays, draw(kOpDrawArrays, 4), vertices(one)), "glDrawArrays");
  one.offset = static_cast<uint64_t>(-4096);
  EXPECT_REFUSED(say(kOpClientArrays, draw(kOpDrawArrays, 4), vertices(one)), "glDrawArrays");
  one = array();
  one.stride = 0x7fffffff;
  EXPECT_REFUSED(say(kOpClientArrays, draw(kOpDrawArrays, 4), vertices(one)), "glDrawArrays");
  one.stride = -16;
  EXPECT_REFUSED(say(kOpClientArrays, draw(kOpDrawArrays, 4), vertices(one)), "glDrawArrays");
  one = array();
  one.size = 200;
  EXPECT_REFUSED(say(kOpClientArrays, draw(kOpDrawArrays, 1), vertices(one)), "glDrawArrays");
  one = array();
  one.kind = kArrays;
  EXPECT_REFUSED(say(kOpClientArrays, draw(kOpDrawArrays, 1), vertices(one)), "glDrawArrays");
  DrawClient many = draw(kOpDrawArrays, 4);
  many.arrays = 20;
  EXPECT_REFUSED(say(kOpClientArrays, many, vertices(array())), "glDrawArrays");
  EXPECT_EQ(draws_of_model(), 0U);
}

TEST_F(RendererTest, IndicesBeyondTheArrays) {
  enable(GL_VERTEX_ARRAY);
  EXPECT_REFUSED(draw_elements({0, 1, 2, 4}, 4), "glDrawElements");
  EXPECT_REFUSED(draw_elements({0, 0xffff}, 2), "glDrawElements");
  EXPECT_REFUSED(draw_elements({0, 1, 2, 3}, 5), "glDrawElements");
  EXPECT_REFUSED(draw_elements({0, 1, 2, 3}, 0x7fffffff), "glDrawElements");
  EXPECT_EQ(draws_of_model(), 0U);
}

TEST_F(RendererTest, TheIndexThatRestartsIsNone) {
  enable(GL_VERTEX_ARRAY);
  EXPECT_EQ(say(kOpEnable, PEnable{{}, GL_PRIMITIVE_RESTART}), "");
  EXPECT_EQ(say(kOpPrimitiveRestartIndex, PPrimitiveRestartIndex{{}, 0xffff}), "");
  EXPECT_EQ(draw_elements({0, 1, 0xffff, 3}, 4), "");
  EXPECT_EQ(say(kOpPrimitiveRestartIndex, PPrimitiveRestartIndex{{}, 0x1ffff}), "");
  EXPECT_REFUSED(draw_elements({0, 1, 0xffff, 3}, 4), "glDrawElements");
}

TEST_F(RendererTest, BaseVertexCounts) {
  enable(GL_VERTEX_ARRAY);
  DrawClient p = draw(kOpDrawElementsBaseVertex, 2);
  p.index_type = GL_UNSIGNED_SHORT;
  p.index_offset = sizeof(DrawClient) + sizeof(ClientArray) + kVertices;
  p.index_bytes = 4;
  p.base_vertex = 2;
  EXPECT_EQ(say(kOpClientElements, p, vertices(array(), {0, 1})), "");
  EXPECT_REFUSED(say(kOpClientElements, p, vertices(array(), {0, 2})), "glDrawElementsBaseVertex");
  p.base_vertex = -10;
  EXPECT_REFUSED(say(kOpClientElements, p, vertices(array(), {0, 1})), "glDrawElementsBaseVertex");
}

TEST_F(RendererTest, InstancesCountForArraysThatTheDriverAdvancesByThem) {
  EXPECT_EQ(say(kOpEnableVertexAttribArray, PEnableVertexAttribArray{{}, 2}), "");
  ClientArray one = array();
  one.kind = kGenericArray + 2;
  DrawClient p = draw(kOpDrawArraysInstanced, 1000);
  p.instances = 4;
  one.divisor = 1;  // as the packet says, and nobody else
  EXPECT_REFUSED(say(kOpClientArrays, p, vertices(one)), "glDrawArraysInstanced");
  EXPECT_EQ(say(kOpVertexAttribDivisor, PVertexAttribDivisor{{}, 2, 1}), "");
  EXPECT_EQ(say(kOpClientArrays, p, vertices(one)), "");
  p.instances = 5;
  EXPECT_REFUSED(say(kOpClientArrays, p, vertices(one)), "glDrawArraysInstanced");
}

TEST_F(RendererTest, ArraysAreGoneWithTheirPacket) {
  enable(GL_VERTEX_ARRAY);
  EXPECT_EQ(say(kOpClientArrays, draw(kOpDrawArrays, 4), vertices(array())), "");
  EXPECT_EQ(say(kOpDrawArrays, PDrawArrays{{}, GL_TRIANGLES, 0, 4}), "");
  // One that the driver does not take leaves the one before, which is none.
  EXPECT_EQ(say(kOpEnableVertexAttribArray, PEnableVertexAttribArray{{}, 1}), "");
  ClientArray one = array();
  one.kind = kGenericArray + 1;
  DrawClient p = draw(kOpDrawArrays, 4);
  EXPECT_EQ(say(kOpClientArrays, p, vertices(one)), "");
  one.type = GL_DOUBLE;
  one.size = 2;
  EXPECT_EQ(say(kOpClientArrays, p, vertices(one)), "");
  EXPECT_EQ(say(kOpBegin, PBegin{{}, GL_TRIANGLES}), "");
  EXPECT_EQ(say(kOpEnd, PEnd{}), "");
  EXPECT_EQ(draws_of_model(), 4U);
}

TEST_F(RendererTest, AnArrayThatNeverHadMemoryHasZeros) {
  enable(GL_VERTEX_ARRAY);
  EXPECT_EQ(say(kOpEnableVertexAttribArray, PEnableVertexAttribArray{{}, 7}), "");
  EXPECT_EQ(say(kOpDrawArrays, PDrawArrays{{}, GL_TRIANGLES, 0, 100}), "");
  EXPECT_EQ(draws_of_model(), 1U);
  // So has one whose buffer is deleted.
  buffer(GL_ARRAY_BUFFER, 5, std::string(64, 'v'));
  EXPECT_EQ(point_at_buffer(16), "");
  EXPECT_EQ(say(kOpDeleteBuffers, PDeleteBuffers{{}, 1, 4}, std::string("\5\0\0\0", 4)), "");
  EXPECT_EQ(say(kOpDrawArrays, PDrawArrays{{}, GL_TRIANGLES, 0, 3}), "");
  EXPECT_EQ(draws_of_model(), 2U);
}

TEST_F(RendererTest, AnAddressIsNoOffset) {
  EXPECT_REFUSED(point_at_buffer(0x1000), "glVertexPointer");
  enable(GL_VERTEX_ARRAY);
  PDrawElements elements = {};
  elements.count = 3;
  elements.type = GL_UNSIGNED_SHORT;
  elements.indices = 0x1000;
  elements.indices_bytes = kOffset;
  EXPECT_REFUSED(say(kOpDrawElements, elements), "glDrawElements");
  PTexImage2D pixels = image(2, 2, kOffset);
  pixels.pixels = 0x1000;
  EXPECT_REFUSED(say(kOpTexImage2D, pixels), "glTexImage2D");
  ReadPixelsRequest read = {};
  read.width = read.height = 2;
  read.format = GL_RGBA;
  read.type = GL_UNSIGNED_BYTE;
  read.to_buffer = 1;
  read.offset = 0x1000;
  EXPECT_REFUSED(say(kOpReadPixels, read), "glReadPixels");
  PPixelMapfv map = {};
  map.map = GL_PIXEL_MAP_I_TO_R;
  map.mapsize = 4;
  map.values = 0x1000;
  map.values_bytes = kOffset;
  EXPECT_REFUSED(say(kOpPixelMapfv, map), "glPixelMapfv");
  EXPECT_EQ(draws_of_model(), 0U);
}

TEST_F(RendererTest, WhatALeastCarefulDriverReadsOfBuffersIsThere) {
  buffer(GL_ARRAY_BUFFER, 5, std::string(64, 'v'));
  EXPECT_EQ(point_at_buffer(), "");
  enable(GL_VERTEX_ARRAY);
  EXPECT_EQ(say(kOpBegin, PBegin{{}, GL_TRIANGLES}), "");
  DrawClient element = draw(kOpArrayElement, 1);
  element.arrays = 0;
  element.first = 3;
  EXPECT_EQ(say(kOpClientElement, element), "");
  element.first = 4;
  EXPECT_REFUSED(say(kOpClientElement, element), "glArrayElement");
  EXPECT_EQ(say(kOpEnd, PEnd{}), "");
  constexpr GLuint kList = 0xffff0000;  // which a driver tells as a negative number
  EXPECT_EQ(say(kOpNewList, PNewList{{}, kList, GL_COMPILE}), "");
  EXPECT_EQ(say(kOpDrawArrays, PDrawArrays{{}, GL_TRIANGLES, 1, 3}), "");
  EXPECT_REFUSED(say(kOpDrawArrays, PDrawArrays{{}, GL_TRIANGLES, 2, 3}), "glDrawArrays");
  buffer(GL_ELEMENT_ARRAY_BUFFER, 6, std::string("\0\3\4\0", 4));
  PDrawElements elements = {};
  elements.count = 2;
  elements.type = GL_UNSIGNED_BYTE;
  elements.indices_bytes = kOffset;
  EXPECT_EQ(say(kOpDrawElements, elements), "");
  elements.count = 3;
  EXPECT_REFUSED(say(kOpDrawElements, elements), "glDrawElements");
  elements.count = 5;
  EXPECT_REFUSED(say(kOpDrawElements, elements), "glDrawElements");
  EXPECT_EQ(say(kOpEndList, PEndList{}), "");
  EXPECT_EQ(draws_of_model(), 3U);
}

TEST_F(RendererTest, PixelsThatAreNotThere) {
  EXPECT_EQ(say(kOpTexImage2D, image(4, 4, 64), std::string(64, 'p')), "");
  EXPECT_REFUSED(say(kOpTexImage2D, image(4, 4, 56), std::string(56, 'p')), "glTexImage2D");
  EXPECT_REFUSED(say(kOpTexImage2D, image(4, 4, 64), std::string(56, 'p')), "glTexImage2D");
  EXPECT_REFUSED(say(kOpTexImage2D, image(0x7fffffff, 0x7fffffff, 64), std::string(64, 'p')), "glTexImage2D");
  PBitmap bitmap = {};
  bitmap.width = 65;
  bitmap.height = 1;
  bitmap.bitmap_bytes = 8;
  EXPECT_REFUSED(say(kOpBitmap, bitmap, std::string(8, 'b')), "glBitmap");
  PCompressedTexImage2D compressed = {};
  compressed.target = GL_TEXTURE_2D;
  compressed.width = compressed.height = 4;
  compressed.imageSize = 16;
  compressed.data_bytes = 8;
  EXPECT_REFUSED(say(kOpCompressedTexImage2D, compressed, std::string(8, 'c')), "glCompressedTexImage2D");
  renderer_->is_replaying = true;
  Contents contents = {};
  contents.of = kOfTexture;
  contents.target = contents.face = GL_TEXTURE_2D;
  contents.format = GL_RGBA;
  contents.type = GL_UNSIGNED_BYTE;
  contents.width = contents.height = 4;
  contents.bytes = 56;
  EXPECT_REFUSED(say(kOpContents, contents, std::string(56, 'c')), "contents");
}

TEST_F(RendererTest, ThePixelStoreOfTheProgramIsForItsBuffersOnly) {
  for (GLenum name :
       {GL_UNPACK_ROW_LENGTH, GL_UNPACK_SKIP_ROWS, GL_UNPACK_SKIP_PIXELS, GL_UNPACK_IMAGE_HEIGHT})
    EXPECT_EQ(say(kOpPixelStorei, PPixelStorei{{}, name, 1000}), "");
  EXPECT_EQ(say(kOpTexImage2D, image(4, 4, 64), std::string(64, 'p')), "");
  buffer(GL_PIXEL_UNPACK_BUFFER, 7, std::string(64, 'p'));
  EXPECT_EQ(say(kOpTexImage2D, image(4, 4, kOffset)), "");
  EXPECT_EQ(error_of_model(), GLenum{GL_NO_ERROR}) << "the model would have said so";
  // Others would be used for compressed images, which come without gaps.
  EXPECT_EQ(say(kOpPixelStorei, PPixelStorei{{}, GL_UNPACK_COMPRESSED_BLOCK_WIDTH, 4}), "");
  GLint width = 0;
  Renderer::gl.GetIntegerv(GL_UNPACK_COMPRESSED_BLOCK_WIDTH, &width);
  EXPECT_EQ(width, 0);
}

TEST_F(RendererTest, MemoryIsNoOffset) {
  bind(GL_PIXEL_UNPACK_BUFFER, 7);
  EXPECT_REFUSED(say(kOpTexImage2D, image(4, 4, 64), std::string(64, 'p')), "glTexImage2D");
  EXPECT_REFUSED(say(kOpTexImage2D, image(4, 4, kNull)), "glTexImage2D");
  PPixelMapfv map = {};
  map.mapsize = 4;
  map.values_bytes = 16;
  EXPECT_REFUSED(say(kOpPixelMapfv, map, std::string(16, 'm')), "glPixelMapfv");
  bind(GL_PIXEL_PACK_BUFFER, 8);
  ReadPixelsRequest read = {};
  read.width = read.height = 2;
  read.format = GL_RGBA;
  read.type = GL_UNSIGNED_BYTE;
  read.row_bytes = 8;
  EXPECT_REFUSED(say(kOpReadPixels, read), "glReadPixels");
}

TEST_F(RendererTest, AnswersHaveTheRoomThatTheDriverWrites) {
  EXPECT_EQ(say(kOpTexImage2D, image(4, 4, 64), std::string(64, 'p')), "");
  GetTexImageRequest get = {};
  get.target = GL_TEXTURE_2D;
  get.format = GL_RGBA;
  get.type = GL_UNSIGNED_BYTE;
  get.row_bytes = 16;
  get.all_rows = get.rows = 4;
  EXPECT_EQ(say(kOpGetTexImage, get), "");
  get.all_rows = get.rows = 3;
  EXPECT_REFUSED(say(kOpGetTexImage, get), "glGetTexImage");
  get.level = 5;  // that there is not
  get.row_bytes = get.all_rows = uint64_t{1} << 16;
  EXPECT_REFUSED(say(kOpGetTexImage, get), "glGetTexImage");
  ReadPixelsRequest read = {};
  read.width = 1000;
  read.height = 1000;
  read.format = GL_RGBA;
  read.type = GL_UNSIGNED_BYTE;
  read.row_bytes = 4;
  EXPECT_REFUSED(say(kOpReadPixels, read), "glReadPixels");
  EXPECT_EQ(say(kOpGetMapdv, PGetMapdv{{}, GL_MAP2_VERTEX_4, GL_COEFF}), "");
  PGetActiveUniformBlockiv block = {};
  block.pname = GL_UNIFORM_BLOCK_ACTIVE_UNIFORM_INDICES;
  EXPECT_EQ(say(kOpGetActiveUniformBlockiv, block), "");
  EXPECT_EQ(say(kOpGetAttachedShaders, PGetAttachedShaders{{}, 1, 0x7fffffff}), "");
}

TEST_F(RendererTest, CountsAreNotMoreThanWhatIsThere) {
  const std::string names(16, '\0');
  EXPECT_REFUSED(say(kOpDeleteTextures, PDeleteTextures{{}, 5, 16}, names), "glDeleteTextures");
  EXPECT_REFUSED(say(kOpDeleteTextures, PDeleteTextures{{}, 5, kNull}), "glDeleteTextures");
  EXPECT_REFUSED(say(kOpGenTextures, PGenTextures{{}, 0x40000000}, names), "glGenTextures");
  EXPECT_EQ(say(kOpDeleteTextures, PDeleteTextures{{}, -1, 16}, names), "");
  PUniformMatrix4fv matrix = {};
  matrix.count = 1;
  matrix.value_bytes = 60;
  EXPECT_REFUSED(say(kOpUniformMatrix4fv, matrix, std::string(64, 'm')), "glUniformMatrix4fv");
  PLightfv light = {};
  light.pname = GL_POSITION;
  light.params_bytes = 12;
  EXPECT_REFUSED(say(kOpLightfv, light, std::string(16, 'l')), "glLightfv");
  PClearBufferfv clear = {};
  clear.buffer = GL_COLOR;
  clear.value_bytes = 4;
  EXPECT_REFUSED(say(kOpClearBufferfv, clear, std::string(4, 'c')), "glClearBufferfv");
  PCallLists lists = {};
  lists.n = 0x7fffffff;
  lists.type = GL_UNSIGNED_INT;
  lists.lists_bytes = 16;
  EXPECT_REFUSED(say(kOpCallLists, lists, names), "glCallLists");
  PMap1f map = {};
  map.target = GL_MAP1_VERTEX_3;
  map.stride = 3;
  map.order = 4;
  map.points_bytes = 44;
  EXPECT_REFUSED(say(kOpMap1f, map, std::string(48, 'm')), "glMap1f");
  map.points_bytes = 48;
  EXPECT_EQ(say(kOpMap1f, map, std::string(48, 'm')), "");
  map.stride = 0x7fffffff;
  EXPECT_REFUSED(say(kOpMap1f, map, std::string(48, 'm')), "glMap1f");
}

TEST_F(RendererTest, TextsEndWithinTheirPacket) {
  PBindAttribLocation bind_attribute = {};
  bind_attribute.name_bytes = 8;
  EXPECT_REFUSED(say(kOpBindAttribLocation, bind_attribute, "12345678"), "glBindAttribLocation");
  EXPECT_EQ(say(kOpBindAttribLocation, bind_attribute, std::string("1234567\0", 8)), "");
  PTransformFeedbackVaryings varyings = {};
  varyings.count = 2;
  varyings.varyings_bytes = 8;
  EXPECT_EQ(say(kOpTransformFeedbackVaryings, varyings,
                std::string("123\0"
                            "567\0",
                            8)),
            "");
  EXPECT_REFUSED(say(kOpTransformFeedbackVaryings, varyings,
                     std::string("123\0"
                                 "5678",
                                 8)),
                 "glTransformFeedbackVaryings");
  varyings.count = 0x7fffffff;
  EXPECT_REFUSED(say(kOpTransformFeedbackVaryings, varyings, std::string(8, '\0')),
                 "glTransformFeedbackVaryings");
  varyings.count = 1;
  varyings.varyings_bytes = kNull;
  EXPECT_REFUSED(say(kOpTransformFeedbackVaryings, varyings), "glTransformFeedbackVaryings");
  varyings.varyings_bytes = 4096;
  EXPECT_REFUSED(say(kOpTransformFeedbackVaryings, varyings, std::string(8, '\0')),
                 "glTransformFeedbackVaryings");
  PShaderSource source = {};
  source.string_bytes = 100;
  EXPECT_REFUSED(say(kOpShaderSource, source, "void main() {}"), "glShaderSource");
}

TEST_F(RendererTest, CallsThatAreCutOffOrUnknown) {
  EXPECT_REFUSED(say_bytes(kOpTexImage2D, std::string(16, '\0')), "glTexImage2D");
  EXPECT_REFUSED(say_bytes(kOpClientArrays, std::string(16, '\0')), "a draw of arrays");
  EXPECT_REFUSED(say_bytes(kOpGlEnd, std::string(16, '\0')), "operation " + std::to_string(kOpGlEnd));
  EXPECT_REFUSED(say_bytes(0xffff, std::string(16, '\0')), "operation 65535");
  EXPECT_REFUSED(say_bytes(60, std::string(16, '\0')), "operation 60");
  EXPECT_REFUSED(say_bytes(kOpVertexPointer + 0, std::string(16, '\0')), "glVertexPointer");
  EXPECT_REFUSED(say(kOpClientArrays, draw(9999, 1), vertices(array())), "operation 9999");
}

TEST_F(RendererTest, WhatOnlyTheKeeperSaysIsNotForARing) {
  Contents contents = {};
  contents.bytes = kNull;
  EXPECT_REFUSED(say(kOpContents, contents), "contents");
}

TEST_F(RendererTest, RangesWhoseEndOverflows) {
  buffer(GL_ARRAY_BUFFER, 5, std::string(64, 'v'));
  PBufferSubData data = {};
  data.target = GL_ARRAY_BUFFER;
  data.offset = 0x7fffffffffffffff;
  data.size = 64;
  data.data_bytes = 64;
  EXPECT_EQ(say(kOpBufferSubData, data, std::string(64, 'd')), "");
  PGetBufferSubData get = {};
  get.target = GL_ARRAY_BUFFER;
  get.offset = 0x7fffffffffffffff;
  get.size = 64;
  EXPECT_EQ(say(kOpGetBufferSubData, get), "");
  PCopyBufferSubData copy = {};
  copy.readTarget = copy.writeTarget = GL_ARRAY_BUFFER;
  copy.readOffset = 16;
  copy.size = 0x7fffffffffffffff;
  EXPECT_EQ(say(kOpCopyBufferSubData, copy), "");
}

TEST_F(RendererTest, MemoryThatTheDriverStillWritesToStays) {
  PFeedbackBuffer feedback = {};
  feedback.size = 100000;
  feedback.type = GL_2D;
  EXPECT_EQ(say(kOpFeedbackBuffer, feedback), "");
  EXPECT_EQ(say(kOpRenderMode, PRenderMode{{}, GL_FEEDBACK}), "");
  feedback.size = 1;  // an error: it is in use
  EXPECT_EQ(say(kOpFeedbackBuffer, feedback), "");
  EXPECT_EQ(say(kOpRenderMode, PRenderMode{{}, GL_RENDER}), "");
  EXPECT_EQ(renderer_->current->feedback.size(), 100001U);
}

TEST_F(RendererTest, AContextThatIsDestroyedWhileItIsCurrentLivesOn) {
  EXPECT_EQ(say(kOpDestroyContext, MakeCurrent{{}, 1, 0, 0, 0}), "");
  EXPECT_EQ(say(kOpBindTexture, PBindTexture{{}, GL_TEXTURE_2D, 5}), "");
  EXPECT_EQ(say(kOpEnable, PEnable{{}, GL_DEPTH_TEST}), "");
}

TEST_F(RendererTest, AContextIsCurrentInOneThreadOnly) {
  Renderer other(reinterpret_cast<Ring*>(memory_.at()));
  EXPECT_FALSE(other.claim(*renderer_->current));
  EXPECT_TRUE(renderer_->claim(*renderer_->current));
}

// --- What comes before: packets and their pieces

class RingTest : public testing::Test {
 protected:
  RingTest()
      : memory_(static_cast<char*>(mmap(nullptr, kRingFileSize + kDataSize, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))),
        ring_(reinterpret_cast<Ring*>(memory_)) {}
  ~RingTest() override { munmap(memory_, kRingFileSize + kDataSize); }
  RingTest(const RingTest&) = delete;
  RingTest& operator=(const RingTest&) = delete;

  void put(const void* bytes, size_t size) {
    std::memcpy(memory_ + kHeaderSize + kReplySize + end_, bytes, size);
    end_ += size;
  }
  void put_piece(uint32_t total, uint32_t at, size_t bytes) {
    Piece piece = {{static_cast<uint32_t>(sizeof piece + bytes), kOpPiece, 0}, total, at};
    put(&piece, sizeof piece);
    const Packet packet = {total, kOpNothing, 0};
    std::string content(bytes, 'x');
    if (at == 0 && bytes >= sizeof packet) std::memcpy(content.data(), &packet, sizeof packet);
    put(content.data(), bytes);
  }
  // How many packets; -1: refused.
  int read() {
    int count = 0;
    try {
      RingReader(ring_, kRenderer).run_to(end_, [&](const Packet& packet) {
        // Nobody can change it any more.
        const auto* at = reinterpret_cast<const char*>(&packet);
        EXPECT_TRUE(at < memory_ || at >= memory_ + kRingFileSize);
        return ++count, true;
      });
    } catch (const BadStream&) {
      return -1;
    }
    return count;
  }

  char* memory_;
  Ring* ring_;
  uint64_t end_ = 0;
};

TEST_F(RingTest, PacketsAndPieces) {
  const Packet one = {8, kOpNothing, 0};
  put(&one, sizeof one);
  put_piece(64, 0, 32);
  put_piece(64, 32, 32);
  EXPECT_EQ(read(), 2);
}

TEST_F(RingTest, SizesThatMakeNoSense) {
  for (uint32_t size : {0U, 4U, 12U, 16U, 0xfffffff8U}) {
    end_ = 0;
    const Packet one = {size, kOpNothing, 0};
    put(&one, sizeof one);
    EXPECT_EQ(read(), -1) << size;
  }
}

TEST_F(RingTest, APositionBetweenPackets) {
  ring_->reader[kRenderer].tail.store(3);
  end_ = 3;
  const Packet one = {8, kOpNothing, 0};
  put(&one, sizeof one);
  EXPECT_EQ(read(), -1);
}

TEST_F(RingTest, PiecesOfNothing) {
  put_piece(0, 0, 8);
  EXPECT_EQ(read(), -1);
}

TEST_F(RingTest, PiecesThatDoNotFollow) {
  put_piece(64, 0, 32);
  put_piece(64, 40, 24);
  EXPECT_EQ(read(), -1);
  end_ = 0;
  put_piece(64, 32, 32);
  EXPECT_EQ(read(), -1);
  end_ = 0;
  put_piece(64, 0, 32);
  put_piece(32, 32, 32);
  EXPECT_EQ(read(), -1);
}

long resident_pages() {
  long total = 0, resident = -1;
  FILE* file = fopen("/proc/self/statm", "r");
  if (file == nullptr) return -1;
  if (fscanf(file, "%ld %ld", &total, &resident) != 2) resident = -1;
  fclose(file);
  return resident;
}

TEST_F(RingTest, AFirstPieceTakesNoMoreMemoryThanItHas) {
  const long before = resident_pages();
  ASSERT_GT(before, 0);
  RingReader reader(ring_, kRenderer);
  put_piece(0xfffffff8U, 0, 32);
  reader.run_to(end_, [](const Packet&) { return true; });
  constexpr long kMost = 4096;  // pages
  EXPECT_LT(resident_pages() - before, kMost);
}

}  // namespace

}  // namespace stasis::gl

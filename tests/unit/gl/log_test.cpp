// The pruned log: what a call supersedes is gone, and what is left makes the same state.
#include "keeper/log.h"

#include <GL/gl.h>
#include <GL/glext.h>
#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <vector>

#include "generated/commands.h"
#include "reader/ring_file.h"
#include "reader/ring_reader.h"

namespace stasis::gl {

namespace {

constexpr uint32_t kRing = 1;

class LogTest : public testing::Test {
 protected:
  LogTest() {
    CreateContext create = {};
    create.context = 1;
    create.config = 7;
    create.attributes = kNull;
    control(create, kOpCreateContext);
    MakeCurrent current = {};
    current.context = 1;
    current.draw = current.read = 99;
    control(current, kOpMakeCurrent);
  }

  template <typename P>
  void control(P packet, uint16_t op) {
    packet.header = {sizeof packet, op, 0};
    static_assert(sizeof packet % 8 == 0);
    log_.add(kRing, packet.header);
  }

  // A call with the given arguments, and bytes behind them.
  template <typename P>
  void call(uint16_t op, P packet, const std::string& payload = {}) {
    std::vector<uint64_t> room((sizeof packet + 7) / 8 + (payload.size() + 7) / 8);
    packet.header = {static_cast<uint32_t>(room.size() * 8), op, 0};
    std::memcpy(room.data(), &packet, sizeof packet);
    std::memcpy(room.data() + (sizeof packet + 7) / 8, payload.data(), payload.size());
    log_.add(kRing, *reinterpret_cast<const Packet*>(room.data()));
  }

  void enable(GLenum what) { call(kOpEnable, PEnable{{}, what}); }
  void disable(GLenum what) { call(kOpDisable, PDisable{{}, what}); }
  void bind_texture(GLuint name) { call(kOpBindTexture, PBindTexture{{}, GL_TEXTURE_2D, name}); }
  void image(GLint level, char fill) {
    PTexImage2D p = {};
    p.target = GL_TEXTURE_2D;
    p.level = level;
    p.width = p.height = 4;
    p.pixels_bytes = 16;
    call(kOpTexImage2D, p, std::string(16, fill));
  }
  void part(GLint x, GLint size, char fill) {
    PTexSubImage2D p = {};
    p.target = GL_TEXTURE_2D;
    p.xoffset = x;
    p.width = size;
    p.height = size;
    p.pixels_bytes = 16;
    call(kOpTexSubImage2D, p, std::string(16, fill));
  }

  // How often an operation is in the log, and the last of them.
  size_t count(uint16_t op) {
    size_t found = 0;
    for_each_packet(log_.replay(), [&](const Packet& packet) {
      if (packet.op != op) return;
      ++found;
      last_.assign(reinterpret_cast<const char*>(&packet), packet.size);
    });
    return found;
  }
  std::vector<Contents> questions() {
    std::vector<Contents> found;
    for_each_packet(log_.questions(), [&](const Packet& packet) {
      if (packet.op == kOpContents) found.push_back(view<Contents>(packet));
    });
    return found;
  }
  // Each question with these bytes.
  void answer(const std::string& bytes) {
    const std::string asked = log_.questions();
    std::string answers;
    for_each_packet(asked, [&](const Packet& packet) {
      answers.append(reinterpret_cast<const char*>(&packet), packet.size);
      if (packet.op != kOpContents) return;
      auto& contents = *reinterpret_cast<Contents*>(answers.data() + answers.size() - sizeof(Contents));
      const size_t padded = (bytes.size() + 7) & ~size_t{7};
      contents.header.size += static_cast<uint32_t>(padded);
      contents.bytes = static_cast<uint32_t>(bytes.size());
      contents.width = contents.height = contents.depth = 1;
      answers.append(bytes).append(padded - bytes.size(), '\0');
    });
    log_.take_answers(asked, answers);
  }
  template <typename P>
  const P& last() {
    return *reinterpret_cast<const P*>(last_.data());
  }

  Log log_;
  std::string last_;
};

TEST_F(LogTest, TheLastOfEqualKeysStays) {
  for (int i = 0; i < 1000; ++i) {
    enable(GL_BLEND);
    disable(GL_BLEND);
    enable(GL_FOG);
  }
  EXPECT_EQ(count(kOpEnable), 1U);
  EXPECT_EQ(last<PEnable>().cap, static_cast<GLenum>(GL_FOG));
  EXPECT_EQ(count(kOpDisable), 1U);
}

TEST_F(LogTest, StateOfTextureUnitsIsKeptForEachUnit) {
  for (GLenum unit : {GL_TEXTURE0, GL_TEXTURE1, GL_TEXTURE0}) {
    call(kOpActiveTexture, PActiveTexture{{}, unit});
    enable(GL_TEXTURE_2D);
  }
  EXPECT_EQ(count(kOpEnable), 2U);
}

TEST_F(LogTest, DrawsAreNotKept) {
  call(kOpBegin, PBegin{{}, GL_TRIANGLES});
  for (int i = 0; i < 300; ++i) call(kOpVertex3f, PVertex3f{{}, 1, 2, 3});
  call(kOpEnd, PEnd{});
  EXPECT_EQ(count(kOpVertex3f), 0U);
  EXPECT_EQ(count(kOpBegin), 1U);  // the empty one at the end of a replay
}

TEST_F(LogTest, APrimitiveThatIsNotFinishedIsKept) {
  call(kOpBegin, PBegin{{}, GL_TRIANGLES});
  call(kOpVertex3f, PVertex3f{{}, 1, 2, 3});
  EXPECT_EQ(count(kOpVertex3f), 1U);
  EXPECT_EQ(count(kOpBegin), 2U);
}

TEST_F(LogTest, AnImageReplacesItsParts) {
  bind_texture(5);
  image(0, 'a');
  part(0, 2, 'b');
  part(2, 1, 'c');
  part(0, 2, 'd');  // covers the first
  EXPECT_EQ(count(kOpTexSubImage2D), 2U);
  part(0, 4, 'e');  // covers both
  EXPECT_EQ(count(kOpTexSubImage2D), 1U);
  image(1, 'f');  // another level
  EXPECT_EQ(count(kOpTexImage2D), 2U);
  image(0, 'g');
  EXPECT_EQ(count(kOpTexImage2D), 2U);
  EXPECT_EQ(count(kOpTexSubImage2D), 0U);
}

TEST_F(LogTest, ADeletedTextureLeavesNothing) {
  bind_texture(5);
  image(0, 'a');
  const GLuint name = 5;
  call(kOpDeleteTextures, PDeleteTextures{{}, 1, sizeof name},
       std::string(reinterpret_cast<const char*>(&name), sizeof name));
  EXPECT_EQ(count(kOpTexImage2D), 0U);
  EXPECT_EQ(count(kOpGenTextures), 0U);
  EXPECT_EQ(count(kOpBindTexture), 0U);
}

TEST_F(LogTest, BuffersAreKeptAsTheirContents) {
  call(kOpBindBuffer, PBindBuffer{{}, GL_ARRAY_BUFFER, 3});
  PBufferData data = {};
  data.target = GL_ARRAY_BUFFER;
  data.size = 8;
  data.data_bytes = 8;
  call(kOpBufferData, data, "abcdefgh");
  PBufferSubData part = {};
  part.target = GL_ARRAY_BUFFER;
  part.offset = 2;
  part.size = 3;
  part.data_bytes = 3;
  for (int i = 0; i < 100; ++i) call(kOpBufferSubData, part, "XYZ");
  EXPECT_EQ(count(kOpBufferSubData), 0U);
  ASSERT_EQ(count(kOpBufferData), 1U);
  EXPECT_EQ(last_.substr(sizeof(PBufferData), 8), "abXYZfgh");
}

TEST_F(LogTest, AMatrixBeginsAgainWithALoad) {
  call(kOpLoadIdentity, PLoadIdentity{});
  for (int i = 0; i < 50; ++i) call(kOpRotatef, PRotatef{{}, 1, 0, 0, 1});
  EXPECT_EQ(count(kOpRotatef), 50U);
  call(kOpLoadIdentity, PLoadIdentity{});
  call(kOpTranslatef, PTranslatef{{}, 1, 2, 3});
  EXPECT_EQ(count(kOpRotatef), 0U);
  EXPECT_EQ(count(kOpTranslatef), 1U);
}

TEST_F(LogTest, WhatAPushedMatrixWasMadeOfIsKeptOnce) {
  call(kOpLoadIdentity, PLoadIdentity{});
  for (int i = 0; i < 3; ++i) call(kOpRotatef, PRotatef{{}, 1, 0, 0, 1});
  call(kOpPushMatrix, PPushMatrix{});
  call(kOpTranslatef, PTranslatef{{}, 1, 2, 3});
  call(kOpPushMatrix, PPushMatrix{});
  call(kOpLoadIdentity, PLoadIdentity{});
  call(kOpScalef, PScalef{{}, 1, 2, 3});
  call(kOpPushMatrix, PPushMatrix{});
  EXPECT_EQ(count(kOpRotatef), 3U);
  EXPECT_EQ(count(kOpTranslatef), 1U);
  EXPECT_EQ(count(kOpScalef), 1U);
  EXPECT_EQ(count(kOpLoadIdentity), 2U);
  for (int i = 0; i < 2; ++i) call(kOpPopMatrix, PPopMatrix{});
  EXPECT_EQ(count(kOpScalef), 0U);
  EXPECT_EQ(count(kOpTranslatef), 1U);
  EXPECT_EQ(count(kOpLoadIdentity), 1U);
}

TEST_F(LogTest, ALightIsKeptWithTheMatrixThatItWasSeenThrough) {
  call(kOpRotatef, PRotatef{{}, 30, 0, 0, 1});
  call(kOpPushMatrix, PPushMatrix{});
  call(kOpTranslatef, PTranslatef{{}, 1, 2, 3});
  PLightf light = {{}, GL_LIGHT0, GL_SPOT_CUTOFF, 1};
  call(kOpLightf, light);
  call(kOpPopMatrix, PPopMatrix{});
  call(kOpLoadIdentity, PLoadIdentity{});
  EXPECT_EQ(count(kOpRotatef), 1U);
  EXPECT_EQ(count(kOpTranslatef), 1U);
  call(kOpLightf, light);
  EXPECT_EQ(count(kOpRotatef), 0U);
  EXPECT_EQ(count(kOpTranslatef), 0U);
}

TEST_F(LogTest, AMillionMultiplicationsEndWithALoad) {
  constexpr size_t kMillion = 1'000'000;
  for (size_t i = 0; i < kMillion; ++i) call(kOpRotatef, PRotatef{{}, 1, 0, 0, 1});
  call(kOpPushMatrix, PPushMatrix{});
  EXPECT_EQ(count(kOpRotatef), kMillion);
  call(kOpPopMatrix, PPopMatrix{});
  call(kOpLoadMatrixf, PLoadMatrixf{});
  EXPECT_EQ(count(kOpRotatef), 0U);
  EXPECT_EQ(count(kOpLoadMatrixf), 1U);
}

TEST_F(LogTest, PoppedAttributesAreThoseFromBefore) {
  call(kOpColor3f, PColor3f{{}, 1, 0, 0});
  call(kOpLineWidth, PLineWidth{{}, 2});
  call(kOpPushAttrib, PPushAttrib{{}, GL_CURRENT_BIT});
  call(kOpColor3f, PColor3f{{}, 0, 1, 0});
  call(kOpLineWidth, PLineWidth{{}, 5});
  EXPECT_EQ(count(kOpPushAttrib), 1U);
  EXPECT_EQ(count(kOpColor3f), 2U);  // one below, one above
  call(kOpPopAttrib, PPopAttrib{});
  EXPECT_EQ(count(kOpPushAttrib), 0U);
  ASSERT_EQ(count(kOpColor3f), 1U);
  EXPECT_EQ(last<PColor3f>().red, 1.0F);
  ASSERT_EQ(count(kOpLineWidth), 1U);
  EXPECT_EQ(last<PLineWidth>().width, 5.0F);  // not of that group
}

TEST_F(LogTest, AListIsKeptAndWhatItDoesToStateIsDone) {
  call(kOpNewList, PNewList{{}, 4, GL_COMPILE});
  call(kOpShadeModel, PShadeModel{{}, GL_FLAT});
  call(kOpVertex3f, PVertex3f{{}, 1, 2, 3});
  call(kOpEndList, PEndList{});
  EXPECT_EQ(count(kOpShadeModel), 1U);  // in the list alone
  EXPECT_EQ(count(kOpVertex3f), 1U);
  call(kOpCallList, PCallList{{}, 4});
  EXPECT_EQ(count(kOpShadeModel), 2U);
  EXPECT_EQ(count(kOpVertex3f), 1U);
}

TEST_F(LogTest, AShaderLivesAsLongAsAProgramNeedsIt) {
  auto name = [](GLuint number) {
    return std::string(reinterpret_cast<const char*>(&number), sizeof number);
  };
  call(kOpCreateShader, PCreateShader{{}, GL_VERTEX_SHADER}, name(1));
  call(kOpCreateProgram, PCreateProgram{}, name(2));
  call(kOpAttachShader, PAttachShader{{}, 2, 1});
  call(kOpDeleteShader, PDeleteShader{{}, 1});
  call(kOpLinkProgram, PLinkProgram{{}, 2});
  EXPECT_EQ(count(kOpCreateShader), 1U);
  EXPECT_EQ(count(kOpDeleteShader), 1U);
  call(kOpUseProgram, PUseProgram{{}, 2});
  call(kOpDeleteProgram, PDeleteProgram{{}, 2});
  EXPECT_EQ(count(kOpCreateProgram), 1U);  // in use
  call(kOpUseProgram, PUseProgram{{}, 0});
  EXPECT_EQ(count(kOpCreateProgram), 0U);
  EXPECT_EQ(count(kOpCreateShader), 0U);
}

TEST_F(LogTest, AnAssemblyProgramIsKeptWithItsParameters) {
  constexpr GLenum kTarget = 0x8620 /* GL_VERTEX_PROGRAM_ARB */;
  auto bind = [&](GLuint name) { call(kOpBindProgramARB, PBindProgramARB{{}, kTarget, name}); };
  bind(5);
  PProgramStringARB text = {};
  text.target = kTarget;
  text.len = 8;
  text.string_bytes = 8;
  call(kOpProgramStringARB, text, "!!ARBvp1");
  for (GLfloat x : {1.0F, 2.0F}) {
    PProgramLocalParameter4fARB parameter = {};
    parameter.target = kTarget;
    parameter.index = 3;
    parameter.x = x;
    call(kOpProgramLocalParameter4fARB, parameter);
  }
  EXPECT_EQ(count(kOpGenProgramsARB), 1U);
  EXPECT_EQ(count(kOpProgramStringARB), 1U);
  EXPECT_EQ(count(kOpProgramLocalParameter4fARB), 1U);
  EXPECT_EQ(last<PProgramLocalParameter4fARB>().x, 2.0F);
  EXPECT_EQ(count(kOpBindProgramARB), 3U);
  EXPECT_EQ(last<PBindProgramARB>().program, 5U);
  bind(0);
  const GLuint name = 5;
  PDeleteProgramsARB deletion = {};
  deletion.n = 1;
  deletion.programs_bytes = sizeof name;
  call(kOpDeleteProgramsARB, deletion, std::string(reinterpret_cast<const char*>(&name), sizeof name));
  EXPECT_EQ(count(kOpProgramStringARB), 0U);
}

TEST_F(LogTest, WhatIsDrawnIntoAWindowIsAskedForUntilBuffersAreSwapped) {
  EXPECT_FALSE(log_.has_written());
  call(kOpClear, PClear{{}, GL_COLOR_BUFFER_BIT});
  EXPECT_TRUE(log_.has_written());
  EXPECT_EQ(questions().size(), 2U);  // colours, and depth with stencil
  SurfaceCall swap = {};
  swap.surface = 99;
  control(swap, kOpSwapBuffers);
  EXPECT_FALSE(log_.has_written());
  EXPECT_TRUE(questions().empty());
}

TEST_F(LogTest, WhatIsDrawnIntoATextureIsAskedForAndKeptUntilItIsDrawnOrUploadedAgain) {
  bind_texture(5);
  image(0, 'a');
  call(kOpBindFramebuffer, PBindFramebuffer{{}, GL_FRAMEBUFFER, 3});
  call(kOpFramebufferTexture2D,
       PFramebufferTexture2D{{}, GL_FRAMEBUFFER, GL_COLOR_ATTACHMENT0, GL_TEXTURE_2D, 5, 0});
  EXPECT_FALSE(log_.has_written());
  call(kOpClear, PClear{{}, GL_COLOR_BUFFER_BIT});
  ASSERT_EQ(questions().size(), 1U);
  EXPECT_EQ(questions()[0].name, 5U);
  EXPECT_EQ(questions()[0].face, static_cast<uint32_t>(GL_TEXTURE_2D));
  answer("drawn");
  EXPECT_FALSE(log_.is_incomplete());
  EXPECT_FALSE(log_.has_written());
  EXPECT_EQ(count(kOpContents), 1U);
  EXPECT_EQ(std::string(last_.data() + sizeof(Contents), 5), "drawn");
  call(kOpClear, PClear{{}, GL_COLOR_BUFFER_BIT});
  EXPECT_TRUE(log_.has_written());
  answer("again");
  EXPECT_EQ(count(kOpContents), 1U);
  image(0, 'b');
  EXPECT_EQ(count(kOpContents), 0U);
  EXPECT_FALSE(log_.has_written());
}

TEST_F(LogTest, WhatIsNotAnsweredIsKnownToBeMissing) {
  bind_texture(5);
  call(kOpCopyTexImage2D, PCopyTexImage2D{{}, GL_TEXTURE_2D, 0, GL_RGB8, 0, 0, 4, 4, 0});
  EXPECT_EQ(count(kOpTexImage2D), 1U);
  EXPECT_EQ(last<PTexImage2D>().pixels_bytes, kNull);
  log_.take_answers(log_.questions(), "");
  EXPECT_TRUE(log_.is_incomplete());
}

TEST_F(LogTest, PixelsFromABufferAreAskedFor) {
  bind_texture(5);
  PTexImage2D p = {};
  p.target = GL_TEXTURE_2D;
  p.width = p.height = 4;
  p.pixels_bytes = kOffset;
  call(kOpTexImage2D, p);
  ASSERT_EQ(questions().size(), 1U);
  EXPECT_EQ(count(kOpTexImage2D), 1U);
  EXPECT_EQ(last<PTexImage2D>().pixels_bytes, kNull);
}

TEST_F(LogTest, MipmapsKeepTheImageThatTheyWereMadeOf) {
  bind_texture(5);
  image(0, 'a');
  call(kOpGenerateMipmap, PGenerateMipmap{{}, GL_TEXTURE_2D});
  for (char fill : {'b', 'c', 'd'}) image(0, fill);
  EXPECT_EQ(count(kOpTexImage2D), 2U);
  EXPECT_EQ(last_[sizeof(PTexImage2D)], 'd');
  call(kOpGenerateMipmap, PGenerateMipmap{{}, GL_TEXTURE_2D});
  EXPECT_EQ(count(kOpTexImage2D), 1U);
  EXPECT_FALSE(log_.has_written());
}

TEST_F(LogTest, WhatIsPushedBeyondTheLimitIsNotPushed) {
  for (int i = 0; i < 100; ++i) {
    call(kOpPushAttrib, PPushAttrib{{}, GL_CURRENT_BIT});
    call(kOpPushMatrix, PPushMatrix{});
  }
  EXPECT_EQ(count(kOpPushAttrib), 16U);
  EXPECT_EQ(count(kOpPushMatrix), 31U);
}

TEST_F(LogTest, AListThatCallsItselfComesToAnEnd) {
  call(kOpNewList, PNewList{{}, 1, GL_COMPILE});
  for (int i = 0; i < 3; ++i) call(kOpCallList, PCallList{{}, 1});
  enable(GL_FOG);
  call(kOpEndList, PEndList{});
  call(kOpCallList, PCallList{{}, 1});
  EXPECT_EQ(count(kOpEnable), 2U);  // in the list, and what it did
}

TEST_F(LogTest, AllOfALongListCounts) {
  call(kOpNewList, PNewList{{}, 1, GL_COMPILE});
  for (int i = 0; i < 200'000; ++i) call(kOpVertex3f, PVertex3f{{}, 1, 2, 3});
  enable(GL_FOG);
  call(kOpEndList, PEndList{});
  call(kOpCallList, PCallList{{}, 1});
  EXPECT_EQ(count(kOpEnable), 2U);
}

TEST_F(LogTest, AQueryThatHasEndedHasAResultAgain) {
  call(kOpBeginQuery, PBeginQuery{{}, GL_SAMPLES_PASSED, 4});
  EXPECT_EQ(count(kOpBeginQuery), 1U);  // goes on
  EXPECT_EQ(count(kOpEndQuery), 0U);
  for (int i = 0; i < 3; ++i) {
    call(kOpEndQuery, PEndQuery{{}, GL_SAMPLES_PASSED});
    call(kOpBeginQuery, PBeginQuery{{}, GL_SAMPLES_PASSED, 5});
  }
  call(kOpEndQuery, PEndQuery{{}, GL_SAMPLES_PASSED});
  EXPECT_EQ(count(kOpBeginQuery), 2U);
  EXPECT_EQ(count(kOpEndQuery), 2U);
}

// What a log says is a log again: a keeper that begins with it comes to the same.
TEST_F(LogTest, AFenceIsKeptUntilItIsDeleted) {
  struct Fence : PFenceSync {
    uint64_t number;
  };
  for (uint64_t number = 16; number <= 48; number += 16) {
    call(kOpFenceSync, Fence{{{}, GL_SYNC_GPU_COMMANDS_COMPLETE, 0}, number});
    call(kOpDeleteSync, PDeleteSync{{}, number - 16});
  }
  EXPECT_EQ(count(kOpFenceSync), 1U);
  EXPECT_EQ(last<Fence>().number, 48U);
  call(kOpFenceSync, Fence{{{}, GL_SYNC_GPU_COMMANDS_COMPLETE, 1}, 64});  // an error
  call(kOpFenceSync, Fence{{{}, GL_SYNC_STATUS, 0}, 80});
  EXPECT_EQ(count(kOpFenceSync), 1U);
}

TEST_F(LogTest, ALogOfALogIsTheSame) {
  enable(GL_FOG);
  bind_texture(5);
  image(0, 'a');
  call(kOpColor3f, PColor3f{{}, 1, 0, 0});
  call(kOpPushAttrib, PPushAttrib{{}, GL_CURRENT_BIT});
  call(kOpColor3f, PColor3f{{}, 0, 1, 0});
  call(kOpTranslatef, PTranslatef{{}, 1, 2, 3});
  const std::string first = log_.replay();
  Log again;
  for_each_packet(first, [&](const Packet& packet) { again.add(kRing, packet); });
  for (const auto& [ring, packets] : log_.threads())
    for_each_packet(packets, [&](const Packet& packet) { again.add(ring, packet); });
  auto operations = [](const std::string& packets) {
    std::multiset<uint16_t> found;
    for_each_packet(packets, [&](const Packet& packet) { found.insert(packet.op); });
    return found;
  };
  auto before = operations(first), after = operations(again.replay());
  for (uint16_t op : {kOpEnable, kOpTexImage2D, kOpColor3f, kOpPushAttrib, kOpTranslatef})
    EXPECT_EQ(before.count(op), after.count(op)) << op;
}

TEST_F(LogTest, AContextThatNoThreadHasKeepsItsStateAndItsSurface) {
  enable(GL_DITHER);
  SurfaceCall interval = {};
  interval.value = 3;
  control(interval, kOpSwapInterval);
  control(MakeCurrent{}, kOpMakeCurrent);
  EXPECT_EQ(count(kOpEnable), 1U);
  EXPECT_EQ(count(kOpSwapInterval), 1U);
  EXPECT_EQ(last<SurfaceCall>().value, 3);
  std::vector<uint64_t> surfaces;
  for_each_packet(log_.replay(), [&](const Packet& packet) {
    if (packet.op == kOpMakeCurrent) surfaces.push_back(view<MakeCurrent>(packet).draw);
  });
  EXPECT_EQ(surfaces, (std::vector<uint64_t>{99, 0}));
}

TEST_F(LogTest, APacketThatIsTooShortIsRefused) {
  Packet alone = {8, kOpEnable, 0};
  EXPECT_THROW(log_.add(kRing, alone), BadStream);
  Packet unknown = {8, kOpGlEnd, 0};
  EXPECT_THROW(log_.add(kRing, unknown), BadStream);
  PTexImage2D p = {};
  p.pixels_bytes = 1 << 20;  // more than there is
  p.target = GL_TEXTURE_2D;
  EXPECT_NO_THROW(call(kOpTexImage2D, p));  // it is the renderer that looks at pixels
  PBufferData data = {};
  data.target = GL_ARRAY_BUFFER;
  data.size = 1 << 20;
  call(kOpBindBuffer, PBindBuffer{{}, GL_ARRAY_BUFFER, 3});
  EXPECT_THROW(call(kOpBufferData, data), BadStream);
}

}  // namespace

}  // namespace stasis::gl

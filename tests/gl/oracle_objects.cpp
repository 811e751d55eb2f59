// Objects, and random calls for them: buffers, vertex arrays, framebuffers, samplers, queries, programs.
#include "oracle.h"
#include "scene.h"

namespace {

constexpr GLenum kBufferTargets[] = {GL_ARRAY_BUFFER, GL_COPY_READ_BUFFER, GL_COPY_WRITE_BUFFER,
                                     GL_UNIFORM_BUFFER, GL_ELEMENT_ARRAY_BUFFER};
constexpr GLenum kUsages[] = {GL_STREAM_DRAW, GL_STATIC_READ, GL_DYNAMIC_COPY};

// It draws a triangle without arrays, of colours that its uniforms tell, and can be captured.
constexpr const char* kVertex = R"(#version 150
in vec4 place; in ivec2 number;
uniform mat4 turn; uniform vec4 tint[3]; uniform ivec2 pair; uniform float scale;
layout(std140) uniform First { vec4 first_color; float first_scale; };
layout(std140) uniform Second { vec4 second_color; };
out vec4 color; flat out int vertex;
void main() {
  color = tint[gl_VertexID % 3] + first_color * first_scale + second_color + turn * place * scale;
  vertex = gl_VertexID + pair.x + number.y;
  gl_Position = vec4(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0, 0.25, 1.0);
})";
constexpr const char* kFragment = R"(#version 150
in vec4 color; flat in int vertex; uniform sampler2D image; uniform uint count;
out vec4 one; out vec4 two;
void main() {
  one = fract(color + gl_FragCoord.xyxy / 16.0) + texelFetch(image, ivec2(0), 0) / 4.0;
  two = fract(color.wzyx + float(vertex + int(count)) / 8.0);
})";

GLuint make_program() {
  const GLuint program = glCreateProgram();
  for (GLuint shader : {compile(GL_VERTEX_SHADER, kVertex), compile(GL_FRAGMENT_SHADER, kFragment)}) {
    glAttachShader(program, shader);
    glDeleteShader(shader);
  }
  glBindAttribLocation(program, 2, "place");
  glBindAttribLocation(program, 1, "number");
  glBindFragDataLocation(program, 0, "one");
  glBindFragDataLocation(program, 1, "two");
  const char* captured[] = {"color", "vertex"};
  glTransformFeedbackVaryings(program, 2, captured, GL_INTERLEAVED_ATTRIBS);
  glLinkProgram(program);
  GLint linked = 0;
  glGetProgramiv(program, GL_LINK_STATUS, &linked);
  if (linked == 0) die("the program does not link");
  return program;
}

void call_buffer(World& world, Dice& dice) {
  Buffer& buffer = dice.one_of(world.buffers);
  const GLenum target = dice.one_of(kBufferTargets);
  glBindBuffer(target, buffer.name);
  switch (dice.below(buffer.size == 0 ? 1 : 6)) {
    case 0:
      buffer.size = 1024 + dice.between(0, 64) * 16;
      return glBufferData(target, buffer.size, dice.bytes(static_cast<size_t>(buffer.size)).data(),
                          dice.one_of(kUsages));
    case 1:
      return glBufferSubData(target, dice.between(0, 500), 64, dice.bytes(64).data());
    case 2: {
      auto* mapped = static_cast<unsigned char*>(
          glMapBufferRange(target, dice.between(0, 500), 64, GL_MAP_WRITE_BIT | GL_MAP_FLUSH_EXPLICIT_BIT));
      if (mapped == nullptr) return;
      for (int i = 0; i < 64; ++i) mapped[i] = static_cast<unsigned char>(dice.below(256));
      glFlushMappedBufferRange(target, 0, 64);
      glUnmapBuffer(target);
      return;
    }
    case 3:
      if (const Buffer& other = dice.one_of(world.buffers); other.size != 0 && other.name != buffer.name) {
        glBindBuffer(GL_COPY_READ_BUFFER, other.name);
        glBindBuffer(GL_COPY_WRITE_BUFFER, buffer.name);
        glCopyBufferSubData(GL_COPY_READ_BUFFER, GL_COPY_WRITE_BUFFER, dice.between(0, 200), 64, 300);
      }
      return;
    case 4:
      return glBindBufferBase(GL_UNIFORM_BUFFER, dice.below(3), buffer.name);
    default:
      return glBindBufferRange(GL_UNIFORM_BUFFER, dice.below(3), buffer.name, 256, 256);
  }
}

void call_array(World& world, Dice& dice) {
  glBindVertexArray(dice.one_of(world.arrays));
  const GLuint index = dice.below(kAttributes);
  const Buffer& buffer = dice.one_of(world.buffers);
  const auto* place = reinterpret_cast<void*>(static_cast<uintptr_t>(dice.below(8)) * 4);
  glBindBuffer(GL_ARRAY_BUFFER, buffer.name);
  switch (dice.below(world.core ? 7 : 9)) {
    case 0:
      return glVertexAttribPointer(index, dice.between(1, 4), dice.one_of({GL_FLOAT, GL_SHORT}),
                                   static_cast<GLboolean>(dice.below(2)), 16, place);
    case 1:
      return glVertexAttribIPointer(index, 2, GL_INT, 8, place);
    case 2:
      // What is drawn may read any of them: they stay within every buffer.
      return buffer.size != 0 ? glEnableVertexAttribArray(index) : glDisableVertexAttribArray(index);
    case 3:
      return glDisableVertexAttribArray(index);
    case 4:
      return glVertexAttribDivisor(index, dice.below(3));
    case 5:
      return glVertexAttrib4f(1 + dice.below(kAttributes - 1), dice.fraction(), dice.fraction(), 0, 1);
    case 6:
      return glVertexAttribI4i(1 + dice.below(kAttributes - 1), dice.between(-9, 9), 1, 2, 3);
    case 7:
      glClientActiveTexture(GL_TEXTURE0 + dice.below(kUnits));
      return glTexCoordPointer(dice.between(1, 4), GL_FLOAT, 16, place);
    default:
      return dice.once_in(2) ? glColorPointer(4, GL_UNSIGNED_BYTE, 4, place)
                             : glNormalPointer(GL_FLOAT, 12, place);
  }
}

void call_renderbuffer(World& world, Dice& dice) {
  Renderbuffer& buffer = dice.one_of(world.renderbuffers);
  glBindRenderbuffer(GL_RENDERBUFFER, buffer.name);
  buffer.depth = dice.once_in(3);
  constexpr GLenum kColored[] = {GL_RGBA8, GL_RGBA16F, GL_R8, GL_RG16, GL_RGB10_A2, GL_RGBA8UI, GL_R32I};
  constexpr GLenum kDeep[] = {GL_DEPTH_COMPONENT16,  GL_DEPTH_COMPONENT24, GL_DEPTH24_STENCIL8,
                              GL_DEPTH_COMPONENT32F, GL_DEPTH32F_STENCIL8, GL_STENCIL_INDEX8};
  const GLenum internal = buffer.depth ? dice.one_of(kDeep) : dice.one_of(kColored);
  glRenderbufferStorage(GL_RENDERBUFFER, internal, 16, 16);
  // What nobody has written is undefined; this makes state as well.
  const GLuint framebuffer = world.framebuffers[0];
  glBindFramebuffer(GL_DRAW_FRAMEBUFFER, framebuffer);
  glFramebufferTexture(GL_DRAW_FRAMEBUFFER, GL_COLOR_ATTACHMENT1, 0, 0);
  glFramebufferRenderbuffer(GL_DRAW_FRAMEBUFFER, GL_COLOR_ATTACHMENT0, GL_RENDERBUFFER,
                            buffer.depth ? 0 : buffer.name);
  const GLenum deep = internal == GL_STENCIL_INDEX8 ? GL_STENCIL_ATTACHMENT
                      : internal == GL_DEPTH24_STENCIL8 || internal == GL_DEPTH32F_STENCIL8
                          ? GL_DEPTH_STENCIL_ATTACHMENT
                          : GL_DEPTH_ATTACHMENT;
  glFramebufferRenderbuffer(GL_DRAW_FRAMEBUFFER, GL_DEPTH_STENCIL_ATTACHMENT, GL_RENDERBUFFER, 0);
  if (buffer.depth) glFramebufferRenderbuffer(GL_DRAW_FRAMEBUFFER, deep, GL_RENDERBUFFER, buffer.name);
  glDrawBuffer(buffer.depth ? GL_NONE : GL_COLOR_ATTACHMENT0);
  glDisable(GL_SCISSOR_TEST);
  glColorMask(GL_TRUE, GL_TRUE, GL_TRUE, GL_TRUE);
  glDepthMask(GL_TRUE);
  glStencilMask(255);
  const GLint exact[] = {dice.between(-9, 9), dice.between(0, 99), 3, 1};
  if (internal == GL_R32I) return glClearBufferiv(GL_COLOR, 0, exact);
  const GLuint natural[] = {dice.below(99), dice.below(256), 3, 1};
  if (internal == GL_RGBA8UI) return glClearBufferuiv(GL_COLOR, 0, natural);
  glClear(GL_COLOR_BUFFER_BIT | GL_DEPTH_BUFFER_BIT | GL_STENCIL_BUFFER_BIT);
}

void call_framebuffer(World& world, Dice& dice) {
  glBindFramebuffer(dice.one_of({GL_FRAMEBUFFER, GL_DRAW_FRAMEBUFFER, GL_READ_FRAMEBUFFER}),
                    dice.one_of(world.framebuffers));
  const GLenum target = dice.one_of({GL_DRAW_FRAMEBUFFER, GL_READ_FRAMEBUFFER});
  const GLenum color = GL_COLOR_ATTACHMENT0 + dice.below(2);
  switch (dice.below(6)) {
    case 0: {
      const Renderbuffer& buffer = dice.one_of(world.renderbuffers);
      return glFramebufferRenderbuffer(target,
                                       buffer.depth ? dice.one_of({GL_DEPTH_ATTACHMENT, GL_STENCIL_ATTACHMENT,
                                                                   GL_DEPTH_STENCIL_ATTACHMENT})
                                                    : color,
                                       GL_RENDERBUFFER, buffer.name);
    }
    case 1:
    case 2: {
      const Texture& texture = dice.one_of(world.textures);
      switch (texture.target) {
        case GL_TEXTURE_1D:
          return glFramebufferTexture1D(target, color, GL_TEXTURE_1D, texture.name, 0);
        case GL_TEXTURE_2D:
        case GL_TEXTURE_RECTANGLE:
          return glFramebufferTexture2D(target, color, texture.target, texture.name, 0);
        case GL_TEXTURE_CUBE_MAP:
          return glFramebufferTexture2D(target, color, GL_TEXTURE_CUBE_MAP_POSITIVE_X + dice.below(6),
                                        texture.name, 0);
        case GL_TEXTURE_BUFFER:
          return;
        default:
          return dice.once_in(2)
                     ? glFramebufferTextureLayer(target, color, texture.name, 0, dice.between(0, 3))
                     : glFramebufferTexture(target, color, texture.name, 0);
      }
    }
    case 3: {
      const GLenum both[] = {GL_COLOR_ATTACHMENT0, GL_COLOR_ATTACHMENT1};
      return glDrawBuffers(2, both);
    }
    case 4:
      return glReadBuffer(dice.one_of({GL_COLOR_ATTACHMENT0, GL_COLOR_ATTACHMENT1, GL_NONE}));
    default:
      return glFramebufferRenderbuffer(target, color, GL_RENDERBUFFER, 0);
  }
}

void call_sampler(World& world, Dice& dice) {
  const GLuint sampler = dice.one_of(world.samplers);
  const GLfloat border[] = {dice.fraction(), 0, dice.fraction(), 1};
  switch (dice.below(6)) {
    case 0:
      return glSamplerParameteri(
          sampler, dice.one_of({GL_TEXTURE_WRAP_S, GL_TEXTURE_WRAP_R}),
          static_cast<GLint>(dice.one_of({GL_REPEAT, GL_CLAMP_TO_EDGE, GL_MIRRORED_REPEAT})));
    case 1:
      return glSamplerParameteri(sampler, GL_TEXTURE_MIN_FILTER,
                                 static_cast<GLint>(dice.one_of({GL_NEAREST, GL_LINEAR_MIPMAP_LINEAR})));
    case 2:
      return glSamplerParameterfv(sampler, GL_TEXTURE_BORDER_COLOR, border);
    case 3:
      return glSamplerParameterf(sampler, dice.one_of({GL_TEXTURE_MIN_LOD, GL_TEXTURE_LOD_BIAS}),
                                 dice.fraction());
    case 4:
      return glSamplerParameteri(sampler, GL_TEXTURE_COMPARE_MODE,
                                 static_cast<GLint>(dice.one_of({GL_NONE, GL_COMPARE_REF_TO_TEXTURE})));
    default:
      return glBindSampler(dice.below(kUnits), dice.once_in(3) ? 0 : sampler);
  }
}

void call_program(World& world, Dice& dice) {
  const GLuint program = dice.one_of(world.programs);
  glUseProgram(program);
  const GLfloat four[] = {dice.fraction(), dice.fraction(), dice.fraction(), dice.fraction()};
  auto place = [&](const char* name) { return glGetUniformLocation(program, name); };
  switch (dice.below(8)) {
    case 0: {
      GLfloat matrix[16];
      for (GLfloat& one : matrix) one = dice.fraction();
      return glUniformMatrix4fv(place("turn"), 1, static_cast<GLboolean>(dice.below(2)), matrix);
    }
    case 1:
      return glUniform4fv(place("tint") + dice.between(0, 2), 1, four);
    case 2: {
      const GLfloat all[12] = {0.5F, four[0], four[1], 1, 0.25F, four[2], four[3], 0, 1, 1, four[1], 0};
      return glUniform4fv(place("tint"), 3, all);
    }
    case 3:
      return glUniform2i(place("pair"), dice.between(-9, 9), 1);
    case 4:
      return glUniform1f(place("scale"), dice.fraction());
    case 5:
      return glUniform1ui(place("count"), dice.below(9));
    case 6:
      return glUniform1i(place("image"), dice.between(0, kUnits - 1));
    default:
      return glUniformBlockBinding(program, dice.below(2), dice.below(3));
  }
}

void call_query(World& world, Dice& dice) {
  const GLuint query = dice.one_of(world.queries);
  if (!may_draw(world)) return;
  glBeginQuery(GL_PRIMITIVES_GENERATED, query);
  glDrawArrays(GL_TRIANGLES, 0, 3);
  glEndQuery(GL_PRIMITIVES_GENERATED);
}

void capture(World& world, Dice& dice) {
  const Buffer& buffer = dice.one_of(world.buffers);
  if (buffer.size == 0 || !may_draw(world)) return;
  for (GLuint i = 0; i < 3; ++i) {
    GLint bound = 0;
    glGetIntegeri_v(GL_UNIFORM_BUFFER_BINDING, i, &bound);
    if (static_cast<GLuint>(bound) == buffer.name) return;
  }
  glUseProgram(world.programs[0]);
  glBindVertexArray(world.arrays[0]);
  glBindBufferRange(GL_TRANSFORM_FEEDBACK_BUFFER, 0, buffer.name, 64, 512);
  glBeginTransformFeedback(GL_TRIANGLES);
  glDrawArrays(GL_TRIANGLES, 0, 3);
  glEndTransformFeedback();
  glBindBufferBase(GL_TRANSFORM_FEEDBACK_BUFFER, 0, 0);
}

// An object of that name dies, and another one gets its name.
void remake(World& world, Dice& dice) {
  switch (dice.below(4)) {
    case 0: {
      Buffer& buffer = dice.one_of(world.buffers);
      glDeleteBuffers(1, &buffer.name);
      glGenBuffers(1, &buffer.name);
      buffer.size = 0;
      return;
    }
    case 1: {
      GLuint& sampler = dice.one_of(world.samplers);
      glDeleteSamplers(1, &sampler);
      return glGenSamplers(1, &sampler);
    }
    case 2: {
      GLuint& framebuffer = dice.one_of(world.framebuffers);
      glDeleteFramebuffers(1, &framebuffer);
      return glGenFramebuffers(1, &framebuffer);
    }
    default: {
      Texture& texture = dice.one_of(world.textures);
      glDeleteTextures(1, &texture.name);
      texture.whole = false;
      return glGenTextures(1, &texture.name);
    }
  }
}

}  // namespace

void set_up_objects(World& world) {
  for (GLenum target :
       {GL_TEXTURE_1D, GL_TEXTURE_2D, GL_TEXTURE_2D, GL_TEXTURE_2D, GL_TEXTURE_3D, GL_TEXTURE_CUBE_MAP,
        GL_TEXTURE_RECTANGLE, GL_TEXTURE_1D_ARRAY, GL_TEXTURE_2D_ARRAY, GL_TEXTURE_BUFFER}) {
    world.textures.push_back({target, 0});
    glGenTextures(1, &world.textures.back().name);
  }
  auto make = [](std::vector<GLuint>& names, size_t count, void (*generate)(GLsizei, GLuint*)) {
    names.resize(count);
    generate(static_cast<GLsizei>(count), names.data());
  };
  std::vector<GLuint> names;
  make(names, 6, glGenBuffers);
  for (GLuint name : names) world.buffers.push_back({name});
  make(names, 5, glGenRenderbuffers);
  for (GLuint name : names) world.renderbuffers.push_back({name});
  make(world.framebuffers, 3, glGenFramebuffers);
  make(world.samplers, 3, glGenSamplers);
  make(world.arrays, 3, glGenVertexArrays);
  make(world.queries, 2, glGenQueries);
  world.programs = {make_program(), make_program()};
  if (!world.core) world.lists = {1, 2, 3};
  glBindVertexArray(world.arrays[0]);
}

void call_objects(World& world, Dice& dice) {
  switch (dice.below(16)) {
    case 0:
    case 1:
    case 2:
      return call_buffer(world, dice);
    case 3:
    case 4:
      return call_array(world, dice);
    case 5:
      return call_renderbuffer(world, dice);
    case 6:
    case 7:
    case 8:
      return call_framebuffer(world, dice);
    case 9:
    case 10:
      return call_sampler(world, dice);
    case 11:
    case 12:
      return call_program(world, dice);
    case 13:
      return call_query(world, dice);
    case 14:
      return capture(world, dice);
    default:
      return remake(world, dice);
  }
}

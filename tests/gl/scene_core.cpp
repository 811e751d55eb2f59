// The core profile.
#include <cstring>

#include "scene.h"

namespace {

GLuint array, program, buffers[2], textures[1];

}  // namespace

void set_up_core() {
  LOAD(PFNGLGENVERTEXARRAYSPROC, glGenVertexArrays);
  LOAD(PFNGLBINDVERTEXARRAYPROC, glBindVertexArray);
  LOAD(PFNGLGENBUFFERSPROC, glGenBuffers);
  LOAD(PFNGLBINDBUFFERPROC, glBindBuffer);
  LOAD(PFNGLBUFFERDATAPROC, glBufferData);
  LOAD(PFNGLMAPBUFFERRANGEPROC, glMapBufferRange);
  LOAD(PFNGLUNMAPBUFFERPROC, glUnmapBuffer);
  LOAD(PFNGLVERTEXATTRIBPOINTERPROC, glVertexAttribPointer);
  LOAD(PFNGLENABLEVERTEXATTRIBARRAYPROC, glEnableVertexAttribArray);
  LOAD(PFNGLVERTEXATTRIB4FPROC, glVertexAttrib4f);
  LOAD(PFNGLGETATTRIBLOCATIONPROC, glGetAttribLocation);
  LOAD(PFNGLGETUNIFORMBLOCKINDEXPROC, glGetUniformBlockIndex);
  LOAD(PFNGLUNIFORMBLOCKBINDINGPROC, glUniformBlockBinding);
  LOAD(PFNGLBINDBUFFERBASEPROC, glBindBufferBase);
  LOAD(PFNGLUSEPROGRAMPROC, glUseProgram);
  program = link_program(
      "#version 330\nin vec2 at; in vec4 color; out vec4 shade; layout(std140) uniform Move { vec4 move; };"
      "void main() { gl_Position = vec4(at + move.xy, 0, 1); shade = color + vec4(at, 0, 0); }",
      "#version 330\nin vec4 shade; out vec4 pixel; uniform sampler2D image; void main() { pixel = shade * "
      "0.5"
      " + texture(image, shade.xy) * 0.5; }");
  glGenVertexArrays(1, &array);
  glBindVertexArray(array);
  glGenBuffers(2, buffers);
  glBindBuffer(GL_ARRAY_BUFFER, buffers[0]);
  const GLfloat corners[] = {-0.8F, -0.7F, 0.9F, -0.8F, 0.7F, 0.8F, -0.6F, 0.9F};
  glBufferData(GL_ARRAY_BUFFER, sizeof corners, nullptr, GL_STATIC_DRAW);
  memcpy(glMapBufferRange(GL_ARRAY_BUFFER, 0, sizeof corners, GL_MAP_WRITE_BIT), corners, sizeof corners);
  glUnmapBuffer(GL_ARRAY_BUFFER);
  const auto at = static_cast<GLuint>(glGetAttribLocation(program, "at"));
  glVertexAttribPointer(at, 2, GL_FLOAT, GL_FALSE, 0, nullptr);
  glEnableVertexAttribArray(at);
  glVertexAttrib4f(static_cast<GLuint>(glGetAttribLocation(program, "color")), 0.3F, 0.5F, 0.2F, 1);
  const GLushort indices[] = {0, 1, 2, 0, 2, 3};
  glBindBuffer(GL_ELEMENT_ARRAY_BUFFER, buffers[1]);
  glBufferData(GL_ELEMENT_ARRAY_BUFFER, sizeof indices, indices, GL_STATIC_DRAW);
  glBindVertexArray(0);
  GLuint block = 0;
  glGenBuffers(1, &block);
  const GLfloat move[] = {0.05F, -0.1F, 0, 0};
  glBindBuffer(GL_UNIFORM_BUFFER, block);
  glBufferData(GL_UNIFORM_BUFFER, sizeof move, move, GL_STATIC_DRAW);
  glBindBufferBase(GL_UNIFORM_BUFFER, 2, block);
  glUniformBlockBinding(program, glGetUniformBlockIndex(program, "Move"), 2);
  glGenTextures(1, textures);
  glBindTexture(GL_TEXTURE_2D, textures[0]);
  glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, GL_NEAREST);
  glTexImage2D(GL_TEXTURE_2D, 0, GL_RGB8, 16, 16, 0, GL_RGB, GL_UNSIGNED_BYTE, pattern(16, 16, 3).data());
  glUseProgram(program);
  glClearColor(0.2F, 0.1F, 0.3F, 1);
}

namespace {

GLuint count = 0;  // a query

// Of the frame before, which may have been another driver's.
void wait_for_last_frame() {
  LOAD(PFNGLFENCESYNCPROC, glFenceSync);
  LOAD(PFNGLCLIENTWAITSYNCPROC, glClientWaitSync);
  LOAD(PFNGLISSYNCPROC, glIsSync);
  LOAD(PFNGLDELETESYNCPROC, glDeleteSync);
  static GLsync last = nullptr;
  if (last != nullptr) {
    constexpr GLuint64 kMinute_ns = 60'000'000'000;
    const GLenum said = glClientWaitSync(last, GL_SYNC_FLUSH_COMMANDS_BIT, kMinute_ns);
    if (said != GL_ALREADY_SIGNALED && said != GL_CONDITION_SATISFIED) die("a fence that is not reached");
    if (!glIsSync(last)) die("a fence that is none");
    glDeleteSync(last);
    if (glIsSync(last)) die("a fence that was deleted");
  }
  last = glFenceSync(GL_SYNC_GPU_COMMANDS_COMPLETE, 0);
}

// What was to be seen of the frame before, as games ask: another driver may have counted it.
void check_count_of_last_frame() {
  LOAD(PFNGLGETQUERYOBJECTUIVPROC, glGetQueryObjectuiv);
  if (count == 0) return;
  GLuint available = GL_FALSE, samples = 0;
  while (available == GL_FALSE) glGetQueryObjectuiv(count, GL_QUERY_RESULT_AVAILABLE, &available);
  glGetQueryObjectuiv(count, GL_QUERY_RESULT, &samples);
  if (samples == 0) die("what was to be seen is not");
}

}  // namespace

void draw_core() {
  LOAD(PFNGLBINDVERTEXARRAYPROC, glBindVertexArray);
  LOAD(PFNGLGENQUERIESPROC, glGenQueries);
  LOAD(PFNGLBEGINQUERYPROC, glBeginQuery);
  LOAD(PFNGLENDQUERYPROC, glEndQuery);
  wait_for_last_frame();
  check_count_of_last_frame();
  if (count == 0) glGenQueries(1, &count);
  glClear(GL_COLOR_BUFFER_BIT | GL_DEPTH_BUFFER_BIT);
  glBindVertexArray(array);
  glBeginQuery(GL_SAMPLES_PASSED, count);
  glDrawElements(GL_TRIANGLES, 6, GL_UNSIGNED_SHORT, nullptr);
  glEndQuery(GL_SAMPLES_PASSED);
  glBindVertexArray(0);
}

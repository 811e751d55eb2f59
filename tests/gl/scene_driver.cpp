// What only the driver knows: images that were drawn or copied, and are used in each frame.
#include "scene.h"

namespace {

constexpr int kImageSize = 64;
GLuint textures[1], program, buffers[2];
GLuint query = 0, counted = 0;
GLuint drawn[2], copied, from_buffer, framebuffers[2], renderbuffers[3];

GLuint result_of_query() {
  LOAD(PFNGLGETQUERYOBJECTUIVPROC, glGetQueryObjectuiv);
  GLuint result = 0;
  glGetQueryObjectuiv(query, GL_QUERY_RESULT, &result);
  return result;
}

void set_up_framebuffers() {
  LOAD(PFNGLGENFRAMEBUFFERSPROC, glGenFramebuffers);
  LOAD(PFNGLBINDFRAMEBUFFERPROC, glBindFramebuffer);
  LOAD(PFNGLFRAMEBUFFERTEXTURE2DPROC, glFramebufferTexture2D);
  LOAD(PFNGLFRAMEBUFFERRENDERBUFFERPROC, glFramebufferRenderbuffer);
  LOAD(PFNGLGENRENDERBUFFERSPROC, glGenRenderbuffers);
  LOAD(PFNGLBINDRENDERBUFFERPROC, glBindRenderbuffer);
  LOAD(PFNGLRENDERBUFFERSTORAGEPROC, glRenderbufferStorage);
  LOAD(PFNGLGENERATEMIPMAPPROC, glGenerateMipmap);
  LOAD(PFNGLCHECKFRAMEBUFFERSTATUSPROC, glCheckFramebufferStatus);
  glGenTextures(2, drawn);
  const GLint formats[] = {GL_RGBA8, GL_RGBA16F};
  for (int i = 0; i < 2; ++i) {
    glBindTexture(GL_TEXTURE_2D, drawn[i]);
    filter(i == 0 ? GL_NEAREST : GL_LINEAR_MIPMAP_NEAREST);
    glTexImage2D(GL_TEXTURE_2D, 0, formats[i], kImageSize, kImageSize, 0, GL_RGBA, GL_UNSIGNED_BYTE, nullptr);
  }
  glGenRenderbuffers(3, renderbuffers);
  const GLenum storage[] = {GL_RGBA8, GL_DEPTH24_STENCIL8, GL_DEPTH_COMPONENT24};
  for (int i = 0; i < 3; ++i) {
    glBindRenderbuffer(GL_RENDERBUFFER, renderbuffers[i]);
    glRenderbufferStorage(GL_RENDERBUFFER, storage[i], kImageSize, kImageSize);
  }
  glBindRenderbuffer(GL_RENDERBUFFER, 0);
  glGenFramebuffers(2, framebuffers);
  glBindFramebuffer(GL_FRAMEBUFFER, framebuffers[0]);
  glFramebufferTexture2D(GL_FRAMEBUFFER, GL_COLOR_ATTACHMENT0, GL_TEXTURE_2D, drawn[0], 0);
  glFramebufferRenderbuffer(GL_FRAMEBUFFER, GL_DEPTH_ATTACHMENT, GL_RENDERBUFFER, renderbuffers[1]);
  glFramebufferRenderbuffer(GL_FRAMEBUFFER, GL_STENCIL_ATTACHMENT, GL_RENDERBUFFER, renderbuffers[1]);
  if (glCheckFramebufferStatus(GL_FRAMEBUFFER) != GL_FRAMEBUFFER_COMPLETE) die("a framebuffer");
  glViewport(0, 0, kImageSize, kImageSize);
  glClearColor(0.2F, 0.3F, 0.1F, 1);
  glClearStencil(5);
  glClear(GL_COLOR_BUFFER_BIT | GL_DEPTH_BUFFER_BIT | GL_STENCIL_BUFFER_BIT);
  triangle(0.2F, 0.1F);
  // A copy of what was drawn, and of a part of it.
  glGenTextures(1, &copied);
  glBindTexture(GL_TEXTURE_2D, copied);
  filter(GL_NEAREST);
  glCopyTexImage2D(GL_TEXTURE_2D, 0, GL_RGB8, 8, 8, 32, 32, 0);
  glCopyTexSubImage2D(GL_TEXTURE_2D, 0, 2, 3, 40, 20, 16, 16);
  // Into all levels of a texture.
  glFramebufferTexture2D(GL_FRAMEBUFFER, GL_COLOR_ATTACHMENT0, GL_TEXTURE_2D, drawn[1], 0);
  glClear(GL_COLOR_BUFFER_BIT);
  triangle(0.4F, -0.5F);
  glBindTexture(GL_TEXTURE_2D, drawn[1]);
  glGenerateMipmap(GL_TEXTURE_2D);
  glFramebufferTexture2D(GL_FRAMEBUFFER, GL_COLOR_ATTACHMENT0, GL_TEXTURE_2D, drawn[0], 0);
  glBindFramebuffer(GL_FRAMEBUFFER, framebuffers[1]);
  glFramebufferRenderbuffer(GL_FRAMEBUFFER, GL_COLOR_ATTACHMENT0, GL_RENDERBUFFER, renderbuffers[0]);
  glFramebufferRenderbuffer(GL_FRAMEBUFFER, GL_DEPTH_ATTACHMENT, GL_RENDERBUFFER, renderbuffers[2]);
  glClearColor(0.5F, 0.1F, 0.4F, 1);
  glClear(GL_COLOR_BUFFER_BIT | GL_DEPTH_BUFFER_BIT);
  triangle(0, 0.4F);
  glBindFramebuffer(GL_FRAMEBUFFER, 0);
}

// Pixels from a buffer, which is then filled with something else; mipmaps of an image that is then replaced.
void set_up_uploads() {
  LOAD(PFNGLGENBUFFERSPROC, glGenBuffers);
  LOAD(PFNGLBINDBUFFERPROC, glBindBuffer);
  LOAD(PFNGLBUFFERDATAPROC, glBufferData);
  LOAD(PFNGLGENERATEMIPMAPPROC, glGenerateMipmap);
  GLuint pixels = 0;
  glGenBuffers(1, &pixels);
  glPixelStorei(GL_UNPACK_ALIGNMENT, 1);
  glBindBuffer(GL_PIXEL_UNPACK_BUFFER, pixels);
  glBufferData(GL_PIXEL_UNPACK_BUFFER, 32 * 32 * 3, pattern(32, 32, 40).data(), GL_STREAM_DRAW);
  glGenTextures(1, &from_buffer);
  glBindTexture(GL_TEXTURE_2D, from_buffer);
  filter(GL_NEAREST);
  glTexImage2D(GL_TEXTURE_2D, 0, GL_RGB8, 32, 32, 0, GL_RGB, GL_UNSIGNED_BYTE, nullptr);
  glTexSubImage2D(GL_TEXTURE_2D, 0, 0, 0, 16, 16, GL_RGB, GL_UNSIGNED_BYTE, reinterpret_cast<void*>(300));
  glBufferData(GL_PIXEL_UNPACK_BUFFER, 32 * 32 * 3, pattern(32, 32, 80).data(), GL_STREAM_DRAW);
  glBindBuffer(GL_PIXEL_UNPACK_BUFFER, 0);
  glGenTextures(1, textures);
  glBindTexture(GL_TEXTURE_2D, textures[0]);
  filter(GL_LINEAR_MIPMAP_NEAREST);
  glTexImage2D(GL_TEXTURE_2D, 0, GL_RGB8, 64, 64, 0, GL_RGB, GL_UNSIGNED_BYTE, pattern(64, 64, 7).data());
  glGenerateMipmap(GL_TEXTURE_2D);
  glTexImage2D(GL_TEXTURE_2D, 0, GL_RGB8, 64, 64, 0, GL_RGB, GL_UNSIGNED_BYTE, pattern(64, 64, 200).data());
}

// Vertices that a shader has written, and a copy of them.
void set_up_captured() {
  LOAD(PFNGLGENBUFFERSPROC, glGenBuffers);
  LOAD(PFNGLBINDBUFFERPROC, glBindBuffer);
  LOAD(PFNGLBUFFERDATAPROC, glBufferData);
  LOAD(PFNGLCOPYBUFFERSUBDATAPROC, glCopyBufferSubData);
  LOAD(PFNGLTRANSFORMFEEDBACKVARYINGSPROC, glTransformFeedbackVaryings);
  LOAD(PFNGLBEGINTRANSFORMFEEDBACKPROC, glBeginTransformFeedback);
  LOAD(PFNGLENDTRANSFORMFEEDBACKPROC, glEndTransformFeedback);
  LOAD(PFNGLBINDBUFFERBASEPROC, glBindBufferBase);
  LOAD(PFNGLLINKPROGRAMPROC, glLinkProgram);
  LOAD(PFNGLUSEPROGRAMPROC, glUseProgram);
  program = link_program(
      "varying vec4 moved; void main() { moved = gl_Vertex * 0.5 + vec4(0.4, -0.3, 0, 0.5); "
      "gl_Position = gl_Vertex; }",
      "void main() { gl_FragColor = vec4(1); }");
  const char* name = "moved";
  glTransformFeedbackVaryings(program, 1, &name, GL_INTERLEAVED_ATTRIBS);
  glLinkProgram(program);
  glGenBuffers(2, buffers);
  for (GLuint buffer : buffers) {
    glBindBuffer(GL_ARRAY_BUFFER, buffer);
    glBufferData(GL_ARRAY_BUFFER, 3 * 16, nullptr, GL_STATIC_DRAW);
  }
  glBindBuffer(GL_ARRAY_BUFFER, 0);
  glUseProgram(program);
  glBindBufferBase(GL_TRANSFORM_FEEDBACK_BUFFER, 0, buffers[0]);
  glEnable(GL_RASTERIZER_DISCARD);
  glBeginTransformFeedback(GL_TRIANGLES);
  triangle(0.1F, 0);
  glEndTransformFeedback();
  glDisable(GL_RASTERIZER_DISCARD);
  glBindBufferBase(GL_TRANSFORM_FEEDBACK_BUFFER, 0, 0);
  glUseProgram(0);
  glBindBuffer(GL_COPY_READ_BUFFER, buffers[0]);
  glBindBuffer(GL_COPY_WRITE_BUFFER, buffers[1]);
  glCopyBufferSubData(GL_COPY_READ_BUFFER, GL_COPY_WRITE_BUFFER, 0, 0, 3 * 16);
}

// Colours of the window that are added up, also below nothing.
void accumulate() {
  glClear(GL_COLOR_BUFFER_BIT | GL_DEPTH_BUFFER_BIT);
  triangle(0.15F, 0.1F);
  glAccum(GL_LOAD, 0.37F);
  glClear(GL_COLOR_BUFFER_BIT | GL_DEPTH_BUFFER_BIT);
  triangle(-0.2F, 0.1F);
  glAccum(GL_ACCUM, -0.513F);
}

// What has been added up, what of it is below nothing, and its lowest bits.
void show_accumulated() {
  glEnable(GL_SCISSOR_TEST);
  const GLfloat scales[] = {1, -1, 120};
  for (int i = 0; i < 3; ++i) {
    glScissor(10 + 60 * i, 90, 50, 50);
    glAccum(GL_RETURN, scales[i]);
  }
  glDisable(GL_SCISSOR_TEST);
  glAccum(GL_MULT, 0.93F);
}

}  // namespace

void set_up_driver() {
  glEnable(GL_DEPTH_TEST);
  glDepthFunc(GL_LEQUAL);
  set_up_framebuffers();
  set_up_uploads();
  set_up_captured();
  glViewport(0, 0, kSize, kSize);
  accumulate();
  glViewport(0, 0, kSize, kSize);
  glClearColor(0.1F, 0.2F, 0.3F, 1);
}

namespace {

// The first half of a frame: into the image, on what is there, behind what its depth says; and to the window.
}  // namespace

void begin_driver() {
  LOAD(PFNGLBINDFRAMEBUFFERPROC, glBindFramebuffer);
  glBindFramebuffer(GL_FRAMEBUFFER, framebuffers[0]);
  glViewport(0, 0, kImageSize, kImageSize);
  glEnable(GL_BLEND);
  glBlendFunc(GL_SRC_ALPHA, GL_ONE_MINUS_SRC_ALPHA);
  glEnable(GL_STENCIL_TEST);
  glStencilFunc(GL_LESS, 3, 255);  // 5 and more
  glStencilOp(GL_KEEP, GL_KEEP, GL_INCR);
  triangle(0.3F, 0.3F);
  glDisable(GL_STENCIL_TEST);
  glBindFramebuffer(GL_FRAMEBUFFER, 0);
  glViewport(0, 0, kSize, kSize);
  glClear(GL_COLOR_BUFFER_BIT | GL_DEPTH_BUFFER_BIT | GL_STENCIL_BUFFER_BIT);
  LOAD(PFNGLGENQUERIESPROC, glGenQueries);
  LOAD(PFNGLBEGINQUERYPROC, glBeginQuery);
  LOAD(PFNGLENDQUERYPROC, glEndQuery);
  if (query == 0) glGenQueries(1, &query);
  glBeginQuery(GL_SAMPLES_PASSED, query);
  triangle(0.6F, 0.2F);
  glEndQuery(GL_SAMPLES_PASSED);
  counted = result_of_query();
}

namespace {

// Each image on a tile of its own; then a triangle behind the first half's.
}  // namespace

void more_driver() {
  if (counted == 0 || result_of_query() != counted) die("the result of a query has changed");
  LOAD(PFNGLBINDFRAMEBUFFERPROC, glBindFramebuffer);
  LOAD(PFNGLBLITFRAMEBUFFERPROC, glBlitFramebuffer);
  LOAD(PFNGLBINDBUFFERPROC, glBindBuffer);
  triangle(0.7F, 0.35F);
  glDisable(GL_BLEND);
  glColor4f(1, 1, 1, 1);
  glEnable(GL_TEXTURE_2D);
  const GLuint tiles[] = {drawn[0], drawn[1], copied, from_buffer, textures[0], drawn[1], textures[0]};
  for (int i = 0; i < 7; ++i) {
    const float left = -1 + 0.25F * static_cast<float>(i),
                size = i < 5 ? 0.24F : 0.06F;  // the last from mipmaps
    glBindTexture(GL_TEXTURE_2D, tiles[i]);
    fullscreen(left, 0.7F, left + size, 0.7F + size, -0.9F);
  }
  glDisable(GL_TEXTURE_2D);
  glBindFramebuffer(GL_READ_FRAMEBUFFER, framebuffers[1]);
  glBlitFramebuffer(0, 0, kImageSize, kImageSize, 8, 8, 8 + kImageSize, 8 + kImageSize, GL_COLOR_BUFFER_BIT,
                    GL_NEAREST);
  glBindFramebuffer(GL_READ_FRAMEBUFFER, 0);
  glEnableClientState(GL_VERTEX_ARRAY);
  for (GLuint buffer : buffers) {
    glColor4f(0.6F, 0.7F, buffer == buffers[0] ? 0.2F : 0.8F, 1);
    glBindBuffer(GL_ARRAY_BUFFER, buffer);
    glVertexPointer(4, GL_FLOAT, 0, nullptr);
    glDrawArrays(GL_TRIANGLES, 0, 3);
    glTranslatef(0.1F, 0.2F, 0);
  }
  glLoadIdentity();
  glBindBuffer(GL_ARRAY_BUFFER, 0);
  glDisableClientState(GL_VERTEX_ARRAY);
  show_accumulated();
}

void draw_driver() {
  begin_driver();
  more_driver();
}

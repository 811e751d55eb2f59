// A program that sets up a lot of OpenGL state once, and then draws with it whenever it is told: a line
// "draw" on standard input is answered with a hash of the picture. What it needs for a frame was said in a
// frame before, so a driver that got it from a log must have all of it. "extra" changes some of it, "begin"
// draws half of a frame and "more" the rest, and "swap" ends a frame.
#include <GL/gl.h>
#include <GL/glext.h>
#include <GL/glx.h>
#include <X11/Xlib.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "serve.h"

namespace {

constexpr int kSize = 256;

template <typename F>
F load(const char* name) {
  return reinterpret_cast<F>(glXGetProcAddressARB(reinterpret_cast<const GLubyte*>(name)));
}
#define LOAD(type, name) auto* name = load<type>(#name)

[[noreturn]] void die(const char* what) {
  fprintf(stderr, "scene: %s\n", what);
  exit(1);
}

Display* display = nullptr;
Window window = None;

void open_window(bool core) {
  display = XOpenDisplay(nullptr);
  if (display == nullptr) die("no display");
  const int attributes[] = {GLX_RED_SIZE,
                            8,
                            GLX_GREEN_SIZE,
                            8,
                            GLX_BLUE_SIZE,
                            8,
                            GLX_DEPTH_SIZE,
                            1,
                            GLX_STENCIL_SIZE,
                            1,
                            GLX_DOUBLEBUFFER,
                            True,
                            GLX_DRAWABLE_TYPE,
                            GLX_WINDOW_BIT,
                            None};
  int count = 0;
  GLXFBConfig* configs = glXChooseFBConfig(display, DefaultScreen(display), attributes, &count);
  if (configs == nullptr) die("no configuration");
  XVisualInfo* visual = glXGetVisualFromFBConfig(display, configs[0]);
  XSetWindowAttributes set = {};
  set.colormap = XCreateColormap(display, DefaultRootWindow(display), visual->visual, AllocNone);
  window = XCreateWindow(display, DefaultRootWindow(display), 0, 0, kSize, kSize, 0, visual->depth,
                         InputOutput, visual->visual, CWColormap, &set);
  XMapWindow(display, window);
  GLXContext context = nullptr;
  if (core) {
    LOAD(PFNGLXCREATECONTEXTATTRIBSARBPROC, glXCreateContextAttribsARB);
    const int wanted[] = {
        GLX_CONTEXT_MAJOR_VERSION_ARB,    3,   GLX_CONTEXT_MINOR_VERSION_ARB, 3, GLX_CONTEXT_PROFILE_MASK_ARB,
        GLX_CONTEXT_CORE_PROFILE_BIT_ARB, None};
    context = glXCreateContextAttribsARB(display, configs[0], nullptr, True, wanted);
  } else {
    context = glXCreateNewContext(display, configs[0], GLX_RGBA_TYPE, nullptr, True);
  }
  if (context == nullptr || !glXMakeCurrent(display, window, context)) die("no context");
}

uint64_t hash_of_picture() {
  std::vector<unsigned char> pixels(kSize * kSize * 4);
  glReadPixels(0, 0, kSize, kSize, GL_RGBA, GL_UNSIGNED_BYTE, pixels.data());
  uint64_t hash = 14695981039346656037U;
  size_t lit = 0;
  for (unsigned char byte : pixels) {
    hash = (hash ^ byte) * 1099511628211U;
    lit += byte != 0 && byte != 255;
  }
  if (lit < 1000) die("the picture is empty");
  if (GLenum error = glGetError(); error != GL_NO_ERROR) {
    fprintf(stderr, "scene: error 0x%x\n", error);
    exit(1);
  }
  return hash;
}

std::vector<unsigned char> pattern(int width, int height, int seed) {
  std::vector<unsigned char> bytes(static_cast<size_t>(width * height * 3));
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<unsigned char>((i * 7 + i / 16 * 31) ^ seed);
  return bytes;
}

// --- Fixed function

GLuint textures[3], list, program, buffers[2];

GLuint compile(GLenum type, const char* source) {
  LOAD(PFNGLCREATESHADERPROC, glCreateShader);
  LOAD(PFNGLSHADERSOURCEPROC, glShaderSource);
  LOAD(PFNGLCOMPILESHADERPROC, glCompileShader);
  LOAD(PFNGLGETSHADERIVPROC, glGetShaderiv);
  GLuint shader = glCreateShader(type);
  glShaderSource(shader, 1, &source, nullptr);
  glCompileShader(shader);
  GLint done = 0;
  glGetShaderiv(shader, GL_COMPILE_STATUS, &done);
  if (!done) die("a shader does not compile");
  return shader;
}

GLuint link(const char* vertex, const char* fragment) {
  LOAD(PFNGLCREATEPROGRAMPROC, glCreateProgram);
  LOAD(PFNGLATTACHSHADERPROC, glAttachShader);
  LOAD(PFNGLLINKPROGRAMPROC, glLinkProgram);
  LOAD(PFNGLDELETESHADERPROC, glDeleteShader);
  LOAD(PFNGLGETPROGRAMIVPROC, glGetProgramiv);
  GLuint linked = glCreateProgram();
  for (GLuint shader : {compile(GL_VERTEX_SHADER, vertex), compile(GL_FRAGMENT_SHADER, fragment)}) {
    glAttachShader(linked, shader);
    glDeleteShader(shader);  // lives as long as it is attached
  }
  glLinkProgram(linked);
  GLint done = 0;
  glGetProgramiv(linked, GL_LINK_STATUS, &done);
  if (!done) die("a program does not link");
  return linked;
}

void set_up_textures() {
  glGenTextures(3, textures);
  glPixelStorei(GL_UNPACK_ALIGNMENT, 1);
  glBindTexture(GL_TEXTURE_2D, textures[0]);
  glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, GL_NEAREST);
  glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MAG_FILTER, GL_NEAREST);
  glTexImage2D(GL_TEXTURE_2D, 0, GL_RGB, 32, 32, 0, GL_RGB, GL_UNSIGNED_BYTE, pattern(32, 32, 1).data());
  // A part of a larger image, twice at the same place.
  glPixelStorei(GL_UNPACK_ROW_LENGTH, 20);
  glPixelStorei(GL_UNPACK_SKIP_ROWS, 2);
  glPixelStorei(GL_UNPACK_SKIP_PIXELS, 3);
  glTexSubImage2D(GL_TEXTURE_2D, 0, 4, 4, 10, 10, GL_RGB, GL_UNSIGNED_BYTE, pattern(20, 20, 99).data());
  glTexSubImage2D(GL_TEXTURE_2D, 0, 4, 4, 10, 10, GL_RGB, GL_UNSIGNED_BYTE, pattern(20, 20, 170).data());
  glPixelStorei(GL_UNPACK_ROW_LENGTH, 0);
  glPixelStorei(GL_UNPACK_SKIP_ROWS, 0);
  glPixelStorei(GL_UNPACK_SKIP_PIXELS, 0);
  glBindTexture(GL_TEXTURE_2D, textures[1]);
  glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, GL_LINEAR_MIPMAP_NEAREST);
  glTexParameteri(GL_TEXTURE_2D, GL_GENERATE_MIPMAP, GL_TRUE);
  glTexImage2D(GL_TEXTURE_2D, 0, GL_RGB, 64, 64, 0, GL_RGB, GL_UNSIGNED_BYTE, pattern(64, 64, 5).data());
  glActiveTexture(GL_TEXTURE1);
  glBindTexture(GL_TEXTURE_2D, textures[1]);
  glTexEnvi(GL_TEXTURE_ENV, GL_TEXTURE_ENV_MODE, GL_ADD);
  glActiveTexture(GL_TEXTURE0);
  glTexEnvi(GL_TEXTURE_ENV, GL_TEXTURE_ENV_MODE, GL_MODULATE);
  glBindTexture(GL_TEXTURE_2D, textures[0]);
  // One that is deleted again leaves nothing.
  glBindTexture(GL_TEXTURE_2D, textures[2]);
  glTexImage2D(GL_TEXTURE_2D, 0, GL_RGB, 32, 32, 0, GL_RGB, GL_UNSIGNED_BYTE, pattern(32, 32, 9).data());
  glBindTexture(GL_TEXTURE_2D, textures[0]);
  glDeleteTextures(1, &textures[2]);
}

void set_up_light() {
  glMatrixMode(GL_MODELVIEW);
  glLoadIdentity();
  glRotatef(40, 1, 0, 0);
  const GLfloat position[] = {1, 2, 3, 0}, ambient[] = {0.1F, 0.1F, 0.15F, 1},
                diffuse[] = {0.8F, 0.5F, 0.4F, 1};
  glLightfv(GL_LIGHT0, GL_POSITION, position);  // seen through this matrix
  glLightfv(GL_LIGHT0, GL_DIFFUSE, diffuse);
  glLightModelfv(GL_LIGHT_MODEL_AMBIENT, ambient);
  glEnable(GL_LIGHT0);
  glMaterialfv(GL_FRONT_AND_BACK, GL_AMBIENT_AND_DIFFUSE, diffuse);
  const GLfloat fog[] = {0.2F, 0.3F, 0.6F, 1};
  glFogfv(GL_FOG_COLOR, fog);
  glFogi(GL_FOG_MODE, GL_LINEAR);
  glFogf(GL_FOG_START, 2);
  glFogf(GL_FOG_END, 9);
  glEnable(GL_FOG);
}

void set_up_list() {
  list = glGenLists(2);
  glNewList(list, GL_COMPILE);
  glShadeModel(GL_FLAT);
  glBegin(GL_TRIANGLES);
  for (int i = 0; i < 30; ++i) {
    glNormal3f(static_cast<float>(i % 3) - 1, static_cast<float>(i % 5) / 5, 1);
    glVertex3f(static_cast<float>(i % 7) / 3 - 1, static_cast<float>(i % 4) / 2 - 1,
               static_cast<float>(i % 5) / 5);
  }
  glEnd();
  glShadeModel(GL_SMOOTH);
  glEndList();
  glNewList(list + 1, GL_COMPILE);
  glTranslatef(0.1F, 0.2F, 0);
  glCallList(list);
  glEndList();
}

void set_up_fixed() {
  set_up_textures();
  set_up_light();
  set_up_list();
  LOAD(PFNGLGENBUFFERSPROC, glGenBuffers);
  LOAD(PFNGLBINDBUFFERPROC, glBindBuffer);
  LOAD(PFNGLBUFFERDATAPROC, glBufferData);
  LOAD(PFNGLBUFFERSUBDATAPROC, glBufferSubData);
  const GLfloat corners[] = {-1, -1, 0, 1, -1, 0, 1, 1, 0, -1, 1, 0}, moved[] = {0.5F, 0.8F, 0.2F};
  glGenBuffers(1, buffers);
  glBindBuffer(GL_ARRAY_BUFFER, buffers[0]);
  glBufferData(GL_ARRAY_BUFFER, sizeof corners, corners, GL_STATIC_DRAW);
  glBufferSubData(GL_ARRAY_BUFFER, 6 * sizeof(GLfloat), sizeof moved, moved);
  glBindBuffer(GL_ARRAY_BUFFER, 0);
  program = link(
      "uniform vec2 shift; varying vec2 at; void main() { gl_Position = gl_Vertex * vec4(0.3,0.3,1,1) + "
      "vec4(shift, 0, 0); at = gl_Vertex.xy; }",
      "uniform vec4 tint[2]; varying vec2 at; void main() { gl_FragColor = tint[0] + tint[1] * "
      "vec4(fract(at * 4.0), 0.2, 1.0); }");
  LOAD(PFNGLUSEPROGRAMPROC, glUseProgram);
  LOAD(PFNGLGETUNIFORMLOCATIONPROC, glGetUniformLocation);
  LOAD(PFNGLUNIFORM2FPROC, glUniform2f);
  LOAD(PFNGLUNIFORM4FVPROC, glUniform4fv);
  glUseProgram(program);
  const GLfloat tints[] = {0.1F, 0.2F, 0.1F, 0.5F, 0.4F, 0.6F, 0.5F, 0.5F};
  glUniform2f(glGetUniformLocation(program, "shift"), 0.6F, 0.55F);
  glUniform4fv(glGetUniformLocation(program, "tint"), 2, tints);
  glUseProgram(0);
  glMatrixMode(GL_PROJECTION);
  glLoadIdentity();
  glFrustum(-1, 1, -1, 1, 1.5, 20);
  glMatrixMode(GL_MODELVIEW);
  glLoadIdentity();
  glTranslatef(0, 0, -4);
  glClearColor(0.05F, 0.1F, 0.15F, 1);
  glEnable(GL_DEPTH_TEST);
  glDepthFunc(GL_LEQUAL);
  glLineStipple(2, 0x3333);
  glLineWidth(2);
  glEnable(GL_SCISSOR_TEST);
  glScissor(3, 5, kSize - 9, kSize - 11);
  // Two levels of attributes, one of which is still open.
  glColor4f(0.9F, 0.8F, 0.3F, 1);
  glPushAttrib(GL_CURRENT_BIT | GL_LINE_BIT);
  glColor4f(0.2F, 0.9F, 0.9F, 1);
  glPushAttrib(GL_ALL_ATTRIB_BITS);
  glColor4f(1, 0, 0, 1);
  glDisable(GL_FOG);
  glBindTexture(GL_TEXTURE_2D, 0);
  glPopAttrib();
  glPushMatrix();
  glRotatef(20, 0, 1, 0);
}

void draw_fixed() {
  LOAD(PFNGLBINDBUFFERPROC, glBindBuffer);
  LOAD(PFNGLUSEPROGRAMPROC, glUseProgram);
  glClear(GL_COLOR_BUFFER_BIT | GL_DEPTH_BUFFER_BIT);
  glEnable(GL_TEXTURE_2D);
  glActiveTexture(GL_TEXTURE1);
  glEnable(GL_TEXTURE_2D);
  glActiveTexture(GL_TEXTURE0);
  glBegin(GL_QUADS);
  for (int i = 0; i < 4; ++i) {
    float x = i == 1 || i == 2 ? 1 : -1, y = i > 1 ? 1 : -1;
    glMultiTexCoord2f(GL_TEXTURE0, x, y);
    glMultiTexCoord2f(GL_TEXTURE1, y, x);
    glVertex3f(x, y, -0.5F);
  }
  glEnd();
  glActiveTexture(GL_TEXTURE1);
  glDisable(GL_TEXTURE_2D);
  glActiveTexture(GL_TEXTURE0);
  glDisable(GL_TEXTURE_2D);
  glEnable(GL_LIGHTING);
  glPushMatrix();
  glCallList(list + 1);
  glPopMatrix();
  glDisable(GL_LIGHTING);
  // From the program's own memory, interleaved, with indices.
  struct Vertex {
    GLubyte color[4];
    GLfloat at[3];
  };
  static const Vertex kVertices[] = {{{255, 40, 40, 255}, {-1.2F, -1.2F, 0.3F}},
                                     {{40, 255, 40, 255}, {0, -1.2F, 0.2F}},
                                     {{40, 40, 255, 255}, {-0.6F, -0.4F, 0.1F}},
                                     {{9, 9, 9, 9}, {5, 5, 5}}};
  static const GLushort kIndices[] = {2, 0, 1};
  glEnableClientState(GL_VERTEX_ARRAY);
  glEnableClientState(GL_COLOR_ARRAY);
  glColorPointer(4, GL_UNSIGNED_BYTE, sizeof(Vertex), kVertices[0].color);
  glVertexPointer(3, GL_FLOAT, sizeof(Vertex), kVertices[0].at);
  glDrawElements(GL_TRIANGLES, 3, GL_UNSIGNED_SHORT, kIndices);
  glDisableClientState(GL_COLOR_ARRAY);
  glColor4f(0.3F, 0.4F, 0.9F, 1);
  glBindBuffer(GL_ARRAY_BUFFER, buffers[0]);
  glVertexPointer(3, GL_FLOAT, 0, nullptr);
  glBindBuffer(GL_ARRAY_BUFFER, 0);
  glUseProgram(program);
  glDrawArrays(GL_QUADS, 0, 4);
  glUseProgram(0);
  glDisableClientState(GL_VERTEX_ARRAY);
  // In the colour of the attributes that are still to be popped.
  glPushAttrib(GL_ENABLE_BIT);
  glEnable(GL_LINE_STIPPLE);
  glBegin(GL_LINES);
  glVertex3f(-1, 0.9F, 0.5F);
  glVertex3f(1, 0.7F, 0.5F);
  glEnd();
  glPopAttrib();
}

void extra_fixed() {
  glPopMatrix();  // what was pushed before must be there
  glPopAttrib();
}

// --- Core profile

GLuint array;

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
  program = link(
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

void draw_core() {
  LOAD(PFNGLBINDVERTEXARRAYPROC, glBindVertexArray);
  wait_for_last_frame();
  glClear(GL_COLOR_BUFFER_BIT | GL_DEPTH_BUFFER_BIT);
  glBindVertexArray(array);
  glDrawElements(GL_TRIANGLES, 6, GL_UNSIGNED_SHORT, nullptr);
  glBindVertexArray(0);
}

// --- What only the driver knows: images that were drawn or copied, and are used in each frame

constexpr int kImageSize = 64;
GLuint drawn[2], copied, from_buffer, framebuffers[2], renderbuffers[3];

void fullscreen(float left, float bottom, float right, float top, float depth = 0) {
  glBegin(GL_TRIANGLE_STRIP);
  glTexCoord2f(0, 0);
  glVertex3f(left, bottom, depth);
  glTexCoord2f(1, 0);
  glVertex3f(right, bottom, depth);
  glTexCoord2f(0, 1);
  glVertex3f(left, top, depth);
  glTexCoord2f(1, 1);
  glVertex3f(right, top, depth);
  glEnd();
}

void triangle(float shift, float depth) {
  glBegin(GL_TRIANGLES);
  glColor4f(0.9F, 0.2F + shift, 0.3F, 1);
  glVertex3f(-0.8F + shift, -0.9F, depth);
  glColor4f(0.1F, 0.8F, 0.4F, 0.5F);
  glVertex3f(0.9F, -0.5F + shift, depth);
  glColor4f(0.3F, 0.4F, 0.9F, 0.8F);
  glVertex3f(0.1F, 0.9F - shift, depth - 0.3F);
  glEnd();
}

void filter(GLenum min) {
  glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, static_cast<GLint>(min));
  glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MAG_FILTER, GL_NEAREST);
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
  program = link(
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

void set_up_driver() {
  glEnable(GL_DEPTH_TEST);
  glDepthFunc(GL_LEQUAL);
  set_up_framebuffers();
  set_up_uploads();
  set_up_captured();
  glViewport(0, 0, kSize, kSize);
  glClearColor(0.1F, 0.2F, 0.3F, 1);
}

// The first half of a frame: into the image, on what is there, behind what its depth says; and to the window.
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
  triangle(0.6F, 0.2F);
}

// Each image on a tile of its own; then a triangle behind the first half's.
void more_driver() {
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
}

void draw_driver() {
  begin_driver();
  more_driver();
}

// --- A matrix that is multiplied for ever, and never loaded

void set_up_turning() {
  glMatrixMode(GL_PROJECTION);
  glFrustum(-1, 1, -1, 1, 1.5, 20);
  glMatrixMode(GL_MODELVIEW);
  glTranslatef(0, 0, -4);
  glMatrixMode(GL_TEXTURE);
  glTranslatef(0.1F, 0.2F, 0);
  glMatrixMode(GL_MODELVIEW);
  glGenTextures(1, textures);
  glBindTexture(GL_TEXTURE_2D, textures[0]);
  filter(GL_NEAREST);
  glPixelStorei(GL_UNPACK_ALIGNMENT, 1);
  glTexImage2D(GL_TEXTURE_2D, 0, GL_RGB8, 16, 16, 0, GL_RGB, GL_UNSIGNED_BYTE, pattern(16, 16, 3).data());
  glEnable(GL_TEXTURE_2D);
  glEnable(GL_DEPTH_TEST);
  glClearColor(0.2F, 0.1F, 0.3F, 1);
  list = glGenLists(1);
  glNewList(list, GL_COMPILE);
  glRotatef(0.13F, -2, 1, 0.5F);
  glEndList();
}

void draw_turning() {
  constexpr int kTurns = 1000;
  glXSwapBuffers(display, window);  // all before is in the log
  for (int i = 0; i < kTurns; ++i) {
    glRotatef(0.37F, 1, 2, 3);
    glPushMatrix();
    glScalef(1.01F, 0.99F, 1);
    glPopMatrix();
    glCallList(list);
  }
  glPushAttrib(GL_TRANSFORM_BIT | GL_TEXTURE_BIT);
  glMatrixMode(GL_TEXTURE);
  for (int i = 0; i < kTurns; ++i) glRotatef(0.1F, 0, 0, 1);
  glPopAttrib();
  glClear(GL_COLOR_BUFFER_BIT | GL_DEPTH_BUFFER_BIT);
  fullscreen(-1, -1, 1, 1, 0.5F);
  fullscreen(-0.5F, -1, 1.2F, 0.7F, -0.5F);
  triangle(0.2F, 0.3F);
  glPushMatrix();
  glRotatef(90, 1, 0, 0);
  fullscreen(-1, -1, 1, 1, 0.2F);
  glPopMatrix();
}

}  // namespace

namespace {

struct Kind {
  const char* name;
  void (*set_up)();
  void (*draw)();
  void (*extra)();
};
constexpr Kind kKinds[] = {{"fixed", set_up_fixed, draw_fixed, extra_fixed},
                           {"core", set_up_core, draw_core, nullptr},
                           {"driver", set_up_driver, draw_driver, nullptr},
                           {"turning", set_up_turning, draw_turning, nullptr}};

std::string run_command(const std::string& command, const Kind& kind) {
  if (command == "extra" && kind.extra != nullptr) kind.extra();
  if (command == "begin") {
    begin_driver();
  } else if (command == "more") {
    more_driver();
  } else if (command != "swap") {
    kind.draw();
  }
  char text[32];
  snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash_of_picture()));
  if (command == "swap") glXSwapBuffers(display, window);
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  const Kind* kind = kKinds;
  for (const Kind& one : kKinds) {
    if (argc > 1 && strcmp(argv[1], one.name) == 0) kind = &one;
  }
  open_window(strcmp(kind->name, "core") == 0);
  kind->set_up();
  glXSwapBuffers(display, window);  // from now on all of it is in the log
  const auto run = [&](const std::string& command) { return run_command(command, *kind); };
  if (argc > 2) serve_directory(argv[2], run);
  serve_lines("ready", run);
  return 0;
}

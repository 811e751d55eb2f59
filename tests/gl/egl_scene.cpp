// As scene.cpp, with EGL: what a frame needs was said long ago, and each "draw" is answered with a hash of
// the picture. "extra" changes something.
//
//   window       OpenGL ES 2 in a window; extra: the window gets another size
//   core         OpenGL 3.3 core in a window
//   pbuffer      OpenGL ES 2 into a pbuffer, without an X server; no context is current between two frames,
//   and
//                the texture comes from another context; extra: that one says a lot
//   default      the same on the display that there is when nothing is said and there is no X server
//   textured     surfaceless, into a layer of an array of textures, and a texture of depth and stencil
//   surfaceless  OpenGL ES 3 into a framebuffer object, with no surface, no configuration and no X server
#include <EGL/egl.h>
#include <EGL/eglext.h>
#include <GLES3/gl3.h>
#include <X11/Xlib.h>
#include <X11/Xutil.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "serve.h"

namespace {

int width = 256, height = 256;
std::string mode;
bool into_textures = false;
EGLDisplay display;
EGLSurface surface = EGL_NO_SURFACE;
EGLContext context, other = EGL_NO_CONTEXT;
Display* server = nullptr;
Window window = 0;

[[noreturn]] void die(const char* what) {
  fprintf(stderr, "egl_scene: %s (EGL error 0x%x)\n", what, eglGetError());
  exit(1);
}

bool in_window() { return mode == "window" || mode == "core"; }

template <typename F>
F load(const char* name) {
  auto* found = reinterpret_cast<F>(eglGetProcAddress(name));
  if (found == nullptr) die(name);
  return found;
}
#define GL(name) static auto* const name = load<decltype(&::name)>(#name)

bool has_extension(const char* name) {
  const char* all = eglQueryString(display, EGL_EXTENSIONS);
  return all != nullptr && strstr(all, name) != nullptr;
}

EGLConfig choose_config() {
  const EGLint wanted[] = {EGL_SURFACE_TYPE,
                           in_window() ? EGL_WINDOW_BIT : EGL_PBUFFER_BIT,
                           EGL_RENDERABLE_TYPE,
                           mode == "core" ? EGL_OPENGL_BIT : EGL_OPENGL_ES2_BIT,
                           EGL_RED_SIZE,
                           8,
                           EGL_GREEN_SIZE,
                           8,
                           EGL_BLUE_SIZE,
                           8,
                           EGL_DEPTH_SIZE,
                           16,
                           EGL_NONE};
  EGLConfig config = nullptr;
  EGLint count = 0;
  if (!eglChooseConfig(display, wanted, &config, 1, &count) || count != 1) die("no configuration");
  return config;
}

void make_window(EGLConfig config) {
  EGLint visual_id = 0;
  eglGetConfigAttrib(display, config, EGL_NATIVE_VISUAL_ID, &visual_id);
  XVisualInfo wanted = {};
  wanted.visualid = static_cast<VisualID>(visual_id);
  int count = 0;
  XVisualInfo* visual = XGetVisualInfo(server, VisualIDMask, &wanted, &count);
  if (visual == nullptr) die("no visual");
  XSetWindowAttributes set = {};
  set.colormap = XCreateColormap(server, DefaultRootWindow(server), visual->visual, AllocNone);
  window = XCreateWindow(server, DefaultRootWindow(server), 0, 0, static_cast<unsigned>(width),
                         static_cast<unsigned>(height), 0, visual->depth, InputOutput, visual->visual,
                         CWColormap, &set);
  XMapWindow(server, window);
  surface = eglCreateWindowSurface(display, config, window, nullptr);
}

void open_surface() {
  if (in_window()) {
    server = XOpenDisplay(nullptr);
    if (server == nullptr) die("no X server");
    display = eglGetDisplay(server);
  } else if (mode == "default") {
    mode = "pbuffer";
    display = eglGetDisplay(EGL_DEFAULT_DISPLAY);
  } else if (mode == "pbuffer") {
    setenv("EGL_PLATFORM", "surfaceless", 1);
    display = eglGetDisplay(EGL_DEFAULT_DISPLAY);
  } else {
    display = eglGetPlatformDisplay(EGL_PLATFORM_SURFACELESS_MESA, nullptr, nullptr);
  }
  if (!eglInitialize(display, nullptr, nullptr)) die("no display");
  eglBindAPI(mode == "core" ? EGL_OPENGL_API : EGL_OPENGL_ES_API);
  const EGLint es2[] = {EGL_CONTEXT_CLIENT_VERSION, 2, EGL_NONE},
               es3[] = {EGL_CONTEXT_MAJOR_VERSION, 3, EGL_CONTEXT_MINOR_VERSION, 0, EGL_NONE},
               core[] = {EGL_CONTEXT_MAJOR_VERSION,
                         3,
                         EGL_CONTEXT_MINOR_VERSION,
                         3,
                         EGL_CONTEXT_OPENGL_PROFILE_MASK,
                         EGL_CONTEXT_OPENGL_CORE_PROFILE_BIT,
                         EGL_NONE};
  if (mode == "surfaceless") {
    if (!has_extension("EGL_KHR_surfaceless_context") || !has_extension("EGL_KHR_no_config_context"))
      die("no contexts without surfaces");
    context = eglCreateContext(display, EGL_NO_CONFIG_KHR, EGL_NO_CONTEXT, es3);
  } else {
    EGLConfig config = choose_config();
    const EGLint size[] = {EGL_WIDTH, width, EGL_HEIGHT, height, EGL_NONE};
    in_window() ? make_window(config) : void(surface = eglCreatePbufferSurface(display, config, size));
    if (surface == EGL_NO_SURFACE) die("no surface");
    context = eglCreateContext(display, config, EGL_NO_CONTEXT, mode == "core" ? core : es2);
    if (mode == "pbuffer") other = eglCreateContext(display, config, context, es2);
  }
  if (context == EGL_NO_CONTEXT || !eglMakeCurrent(display, surface, surface, context)) die("no context");
}

std::vector<unsigned char> pattern(int size, int seed) {
  std::vector<unsigned char> bytes(static_cast<size_t>(size * size * 3));
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<unsigned char>((i * 7 + i / 16 * 31) ^ static_cast<unsigned>(seed));
  return bytes;
}

GLuint compile(GLenum type, const std::string& source) {
  GL(glCreateShader);
  GL(glShaderSource);
  GL(glCompileShader);
  GL(glGetShaderiv);
  const std::string whole = (mode == "core"             ? "#version 330\n"
                             : mode == "surfaceless"    ? "#version 300 es\nprecision mediump float;\n"
                             : type == GL_VERTEX_SHADER ? "#define in attribute\n#define out varying\n"
                                                        : "precision mediump float;\n#define in varying\n") +
                            source;
  const char* text = whole.c_str();
  GLuint shader = glCreateShader(type);
  glShaderSource(shader, 1, &text, nullptr);
  glCompileShader(shader);
  GLint done = 0;
  glGetShaderiv(shader, GL_COMPILE_STATUS, &done);
  if (!done) die("a shader does not compile");
  return shader;
}

GLuint program, buffers[2], array, texture, large_texture, framebuffer;

// So many megabytes of calls that change nothing that is seen.
void say_a_lot(int megabytes) {
  GL(glGenTextures);
  GL(glBindTexture);
  GL(glTexImage2D);
  GL(glTexSubImage2D);
  constexpr int kSize = 512;
  const std::vector<unsigned char> pixels(size_t{4} * kSize * kSize, '\x11');
  if (large_texture == 0) {
    glGenTextures(1, &large_texture);
    glBindTexture(GL_TEXTURE_2D, large_texture);
    glTexImage2D(GL_TEXTURE_2D, 0, GL_RGBA, kSize, kSize, 0, GL_RGBA, GL_UNSIGNED_BYTE, nullptr);
  }
  glBindTexture(GL_TEXTURE_2D, large_texture);
  for (int i = 0; i < megabytes; ++i)
    glTexSubImage2D(GL_TEXTURE_2D, 0, 0, 0, kSize, kSize, GL_RGBA, GL_UNSIGNED_BYTE, pixels.data());
  glBindTexture(GL_TEXTURE_2D, texture);
}
constexpr int kMoreThanARing = 18, kMoreThanIsDrawnAgain = 14;

void set_up_texture() {
  GL(glGenTextures);
  GL(glBindTexture);
  GL(glTexParameteri);
  GL(glPixelStorei);
  GL(glTexImage2D);
  GL(glTexSubImage2D);
  GL(glFlush);
  if (other != EGL_NO_CONTEXT && !eglMakeCurrent(display, surface, surface, other)) die("no other context");
  glGenTextures(1, &texture);
  glBindTexture(GL_TEXTURE_2D, texture);
  glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, GL_NEAREST);
  glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MAG_FILTER, GL_LINEAR);
  glPixelStorei(GL_UNPACK_ALIGNMENT, 1);
  glTexImage2D(GL_TEXTURE_2D, 0, GL_RGB, 32, 32, 0, GL_RGB, GL_UNSIGNED_BYTE, pattern(32, 1).data());
  glTexSubImage2D(GL_TEXTURE_2D, 0, 4, 4, 9, 9, GL_RGB, GL_UNSIGNED_BYTE, pattern(9, 99).data());
  glFlush();
  if (other == EGL_NO_CONTEXT) return;
  if (!eglMakeCurrent(display, surface, surface, context)) die("no context after the other");
  glBindTexture(GL_TEXTURE_2D, texture);
}

void set_up_program() {
  GL(glCreateProgram);
  GL(glAttachShader);
  GL(glDeleteShader);
  GL(glBindAttribLocation);
  GL(glLinkProgram);
  GL(glGetProgramiv);
  GL(glUseProgram);
  GL(glGetUniformLocation);
  GL(glUniform2f);
  GL(glUniform4f);
  const bool old = mode == "window" || mode == "pbuffer";
  program = glCreateProgram();
  const std::string vertex =
      "in vec3 at; in vec3 color; out vec3 shade; out vec2 where; uniform vec2 shift;"
      "void main() { gl_Position = vec4(at.xy + shift, at.z, 1.0); shade = color; where = at.xy; }";
  const std::string fragment = std::string(old ? "" : "out vec4 pixel;") +
                               "in vec3 shade; in vec2 where; uniform vec4 tint; uniform sampler2D image;" +
                               "void main() { " + (old ? "gl_FragColor" : "pixel") +
                               " = vec4(shade, 1.0) * tint + " + (old ? "texture2D" : "texture") +
                               "(image, where) * 0.5; }";
  for (GLuint shader : {compile(GL_VERTEX_SHADER, vertex), compile(GL_FRAGMENT_SHADER, fragment)}) {
    glAttachShader(program, shader);
    glDeleteShader(shader);
  }
  glBindAttribLocation(program, 0, "at");
  glBindAttribLocation(program, 1, "color");
  glLinkProgram(program);
  GLint done = 0;
  glGetProgramiv(program, GL_LINK_STATUS, &done);
  if (!done) die("a program does not link");
  glUseProgram(program);
  glUniform2f(glGetUniformLocation(program, "shift"), 0.1F, -0.05F);
  glUniform4f(glGetUniformLocation(program, "tint"), 0.9F, 0.7F, 0.5F, 1);
}

void attach_textures() {
  GL(glGenTextures);
  GL(glBindTexture);
  GL(glTexImage3D);
  GL(glTexStorage2D);
  GL(glFramebufferTextureLayer);
  GL(glFramebufferTexture2D);
  GL(glEnable);
  GL(glStencilOp);
  GL(glClearStencil);
  GL(glClear);
  GLuint parts[2];
  glGenTextures(2, parts);
  glBindTexture(GL_TEXTURE_2D_ARRAY, parts[0]);
  glTexImage3D(GL_TEXTURE_2D_ARRAY, 0, GL_RGBA8, width, height, 3, 0, GL_RGBA, GL_UNSIGNED_BYTE, nullptr);
  glFramebufferTextureLayer(GL_FRAMEBUFFER, GL_COLOR_ATTACHMENT0, parts[0], 0, 1);
  glBindTexture(GL_TEXTURE_2D, parts[1]);
  glTexStorage2D(GL_TEXTURE_2D, 1, GL_DEPTH24_STENCIL8, width, height);
  glFramebufferTexture2D(GL_FRAMEBUFFER, GL_DEPTH_STENCIL_ATTACHMENT, GL_TEXTURE_2D, parts[1], 0);
  glBindTexture(GL_TEXTURE_2D, texture);
  glClearStencil(3);
  glClear(GL_STENCIL_BUFFER_BIT);
  glEnable(GL_STENCIL_TEST);
  glStencilOp(GL_KEEP, GL_KEEP, GL_INCR);
}

void attach_renderbuffers() {
  GL(glGenRenderbuffers);
  GL(glBindRenderbuffer);
  GL(glRenderbufferStorage);
  GL(glFramebufferRenderbuffer);
  GLuint parts[2];
  glGenRenderbuffers(2, parts);
  glBindRenderbuffer(GL_RENDERBUFFER, parts[0]);
  glRenderbufferStorage(GL_RENDERBUFFER, GL_RGBA8, width, height);
  glFramebufferRenderbuffer(GL_FRAMEBUFFER, GL_COLOR_ATTACHMENT0, GL_RENDERBUFFER, parts[0]);
  glBindRenderbuffer(GL_RENDERBUFFER, parts[1]);
  glRenderbufferStorage(GL_RENDERBUFFER, GL_DEPTH_COMPONENT16, width, height);
  glFramebufferRenderbuffer(GL_FRAMEBUFFER, GL_DEPTH_ATTACHMENT, GL_RENDERBUFFER, parts[1]);
}

void set_up_framebuffer() {
  GL(glGenFramebuffers);
  GL(glBindFramebuffer);
  GL(glCheckFramebufferStatus);
  GL(glViewport);
  glGenFramebuffers(1, &framebuffer);
  glBindFramebuffer(GL_FRAMEBUFFER, framebuffer);
  into_textures ? attach_textures() : attach_renderbuffers();
  if (glCheckFramebufferStatus(GL_FRAMEBUFFER) != GL_FRAMEBUFFER_COMPLETE) die("no framebuffer");
  glViewport(0, 0, width, height);  // without a surface it begins as nothing
}

void set_up() {
  GL(glGenBuffers);
  GL(glBindBuffer);
  GL(glBufferData);
  GL(glVertexAttribPointer);
  GL(glEnableVertexAttribArray);
  GL(glEnable);
  GL(glDepthFunc);
  GL(glClearColor);
  set_up_texture();
  set_up_program();
  if (mode == "surfaceless") set_up_framebuffer();
  if (mode == "core" || mode == "surfaceless") {
    GL(glGenVertexArrays);
    GL(glBindVertexArray);
    glGenVertexArrays(1, &array);
    glBindVertexArray(array);
  }
  const GLfloat corners[] = {-0.9F, -0.8F, 0.4F, 1, 0, 0, 0.7F,  -0.7F, 0.5F, 0, 1, 0,
                             0.8F,  0.9F,  0.6F, 0, 0, 1, -0.6F, 0.8F,  0.3F, 1, 1, 0};
  const GLushort indices[] = {0, 1, 2, 0, 2, 3};
  glGenBuffers(2, buffers);
  glBindBuffer(GL_ARRAY_BUFFER, buffers[0]);
  glBufferData(GL_ARRAY_BUFFER, sizeof corners, nullptr, GL_STATIC_DRAW);
  if (mode == "surfaceless") {  // a part of it through a mapping that leaves the rest
    GL(glMapBufferRange);
    GL(glUnmapBuffer);
    GL(glBufferSubData);
    glBufferSubData(GL_ARRAY_BUFFER, 0, 48, corners);
    void* mapped = glMapBufferRange(GL_ARRAY_BUFFER, 24, sizeof corners - 24, GL_MAP_WRITE_BIT);
    if (mapped == nullptr) die("no mapping");
    memcpy(static_cast<char*>(mapped) + 24, corners + 12, sizeof corners - 48);
    glUnmapBuffer(GL_ARRAY_BUFFER);
  } else {
    glBufferData(GL_ARRAY_BUFFER, sizeof corners, corners, GL_STATIC_DRAW);
  }
  glBindBuffer(GL_ELEMENT_ARRAY_BUFFER, buffers[1]);
  glBufferData(GL_ELEMENT_ARRAY_BUFFER, sizeof indices, indices, GL_STATIC_DRAW);
  glVertexAttribPointer(0, 3, GL_FLOAT, GL_FALSE, 24, nullptr);
  glVertexAttribPointer(1, 3, GL_FLOAT, GL_FALSE, 24, reinterpret_cast<void*>(12));
  glEnableVertexAttribArray(0);
  glEnableVertexAttribArray(1);
  glEnable(GL_DEPTH_TEST);
  glDepthFunc(GL_LEQUAL);
  glClearColor(0.1F, 0.2F, 0.3F, 1);
  if (!in_window()) say_a_lot(kMoreThanARing);
}

// From the program's own memory.
void draw_client() {
  GL(glBindBuffer);
  GL(glVertexAttribPointer);
  GL(glDrawElements);
  static const GLfloat kCorners[] = {-0.5F, -0.5F, 0.1F, 1,     1,    1,    0.2F, -0.4F, 0.2F,
                                     0,     1,     1,    -0.1F, 0.3F, 0.1F, 1,    0,     1};
  static const GLubyte kIndices[] = {2, 0, 1};
  glBindBuffer(GL_ARRAY_BUFFER, 0);
  glBindBuffer(GL_ELEMENT_ARRAY_BUFFER, 0);
  glVertexAttribPointer(0, 3, GL_FLOAT, GL_FALSE, 24, kCorners);
  glVertexAttribPointer(1, 3, GL_FLOAT, GL_FALSE, 24, kCorners + 3);
  glDrawElements(GL_TRIANGLES, 3, GL_UNSIGNED_BYTE, kIndices);
  glBindBuffer(GL_ARRAY_BUFFER, buffers[0]);
  glBindBuffer(GL_ELEMENT_ARRAY_BUFFER, buffers[1]);
  glVertexAttribPointer(0, 3, GL_FLOAT, GL_FALSE, 24, nullptr);
  glVertexAttribPointer(1, 3, GL_FLOAT, GL_FALSE, 24, reinterpret_cast<void*>(12));
}

// All that was said before has been done when it is reached.
void wait_for_fence() {
  if (!has_extension("EGL_KHR_fence_sync")) die("no fences");
  static auto* create = load<PFNEGLCREATESYNCKHRPROC>("eglCreateSyncKHR");
  static auto* wait = load<PFNEGLCLIENTWAITSYNCKHRPROC>("eglClientWaitSyncKHR");
  static auto* query = load<PFNEGLGETSYNCATTRIBKHRPROC>("eglGetSyncAttribKHR");
  static auto* destroy = load<PFNEGLDESTROYSYNCKHRPROC>("eglDestroySyncKHR");
  EGLSyncKHR fence = create(display, EGL_SYNC_FENCE_KHR, nullptr);
  if (wait(display, fence, EGL_SYNC_FLUSH_COMMANDS_BIT_KHR, EGL_FOREVER_KHR) != EGL_CONDITION_SATISFIED_KHR)
    die("a fence that is not reached");
  EGLint status = 0;
  if (!query(display, fence, EGL_SYNC_STATUS_KHR, &status) || status != EGL_SIGNALED_KHR) die("its status");
  if (!destroy(display, fence) || destroy(display, fence) || eglGetError() != EGL_BAD_PARAMETER)
    die("a fence that was destroyed");
}

void extra() {
  GL(glUniform2f);
  GL(glGetUniformLocation);
  GL(glViewport);
  glUniform2f(glGetUniformLocation(program, "shift"), -0.1F, 0.1F);
  if (mode != "window") return;
  width = 200;
  height = 180;
  XResizeWindow(server, window, static_cast<unsigned>(width), static_cast<unsigned>(height));
  XSync(server, False);
  eglSwapBuffers(display, surface);
  EGLint its_width = 0, its_height = 0;
  eglQuerySurface(display, surface, EGL_WIDTH, &its_width);
  eglQuerySurface(display, surface, EGL_HEIGHT, &its_height);
  if (its_width != width || its_height != height) die("the surface has not the size of its window");
  glViewport(0, 0, width, height);
}

uint64_t hash_of_picture() {
  GL(glReadPixels);
  GL(glGetError);
  std::vector<unsigned char> pixels(static_cast<size_t>(width * height * 4));
  glReadPixels(0, 0, width, height, GL_RGBA, GL_UNSIGNED_BYTE, pixels.data());
  uint64_t hash = 14695981039346656037U;
  size_t lit = 0;
  for (unsigned char byte : pixels) {
    hash = (hash ^ byte) * 1099511628211U;
    lit += byte != 0 && byte != 255 && byte != pixels[0];
  }
  if (lit < 1000) die("the picture is empty");
  if (GLenum error = glGetError(); error != GL_NO_ERROR) {
    fprintf(stderr, "egl_scene: error 0x%x\n", error);
    exit(1);
  }
  return hash;
}

std::string text_of_picture() {
  char text[32];
  snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash_of_picture()));
  return text;
}

std::string run_command(const std::string& command) {
  GL(glClear);
  GL(glDrawElements);
  if (command == "formats") {  // of binaries of programs
    GL(glGetIntegerv);
    GLint count = -1;
    glGetIntegerv(GL_NUM_PROGRAM_BINARY_FORMATS, &count);
    return std::to_string(count);
  }
  if (command == "end") {  // of what "begin" has begun
    GL(glUniform2f);
    GL(glGetUniformLocation);
    GL(glStencilFunc);
    glUniform2f(glGetUniformLocation(program, "shift"), 0.3F, 0.2F);
    glStencilFunc(GL_LESS, 3, 255);  // where something was drawn before
    glDrawElements(GL_TRIANGLES, 3, GL_UNSIGNED_SHORT, nullptr);
    glStencilFunc(GL_ALWAYS, 0, 255);
    return text_of_picture();
  }
  if (command == "begin" || command == "long") {
    constexpr int kBefore = 4, kAfter = 4;
    say_a_lot(kBefore);
    glClear(GL_COLOR_BUFFER_BIT | GL_DEPTH_BUFFER_BIT);
    glDrawElements(GL_TRIANGLES, 6, GL_UNSIGNED_SHORT, nullptr);
    say_a_lot(command == "long" ? kMoreThanIsDrawnAgain : kAfter);
    return "begun";
  }
  if (mode == "pbuffer" && !eglMakeCurrent(display, surface, surface, context)) die("not current again");
  if (command == "extra") extra();
  glClear(GL_COLOR_BUFFER_BIT | GL_DEPTH_BUFFER_BIT);
  glDrawElements(GL_TRIANGLES, 6, GL_UNSIGNED_SHORT, nullptr);
  if (mode == "window" || mode == "pbuffer") draw_client();
  if (mode == "surfaceless") wait_for_fence();
  std::string text = text_of_picture();
  if (surface != EGL_NO_SURFACE && !eglSwapBuffers(display, surface)) die("no exchange of buffers");
  if (mode == "pbuffer" && command == "extra") {
    eglMakeCurrent(display, EGL_NO_SURFACE, EGL_NO_SURFACE, other);
    say_a_lot(kMoreThanARing);
  }
  if (mode == "pbuffer") eglMakeCurrent(display, EGL_NO_SURFACE, EGL_NO_SURFACE, EGL_NO_CONTEXT);
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  mode = argc > 1 ? argv[1] : "window";
  into_textures = mode == "textured";
  if (into_textures) mode = "surfaceless";
  open_surface();
  set_up();
  if (argc > 2) serve_directory(argv[2], run_command);
  serve_lines("ready", run_command);
  return 0;
}

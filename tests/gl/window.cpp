// The window and the context of a program of tests, and programs of shaders in it.
#include <X11/Xlib.h>

#include "scene.h"

namespace {

Display* display = nullptr;
Window window = None;

}  // namespace

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
                            GLX_ACCUM_RED_SIZE,
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

void end_frame() { glXSwapBuffers(display, window); }

void die(const char* what) {
  fprintf(stderr, "scene: %s\n", what);
  exit(1);
}

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

GLuint link_program(const char* vertex, const char* fragment) {
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

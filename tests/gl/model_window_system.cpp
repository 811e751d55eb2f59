// EGL, GLX and Xlib as far as the renderer uses them, for the model driver: they make handles, and read lists
// of attributes to their ends.
#include <EGL/egl.h>
#include <EGL/eglext.h>
#include <GL/glx.h>
#include <X11/Xlib.h>

#include <cstdlib>
#include <set>
#include <type_traits>

#include "tests/gl/model_driver.h"

using stasis::gl::make_model_current;

namespace {

uintptr_t next_handle = 0x1000;
std::set<const void*> living;  // contexts and surfaces that have not been destroyed

template <typename T>
T make_handle() {
  const auto handle = reinterpret_cast<T>(next_handle += 16);
  living.insert(reinterpret_cast<const void*>(handle));
  return handle;
}

void read_attributes(const int* list, int end) {
  for (; *list != end; list += 2) (void)static_cast<const volatile int*>(list)[1];
}
// Some names stand alone.
void read_names(const int* list) {
  while (*list != None) ++list;
}

}  // namespace

extern "C" {

// --- EGL

EGLDisplay eglGetPlatformDisplay(EGLenum platform, void*, const EGLAttrib*) {
  return reinterpret_cast<EGLDisplay>(static_cast<uintptr_t>(platform));
}
EGLBoolean eglInitialize(EGLDisplay, EGLint*, EGLint*) { return EGL_TRUE; }
EGLBoolean eglGetConfigs(EGLDisplay, EGLConfig* configs, EGLint room, EGLint* count) {
  constexpr EGLint kConfigs = 2;
  for (EGLint i = 0; i < room && i < kConfigs; ++i)
    configs[i] = reinterpret_cast<EGLConfig>(uintptr_t{1} + static_cast<uintptr_t>(i));
  *count = kConfigs;
  return EGL_TRUE;
}
EGLBoolean eglGetConfigAttrib(EGLDisplay, EGLConfig config, EGLint, EGLint* value) {
  *value = static_cast<EGLint>(reinterpret_cast<uintptr_t>(config));
  return EGL_TRUE;
}
EGLBoolean eglBindAPI(EGLenum) { return EGL_TRUE; }
EGLContext eglCreateContext(EGLDisplay, EGLConfig, EGLContext, const EGLint* attributes) {
  read_attributes(attributes, EGL_NONE);
  return make_handle<EGLContext>();
}
EGLint eglGetError() { return EGL_SUCCESS; }
EGLBoolean eglDestroyContext(EGLDisplay, EGLContext context) {
  if (living.erase(context) == 0) std::abort();
  return EGL_TRUE;
}
EGLBoolean eglMakeCurrent(EGLDisplay, EGLSurface, EGLSurface, EGLContext context) {
  if (context != EGL_NO_CONTEXT && !living.contains(context)) std::abort();
  make_model_current(context);
  return EGL_TRUE;
}
EGLSurface eglCreatePbufferSurface(EGLDisplay, EGLConfig, const EGLint* attributes) {
  read_attributes(attributes, EGL_NONE);
  return make_handle<EGLSurface>();
}
EGLSurface eglCreateWindowSurface(EGLDisplay, EGLConfig, EGLNativeWindowType, const EGLint* attributes) {
  read_attributes(attributes, EGL_NONE);
  return make_handle<EGLSurface>();
}
EGLBoolean eglDestroySurface(EGLDisplay, EGLSurface surface) {
  if (living.erase(surface) == 0) std::abort();
  return EGL_TRUE;
}
EGLBoolean eglQuerySurface(EGLDisplay, EGLSurface surface, EGLint, EGLint* value) {
  if (!living.contains(surface)) std::abort();
  *value = 16;
  return EGL_TRUE;
}
EGLBoolean eglSwapBuffers(EGLDisplay, EGLSurface surface) {
  return living.contains(surface) ? EGL_TRUE : EGL_FALSE;
}
EGLBoolean eglSwapInterval(EGLDisplay, EGLint) { return EGL_TRUE; }
EGLSync eglCreateSync(EGLDisplay, EGLenum, const EGLAttrib*) { return make_handle<EGLSync>(); }
EGLBoolean eglDestroySync(EGLDisplay, EGLSync sync) {
  if (living.erase(sync) == 0) std::abort();
  return EGL_TRUE;
}
EGLint eglClientWaitSync(EGLDisplay, EGLSync sync, EGLint, EGLTime) {
  if (!living.contains(sync)) std::abort();
  return EGL_CONDITION_SATISFIED;
}

// --- Xlib. What is behind a Display is not ours to fill in but for what its macros read.

Display* XOpenDisplay(const char*) {
  static std::remove_pointer_t<_XPrivDisplay> display = {};
  display.nscreens = 1;
  return reinterpret_cast<Display*>(&display);
}
int XFree(void* memory) {
  std::free(memory);
  return 1;
}
int XInitThreads() { return 1; }
XErrorHandler XSetErrorHandler(XErrorHandler) { return nullptr; }
int XSync(Display*, int) { return 1; }
XVisualInfo* XGetVisualInfo(Display*, long, XVisualInfo* wanted, int* count) {
  constexpr VisualID kVisual = 33;
  *count = wanted->visualid == kVisual ? 1 : 0;
  return *count == 0 ? nullptr : static_cast<XVisualInfo*>(std::calloc(1, sizeof(XVisualInfo)));
}

// --- GLX

GLXFBConfig* glXGetFBConfigs(Display*, int, int* count) {
  *count = 2;
  auto* found = static_cast<GLXFBConfig*>(std::calloc(2, sizeof(GLXFBConfig)));
  for (uintptr_t i = 0; i < 2; ++i) found[i] = reinterpret_cast<GLXFBConfig>(i + 1);
  return found;
}
GLXFBConfig* glXChooseFBConfig(Display* display, int screen, const int* attributes, int* count) {
  read_attributes(attributes, None);
  return glXGetFBConfigs(display, screen, count);
}
int glXGetFBConfigAttrib(Display*, GLXFBConfig config, int, int* value) {
  *value = static_cast<int>(reinterpret_cast<uintptr_t>(config));
  return Success;
}
XVisualInfo* glXChooseVisual(Display*, int, int* attributes) {
  read_names(attributes);
  return nullptr;
}
int glXGetConfig(Display*, XVisualInfo* visual, int, int* value) {
  *value = visual->depth;
  return Success;
}
GLXContext glXCreateContext(Display*, XVisualInfo*, GLXContext, int) { return make_handle<GLXContext>(); }
GLXContext glXCreateNewContext(Display*, GLXFBConfig, int, GLXContext, int) {
  return make_handle<GLXContext>();
}
static GLXContext create_attribs(Display*, GLXFBConfig, GLXContext, int, const int* attributes) {
  read_attributes(attributes, None);
  return make_handle<GLXContext>();
}
void (*glXGetProcAddressARB(const GLubyte* name))() {
  const char* text = reinterpret_cast<const char*>(name);
  return text[3] == 'C' ? reinterpret_cast<void (*)()>(create_attribs) : nullptr;
}
int glXIsDirect(Display*, GLXContext) { return True; }
void glXDestroyContext(Display*, GLXContext context) {
  if (living.erase(context) == 0) std::abort();
}
int glXMakeCurrent(Display*, GLXDrawable, GLXContext context) {
  make_model_current(context);
  return True;
}
int glXMakeContextCurrent(Display*, GLXDrawable, GLXDrawable, GLXContext context) {
  if (context != nullptr && !living.contains(context)) std::abort();
  make_model_current(context);
  return True;
}
GLXPbuffer glXCreatePbuffer(Display*, GLXFBConfig config, const int* attributes) {
  if (config == nullptr) std::abort();
  read_attributes(attributes, None);
  return make_handle<GLXPbuffer>();
}
GLXPixmap glXCreatePixmap(Display*, GLXFBConfig, Pixmap, const int* attributes) {
  read_attributes(attributes, None);
  return make_handle<GLXPixmap>();
}
GLXPixmap glXCreateGLXPixmap(Display*, XVisualInfo*, Pixmap) { return make_handle<GLXPixmap>(); }
void glXDestroyPbuffer(Display*, GLXPbuffer) {}
void glXDestroyPixmap(Display*, GLXPixmap) {}
void glXQueryDrawable(Display*, GLXDrawable, int name, unsigned int* value) {
  constexpr int kSwapInterval = 0x20F1;
  if (name == kSwapInterval) std::abort();  // as drivers without swap control do
  *value = 16;
}
void glXSwapBuffers(Display*, GLXDrawable) {}
const char* glXQueryExtensionsString(Display*, int) { return ""; }

}  // extern "C"

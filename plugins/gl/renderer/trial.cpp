#include "renderer/trial.h"

#include <EGL/egl.h>
#include <EGL/eglext.h>
#include <GL/gl.h>
#include <sys/prctl.h>

#include <cstdio>

namespace stasis::gl {

namespace {

int fail(const char* what) {
  fprintf(stderr, "%s (EGL error 0x%x)\n", what, eglGetError());
  return 1;
}

}  // namespace

int try_driver() {
  prctl(PR_SET_DUMPABLE, 0);  // a driver that crashes leaves nothing behind
  EGLDisplay display = eglGetPlatformDisplay(EGL_PLATFORM_SURFACELESS_MESA, nullptr, nullptr);
  if (display == EGL_NO_DISPLAY) return fail("there is no driver that needs no screen");
  if (eglInitialize(display, nullptr, nullptr) == EGL_FALSE) return fail("the driver does not start");
  if (eglBindAPI(EGL_OPENGL_API) == EGL_FALSE) return fail("the driver has no OpenGL");
  EGLContext context = eglCreateContext(display, EGL_NO_CONFIG_KHR, EGL_NO_CONTEXT, nullptr);
  if (context == EGL_NO_CONTEXT) return fail("the driver gives no context");
  if (eglMakeCurrent(display, EGL_NO_SURFACE, EGL_NO_SURFACE, context) == EGL_FALSE)
    return fail("the driver needs a screen");
  auto text = [](GLenum name) {
    const auto* found = reinterpret_cast<const char*>(glGetString(name));
    return found != nullptr ? found : "?";
  };
  printf("%s, OpenGL %s\n", text(GL_RENDERER), text(GL_VERSION));
  return 0;
}

}  // namespace stasis::gl

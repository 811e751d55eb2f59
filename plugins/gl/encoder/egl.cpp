// The other GLVND vendor library, in the same file: what a program calls of EGL. Displays are those of X and
// the one without surfaces on a screen (EGL_MESA_platform_surfaceless).
#include "encoder/egl.h"

#include <X11/Xlib.h>
#include <glvnd/libeglabi.h>
#include <pthread.h>

#include <cstdlib>

#include "encoder/entry.h"

namespace stasis::gl::egl {

Display* displays = nullptr;
Surface* surfaces = nullptr;
ContextRecord* contexts = nullptr;

namespace {

const __EGLapiExports* library = nullptr;
__EGLvendorInfo* ourselves = nullptr;
thread_local EGLint last_error __attribute__((tls_model("initial-exec"))) = EGL_SUCCESS;
pthread_mutex_t records = PTHREAD_MUTEX_INITIALIZER;

}  // namespace

Lock::Lock() { pthread_mutex_lock(&records); }
Lock::~Lock() { pthread_mutex_unlock(&records); }

void called_directly() { library->setLastVendor(ourselves); }

EGLenum current_api() { return library->getCurrentApi(); }

bool fail(EGLint error) {
  last_error = error;
  return false;
}
bool done() {
  last_error = EGL_SUCCESS;
  return true;
}

void synchronise(const Display& display) {
  if (display.native != nullptr) XSync(static_cast<::Display*>(display.native), False);
}

Display* usable(EGLDisplay handle) {
  Display* display = find(displays, handle);
  if (display == nullptr) {
    fail(EGL_BAD_DISPLAY);
  } else if (!display->initialised) {
    fail(EGL_NOT_INITIALIZED);
    display = nullptr;
  }
  return display;
}
Surface* surface_of(EGLSurface handle) {
  Surface* surface = find(surfaces, handle);
  if (surface != nullptr && !surface->destroyed) return surface;
  fail(EGL_BAD_SURFACE);
  return nullptr;
}
ContextRecord* context_of(EGLContext handle) {
  ContextRecord* context = find(contexts, handle);
  if (context != nullptr && !context->destroyed) return context;
  fail(EGL_BAD_CONTEXT);
  return nullptr;
}

namespace {

// --- Displays

EGLDisplay get_platform_display(EGLenum platform, void* native, const EGLAttrib* attributes) {
  if (getenv("STASIS_GL_SOCKET") == nullptr) return EGL_NO_DISPLAY;
  for (; attributes != nullptr && *attributes != EGL_NONE; attributes += 2) {
    const bool first_screen = *attributes == EGL_PLATFORM_X11_SCREEN_KHR && native != nullptr &&
                              attributes[1] == DefaultScreen(static_cast<::Display*>(native));
    if (!first_screen) {
      fail(EGL_BAD_ATTRIBUTE);
      return EGL_NO_DISPLAY;
    }
  }
  const bool of_default = platform == EGL_NONE && native == nullptr;
  const char* chosen = getenv("EGL_PLATFORM");
  const bool surfaceless = platform == EGL_PLATFORM_SURFACELESS_MESA ||
                           (of_default && chosen != nullptr && strcmp(chosen, "surfaceless") == 0);
  const bool of_x = platform == EGL_PLATFORM_X11_KHR || platform == EGL_NONE;
  if ((!of_x && !surfaceless) || (surfaceless && native != nullptr)) {
    fail(EGL_BAD_PARAMETER);
    return EGL_NO_DISPLAY;
  }
  const Lock lock;
  for (Display* one = displays; one != nullptr; one = one->next) {
    const bool same = one->of_default == of_default && one->native == native &&
                      (of_default || (one->platform == kSurfacelessPlatform) == surfaceless);
    if (same) return one;
  }
  Display* made = add(displays);
  made->of_default = of_default;
  made->platform = surfaceless ? kSurfacelessPlatform : kX11Platform;
  made->native = native;
  return made;
}

EGLBoolean Initialize(EGLDisplay handle, EGLint* major, EGLint* minor) {
  const Lock lock;
  Display* display = find(displays, handle);
  if (display == nullptr) return fail(EGL_BAD_DISPLAY);
  bool there = load_configs(*display);
  if (!there && display->of_default && display->platform == kX11Platform) {
    display->platform = kSurfacelessPlatform;
    there = load_configs(*display);
    if (!there) display->platform = kX11Platform;
  }
  if (!there) return fail(EGL_NOT_INITIALIZED);
  display->initialised = true;
  if (major != nullptr) *major = 1;
  if (minor != nullptr) *minor = 4;
  return done();
}

constexpr const char* kExtensionsOfDisplay =
    "EGL_KHR_create_context EGL_KHR_fence_sync EGL_KHR_get_all_proc_addresses EGL_KHR_no_config_context "
    "EGL_KHR_surfaceless_context EGL_MESA_configless_context ";
constexpr const char* kPlatforms = "EGL_EXT_platform_x11 EGL_KHR_platform_x11 EGL_MESA_platform_surfaceless ";
constexpr const char* kExtensionsOfClient = "EGL_EXT_client_extensions EGL_EXT_platform_base ";

const char* vendor_string(int name) {
  return name == __EGL_VENDOR_STRING_PLATFORM_EXTENSIONS ? kPlatforms : nullptr;
}

const char* QueryString(EGLDisplay handle, EGLint name) {
  if (handle == EGL_NO_DISPLAY && name == EGL_EXTENSIONS) return kExtensionsOfClient;
  const Lock lock;
  if (usable(handle) == nullptr) return nullptr;
  done();
  switch (name) {
    case EGL_VENDOR:
      return "stasis";
    case EGL_VERSION:
      return "1.4";
    case EGL_EXTENSIONS:
      return kExtensionsOfDisplay;
    case EGL_CLIENT_APIS:
      return "OpenGL OpenGL_ES ";
  }
  fail(EGL_BAD_PARAMETER);
  return nullptr;
}

EGLBoolean GetConfigs(EGLDisplay handle, EGLConfig* into, EGLint size, EGLint* count) {
  const Lock lock;
  Display* display = usable(handle);
  if (display == nullptr) return EGL_FALSE;
  if (count == nullptr) return fail(EGL_BAD_PARAMETER);
  done();
  return get_configs(*display, into, size, count);
}
EGLBoolean ChooseConfig(EGLDisplay handle, const EGLint* wanted, EGLConfig* into, EGLint size,
                        EGLint* count) {
  const Lock lock;
  Display* display = usable(handle);
  if (display == nullptr) return EGL_FALSE;
  if (count == nullptr) return fail(EGL_BAD_PARAMETER);
  done();
  return choose_config(*display, wanted, into, size, count);
}
EGLBoolean GetConfigAttrib(EGLDisplay handle, EGLConfig config_handle, EGLint name, EGLint* value) {
  const Lock lock;
  Display* display = usable(handle);
  if (display == nullptr) return EGL_FALSE;
  const Config* config = find_config(*display, config_handle);
  if (config == nullptr) return fail(EGL_BAD_CONFIG);
  bool known = false;
  const EGLint found = attribute_of(*config, name, known);
  if (!known) return fail(EGL_BAD_ATTRIBUTE);
  *value = found;
  return done();
}

EGLBoolean Terminate(EGLDisplay handle) {
  const Lock lock;
  Display* display = find(displays, handle);
  if (display == nullptr) return fail(EGL_BAD_DISPLAY);
  for (ContextRecord *one = contexts, *next = nullptr; one != nullptr; one = next) {
    next = one->next;
    if (one->display != display) continue;
    one->destroyed = true;
    release_if_unused(one);
  }
  for (Surface *one = surfaces, *next = nullptr; one != nullptr; one = next) {
    next = one->next;
    if (one->display != display) continue;
    one->destroyed = true;
    release_if_unused(one);
  }
  display->initialised = false;
  return done();
}

// --- What libEGL asks of a vendor

EGLint GetError() {
  const EGLint error = last_error;
  last_error = EGL_SUCCESS;
  return error;
}

EGLBoolean BindAPI(EGLenum api) {
  return api == EGL_OPENGL_API || api == EGL_OPENGL_ES_API ? done() : fail(EGL_BAD_PARAMETER);
}
EGLBoolean supports_api(EGLenum api) { return api == EGL_OPENGL_API || api == EGL_OPENGL_ES_API; }

const Entry* find_entry(const char* name) {
  static const Entry kEntries[] = {
      entry("eglBindAPI", BindAPI),
      entry("eglBindTexImage", BindTexImage),
      entry("eglChooseConfig", ChooseConfig),
      entry("eglCopyBuffers", CopyBuffers),
      entry("eglCreateContext", egl::CreateContext),
      entry("eglCreatePbufferFromClientBuffer", CreatePbufferFromClientBuffer),
      entry("eglCreatePbufferSurface", CreatePbufferSurface),
      entry("eglCreatePixmapSurface", CreatePixmapSurface),
      entry("eglCreatePlatformPixmapSurface", CreatePlatformPixmapSurface),
      entry("eglCreatePlatformPixmapSurfaceEXT", CreatePlatformPixmapSurfaceEXT),
      entry("eglCreatePlatformWindowSurface", CreatePlatformWindowSurface),
      entry("eglCreatePlatformWindowSurfaceEXT", CreatePlatformWindowSurfaceEXT),
      entry("eglCreateWindowSurface", CreateWindowSurface),
      entry("eglDestroyContext", DestroyContext),
      entry("eglDestroySurface", DestroySurface),
      entry("eglGetConfigAttrib", GetConfigAttrib),
      entry("eglGetConfigs", GetConfigs),
      entry("eglGetError", GetError),
      entry("eglInitialize", Initialize),
      entry("eglMakeCurrent", egl::MakeCurrent),
      entry("eglQueryContext", QueryContext),
      entry("eglQueryString", QueryString),
      entry("eglQuerySurface", QuerySurface),
      entry("eglReleaseTexImage", ReleaseTexImage),
      entry("eglReleaseThread", ReleaseThread),
      entry("eglSurfaceAttrib", SurfaceAttrib),
      entry("eglSwapBuffers", egl::SwapBuffers),
      entry("eglSwapInterval", SwapInterval),
      entry("eglTerminate", Terminate),
      entry("eglWaitClient", WaitClient),
      entry("eglWaitGL", WaitClient),
      entry("eglWaitNative", WaitNative),
      entry("eglClientWaitSyncKHR", ClientWaitSyncKHR, true),
      entry("eglCreateSyncKHR", CreateSyncKHR, true),
      entry("eglDestroySyncKHR", DestroySyncKHR, true),
      entry("eglGetSyncAttribKHR", GetSyncAttribKHR, true),
  };
  return gl::find_entry(kEntries, name);
}

void* get_proc_address(const char* name) { return address_of(find_entry(name), name); }
void* get_dispatch_address(const char* name) { return dispatcher_of(find_entry(name)); }
void set_dispatch_index(const char*, int) {}

}  // namespace

extern "C" __attribute__((visibility("default"))) EGLBoolean __egl_Main(uint32_t version,
                                                                        const __EGLapiExports* exports,
                                                                        __EGLvendorInfo* vendor,
                                                                        __EGLapiImports* imports) {
  if (EGL_VENDOR_ABI_GET_MAJOR_VERSION(version) != EGL_VENDOR_ABI_MAJOR_VERSION) return EGL_FALSE;
  library = exports;
  ourselves = vendor;
  imports->getPlatformDisplay = get_platform_display;
  imports->getSupportsAPI = supports_api;
  imports->getVendorString = vendor_string;
  imports->getProcAddress = get_proc_address;
  imports->getDispatchAddress = get_dispatch_address;
  imports->setDispatchIndex = set_dispatch_index;
  return EGL_TRUE;
}

}  // namespace stasis::gl::egl

// What a program has of EGL. Handles are addresses of records in its own memory, so that they stay what they
// are after a restart.
#pragma once

#include <EGL/egl.h>
#include <EGL/eglext.h>

#include "encoder/program.h"
#include "wire/egl.h"

namespace stasis::gl::egl {

struct Display {
  bool of_default;  // the program has not said which
  bool initialised;
  int32_t platform;  // EglPlatform
  void* native;      // of X, or null
  Config* configs;
  int config_count;
  Display* next;
};

struct Surface {
  uint64_t number;
  uint32_t kind;  // kWindow, kPbuffer
  const Config* config;
  Display* display;
  int users;  // contexts that are current with it
  bool destroyed;
  Surface* next;
};

struct ContextRecord {
  Context* context;
  Display* display;
  const Config* config;  // null: none
  int version;           // of the client API, as EGL has it
  Surface *draw, *read;  // while it is current
  bool current, destroyed;
  ContextRecord* next;
};

// Held while records are looked up or changed.
class Lock {
 public:
  Lock();
  ~Lock();
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;
};

template <typename T>
T* find(T* list, const void* handle) {
  for (T* one = list; one != nullptr; one = one->next) {
    if (one == handle) return one;
  }
  return nullptr;
}
template <typename T>
T* add(T*& list) {
  auto* made = static_cast<T*>(zeroed(sizeof(T)));
  made->next = list;
  list = made;
  return made;
}
template <typename T>
void remove(T*& list, T* gone) {
  T** at = &list;
  while (*at != gone) at = &(*at)->next;
  *at = gone->next;
  free(gone);
}

extern Display* displays;
extern Surface* surfaces;
extern ContextRecord* contexts;
extern thread_local ContextRecord* current __attribute__((tls_model("initial-exec")));

// Null, with an error, when it is none that can be used.
Display* usable(EGLDisplay handle);
Surface* surface_of(EGLSurface handle);
ContextRecord* context_of(EGLContext handle);
// When the program has destroyed it and no thread uses it any more.
void release_if_unused(Surface* surface);
void release_if_unused(ContextRecord* context);
// Through the ring of this thread, so that the log has what was done with it before.
void send_destruction(uint16_t op, uint32_t context, uint64_t surface);
// The renderer is another client of the X server, which has to know by now what the program says of it.
void synchronise(const Display& display);
EGLenum current_api();
// Words of a packet; returns where they end.
inline char* put_words(char* at, const EGLint* words, uint32_t count) {
  copy(at, words, count * sizeof(EGLint));
  return at + count * sizeof(EGLint);
}

// In extensions, to which libEGL does not lead: errors are asked of us.
void called_directly();
// Leave an error of EGL, or none, for eglGetError.
bool fail(EGLint error);
bool done();

bool load_configs(Display& display);
const Config* find_config(const Display& display, EGLConfig handle);
EGLint attribute_of(const Config& config, EGLint name, bool& known);
EGLBoolean choose_config(Display& display, const EGLint* wanted, EGLConfig* into, EGLint size, EGLint* count);
EGLBoolean get_configs(const Display& display, EGLConfig* into, EGLint size, EGLint* count);

// What libEGL calls.
EGLContext CreateContext(EGLDisplay handle, EGLConfig config_handle, EGLContext share,
                         const EGLint* attributes);
EGLBoolean DestroyContext(EGLDisplay handle, EGLContext context_handle);
EGLBoolean MakeCurrent(EGLDisplay handle, EGLSurface draw_handle, EGLSurface read_handle,
                       EGLContext context_handle);
EGLBoolean QueryContext(EGLDisplay handle, EGLContext context_handle, EGLint name, EGLint* value);
EGLBoolean ReleaseThread();
EGLBoolean WaitClient();
EGLBoolean WaitNative(EGLint);
EGLSurface CreateWindowSurface(EGLDisplay display, EGLConfig config, EGLNativeWindowType window,
                               const EGLint* attributes);
EGLSurface CreatePlatformWindowSurfaceEXT(EGLDisplay display, EGLConfig config, void* window,
                                          const EGLint* attributes);
EGLSurface CreatePlatformWindowSurface(EGLDisplay display, EGLConfig config, void* window,
                                       const EGLAttrib* attributes);
EGLSurface CreatePbufferSurface(EGLDisplay display, EGLConfig config, const EGLint* attributes);
EGLSurface CreatePixmapSurface(EGLDisplay, EGLConfig, EGLNativePixmapType, const EGLint*);
EGLSurface CreatePlatformPixmapSurface(EGLDisplay, EGLConfig, void*, const EGLAttrib*);
EGLSurface CreatePlatformPixmapSurfaceEXT(EGLDisplay, EGLConfig, void*, const EGLint*);
EGLSurface CreatePbufferFromClientBuffer(EGLDisplay, EGLenum, EGLClientBuffer, EGLConfig, const EGLint*);
EGLBoolean BindTexImage(EGLDisplay, EGLSurface, EGLint);
EGLBoolean ReleaseTexImage(EGLDisplay, EGLSurface, EGLint);
EGLBoolean CopyBuffers(EGLDisplay, EGLSurface, EGLNativePixmapType);
EGLBoolean DestroySurface(EGLDisplay handle, EGLSurface surface_handle);
EGLBoolean QuerySurface(EGLDisplay handle, EGLSurface surface_handle, EGLint name, EGLint* value);
EGLBoolean SurfaceAttrib(EGLDisplay handle, EGLSurface surface_handle, EGLint name, EGLint value);
EGLBoolean SwapBuffers(EGLDisplay handle, EGLSurface surface_handle);
EGLBoolean SwapInterval(EGLDisplay handle, EGLint interval);
EGLSync CreateSyncKHR(EGLDisplay, EGLenum type, const EGLint* attributes);
EGLBoolean DestroySyncKHR(EGLDisplay, EGLSync sync);
EGLint ClientWaitSyncKHR(EGLDisplay, EGLSync sync, EGLint flags, EGLTime timeout);
EGLBoolean GetSyncAttribKHR(EGLDisplay, EGLSync sync, EGLint name, EGLint* value);

}  // namespace stasis::gl::egl

#include <X11/Xlib.h>

#include "encoder/connection.h"
#include "encoder/egl.h"
#include "generated/packets.h"

namespace stasis::gl::egl {

namespace {

EGLSurface create_surface(EGLDisplay handle, EGLConfig config_handle, uint32_t kind, uint64_t drawable,
                          const EGLint* attributes) {
  const Lock lock;
  Display* display = usable(handle);
  if (display == nullptr) return EGL_NO_SURFACE;
  auto refuse = [](EGLint error) {
    fail(error);
    return EGL_NO_SURFACE;
  };
  const Config* config = find_config(*display, config_handle);
  if (config == nullptr) return refuse(EGL_BAD_CONFIG);
  bool known = false;
  const EGLint bit = kind == kWindow ? EGL_WINDOW_BIT : EGL_PBUFFER_BIT;
  if ((attribute_of(*config, EGL_SURFACE_TYPE, known) & bit) == 0) return refuse(EGL_BAD_MATCH);
  uint32_t words = 0;
  for (; attributes != nullptr && attributes[words] != EGL_NONE; words += 2) {
    const EGLint name = attributes[words], value = attributes[words + 1];
    // As the configurations say.
    const bool is_texture = name == EGL_TEXTURE_FORMAT || name == EGL_TEXTURE_TARGET;
    if (is_texture && value != EGL_NO_TEXTURE) return refuse(EGL_BAD_MATCH);
  }
  if (kind == kWindow) synchronise(*display);
  ControlCall call;
  if (!call) return refuse(EGL_BAD_ALLOC);
  auto* packet = call.begin<gl::CreateSurface>(kOpCreateSurface, words * sizeof(EGLint) + sizeof(Config));
  packet->header.flags = kOfEgl;
  packet->kind = kind;
  packet->config = 1;
  packet->surface = kFirstEglSurface + Connection::next_number();
  packet->drawable = drawable;
  packet->screen = display->platform;
  packet->attributes = words;
  copy(put_words(reinterpret_cast<char*>(packet + 1), attributes, words), config, sizeof(Config));
  const uint64_t number = packet->surface;
  if (const auto answer = call.ask().result<EglAnswer>(); answer.done == 0) return refuse(answer.error);
  auto* made = add(surfaces);
  made->number = number;
  made->kind = kind;
  made->config = config;
  made->display = display;
  done();
  return made;
}

EGLSurface no_surface(EGLint error) {
  fail(error);
  return EGL_NO_SURFACE;
}

}  // namespace

EGLSurface CreateWindowSurface(EGLDisplay display, EGLConfig config, EGLNativeWindowType window,
                               const EGLint* attributes) {
  return create_surface(display, config, kWindow, static_cast<uint64_t>(window), attributes);
}
// On X11 this one is told where the number of the window is.
EGLSurface CreatePlatformWindowSurfaceEXT(EGLDisplay display, EGLConfig config, void* window,
                                          const EGLint* attributes) {
  const uint64_t drawable = window != nullptr ? *static_cast<const Window*>(window) : 0;
  return create_surface(display, config, kWindow, drawable, attributes);
}
EGLSurface CreatePlatformWindowSurface(EGLDisplay display, EGLConfig config, void* window,
                                       const EGLAttrib* attributes) {
  constexpr int kMost = 32;
  EGLint words[kMost];
  int count = 0;
  for (; attributes != nullptr && attributes[count] != EGL_NONE && count < kMost - 2; count += 2) {
    words[count] = static_cast<EGLint>(attributes[count]);
    words[count + 1] = static_cast<EGLint>(attributes[count + 1]);
  }
  words[count] = EGL_NONE;
  return CreatePlatformWindowSurfaceEXT(display, config, window, words);
}
EGLSurface CreatePbufferSurface(EGLDisplay display, EGLConfig config, const EGLint* attributes) {
  return create_surface(display, config, kPbuffer, 0, attributes);
}

// No configuration has pixmaps, nor surfaces that are textures, nor those of other client APIs.
EGLSurface CreatePixmapSurface(EGLDisplay, EGLConfig, EGLNativePixmapType, const EGLint*) {
  return no_surface(EGL_BAD_MATCH);
}
EGLSurface CreatePlatformPixmapSurface(EGLDisplay, EGLConfig, void*, const EGLAttrib*) {
  return no_surface(EGL_BAD_MATCH);
}
EGLSurface CreatePlatformPixmapSurfaceEXT(EGLDisplay, EGLConfig, void*, const EGLint*) {
  return no_surface(EGL_BAD_MATCH);
}
EGLSurface CreatePbufferFromClientBuffer(EGLDisplay, EGLenum, EGLClientBuffer, EGLConfig, const EGLint*) {
  return no_surface(EGL_BAD_PARAMETER);
}
EGLBoolean BindTexImage(EGLDisplay, EGLSurface, EGLint) { return fail(EGL_BAD_MATCH); }
EGLBoolean ReleaseTexImage(EGLDisplay, EGLSurface, EGLint) { return fail(EGL_BAD_MATCH); }
EGLBoolean CopyBuffers(EGLDisplay, EGLSurface, EGLNativePixmapType) { return fail(EGL_BAD_NATIVE_PIXMAP); }

EGLBoolean DestroySurface(EGLDisplay handle, EGLSurface surface_handle) {
  const Lock lock;
  if (usable(handle) == nullptr) return EGL_FALSE;
  Surface* surface = surface_of(surface_handle);
  if (surface == nullptr) return EGL_FALSE;
  surface->destroyed = true;
  release_if_unused(surface);
  return done();
}

EGLBoolean QuerySurface(EGLDisplay handle, EGLSurface surface_handle, EGLint name, EGLint* value) {
  const Lock lock;
  if (usable(handle) == nullptr) return EGL_FALSE;
  const Surface* surface = surface_of(surface_handle);
  if (surface == nullptr) return EGL_FALSE;
  if (name == EGL_CONFIG_ID) {
    *value = static_cast<EGLint>(surface->config->id);
    return done();
  }
  ControlCall call;
  if (!call) return fail(EGL_BAD_SURFACE);
  auto* packet = call.begin<SurfaceCall>(kOpQuerySurface);
  packet->surface = surface->number;
  packet->value = name;
  VisualConfig answer = {};
  call.ask().take(&answer, sizeof answer);
  if (answer.error != EGL_SUCCESS) return fail(answer.error);
  *value = answer.value;
  return done();
}

// No configuration has another value than the default.
EGLBoolean SurfaceAttrib(EGLDisplay handle, EGLSurface surface_handle, EGLint name, EGLint value) {
  const Lock lock;
  if (usable(handle) == nullptr || surface_of(surface_handle) == nullptr) return EGL_FALSE;
  switch (name) {
    case EGL_MIPMAP_LEVEL:
      return value == 0 ? done() : fail(EGL_BAD_MATCH);
    case EGL_MULTISAMPLE_RESOLVE:
      return value == EGL_MULTISAMPLE_RESOLVE_DEFAULT ? done() : fail(EGL_BAD_MATCH);
    case EGL_SWAP_BEHAVIOR:
      return value == EGL_BUFFER_DESTROYED ? done() : fail(EGL_BAD_MATCH);
  }
  return fail(EGL_BAD_ATTRIBUTE);
}

EGLBoolean SwapBuffers(EGLDisplay handle, EGLSurface surface_handle) {
  Surface* surface = nullptr;
  {
    const Lock lock;
    if (usable(handle) == nullptr || (surface = surface_of(surface_handle)) == nullptr) return EGL_FALSE;
  }
  Stream* s = stream();
  if (s == nullptr || current == nullptr || current->draw != surface) return fail(EGL_BAD_SURFACE);
  // A pbuffer has nothing to exchange, and what was drawn stays in it: no frame ends here.
  if (surface->kind == kPbuffer) {
    stub_Flush();
    return done();
  }
  auto* packet = static_cast<SurfaceCall*>(s->begin(kOpSwapBuffers, sizeof(SurfaceCall)));
  *packet = {packet->header, surface->number, 0, 0};
  s->commit_small();
  s->publish();
  s->limit_frames();
  return done();
}

EGLBoolean SwapInterval(EGLDisplay handle, EGLint interval) {
  {
    const Lock lock;
    if (usable(handle) == nullptr) return EGL_FALSE;
  }
  Stream* s = stream();
  if (s == nullptr || current == nullptr) return fail(EGL_BAD_CONTEXT);
  if (current->draw == nullptr) return fail(EGL_BAD_SURFACE);
  auto* packet = static_cast<SurfaceCall*>(s->begin(kOpSwapInterval, sizeof(SurfaceCall)));
  *packet = {packet->header, current->draw->number, interval, 0};
  s->commit_small();
  return done();
}

}  // namespace stasis::gl::egl

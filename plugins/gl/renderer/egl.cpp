// Contexts and surfaces of EGL: with the driver's own EGL, on the program's own windows or on none.
#include "wire/egl.h"

#include <EGL/egl.h>
#include <EGL/eglext.h>

#include <cstring>

#include "renderer/renderer.h"

namespace stasis::gl {

namespace {

struct EglSurface {
  EGLDisplay display;
  EGLSurface handle;
};

std::mutex mutex;  // of what follows
std::map<int32_t, EGLDisplay> displays;
std::map<uint32_t, std::shared_ptr<RenderContext>> contexts;
std::map<uint64_t, EglSurface> surfaces;
std::map<uint64_t, std::pair<EGLDisplay, EGLSync>> syncs;

EGLDisplay open_display_of(int32_t platform) {
  EGLDisplay display = EGL_NO_DISPLAY;
  if (platform == kSurfacelessPlatform)
    display = eglGetPlatformDisplay(EGL_PLATFORM_SURFACELESS_MESA, nullptr, nullptr);
  if (platform == kX11Platform) {
    if (void* server = open_display()) display = eglGetPlatformDisplay(EGL_PLATFORM_X11_KHR, server, nullptr);
  }
  if (display == EGL_NO_DISPLAY || eglInitialize(display, nullptr, nullptr) == EGL_FALSE)
    return EGL_NO_DISPLAY;
  return display;
}

// Initialised; EGL_NO_DISPLAY when there is nothing of this kind. With the lock.
EGLDisplay display_of(int32_t platform) {
  if (platform != kX11Platform && platform != kSurfacelessPlatform) return EGL_NO_DISPLAY;
  auto [entry, is_new] = displays.try_emplace(platform, EGL_NO_DISPLAY);
  if (is_new) entry->second = open_display_of(platform);
  return entry->second;
}

// --- Configurations

constexpr EGLint kConfigNames[] = {EGL_CONFIG_ID,
                                   EGL_BUFFER_SIZE,
                                   EGL_RED_SIZE,
                                   EGL_GREEN_SIZE,
                                   EGL_BLUE_SIZE,
                                   EGL_LUMINANCE_SIZE,
                                   EGL_ALPHA_SIZE,
                                   EGL_ALPHA_MASK_SIZE,
                                   EGL_BIND_TO_TEXTURE_RGB,
                                   EGL_BIND_TO_TEXTURE_RGBA,
                                   EGL_COLOR_BUFFER_TYPE,
                                   EGL_CONFIG_CAVEAT,
                                   EGL_CONFORMANT,
                                   EGL_DEPTH_SIZE,
                                   EGL_LEVEL,
                                   EGL_MAX_PBUFFER_WIDTH,
                                   EGL_MAX_PBUFFER_HEIGHT,
                                   EGL_MAX_PBUFFER_PIXELS,
                                   EGL_MAX_SWAP_INTERVAL,
                                   EGL_MIN_SWAP_INTERVAL,
                                   EGL_NATIVE_RENDERABLE,
                                   EGL_NATIVE_VISUAL_ID,
                                   EGL_NATIVE_VISUAL_TYPE,
                                   EGL_RENDERABLE_TYPE,
                                   EGL_SAMPLE_BUFFERS,
                                   EGL_SAMPLES,
                                   EGL_STENCIL_SIZE,
                                   EGL_SURFACE_TYPE,
                                   EGL_TRANSPARENT_TYPE,
                                   EGL_TRANSPARENT_RED_VALUE,
                                   EGL_TRANSPARENT_GREEN_VALUE,
                                   EGL_TRANSPARENT_BLUE_VALUE};
static_assert(std::size(kConfigNames) <= kConfigAttributes);

std::vector<EGLConfig> all_configs(EGLDisplay display) {
  EGLint count = 0;
  if (display == EGL_NO_DISPLAY || eglGetConfigs(display, nullptr, 0, &count) == EGL_FALSE) return {};
  std::vector<EGLConfig> found(static_cast<size_t>(count));
  eglGetConfigs(display, found.data(), count, &count);
  found.resize(static_cast<size_t>(count));
  // Those with floating-point colours are of an extension that is not recorded.
  std::erase_if(found, [display](EGLConfig config) {
    EGLint type = EGL_COLOR_COMPONENT_TYPE_FIXED_EXT;
    eglGetConfigAttrib(display, config, EGL_COLOR_COMPONENT_TYPE_EXT, &type);
    return type != EGL_COLOR_COMPONENT_TYPE_FIXED_EXT;
  });
  return found;
}

void get_configs(Renderer& r, const Packet& packet) {
  std::lock_guard lock(mutex);
  EGLDisplay display = display_of(view<ChooseConfigs>(packet).screen);
  std::vector<Config> found;
  for (EGLConfig config : all_configs(display)) {
    Config& out = found.emplace_back();
    for (EGLint name : kConfigNames) {
      EGLint value = 0;
      if (eglGetConfigAttrib(display, config, name, &value) == EGL_FALSE) continue;
      if (name == EGL_CONFIG_ID) out.id = static_cast<uint32_t>(value);
      if (name == EGL_NATIVE_VISUAL_ID) out.visual = static_cast<uint32_t>(value);
      out.attributes[out.count++] = {name, value};
    }
  }
  r.answer_bytes(packet, found.data(), found.size() * sizeof(Config));
}

// How far the driver's configuration is from the one that the program has chosen, maybe of another driver's;
// less than 0: it will not do.
int64_t distance(EGLDisplay display, EGLConfig config, const Config& wanted) {
  constexpr int64_t kMore = 100;
  int64_t away = 0;
  for (int i = 0; i < std::min<int>(wanted.count, kConfigAttributes); ++i) {
    EGLint has = 0;
    const EGLint want = wanted.attributes[i].value;
    eglGetConfigAttrib(display, config, wanted.attributes[i].name, &has);
    switch (wanted.attributes[i].name) {
      case EGL_RED_SIZE:
      case EGL_GREEN_SIZE:
      case EGL_BLUE_SIZE:
      case EGL_ALPHA_SIZE:
      case EGL_NATIVE_VISUAL_ID:
      case EGL_COLOR_BUFFER_TYPE:
      case EGL_LEVEL:
        if (has != want) return -1;
        break;
      case EGL_DEPTH_SIZE:
      case EGL_STENCIL_SIZE:
      case EGL_SAMPLES:
        if (has < want) return -1;
        away += (int64_t{has} - want) * kMore;
        break;
      case EGL_SURFACE_TYPE:
      case EGL_RENDERABLE_TYPE:
        if ((has & want) != want) return -1;
        break;
      default:
        away += has != want;
    }
  }
  return away;
}

EGLConfig find_config(EGLDisplay display, const Config& wanted) {
  EGLConfig best = nullptr;
  int64_t least = -1;
  for (EGLConfig config : all_configs(display)) {
    const int64_t away = distance(display, config, wanted);
    if (away < 0 || (least >= 0 && away >= least)) continue;
    best = config;
    least = away;
  }
  return best;
}

// Behind the attributes.
EGLConfig config_in(const Packet& packet, size_t fixed, uint32_t words, EGLDisplay display) {
  const size_t at = fixed + size_t{words} * sizeof(EGLint);
  if (at + sizeof(Config) > packet.size) throw BadStream{"a configuration is missing"};
  Config wanted;
  std::memcpy(&wanted, reinterpret_cast<const char*>(&packet) + at, sizeof wanted);
  return find_config(display, wanted);
}

void answer(Renderer& r, const Packet& packet, bool done) {
  const EglAnswer said = {done, done ? EGL_SUCCESS : eglGetError()};
  uint64_t result = 0;
  std::memcpy(&result, &said, sizeof result);
  r.answer_result(packet, result);
}

// --- Contexts

// The packet's words are those of GLX.
std::vector<EGLint> context_attributes(const std::vector<int>& words, bool is_es) {
  std::vector<EGLint> found;
  for (size_t i = 0; i + 1 < words.size() && words[i] != 0; i += 2) {
    switch (words[i]) {
      case 0x2091:
        found.insert(found.end(), {EGL_CONTEXT_MAJOR_VERSION, words[i + 1]});
        break;
      case 0x2092:
        found.insert(found.end(), {EGL_CONTEXT_MINOR_VERSION, words[i + 1]});
        break;
      case 0x2094:
        found.insert(found.end(), {EGL_CONTEXT_FLAGS_KHR, words[i + 1]});
        break;
      case 0x9126:
        if (!is_es) found.insert(found.end(), {EGL_CONTEXT_OPENGL_PROFILE_MASK, words[i + 1]});
        break;
    }
  }
  found.push_back(EGL_NONE);
  return found;
}

void create_context(Renderer& r, const Packet& packet) {
  const auto& p = view<CreateContext>(packet);
  const std::vector<int> words = attributes_of(packet, sizeof p, p.attributes);
  const ContextKind kind = kind_of_context(words);
  std::lock_guard lock(mutex);
  EGLDisplay display = display_of(p.screen);
  EGLConfig config = p.config != 0 ? config_in(packet, sizeof p, p.attributes, display) : EGL_NO_CONFIG_KHR;
  auto share = contexts.find(p.share);
  auto* shared = share == contexts.end() ? EGL_NO_CONTEXT : share->second->handle;
  EGLContext made = EGL_NO_CONTEXT;
  if (display != EGL_NO_DISPLAY && (p.config == 0 || config != nullptr)) {
    eglBindAPI(kind.is_es ? EGL_OPENGL_ES_API : EGL_OPENGL_API);
    made = eglCreateContext(display, config, shared, context_attributes(words, kind.is_es).data());
  }
  if (r.is_replaying && made == EGL_NO_CONTEXT)
    throw BadStream{"no driver could be loaded that makes a context like the one before"};
  if (made != EGL_NO_CONTEXT) {
    auto context = std::make_shared<RenderContext>();
    context->number = p.context;
    context->handle = made;
    context->egl_display = display;
    context->is_es = kind.is_es;
    context->share = shared != EGL_NO_CONTEXT ? share->second->share
                                              : std::make_shared<Share>(Renderer::gl, kind.may_create);
    contexts[p.context] = context;
  }
  answer(r, packet, made != EGL_NO_CONTEXT);
}

// The program's side asks for it when no thread has it any more.
void destroy_context(Renderer& r, const Packet& packet) {
  std::lock_guard lock(mutex);
  auto found = contexts.find(view<MakeCurrent>(packet).context);
  if (found != contexts.end()) {
    eglDestroyContext(found->second->egl_display, found->second->handle);
    contexts.erase(found);
  }
  answer(r, packet, true);
}

// Null when there is no such surface (any more).
EGLSurface real_surface(uint64_t number, bool& is_there) {
  std::lock_guard lock(mutex);
  auto found = surfaces.find(number);
  is_there = number == kNoSurface || found != surfaces.end();
  return found != surfaces.end() ? found->second.handle : EGL_NO_SURFACE;
}

void make_current(Renderer& r, const Packet& packet, const std::shared_ptr<RenderContext>& context) {
  const auto& p = view<MakeCurrent>(packet);
  bool has_draw = false, has_read = false;
  EGLSurface draw = real_surface(p.draw, has_draw), read = real_surface(p.read, has_read);
  const bool claimed = r.claim(*context);
  bool done = claimed && has_draw && has_read &&
              eglMakeCurrent(context->egl_display, draw, read, context->handle) == EGL_TRUE;
  // What has been answered before is done again after a restart, when its window may be gone.
  if (!done && claimed && !r.is_open_question(packet)) {
    done = eglMakeCurrent(context->egl_display, EGL_NO_SURFACE, EGL_NO_SURFACE, context->handle) == EGL_TRUE;
  }
  if (done) r.set_current(context);
  if (!done && claimed && r.current != context) context->user = nullptr;
  if (!done && r.is_replaying) throw BadStream{"the driver does not give a context like the one before"};
  answer(r, packet, done);
}

// --- Surfaces

void create_surface(Renderer& r, const Packet& packet) {
  const auto& p = view<CreateSurface>(packet);
  std::vector<int> attributes = attributes_of(packet, sizeof p, p.attributes);
  attributes.resize(p.attributes);
  attributes.insert(attributes.end(), {EGL_NONE, EGL_NONE});  // also where a name has no value
  std::lock_guard lock(mutex);
  EGLDisplay display = display_of(p.screen);
  EGLConfig config = config_in(packet, sizeof p, p.attributes, display);
  EGLSurface made = EGL_NO_SURFACE;
  if (config != nullptr && p.kind == kPbuffer)
    made = eglCreatePbufferSurface(display, config, attributes.data());
  if (config != nullptr && p.kind == kWindow)
    made = eglCreateWindowSurface(display, config, p.drawable, attributes.data());
  if (made != EGL_NO_SURFACE) surfaces[p.surface] = {display, made};
  answer(r, packet, made != EGL_NO_SURFACE);
}

void destroy_surface(Renderer& r, const Packet& packet) {
  std::lock_guard lock(mutex);
  auto found = surfaces.find(view<SurfaceCall>(packet).surface);
  if (found != surfaces.end()) {
    eglDestroySurface(found->second.display, found->second.handle);
    surfaces.erase(found);
  }
  answer(r, packet, true);
}

void query_surface(Renderer& r, const Packet& packet) {
  const auto& p = view<SurfaceCall>(packet);
  VisualConfig said = {EGL_BAD_SURFACE, 0};
  std::lock_guard lock(mutex);
  auto found = surfaces.find(p.surface);
  if (found != surfaces.end()) {
    const bool done =
        eglQuerySurface(found->second.display, found->second.handle, p.value, &said.value) == EGL_TRUE;
    said.error = done ? EGL_SUCCESS : eglGetError();
  }
  r.answer_bytes(packet, &said, sizeof said);
}

void swap_buffers(Renderer& r, const Packet& packet) {
  bool is_there = false;
  EGLSurface surface = real_surface(view<SurfaceCall>(packet).surface, is_there);
  if (r.current != nullptr && surface != EGL_NO_SURFACE) eglSwapBuffers(r.current->egl_display, surface);
  r.frame_shown();
}

// --- Fences

void create_sync(Renderer& r, const Packet& packet) {
  const auto& p = view<SyncCall>(packet);
  EGLSync made =
      r.current != nullptr ? eglCreateSync(r.current->egl_display, EGL_SYNC_FENCE, nullptr) : nullptr;
  std::lock_guard lock(mutex);
  if (made != EGL_NO_SYNC) syncs[p.sync] = {r.current->egl_display, made};
  answer(r, packet, made != EGL_NO_SYNC);
}

void destroy_sync(const Packet& packet) {
  std::lock_guard lock(mutex);
  auto found = syncs.find(view<SyncCall>(packet).sync);
  if (found == syncs.end()) return;
  eglDestroySync(found->second.first, found->second.second);
  syncs.erase(found);
}

// What is not there is of a driver before this one: it has been reached long ago.
void wait_sync(Renderer& r, const Packet& packet) {
  const auto& p = view<SyncCall>(packet);
  std::pair<EGLDisplay, EGLSync> sync = {EGL_NO_DISPLAY, EGL_NO_SYNC};
  {
    std::lock_guard lock(mutex);
    if (auto found = syncs.find(p.sync); found != syncs.end()) sync = found->second;
  }
  const EGLint said = sync.second == EGL_NO_SYNC
                          ? EGL_CONDITION_SATISFIED
                          : eglClientWaitSync(sync.first, sync.second, p.flags, p.timeout);
  r.answer_result(packet, static_cast<uint32_t>(said));
}

bool is_egl_surface(const Packet& packet) { return view<SurfaceCall>(packet).surface >= kFirstEglSurface; }

// Returns false when the context is one of GLX.
bool change_current(Renderer& r, const Packet& packet) {
  const uint32_t number = view<MakeCurrent>(packet).context;
  std::shared_ptr<RenderContext> context;
  {
    std::lock_guard lock(mutex);
    if (auto found = contexts.find(number); found != contexts.end()) context = found->second;
  }
  if (number == 0 && r.current == nullptr) {  // whose it would be does not matter
    answer(r, packet, true);
    return true;
  }
  const bool of_egl = context != nullptr || (number == 0 && r.current->egl_display != nullptr);
  // The one interface does not take the thread from the other; and a replay leaves no errors in a context.
  const bool was_egl = r.current != nullptr && r.current->egl_display != nullptr;
  if (was_egl ? r.is_replaying || !of_egl : of_egl) release_current(r);
  if (!of_egl) return false;
  if (context != nullptr) {
    make_current(r, packet, context);
  } else {
    release_current(r);
    answer(r, packet, true);
  }
  return true;
}

}  // namespace

std::pair<GLint, GLint> egl_surface_size(uint64_t number) {
  std::lock_guard lock(mutex);
  EGLint width = 0, height = 0;
  if (auto found = surfaces.find(number); found != surfaces.end()) {
    eglQuerySurface(found->second.display, found->second.handle, EGL_WIDTH, &width);
    eglQuerySurface(found->second.display, found->second.handle, EGL_HEIGHT, &height);
  }
  return {width, height};
}

void release_egl(Renderer& r) {
  eglMakeCurrent(r.current->egl_display, EGL_NO_SURFACE, EGL_NO_SURFACE, EGL_NO_CONTEXT);
  r.set_current(nullptr);
}

bool execute_egl(Renderer& r, const Packet& packet) {
  switch (packet.op) {
    case kOpMakeCurrent:
      return change_current(r, packet);
    case kOpDestroyContext: {
      {
        std::lock_guard lock(mutex);
        if (!contexts.contains(view<MakeCurrent>(packet).context)) return false;
      }
      destroy_context(r, packet);
      return true;
    }
    case kOpDestroySurface:
      if (!is_egl_surface(packet)) return false;
      destroy_surface(r, packet);
      return true;
    case kOpQuerySurface:
      if (!is_egl_surface(packet)) return false;
      query_surface(r, packet);
      return true;
    case kOpSwapBuffers:
      if (!is_egl_surface(packet)) return false;
      swap_buffers(r, packet);
      return true;
    case kOpSwapInterval:
      if (!is_egl_surface(packet)) return false;
      if (r.current != nullptr && r.current->egl_display != nullptr)
        eglSwapInterval(r.current->egl_display, view<SurfaceCall>(packet).value);
      return true;
    case kOpEglCreateSync:
      create_sync(r, packet);
      return true;
    case kOpEglDestroySync:
      destroy_sync(packet);
      return true;
    case kOpEglWaitSync:
      wait_sync(r, packet);
      return true;
  }
  if ((packet.flags & kOfEgl) == 0) return false;
  switch (packet.op) {
    case kOpGetConfigs:
      get_configs(r, packet);
      return true;
    case kOpCreateContext:
      create_context(r, packet);
      return true;
    case kOpCreateSurface:
      create_surface(r, packet);
      return true;
  }
  return false;
}

}  // namespace stasis::gl

// Windows, contexts and configurations: the renderer is another client of the program's X server and draws
// into the program's own windows with the driver's own GLX.
#include <GL/glx.h>
#include <GL/glxext.h>
#include <X11/Xlib.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <set>
#include <span>

#include "generated/commands.h"
#include "renderer/renderer.h"
#include "wire/egl.h"

namespace stasis::gl {

namespace {

Display* display = nullptr;
std::mutex mutex;  // of what follows
std::map<uint32_t, std::shared_ptr<RenderContext>> contexts;
std::map<uint64_t, std::pair<SurfaceKind, GLXDrawable>> surfaces;

// Of another driver's configurations, those that this one has not: one that is like it.
std::map<uint32_t, GLXFBConfig> substitutes;

bool has_screen(int screen) { return screen >= 0 && screen < ScreenCount(display); }

// Null when there is none.
GLXFBConfig* all_configs(int screen, int& count) {
  count = 0;
  return has_screen(screen) ? glXGetFBConfigs(display, screen, &count) : nullptr;
}

GLXFBConfig find_config(int screen, uint32_t id) {
  int count = 0;
  GLXFBConfig* all = all_configs(screen, count);
  GLXFBConfig found = nullptr;
  for (int i = 0; i < count; ++i) {
    int its_id = 0;
    glXGetFBConfigAttrib(display, all[i], GLX_FBCONFIG_ID, &its_id);
    if (static_cast<uint32_t>(its_id) == id) found = all[i];
  }
  if (all != nullptr) XFree(all);
  if (found != nullptr) return found;
  const auto other = substitutes.find(id);
  return other == substitutes.end() ? nullptr : other->second;
}

// The windows are the same and show the same colours; of depth and the like there must be some where there
// was, at best as much.
GLXFBConfig find_similar(int screen, const Config& wanted) {
  static constexpr int kSame[] = {
      GLX_BUFFER_SIZE,  GLX_LEVEL,     GLX_DOUBLEBUFFER, GLX_STEREO,  GLX_RED_SIZE,
      GLX_GREEN_SIZE,   GLX_BLUE_SIZE, GLX_ALPHA_SIZE,   GLX_SAMPLES, GLX_FRAMEBUFFER_SRGB_CAPABLE_ARB,
      GLX_X_VISUAL_TYPE};
  static constexpr int kSome[] = {GLX_DEPTH_SIZE,       GLX_STENCIL_SIZE,    GLX_ACCUM_RED_SIZE,
                                  GLX_ACCUM_GREEN_SIZE, GLX_ACCUM_BLUE_SIZE, GLX_ACCUM_ALPHA_SIZE};
  static constexpr int kBits[] = {GLX_RENDER_TYPE, GLX_DRAWABLE_TYPE};
  auto is = [](int name, std::span<const int> names) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  int count = 0;
  int64_t least = 0;
  GLXFBConfig* all = all_configs(screen, count);
  GLXFBConfig found = nullptr;
  for (int i = 0; i < count; ++i) {
    bool fits = true;
    int64_t difference = 0;
    for (int32_t at = 0; at < std::clamp(wanted.count, 0, int32_t{kConfigAttributes}); ++at) {
      const int name = wanted.attributes[at].name;
      const int64_t value = wanted.attributes[at].value;
      int has = 0;
      glXGetFBConfigAttrib(display, all[i], name, &has);
      if (is(name, kSame)) fits = fits && has == value;
      if (is(name, kBits)) fits = fits && (has & value) == value;
      if (!is(name, kSome)) continue;
      constexpr int kTooLittle = 1000;
      fits = fits && (value == 0 || has > 0);
      difference += has >= value ? has - value : (value - has) * kTooLittle;
    }
    if (!fits || (found != nullptr && difference >= least)) continue;
    found = all[i];
    least = difference;
  }
  if (all != nullptr) XFree(all);
  return found;
}

// Of a context. Programs that were saved long ago have not described it.
GLXFBConfig config_of(const CreateContext& p, size_t attributes) {
  if (p.config == 0) return nullptr;
  GLXFBConfig config = find_config(p.screen, p.config);
  const size_t at = sizeof p + attributes * sizeof(int);
  if (config != nullptr || p.header.size < at + sizeof(Config)) return config;
  Config wanted;
  std::memcpy(&wanted, reinterpret_cast<const char*>(&p) + at, sizeof wanted);
  config = find_similar(p.screen, wanted);
  if (config != nullptr) substitutes[p.config] = config;
  return config;
}

XVisualInfo* find_visual(int screen, uint32_t id) {
  if (!has_screen(screen)) return nullptr;
  XVisualInfo wanted = {};
  wanted.visualid = id;
  wanted.screen = screen;
  int count = 0;
  return XGetVisualInfo(display, VisualIDMask | VisualScreenMask, &wanted, &count);
}

void describe(GLXFBConfig config, Config& out) {
  static const int kNames[] = {GLX_FBCONFIG_ID,
                               GLX_BUFFER_SIZE,
                               GLX_LEVEL,
                               GLX_DOUBLEBUFFER,
                               GLX_STEREO,
                               GLX_AUX_BUFFERS,
                               GLX_RED_SIZE,
                               GLX_GREEN_SIZE,
                               GLX_BLUE_SIZE,
                               GLX_ALPHA_SIZE,
                               GLX_DEPTH_SIZE,
                               GLX_STENCIL_SIZE,
                               GLX_ACCUM_RED_SIZE,
                               GLX_ACCUM_GREEN_SIZE,
                               GLX_ACCUM_BLUE_SIZE,
                               GLX_ACCUM_ALPHA_SIZE,
                               GLX_RENDER_TYPE,
                               GLX_DRAWABLE_TYPE,
                               GLX_X_RENDERABLE,
                               GLX_VISUAL_ID,
                               GLX_X_VISUAL_TYPE,
                               GLX_CONFIG_CAVEAT,
                               GLX_TRANSPARENT_TYPE,
                               GLX_TRANSPARENT_INDEX_VALUE,
                               GLX_TRANSPARENT_RED_VALUE,
                               GLX_TRANSPARENT_GREEN_VALUE,
                               GLX_TRANSPARENT_BLUE_VALUE,
                               GLX_TRANSPARENT_ALPHA_VALUE,
                               GLX_MAX_PBUFFER_WIDTH,
                               GLX_MAX_PBUFFER_HEIGHT,
                               GLX_MAX_PBUFFER_PIXELS,
                               GLX_SAMPLE_BUFFERS,
                               GLX_SAMPLES,
                               GLX_FRAMEBUFFER_SRGB_CAPABLE_ARB};
  static_assert(std::size(kNames) <= kConfigAttributes);
  for (int name : kNames) {
    int value = 0;
    if (glXGetFBConfigAttrib(display, config, name, &value) != Success) continue;
    if (name == GLX_FBCONFIG_ID) out.id = static_cast<uint32_t>(value);
    if (name == GLX_VISUAL_ID) out.visual = static_cast<uint32_t>(value);
    out.attributes[out.count++] = {name, value};
  }
}

void get_configs(Renderer& r, const Packet& packet) {
  std::vector<Config> found;
  int count = 0;
  GLXFBConfig* all = all_configs(view<ChooseConfigs>(packet).screen, count);
  for (int i = 0; i < count; ++i) describe(all[i], found.emplace_back());
  if (all != nullptr) XFree(all);
  r.answer_bytes(packet, found.data(), found.size() * sizeof(Config));
}

void choose_configs(Renderer& r, const Packet& packet) {
  const auto& p = view<ChooseConfigs>(packet);
  int count = 0;
  std::vector<int> attributes = attributes_of(packet, sizeof p, p.attributes);
  GLXFBConfig* all =
      has_screen(p.screen) ? glXChooseFBConfig(display, p.screen, attributes.data(), &count) : nullptr;
  std::vector<uint32_t> ids;
  for (int i = 0; i < count; ++i) {
    int id = 0;
    glXGetFBConfigAttrib(display, all[i], GLX_FBCONFIG_ID, &id);
    ids.push_back(static_cast<uint32_t>(id));
  }
  if (all != nullptr) XFree(all);
  r.answer_bytes(packet, ids.data(), ids.size() * sizeof(uint32_t));
}

void get_visual_config(Renderer& r, const Packet& packet) {
  const auto& p = view<GetVisualConfig>(packet);
  VisualConfig answer = {GLX_BAD_VISUAL, 0};
  if (XVisualInfo* visual = find_visual(p.screen, p.visual)) {
    answer.error = glXGetConfig(display, visual, p.attribute, &answer.value);
    XFree(visual);
  }
  r.answer_bytes(packet, &answer, sizeof answer);
}

void choose_visual(Renderer& r, const Packet& packet) {
  const auto& p = view<ChooseConfigs>(packet);
  uint64_t id = 0;
  std::vector<int> attributes = attributes_of(packet, sizeof p, p.attributes);
  if (XVisualInfo* visual =
          has_screen(p.screen) ? glXChooseVisual(display, p.screen, attributes.data()) : nullptr) {
    id = visual->visualid;
    XFree(visual);
  }
  r.answer_result(packet, id);
}

void create_context(Renderer& r, const Packet& packet) {
  const auto& p = view<CreateContext>(packet);
  const bool with_attributes = p.attributes != kNull;
  std::vector<int> attributes = attributes_of(packet, sizeof p, with_attributes ? p.attributes : 0);
  std::lock_guard lock(mutex);
  auto share = contexts.find(p.share);
  auto* shared = share == contexts.end() ? nullptr : static_cast<GLXContext>(share->second->handle);
  GLXContext made = nullptr;
  GLXFBConfig config = config_of(p, with_attributes ? p.attributes : 0);
  if (with_attributes) {
    auto* create = reinterpret_cast<PFNGLXCREATECONTEXTATTRIBSARBPROC>(
        glXGetProcAddressARB(reinterpret_cast<const GLubyte*>("glXCreateContextAttribsARB")));
    if (create != nullptr && config != nullptr)
      made = create(display, config, shared, True, attributes.data());
  } else if (config != nullptr) {
    made = glXCreateNewContext(display, config, p.render_type, shared, True);
  } else if (XVisualInfo* visual = find_visual(p.screen, p.visual)) {
    made = glXCreateContext(display, visual, shared, True);
    XFree(visual);
  }
  if (r.is_replaying && (made == nullptr || !glXIsDirect(display, made)))
    throw BadStream{"no driver could be loaded that makes a context like the one before"};
  if (made != nullptr) {
    auto context = std::make_shared<RenderContext>();
    context->number = p.context;
    context->screen = p.screen;
    context->config = p.config;
    context->handle = made;
    const ContextKind kind = kind_of_context(attributes);
    context->is_es = kind.is_es;
    context->share =
        shared != nullptr ? share->second->share : std::make_shared<Share>(Renderer::gl, kind.may_create);
    contexts[p.context] = context;
  }
  r.answer_result(packet, made != nullptr);
}

void destroy_context(Renderer& r, const Packet& packet) {
  std::lock_guard lock(mutex);
  auto found = contexts.find(view<MakeCurrent>(packet).context);
  if (found != contexts.end()) {
    glXDestroyContext(display, static_cast<GLXContext>(found->second->handle));
    contexts.erase(found);  // a thread that has it current goes on with the record
  }
  r.answer_result(packet, 1);
}

GLXDrawable real_surface(uint64_t number) {
  std::lock_guard lock(mutex);
  auto found = surfaces.find(number);
  return found == surfaces.end() ? static_cast<GLXDrawable>(number) : found->second.second;
}

GLXDrawable spare_surface(const RenderContext& context) {
  static std::map<uint32_t, GLXDrawable> made;
  GLXDrawable& surface = made[context.config];
  GLXFBConfig config = surface == None ? find_config(context.screen, context.config) : nullptr;
  if (config != nullptr) {
    const int attributes[] = {GLX_PBUFFER_WIDTH, 16, GLX_PBUFFER_HEIGHT, 16, None};
    surface = glXCreatePbuffer(display, config, attributes);
  }
  return surface;
}

void make_current(Renderer& r, const Packet& packet) {
  const auto& p = view<MakeCurrent>(packet);
  std::shared_ptr<RenderContext> context;
  {
    std::lock_guard lock(mutex);
    auto found = contexts.find(p.context);
    if (found != contexts.end()) context = found->second;
  }
  bool done = false;
  const bool claimed = context != nullptr && r.claim(*context);
  if (p.context == 0) {
    done = glXMakeCurrent(display, None, nullptr) == True;
  } else if (claimed) {
    done = glXMakeContextCurrent(display, real_surface(p.draw), real_surface(p.read),
                                 static_cast<GLXContext>(context->handle)) == True;
  }
  // The window of a context that is not in use may be gone.
  if (!done && r.is_replaying && claimed && context->config != 0) {
    const GLXDrawable spare = spare_surface(*context);
    done = glXMakeContextCurrent(display, spare, spare, static_cast<GLXContext>(context->handle)) == True;
  }
  if (done) r.set_current(context);
  if (!done && claimed && r.current != context) context->user = nullptr;
  if (!done && r.is_replaying) throw BadStream{"the driver does not give a context like the one before"};
  r.answer_result(packet, done);
}

void create_surface(Renderer& r, const Packet& packet) {
  const auto& p = view<CreateSurface>(packet);
  std::vector<int> attributes = attributes_of(packet, sizeof p, p.attributes);
  GLXDrawable made = None;
  GLXFBConfig config = p.kind == kGlxPixmapOfVisual ? nullptr : find_config(p.screen, p.config);
  if (p.kind == kPbuffer && config != nullptr) made = glXCreatePbuffer(display, config, attributes.data());
  if (p.kind == kPixmap && config != nullptr)
    made = glXCreatePixmap(display, config, p.drawable, attributes.data());
  if (p.kind == kGlxPixmapOfVisual) {
    if (XVisualInfo* visual = find_visual(p.screen, p.config)) {
      made = glXCreateGLXPixmap(display, visual, p.drawable);
      XFree(visual);
    }
  }
  XSync(display, False);
  std::lock_guard lock(mutex);
  if (made != None) surfaces[p.surface] = {static_cast<SurfaceKind>(p.kind), made};
  r.answer_result(packet, made != None);
}

void destroy_surface(Renderer& r, const Packet& packet) {
  std::lock_guard lock(mutex);
  auto found = surfaces.find(view<SurfaceCall>(packet).surface);
  if (found != surfaces.end()) {
    if (found->second.first == kPbuffer) {
      glXDestroyPbuffer(display, found->second.second);
    } else {
      glXDestroyPixmap(display, found->second.second);
    }
    surfaces.erase(found);
  }
  r.answer_result(packet, 1);
}

void query_surface(Renderer& r, const Packet& packet) {
  const auto& p = view<SurfaceCall>(packet);
  VisualConfig answer = {0, 0};
  unsigned int value = 0;
  // Drivers without swap control do not survive being asked for the interval, so nothing else is let through.
  switch (p.value) {
    case GLX_WIDTH:
    case GLX_HEIGHT:
    case GLX_PRESERVED_CONTENTS:
    case GLX_LARGEST_PBUFFER:
    case GLX_FBCONFIG_ID:
    case GLX_EVENT_MASK:
      glXQueryDrawable(display, real_surface(p.surface), p.value, &value);
  }
  answer.value = static_cast<int32_t>(value);
  r.answer_bytes(packet, &answer, sizeof answer);
}

void swap_buffers(Renderer& r, const Packet& packet) {
  glXSwapBuffers(display, real_surface(view<SurfaceCall>(packet).surface));
  r.frame_shown();
}

void swap_interval(const Packet& packet) {
  // An address for it says nothing about whether there is anything behind it.
  const char* extensions = glXQueryExtensionsString(display, DefaultScreen(display));
  static auto* set = extensions == nullptr || std::strstr(extensions, "GLX_MESA_swap_control") == nullptr
                         ? nullptr
                         : reinterpret_cast<PFNGLXSWAPINTERVALMESAPROC>(
                               glXGetProcAddressARB(reinterpret_cast<const GLubyte*>("glXSwapIntervalMESA")));
  const int interval = view<SurfaceCall>(packet).value;
  if (set != nullptr && interval >= 0) set(static_cast<unsigned int>(interval));
}

}  // namespace

std::vector<int> attributes_of(const Packet& packet, size_t fixed, uint32_t count) {
  // They follow directly; the fixed parts are multiples of 4, not always of 8.
  const char* start = reinterpret_cast<const char*>(&packet) + fixed;
  if (count > 256 || fixed + size_t{count} * sizeof(int) > packet.size)
    throw BadStream{std::to_string(count) + " attributes in a packet of " + std::to_string(packet.size) +
                    " bytes"};
  std::vector<int> found(count);
  if (count != 0) std::memcpy(found.data(), start, count * sizeof(int));
  found.push_back(None);
  found.push_back(None);
  return found;
}

ContextKind kind_of_context(const std::vector<int>& attributes) {
  auto value = [&](int name, int otherwise) {
    for (size_t i = 0; i + 1 < attributes.size(); i += 2) {
      if (attributes[i] == name) return attributes[i + 1];
    }
    return otherwise;
  };
  const int profile = value(GLX_CONTEXT_PROFILE_MASK_ARB, GLX_CONTEXT_CORE_PROFILE_BIT_ARB);
  const int version = value(GLX_CONTEXT_MAJOR_VERSION_ARB, 1) * 10 + value(GLX_CONTEXT_MINOR_VERSION_ARB, 0);
  return {(profile & GLX_CONTEXT_ES2_PROFILE_BIT_EXT) != 0,
          profile != GLX_CONTEXT_CORE_PROFILE_BIT_ARB || version < 31};
}

void* open_display() {
  static std::once_flag once;
  std::call_once(once, [] {
    XInitThreads();
    display = XOpenDisplay(nullptr);
    // A window may be gone by the time that something is drawn into it.
    XSetErrorHandler([](Display*, XErrorEvent*) { return 0; });
  });
  return display;
}

// They do what the context of the moment does, whoever has made it.
void load_functions() {
  Renderer::gl.load([](const char* name) {
    return reinterpret_cast<void*>(glXGetProcAddressARB(reinterpret_cast<const GLubyte*>(name)));
  });
}

std::pair<GLint, GLint> surface_size(uint64_t number) {
  if (number >= kFirstEglSurface) return egl_surface_size(number);
  unsigned int width = 0, height = 0;
  glXQueryDrawable(display, real_surface(number), GLX_WIDTH, &width);
  glXQueryDrawable(display, real_surface(number), GLX_HEIGHT, &height);
  return {static_cast<GLint>(width), static_cast<GLint>(height)};
}

void release_glx(Renderer& r) {
  glXMakeCurrent(display, None, nullptr);
  r.set_current(nullptr);
}

namespace {

// Without an X server there is nothing of GLX: no configurations, and so no contexts.
void answer_nothing(Renderer& r, const Packet& packet) {
  if (r.is_replaying) throw BadStream{"the X server cannot be reached"};
  constexpr size_t kEnough = 64;
  std::memset(r.answer_room(kEnough), 0, kEnough);
  r.send_answer(packet, kEnough);
}

}  // namespace

bool execute_glx(Renderer& r, const Packet& packet) {
  if (open_display() == nullptr) {
    answer_nothing(r, packet);
    return true;
  }
  switch (packet.op) {
    case kOpGetConfigs:
      get_configs(r, packet);
      return true;
    case kOpChooseConfigs:
      choose_configs(r, packet);
      return true;
    case kOpGetVisualConfig:
      get_visual_config(r, packet);
      return true;
    case kOpChooseVisual:
      choose_visual(r, packet);
      return true;
    case kOpCreateContext:
      create_context(r, packet);
      return true;
    case kOpDestroyContext:
      destroy_context(r, packet);
      return true;
    case kOpMakeCurrent:
      make_current(r, packet);
      return true;
    case kOpCreateSurface:
      create_surface(r, packet);
      return true;
    case kOpDestroySurface:
      destroy_surface(r, packet);
      return true;
    case kOpQuerySurface:
      query_surface(r, packet);
      return true;
    case kOpSwapBuffers:
      swap_buffers(r, packet);
      return true;
    case kOpSwapInterval:
      swap_interval(packet);
      return true;
  }
  return false;
}

}  // namespace stasis::gl

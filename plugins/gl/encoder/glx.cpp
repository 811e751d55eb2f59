// The GLVND vendor library: what a program calls of GLX. Contexts and configurations are records in the
// program's own memory, so that its handles stay what they are after a restart.
#include <GL/glx.h>
#include <GL/glxext.h>
#include <X11/Xlib.h>
#include <X11/Xutil.h>
#include <glvnd/libglxabi.h>

#include <cstdio>
#include <cstdlib>

#include "encoder/connection.h"
#include "encoder/contexts.h"
#include "encoder/entry.h"
#include "generated/packets.h"

namespace stasis::gl {

namespace {

const __GLXapiExports* library = nullptr;
__GLXvendorInfo* ourselves = nullptr;

struct Configs {
  int screen;
  uint32_t count;
  Config* configs;
  Configs* next;
};
Configs* all_configs = nullptr;

Configs* configs_of(int screen) {
  for (Configs* found = all_configs; found != nullptr; found = found->next) {
    if (found->screen == screen) return found;
  }
  ControlCall call;
  if (!call) return nullptr;
  call.begin<ChooseConfigs>(kOpGetConfigs)->screen = screen;
  size_t size = 0;
  const char* from = call.ask().next(size);
  auto* made = static_cast<Configs*>(zeroed(sizeof(Configs)));
  made->screen = screen;
  made->count = static_cast<uint32_t>(size / sizeof(Config));
  made->configs = static_cast<Config*>(zeroed(size + 1));
  memcpy(made->configs, from, size);
  made->next = all_configs;
  all_configs = made;
  return made;
}

Config* config_with_id(int screen, uint32_t id) {
  Configs* configs = configs_of(screen);
  for (uint32_t i = 0; configs != nullptr && i < configs->count; ++i) {
    if (configs->configs[i].id == id) return &configs->configs[i];
  }
  return nullptr;
}

Context* context_of_handle(GLXContext handle) { return reinterpret_cast<Context*>(handle); }

// --- Configurations

GLXFBConfig* config_list(int screen, const uint32_t* ids, size_t count, int* returned) {
  auto* list = static_cast<GLXFBConfig*>(zeroed((count + 1) * sizeof(GLXFBConfig)));
  int found = 0;
  for (size_t i = 0; i < count; ++i) {
    if (Config* config = config_with_id(screen, ids[i]))
      list[found++] = reinterpret_cast<GLXFBConfig>(config);
  }
  if (returned != nullptr) *returned = found;
  if (found != 0) return list;
  free(list);
  return nullptr;
}

size_t attribute_count(const int* attributes) {
  size_t count = 0;
  while (attributes != nullptr && attributes[count] != 0) count += 2;
  return count;
}

GLXFBConfig* ChooseFBConfig(Display*, int screen, const int* attributes, int* count) {
  if (configs_of(screen) == nullptr) return nullptr;
  const size_t words = attribute_count(attributes);
  uint32_t ids[1024];
  size_t bytes = 0;
  {
    ControlCall call;
    auto* packet = call.begin<ChooseConfigs>(kOpChooseConfigs, words * sizeof(int));
    packet->screen = screen;
    packet->attributes = static_cast<uint32_t>(words);
    copy(packet + 1, attributes, words * sizeof(int));
    const char* from = call.ask().next(bytes);
    if (bytes > sizeof ids) bytes = sizeof ids;
    memcpy(ids, from, bytes);
  }
  return config_list(screen, ids, bytes / sizeof(uint32_t), count);
}

GLXFBConfig* GetFBConfigs(Display*, int screen, int* count) {
  Configs* configs = configs_of(screen);
  if (configs == nullptr) return nullptr;
  auto* list = static_cast<GLXFBConfig*>(zeroed((configs->count + 1) * sizeof(GLXFBConfig)));
  for (uint32_t i = 0; i < configs->count; ++i) list[i] = reinterpret_cast<GLXFBConfig>(&configs->configs[i]);
  *count = static_cast<int>(configs->count);
  return list;
}

int GetFBConfigAttrib(Display*, GLXFBConfig handle, int attribute, int* value) {
  auto* config = reinterpret_cast<Config*>(handle);
  if (config == nullptr) return GLX_BAD_VISUAL;
  for (int i = 0; i < config->count; ++i) {
    if (config->attributes[i].name != attribute) continue;
    *value = config->attributes[i].value;
    return Success;
  }
  return GLX_BAD_ATTRIBUTE;
}

XVisualInfo* visual_with_id(Display* display, int screen, VisualID id) {
  XVisualInfo wanted = {};
  wanted.visualid = id;
  wanted.screen = screen;
  int count = 0;
  return id == 0 ? nullptr : XGetVisualInfo(display, VisualIDMask | VisualScreenMask, &wanted, &count);
}

XVisualInfo* GetVisualFromFBConfig(Display* display, GLXFBConfig handle) {
  auto* config = reinterpret_cast<Config*>(handle);
  if (config == nullptr) return nullptr;
  int screen = 0;
  GetFBConfigAttrib(display, handle, GLX_SCREEN, &screen);
  return visual_with_id(display, DefaultScreen(display), config->visual);
}

size_t visual_attribute_count(const int* attributes) {
  size_t count = 0;
  while (attributes[count] != 0) {
    switch (attributes[count]) {
      case GLX_USE_GL:
      case GLX_RGBA:
      case GLX_DOUBLEBUFFER:
      case GLX_STEREO:
        ++count;
        break;
      default:
        count += 2;
    }
  }
  return count;
}

XVisualInfo* ChooseVisual(Display* display, int screen, int* attributes) {
  uint32_t id = 0;
  {
    ControlCall call;
    if (!call) return nullptr;
    const size_t words = visual_attribute_count(attributes);
    auto* packet = call.begin<ChooseConfigs>(kOpChooseVisual, words * sizeof(int));
    packet->screen = screen;
    packet->attributes = static_cast<uint32_t>(words);
    copy(packet + 1, attributes, words * sizeof(int));
    id = call.ask().result<uint32_t>();
  }
  return visual_with_id(display, screen, id);
}

int GetConfig(Display*, XVisualInfo* visual, int attribute, int* value) {
  ControlCall call;
  if (!call) return GLX_NO_EXTENSION;
  auto* packet = call.begin<GetVisualConfig>(kOpGetVisualConfig);
  packet->screen = visual->screen;
  packet->visual = static_cast<uint32_t>(visual->visualid);
  packet->attribute = attribute;
  VisualConfig answer = {};
  call.ask().take(&answer, sizeof answer);
  if (answer.error == 0) *value = answer.value;
  return answer.error;
}

// --- Contexts

GLXContext create(int screen, uint32_t config, uint32_t visual, GLXContext share, Bool direct,
                  int render_type, const int* attributes, bool with_attributes) {
  Context* other = context_of_handle(share);
  Context* made = make_context(Connection::next_number(), other);
  made->config_id = config;
  made->screen = screen;
  made->render_type = render_type;
  const size_t words = attribute_count(attributes);
  int major = 1, minor = 0, profile = GLX_CONTEXT_CORE_PROFILE_BIT_ARB;
  for (size_t i = 0; i + 1 < words; i += 2) {
    if (attributes[i] == GLX_CONTEXT_MAJOR_VERSION_ARB) major = attributes[i + 1];
    if (attributes[i] == GLX_CONTEXT_MINOR_VERSION_ARB) minor = attributes[i + 1];
    if (attributes[i] == GLX_CONTEXT_PROFILE_MASK_ARB) profile = attributes[i + 1];
  }
  made->is_es = (profile & GLX_CONTEXT_ES2_PROFILE_BIT_EXT) != 0;
  made->is_core = (profile & GLX_CONTEXT_CORE_PROFILE_BIT_ARB) != 0 && major * 10 + minor >= 32;
  // There were no profiles before, and an extension says what it is.
  made->may_be_core = !made->is_es && major * 10 + minor == 31;
  // So that another driver, which has other configurations, can find one that is like it.
  const Config* described = config != 0 ? config_with_id(screen, config) : nullptr;
  const size_t described_size = described != nullptr ? sizeof *described : 0;
  ControlCall call;
  bool done = false;
  if (call) {
    auto* packet = call.begin<gl::CreateContext>(kOpCreateContext, words * sizeof(int) + described_size);
    packet->context = made->number;
    packet->share = other != nullptr ? other->number : 0;
    packet->config = config;
    packet->visual = visual;
    packet->screen = screen;
    packet->render_type = render_type;
    packet->direct = direct;
    packet->attributes = with_attributes ? static_cast<uint32_t>(words) : kNull;
    copy(packet + 1, attributes, words * sizeof(int));
    copy(reinterpret_cast<char*>(packet + 1) + words * sizeof(int), described, described_size);
    done = call.ask().result<uint32_t>() != 0;
  }
  if (done) return reinterpret_cast<GLXContext>(made);
  release_context(made);
  return nullptr;
}

GLXContext CreateVisualContext(Display*, XVisualInfo* visual, GLXContext share, Bool direct) {
  return create(visual->screen, 0, static_cast<uint32_t>(visual->visualid), share, direct, GLX_RGBA_TYPE,
                nullptr, false);
}
GLXContext CreateNewContext(Display* display, GLXFBConfig config, int type, GLXContext share, Bool direct) {
  return create(DefaultScreen(display), reinterpret_cast<Config*>(config)->id, 0, share, direct, type,
                nullptr, false);
}

// A version that we do not record is one that there is not.
bool asks_too_much(const int* attributes) {
  int major = 1, minor = 0, profile = GLX_CONTEXT_CORE_PROFILE_BIT_ARB;
  for (; attributes != nullptr && *attributes != 0; attributes += 2) {
    if (attributes[0] == GLX_CONTEXT_MAJOR_VERSION_ARB) major = attributes[1];
    if (attributes[0] == GLX_CONTEXT_MINOR_VERSION_ARB) minor = attributes[1];
    if (attributes[0] == GLX_CONTEXT_PROFILE_MASK_ARB) profile = attributes[1];
  }
  const int most = (profile & GLX_CONTEXT_ES2_PROFILE_BIT_EXT) != 0 ? 30 : 33;
  return major * 10 + minor > most;
}

GLXContext CreateContextAttribsARB(Display* display, GLXFBConfig config, GLXContext share, Bool direct,
                                   const int* attributes) {
  if (config == nullptr || asks_too_much(attributes)) return nullptr;
  GLXContext made = create(DefaultScreen(display), reinterpret_cast<Config*>(config)->id, 0, share, direct,
                           GLX_RGBA_TYPE, attributes, true);
  if (made != nullptr) library->addVendorContextMapping(display, made, ourselves);
  return made;
}

void DestroyContext(Display*, GLXContext handle) {
  Context* context = context_of_handle(handle);
  if (context == nullptr) return;
  {
    ControlCall call;
    if (call) {
      call.begin<gl::MakeCurrent>(kOpDestroyContext)->context = context->number;
      (void)call.ask();
    }
  }
  if (context->user == nullptr) release_context(context);
}

void CopyContext(Display*, GLXContext, GLXContext, unsigned long) {}

Bool MakeContextCurrent(Display* display, GLXDrawable draw, GLXDrawable read, GLXContext handle) {
  Context* context = context_of_handle(handle);
  // The renderer is another client of the server, which has to know the window by now.
  if (context != nullptr && (context->draw != draw || context->read != read)) XSync(display, False);
  if (make_current(context, display, draw, read).done == 0) return False;
  if (context != nullptr && context->may_be_core) {
    context->may_be_core = false;
    const char* extensions = context_text(*context->user, GL_EXTENSIONS);
    context->is_core = extensions != nullptr && strstr(extensions, "GL_ARB_compatibility") == nullptr;
  }
  return True;
}
Bool MakeCurrentDrawable(Display* display, GLXDrawable drawable, GLXContext context) {
  return MakeContextCurrent(display, drawable, drawable, context);
}

int QueryContext(Display*, GLXContext handle, int attribute, int* value) {
  Context* context = context_of_handle(handle);
  switch (attribute) {
    case GLX_FBCONFIG_ID:
      *value = static_cast<int>(context->config_id);
      return Success;
    case GLX_RENDER_TYPE:
      *value = context->render_type;
      return Success;
    case GLX_SCREEN:
      *value = context->screen;
      return Success;
  }
  return GLX_BAD_ATTRIBUTE;
}

Bool IsDirect(Display*, GLXContext) { return True; }

// --- Surfaces

GLXDrawable create_surface(uint32_t kind, uint32_t config, XID drawable, int screen, const int* attributes) {
  ControlCall call;
  if (!call) return None;
  const size_t words = attribute_count(attributes);
  auto* packet = call.begin<CreateSurface>(kOpCreateSurface, words * sizeof(int));
  // A number that no X server hands out to this client.
  const uint64_t number = 0x10000000U + Connection::next_number();
  packet->kind = kind;
  packet->config = config;
  packet->surface = kind == kWindow ? drawable : number;
  packet->drawable = drawable;
  packet->screen = screen;
  packet->attributes = static_cast<uint32_t>(words);
  copy(packet + 1, attributes, words * sizeof(int));
  return call.ask().result<uint32_t>() != 0 ? (kind == kWindow ? drawable : number) : None;
}
GLXPbuffer CreatePbuffer(Display* display, GLXFBConfig config, const int* attributes) {
  return create_surface(kPbuffer, reinterpret_cast<Config*>(config)->id, 0, DefaultScreen(display),
                        attributes);
}
GLXPixmap CreatePixmap(Display* display, GLXFBConfig config, Pixmap pixmap, const int* attributes) {
  XSync(display, False);
  return create_surface(kPixmap, reinterpret_cast<Config*>(config)->id, pixmap, DefaultScreen(display),
                        attributes);
}
GLXPixmap CreateGLXPixmap(Display* display, XVisualInfo* visual, Pixmap pixmap) {
  XSync(display, False);
  return create_surface(kGlxPixmapOfVisual, static_cast<uint32_t>(visual->visualid), pixmap, visual->screen,
                        nullptr);
}
// The window itself serves as the surface.
GLXWindow CreateWindow(Display*, GLXFBConfig, Window window, const int*) { return window; }

void destroy_surface(GLXDrawable surface) {
  ControlCall call;
  if (!call) return;
  call.begin<SurfaceCall>(kOpDestroySurface)->surface = surface;
  (void)call.ask();
}
void DestroyPbuffer(Display*, GLXPbuffer surface) { destroy_surface(surface); }
void DestroyPixmap(Display*, GLXPixmap surface) { destroy_surface(surface); }
void DestroyWindow(Display*, GLXWindow) {}

int GetSwapIntervalMESA();

// Returns whether there is such an attribute.
bool query_surface(GLXDrawable surface, int attribute, unsigned int* value) {
  ControlCall call;
  if (!call) return false;
  auto* packet = call.begin<SurfaceCall>(kOpQuerySurface);
  packet->surface = surface;
  packet->value = attribute;
  VisualConfig answer = {};
  call.ask().take(&answer, sizeof answer);
  *value = static_cast<unsigned int>(answer.value);
  return answer.error == 0;
}
void QueryDrawable(Display*, GLXDrawable surface, int attribute, unsigned int* value) {
  switch (attribute) {
    case GLX_SWAP_INTERVAL_EXT:
      *value = static_cast<unsigned int>(GetSwapIntervalMESA());
      return;
    case GLX_MAX_SWAP_INTERVAL_EXT:
      *value = 1;
      return;
    case GLX_LATE_SWAPS_TEAR_EXT:
      *value = 0;
      return;
  }
  (void)query_surface(surface, attribute, value);
}

void SwapBuffers(Display* display, GLXDrawable surface) {
  Stream* s = Connection::thread_stream();
  if (s == nullptr) return;
  (void)display;
  auto* packet = static_cast<SurfaceCall*>(s->begin(kOpSwapBuffers, sizeof(SurfaceCall)));
  packet->surface = surface;
  packet->value = 0;
  packet->more = 0;
  s->commit_small();
  s->publish();
  s->limit_frames();
}

void WaitGL() {
  if (Stream* s = stream()) {
    begin_Finish(*s);
    (void)s->ask();
  }
}
void WaitX() {
  if (Stream* s = stream()) XSync(static_cast<Display*>(context_of(*s).display), False);
}
void UseXFont(Font, int, int, int) {}
void SelectEvent(Display*, GLXDrawable, unsigned long) {}
void GetSelectedEvent(Display*, GLXDrawable, unsigned long* mask) { *mask = 0; }

int swap_interval(int interval) {
  Stream* s = stream();
  if (s == nullptr) return GLX_BAD_CONTEXT;
  auto* packet = static_cast<SurfaceCall*>(s->begin(kOpSwapInterval, sizeof(SurfaceCall)));
  packet->surface = 0;
  packet->value = interval;
  packet->more = 0;
  s->commit_small();
  context_of(*s).limits[255] = {0, interval, true};
  return 0;
}
int SwapIntervalSGI(int interval) { return interval <= 0 ? GLX_BAD_VALUE : swap_interval(interval); }
int SwapIntervalMESA(unsigned int interval) { return swap_interval(static_cast<int>(interval)); }
void SwapIntervalEXT(Display*, GLXDrawable, int interval) { swap_interval(interval); }
int GetSwapIntervalMESA() {
  Stream* s = stream();
  return s != nullptr && context_of(*s).limits[255].known ? context_of(*s).limits[255].value : 0;
}

// --- Texts

constexpr const char* kGlxExtensions =
    "GLX_ARB_create_context GLX_ARB_create_context_profile GLX_ARB_get_proc_address GLX_ARB_multisample "
    "GLX_EXT_create_context_es_profile GLX_EXT_create_context_es2_profile GLX_EXT_swap_control "
    "GLX_EXT_visual_info GLX_EXT_visual_rating GLX_MESA_swap_control GLX_SGIX_fbconfig GLX_SGI_swap_control ";

Bool QueryExtension(Display*, int* error_base, int* event_base) {
  if (error_base != nullptr) *error_base = 0;
  if (event_base != nullptr) *event_base = 0;
  return True;
}
Bool QueryVersion(Display*, int* major, int* minor) {
  *major = 1;
  *minor = 4;
  return True;
}
const char* text_for(int name) {
  switch (name) {
    case GLX_VENDOR:
      return "stasis";
    case GLX_VERSION:
      return "1.4";
    case GLX_EXTENSIONS:
      return kGlxExtensions;
  }
  return nullptr;
}
const char* QueryExtensionsString(Display*, int) { return kGlxExtensions; }
const char* QueryServerString(Display*, int, int name) { return text_for(name); }
const char* GetClientString(Display*, int name) { return text_for(name); }

// --- What libGLX asks of a vendor

const Entry* find_entry(const char* name) {
  static const Entry kEntries[] = {
      entry("glXChooseFBConfig", ChooseFBConfig),
      entry("glXChooseVisual", ChooseVisual),
      entry("glXCopyContext", CopyContext),
      entry("glXCreateContext", CreateVisualContext),
      entry("glXCreateGLXPixmap", CreateGLXPixmap),
      entry("glXCreateNewContext", CreateNewContext),
      entry("glXCreatePbuffer", CreatePbuffer),
      entry("glXCreatePixmap", CreatePixmap),
      entry("glXCreateWindow", CreateWindow),
      entry("glXDestroyContext", DestroyContext),
      entry("glXDestroyGLXPixmap", DestroyPixmap),
      entry("glXDestroyPbuffer", DestroyPbuffer),
      entry("glXDestroyPixmap", DestroyPixmap),
      entry("glXDestroyWindow", DestroyWindow),
      entry("glXGetClientString", GetClientString),
      entry("glXGetConfig", GetConfig),
      entry("glXGetFBConfigAttrib", GetFBConfigAttrib),
      entry("glXGetFBConfigs", GetFBConfigs),
      entry("glXGetSelectedEvent", GetSelectedEvent),
      entry("glXGetVisualFromFBConfig", GetVisualFromFBConfig),
      entry("glXIsDirect", IsDirect),
      entry("glXMakeContextCurrent", MakeContextCurrent),
      entry("glXMakeCurrent", MakeCurrentDrawable),
      entry("glXQueryContext", QueryContext),
      entry("glXQueryDrawable", QueryDrawable),
      entry("glXQueryExtension", QueryExtension),
      entry("glXQueryExtensionsString", QueryExtensionsString),
      entry("glXQueryServerString", QueryServerString),
      entry("glXQueryVersion", QueryVersion),
      entry("glXSelectEvent", SelectEvent),
      entry("glXSwapBuffers", gl::SwapBuffers),
      entry("glXUseXFont", UseXFont),
      entry("glXWaitGL", WaitGL),
      entry("glXWaitX", WaitX),
      entry("glXCreateContextAttribsARB", CreateContextAttribsARB, true),
      entry("glXSwapIntervalEXT", SwapIntervalEXT, true),
      entry("glXSwapIntervalMESA", SwapIntervalMESA, true),
      entry("glXSwapIntervalSGI", SwapIntervalSGI, true),
      entry("glXGetSwapIntervalMESA", GetSwapIntervalMESA, true),
      entry("glXChooseFBConfigSGIX", ChooseFBConfig, true),
      entry("glXGetFBConfigAttribSGIX", GetFBConfigAttrib, true),
      entry("glXGetVisualFromFBConfigSGIX", GetVisualFromFBConfig, true),
  };
  return gl::find_entry(kEntries, name);
}

void* get_proc_address(const GLubyte* name) {
  const char* text = reinterpret_cast<const char*>(name);
  return address_of(find_entry(text), text);
}
void* get_dispatch_address(const GLubyte* name) {
  return dispatcher_of(find_entry(reinterpret_cast<const char*>(name)));
}
void set_dispatch_index(const GLubyte*, int) {}
Bool is_screen_supported(Display*, int) { return getenv("STASIS_GL_SOCKET") != nullptr; }

}  // namespace

extern "C" __attribute__((visibility("default"))) Bool __glx_Main(uint32_t version,
                                                                  const __GLXapiExports* exports,
                                                                  __GLXvendorInfo* vendor,
                                                                  __GLXapiImports* imports) {
  if (GLX_VENDOR_ABI_GET_MAJOR_VERSION(version) != GLX_VENDOR_ABI_MAJOR_VERSION) return False;
  library = exports;
  ourselves = vendor;
  imports->isScreenSupported = is_screen_supported;
  imports->getProcAddress = get_proc_address;
  imports->getDispatchAddress = get_dispatch_address;
  imports->setDispatchIndex = set_dispatch_index;
  return True;
}

}  // namespace stasis::gl

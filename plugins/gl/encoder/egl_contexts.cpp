#include <cstdlib>

#include "encoder/connection.h"
#include "encoder/contexts.h"
#include "encoder/egl.h"
#include "generated/packets.h"

namespace stasis::gl::egl {

thread_local ContextRecord* current __attribute__((tls_model("initial-exec"))) = nullptr;

namespace {

// What a context is wished to be, in the words of GLX, which are those of the log.
struct Version {
  EGLint major = 1, minor = 0, profile = 0, flags = 0;
  bool has_profile = false;

  // EGL_SUCCESS, or what is wrong with it.
  EGLint read(const EGLint* attributes) {
    for (; attributes != nullptr && *attributes != EGL_NONE; attributes += 2) {
      switch (attributes[0]) {
        case EGL_CONTEXT_MAJOR_VERSION:
          major = attributes[1];
          break;
        case EGL_CONTEXT_MINOR_VERSION:
          minor = attributes[1];
          break;
        case EGL_CONTEXT_OPENGL_PROFILE_MASK:
          profile = attributes[1];
          has_profile = true;
          break;
        case EGL_CONTEXT_FLAGS_KHR:
          flags = attributes[1];
          break;
        default:
          return EGL_BAD_ATTRIBUTE;
      }
    }
    constexpr EGLint kFlags =
        EGL_CONTEXT_OPENGL_DEBUG_BIT_KHR | EGL_CONTEXT_OPENGL_FORWARD_COMPATIBLE_BIT_KHR;
    return (flags & ~kFlags) != 0 ? EGL_BAD_ATTRIBUTE : EGL_SUCCESS;
  }
  // A version that we do not record is one that there is not.
  bool is_recorded(bool es) const {
    const int number = major * 10 + minor;
    return es ? major >= 2 && number <= 30 : number <= 33;
  }
};

constexpr EGLint kMostWords = 8;
uint32_t put_version(const Version& version, bool es, int32_t (&words)[kMostWords]) {
  constexpr int32_t kMajor = 0x2091, kMinor = 0x2092, kFlags = 0x2094, kProfile = 0x9126, kEsProfile = 4;
  uint32_t count = 0;
  auto put = [&](int32_t name, int32_t value) {
    words[count++] = name;
    words[count++] = value;
  };
  if (es || version.major > 1 || version.minor > 0) {
    put(kMajor, version.major);
    put(kMinor, version.minor);
  }
  if (version.flags != 0) put(kFlags, version.flags);
  if (es) {
    put(kProfile, kEsProfile);
  } else if (version.has_profile) {
    put(kProfile, version.profile);
  }
  return count;
}

}  // namespace

EGLContext CreateContext(EGLDisplay handle, EGLConfig config_handle, EGLContext share,
                         const EGLint* attributes) {
  const Lock lock;
  Display* display = usable(handle);
  if (display == nullptr) return EGL_NO_CONTEXT;
  auto refuse = [](EGLint error) {
    fail(error);
    return EGL_NO_CONTEXT;
  };
  const Config* config = find_config(*display, config_handle);
  if (config == nullptr && config_handle != EGL_NO_CONFIG_KHR) return refuse(EGL_BAD_CONFIG);
  ContextRecord* other = nullptr;
  if (share != EGL_NO_CONTEXT && (other = context_of(share)) == nullptr) return EGL_NO_CONTEXT;
  const bool es = current_api() == EGL_OPENGL_ES_API;
  Version version;
  if (EGLint error = version.read(attributes); error != EGL_SUCCESS) return refuse(error);
  if (es && (version.flags & ~EGL_CONTEXT_OPENGL_DEBUG_BIT_KHR) != 0) return refuse(EGL_BAD_ATTRIBUTE);
  if (!version.is_recorded(es)) return refuse(EGL_BAD_MATCH);
  const EGLint api = !es ? EGL_OPENGL_BIT : version.major == 3 ? EGL_OPENGL_ES3_BIT : EGL_OPENGL_ES2_BIT;
  bool known = false;
  if (config != nullptr && (attribute_of(*config, EGL_RENDERABLE_TYPE, known) & api) == 0)
    return refuse(EGL_BAD_MATCH);
  if (other != nullptr && (other->display != display || other->context->is_es != es))
    return refuse(EGL_BAD_MATCH);

  Context* made = make_context(Connection::next_number(), other != nullptr ? other->context : nullptr);
  made->is_es = es;
  made->is_core = !es && (version.profile & EGL_CONTEXT_OPENGL_CORE_PROFILE_BIT) != 0;
  int32_t words[kMostWords];
  const uint32_t count = put_version(version, es, words);
  EglAnswer answer = {0, EGL_BAD_ALLOC};
  if (ControlCall call; call) {
    auto* packet = call.begin<gl::CreateContext>(kOpCreateContext, count * sizeof(EGLint) + sizeof(Config));
    packet->header.flags = kOfEgl;
    packet->context = made->number;
    packet->share = other != nullptr ? other->context->number : 0;
    packet->config = config != nullptr;
    packet->screen = display->platform;
    packet->attributes = count;
    copy(put_words(reinterpret_cast<char*>(packet + 1), words, count), config, sizeof(Config));
    answer = call.ask().result<EglAnswer>();
  }
  if (answer.done == 0) {
    release_context(made);
    return refuse(answer.error);
  }
  auto* record = add(contexts);
  record->context = made;
  record->display = display;
  record->config = config;
  record->version = version.major;
  done();
  return record;
}

void send_destruction(uint16_t op, uint32_t context, uint64_t surface) {
  Stream* s = Connection::thread_stream();
  if (s == nullptr) return;
  if (op == kOpDestroyContext) {
    auto* packet = static_cast<gl::MakeCurrent*>(s->begin(op, sizeof(gl::MakeCurrent)));
    *packet = {packet->header, context, 0, 0, 0};
  } else {
    auto* packet = static_cast<SurfaceCall*>(s->begin(op, sizeof(SurfaceCall)));
    *packet = {packet->header, surface, 0, 0};
  }
  (void)s->ask();
}
void release_if_unused(Surface* surface) {
  if (!surface->destroyed || surface->users != 0) return;
  send_destruction(kOpDestroySurface, 0, surface->number);
  remove(surfaces, surface);
}
void release_if_unused(ContextRecord* context) {
  if (!context->destroyed || context->current) return;
  send_destruction(kOpDestroyContext, context->context->number, 0);
  release_context(context->context);
  remove(contexts, context);
}

EGLBoolean DestroyContext(EGLDisplay handle, EGLContext context_handle) {
  const Lock lock;
  if (usable(handle) == nullptr) return EGL_FALSE;
  ContextRecord* context = context_of(context_handle);
  if (context == nullptr) return EGL_FALSE;
  context->destroyed = true;
  release_if_unused(context);
  return done();
}

namespace {

// The context has (or no longer has) these surfaces.
void use_surfaces(ContextRecord& context, Surface* draw, Surface* read) {
  Surface *old_draw = context.draw, *old_read = context.read;
  context.draw = draw;
  context.read = read;
  for (Surface* one : {draw, read}) {
    if (one != nullptr) ++one->users;
  }
  for (Surface* one : {old_draw, old_read}) {
    if (one != nullptr) --one->users;
  }
  if (old_draw != nullptr) release_if_unused(old_draw);
  if (old_read != nullptr && old_read != old_draw) release_if_unused(old_read);
}

void leave_current() {
  ContextRecord* left = current;
  current = nullptr;
  if (left == nullptr) return;
  left->current = false;
  use_surfaces(*left, nullptr, nullptr);
  release_if_unused(left);
}

EGLBoolean release_current() {
  if (current == nullptr) return EGL_TRUE;
  if (make_current(nullptr, nullptr, 0, 0).done == 0) return fail(EGL_BAD_ACCESS);
  const Lock lock;
  leave_current();
  return EGL_TRUE;
}

uint64_t number_of(const Surface* surface) { return surface != nullptr ? surface->number : kNoSurface; }

}  // namespace

EGLBoolean MakeCurrent(EGLDisplay handle, EGLSurface draw_handle, EGLSurface read_handle,
                       EGLContext context_handle) {
  const bool without = draw_handle == EGL_NO_SURFACE;
  if (without != (read_handle == EGL_NO_SURFACE)) return fail(EGL_BAD_MATCH);
  if (context_handle == EGL_NO_CONTEXT) {
    if (!without) return fail(EGL_BAD_MATCH);
    return release_current() ? done() : EGL_FALSE;
  }
  Display* display = nullptr;
  ContextRecord* context = nullptr;
  Surface *draw = nullptr, *read = nullptr;
  {
    const Lock lock;
    display = usable(handle);
    if (display == nullptr || (context = context_of(context_handle)) == nullptr) return EGL_FALSE;
    if (!without &&
        ((draw = surface_of(draw_handle)) == nullptr || (read = surface_of(read_handle)) == nullptr))
      return EGL_FALSE;
    if (context->current && context != current) return fail(EGL_BAD_ACCESS);
  }
  if (context == current && context->draw == draw && context->read == read) {
    if (Stream* s = stream()) s->publish();
    return done();
  }
  if (!without) synchronise(*display);
  const EglAnswer answer = make_current(context->context, display, number_of(draw), number_of(read));
  if (answer.done == 0) return fail(answer.error);
  const Lock lock;
  if (context != current) leave_current();
  current = context;
  context->current = true;
  use_surfaces(*context, draw, read);
  return done();
}

EGLBoolean QueryContext(EGLDisplay handle, EGLContext context_handle, EGLint name, EGLint* value) {
  const Lock lock;
  if (usable(handle) == nullptr) return EGL_FALSE;
  ContextRecord* context = context_of(context_handle);
  if (context == nullptr) return EGL_FALSE;
  switch (name) {
    case EGL_CONFIG_ID:
      *value = context->config != nullptr ? static_cast<EGLint>(context->config->id) : 0;
      return done();
    case EGL_CONTEXT_CLIENT_TYPE:
      *value = context->context->is_es ? EGL_OPENGL_ES_API : EGL_OPENGL_API;
      return done();
    case EGL_CONTEXT_CLIENT_VERSION:
      *value = context->version;
      return done();
    case EGL_RENDER_BUFFER:
      *value = context->draw == nullptr ? EGL_NONE : EGL_BACK_BUFFER;
      return done();
  }
  return fail(EGL_BAD_ATTRIBUTE);
}

EGLBoolean ReleaseThread() { return release_current() ? done() : EGL_FALSE; }

EGLBoolean WaitClient() {
  if (Stream* s = stream()) {
    begin_Finish(*s);
    (void)s->ask();
  }
  return done();
}
EGLBoolean WaitNative(EGLint) {
  if (current != nullptr) synchronise(*current->display);
  return done();
}

}  // namespace stasis::gl::egl

// Configurations of EGL. The driver's list is asked for once, and the choice is made here, by the rules of
// EGL 1.4, chapter 3.4.1: so the program's handles mean the same with whatever driver it goes on.
#include <cstdlib>

#include "encoder/connection.h"
#include "encoder/egl.h"

namespace stasis::gl::egl {

namespace {

constexpr EGLint kApis = EGL_OPENGL_BIT | EGL_OPENGL_ES2_BIT | EGL_OPENGL_ES3_BIT;
constexpr EGLint kSurfaces = EGL_WINDOW_BIT | EGL_PBUFFER_BIT;

// What is not recorded is not there.
EGLint limited(EGLint name, EGLint value) {
  switch (name) {
    case EGL_RENDERABLE_TYPE:
    case EGL_CONFORMANT:
      return value & kApis;
    case EGL_SURFACE_TYPE:
      return value & kSurfaces;
    case EGL_BIND_TO_TEXTURE_RGB:
    case EGL_BIND_TO_TEXTURE_RGBA:
      return EGL_FALSE;
  }
  return value;
}

enum class Match { kAtLeast, kExact, kMask, kNever };

// How an attribute of a wish is compared; kNever: it is not an attribute to wish for.
Match match_of(EGLint name, bool& known) {
  known = true;
  switch (name) {
    case EGL_BUFFER_SIZE:
    case EGL_RED_SIZE:
    case EGL_GREEN_SIZE:
    case EGL_BLUE_SIZE:
    case EGL_LUMINANCE_SIZE:
    case EGL_ALPHA_SIZE:
    case EGL_ALPHA_MASK_SIZE:
    case EGL_DEPTH_SIZE:
    case EGL_STENCIL_SIZE:
    case EGL_SAMPLE_BUFFERS:
    case EGL_SAMPLES:
      return Match::kAtLeast;
    case EGL_SURFACE_TYPE:
    case EGL_RENDERABLE_TYPE:
    case EGL_CONFORMANT:
      return Match::kMask;
    case EGL_BIND_TO_TEXTURE_RGB:
    case EGL_BIND_TO_TEXTURE_RGBA:
    case EGL_COLOR_BUFFER_TYPE:
    case EGL_CONFIG_CAVEAT:
    case EGL_CONFIG_ID:
    case EGL_LEVEL:
    case EGL_MAX_SWAP_INTERVAL:
    case EGL_MIN_SWAP_INTERVAL:
    case EGL_NATIVE_RENDERABLE:
    case EGL_NATIVE_VISUAL_TYPE:
    case EGL_TRANSPARENT_TYPE:
    case EGL_TRANSPARENT_RED_VALUE:
    case EGL_TRANSPARENT_GREEN_VALUE:
    case EGL_TRANSPARENT_BLUE_VALUE:
      return Match::kExact;
    case EGL_MATCH_NATIVE_PIXMAP:
    case EGL_MAX_PBUFFER_WIDTH:
    case EGL_MAX_PBUFFER_HEIGHT:
    case EGL_MAX_PBUFFER_PIXELS:
    case EGL_NATIVE_VISUAL_ID:
      return Match::kNever;
  }
  known = false;
  return Match::kNever;
}

// A wish, ended by EGL_NONE or null.
struct Wish {
  const EGLint* words;
  EGLint value(EGLint name, EGLint otherwise) const {
    EGLint found = otherwise;
    for (const EGLint* at = words; at != nullptr && *at != EGL_NONE; at += 2) {
      if (*at == name) found = at[1];
    }
    return found;
  }
};

EGLint value_of(const Config& config, EGLint name) {
  bool known = false;
  return attribute_of(config, name, known);
}

// What is wished for where nothing is said. The default of EGL_RENDERABLE_TYPE is OpenGL ES 1, which is not
// there; programs that say nothing do not mean it.
struct Default {
  EGLint name, value;
};
constexpr Default kDefaults[] = {{EGL_COLOR_BUFFER_TYPE, EGL_RGB_BUFFER},
                                 {EGL_LEVEL, 0},
                                 {EGL_SURFACE_TYPE, EGL_WINDOW_BIT},
                                 {EGL_TRANSPARENT_TYPE, EGL_NONE}};

bool fits(const Config& config, EGLint name, EGLint wanted) {
  if (wanted == EGL_DONT_CARE) return true;
  bool known = false;
  const EGLint has = value_of(config, name);
  switch (match_of(name, known)) {
    case Match::kAtLeast:
      return has >= wanted;
    case Match::kExact:
      return has == wanted;
    case Match::kMask:
      return (has & wanted) == wanted;
    case Match::kNever:
      break;
  }
  return name != EGL_MATCH_NATIVE_PIXMAP || wanted == EGL_NONE;
}

bool fits(const Config& config, const Wish& wish) {
  const EGLint id = wish.value(EGL_CONFIG_ID, EGL_DONT_CARE);
  if (id != EGL_DONT_CARE) return static_cast<EGLint>(config.id) == id;
  for (const Default& one : kDefaults) {
    if (!fits(config, one.name, wish.value(one.name, one.value))) return false;
  }
  const bool transparent = wish.value(EGL_TRANSPARENT_TYPE, EGL_NONE) == EGL_TRANSPARENT_RGB;
  for (const EGLint* at = wish.words; at != nullptr && *at != EGL_NONE; at += 2) {
    const bool of_transparency = *at == EGL_TRANSPARENT_RED_VALUE || *at == EGL_TRANSPARENT_GREEN_VALUE ||
                                 *at == EGL_TRANSPARENT_BLUE_VALUE;
    if (of_transparency && !transparent) continue;
    if (!fits(config, *at, wish.value(*at, at[1]))) return false;
  }
  return true;
}

// Bits of the components that are wished for.
EGLint wished_bits(const Config& config, const Wish& wish) {
  EGLint bits = 0;
  for (EGLint name : {EGL_RED_SIZE, EGL_GREEN_SIZE, EGL_BLUE_SIZE, EGL_ALPHA_SIZE, EGL_LUMINANCE_SIZE}) {
    const EGLint wanted = wish.value(name, 0);
    if (wanted != 0 && wanted != EGL_DONT_CARE) bits += value_of(config, name);
  }
  return bits;
}

EGLint rank_of_caveat(const Config& config) {
  switch (value_of(config, EGL_CONFIG_CAVEAT)) {
    case EGL_NONE:
      return 0;
    case EGL_SLOW_CONFIG:
      return 1;
  }
  return 2;
}

bool comes_before(const Config& a, const Config& b, const Wish& wish) {
  EGLint difference = rank_of_caveat(a) - rank_of_caveat(b);
  if (difference == 0) difference = wished_bits(b, wish) - wished_bits(a, wish);
  for (EGLint name : {EGL_BUFFER_SIZE, EGL_SAMPLE_BUFFERS, EGL_SAMPLES, EGL_DEPTH_SIZE, EGL_STENCIL_SIZE,
                      EGL_ALPHA_MASK_SIZE, EGL_NATIVE_VISUAL_TYPE, EGL_CONFIG_ID}) {
    if (difference == 0) difference = value_of(a, name) - value_of(b, name);
  }
  return difference < 0;
}

EGLConfig handle_of(const Config& config) { return const_cast<Config*>(&config); }

}  // namespace

EGLint attribute_of(const Config& config, EGLint name, bool& known) {
  known = false;
  for (int i = 0; i < config.count; ++i) {
    if (config.attributes[i].name != name) continue;
    known = true;
    return config.attributes[i].value;
  }
  return 0;
}

bool load_configs(Display& display) {
  if (display.configs != nullptr) return true;
  ControlCall call;
  if (!call) return false;
  auto* packet = call.begin<ChooseConfigs>(kOpGetConfigs);
  packet->header.flags = kOfEgl;
  packet->screen = display.platform;
  size_t size = 0;
  const char* from = call.ask().next(size);
  const size_t count = size / sizeof(Config);
  if (count == 0) return false;
  display.configs = static_cast<Config*>(zeroed(count * sizeof(Config)));
  memcpy(display.configs, from, count * sizeof(Config));
  display.config_count = static_cast<int>(count);
  for (size_t i = 0; i < count; ++i) {
    Config& config = display.configs[i];
    for (int k = 0; k < config.count; ++k)
      config.attributes[k].value = limited(config.attributes[k].name, config.attributes[k].value);
  }
  return true;
}

const Config* find_config(const Display& display, EGLConfig handle) {
  for (int i = 0; i < display.config_count; ++i) {
    if (&display.configs[i] == handle) return &display.configs[i];
  }
  return nullptr;
}

EGLBoolean get_configs(const Display& display, EGLConfig* into, EGLint size, EGLint* count) {
  EGLint found = display.config_count;
  if (into != nullptr) {
    found = size < found ? size : found;
    for (EGLint i = 0; i < found; ++i) into[i] = handle_of(display.configs[i]);
  }
  *count = found;
  return EGL_TRUE;
}

EGLBoolean choose_config(Display& display, const EGLint* words, EGLConfig* into, EGLint size, EGLint* count) {
  const Wish wish = {words};
  for (const EGLint* at = words; at != nullptr && *at != EGL_NONE; at += 2) {
    bool known = false;
    (void)match_of(*at, known);
    if (!known) return fail(EGL_BAD_ATTRIBUTE);
  }
  // Sorted by insertion: the list is short.
  auto** sorted =
      static_cast<const Config**>(zeroed((static_cast<size_t>(display.config_count) + 1) * sizeof(Config*)));
  EGLint found = 0;
  for (int i = 0; i < display.config_count; ++i) {
    if (!fits(display.configs[i], wish)) continue;
    EGLint at = found++;
    for (; at > 0 && comes_before(display.configs[i], *sorted[at - 1], wish); --at)
      sorted[at] = sorted[at - 1];
    sorted[at] = &display.configs[i];
  }
  if (into != nullptr) {
    found = size < found ? size : found;
    for (EGLint i = 0; i < found; ++i) into[i] = handle_of(*sorted[i]);
  }
  free(sorted);
  *count = found;
  return EGL_TRUE;
}

}  // namespace stasis::gl::egl

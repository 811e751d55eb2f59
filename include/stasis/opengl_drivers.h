// The drivers for OpenGL that have names here: what they are told by is Mesa's, and may change with it.
#pragma once

#include <string_view>

namespace stasis::gl {

struct Driver {
  std::string_view name;
  // For the environment of who loads it: NAME=VALUE, and NAME= takes one away. In this order.
  std::string_view settings;
  // What its GL_RENDERER begins with; empty: whatever there is.
  std::string_view renderer;
};

// All that one of them sets the others take away.
inline constexpr std::string_view kNoSettings =
    "GALLIUM_DRIVER= MESA_LOADER_DRIVER_OVERRIDE= LIBGL_ALWAYS_SOFTWARE= ";
inline constexpr Driver kDrivers[] = {
    {"default", "", ""},
    {"llvmpipe", "GALLIUM_DRIVER=llvmpipe LIBGL_ALWAYS_SOFTWARE=1", "llvmpipe"},
    {"softpipe", "GALLIUM_DRIVER=softpipe LIBGL_ALWAYS_SOFTWARE=1", "softpipe"},
    {"zink", "MESA_LOADER_DRIVER_OVERRIDE=zink LIBGL_ALWAYS_SOFTWARE=1", "zink"},
    {"virpipe", "GALLIUM_DRIVER=virpipe LIBGL_ALWAYS_SOFTWARE=1", "virgl"},
};

}  // namespace stasis::gl

// What the driver has drawn or copied somewhere: read out of it, and written into another one.
#pragma once

#include <string>

#include "renderer/renderer.h"

namespace stasis::gl {

// Appends the answer to `question` to `into`. The current context is as before afterwards. Not between
// glBegin and glEnd, nor while a list is compiled.
void read_contents(Renderer& r, const Contents& question, std::string& into);
// Into a context that is being replayed.
void write_contents(Renderer& r, const Contents& contents);

}  // namespace stasis::gl

// Contexts, whoever of GLX and EGL has made them.
#pragma once

#include "encoder/program.h"
#include "wire/egl.h"

namespace stasis::gl {

Context* make_context(uint32_t number, Context* share);
void release_context(Context* context);

// Makes it (or none: null) current in this thread.
EglAnswer make_current(Context* context, void* display, uint64_t draw, uint64_t read);

}  // namespace stasis::gl

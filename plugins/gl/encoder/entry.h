// The functions of GLX or EGL that a library of GLVND finds here by their names.
#pragma once

#include <cstddef>
#include <cstring>

#include "encoder/program.h"

namespace stasis::gl {

struct Entry {
  const char* name;
  void* function;
  // There is no other vendor to choose from, so the function of an extension is its own dispatcher.
  bool is_extension;
};
template <typename F>
Entry entry(const char* name, F* function, bool is_extension = false) {
  return {name, reinterpret_cast<void*>(function), is_extension};
}

// Null when it is none of them.
template <size_t kCount>
const Entry* find_entry(const Entry (&entries)[kCount], const char* name) {
  for (const Entry& one : entries) {
    if (strcmp(one.name, name) == 0) return &one;
  }
  return nullptr;
}

// Or else a function of OpenGL itself.
inline void* address_of(const Entry* found, const char* name) {
  return found != nullptr ? found->function : find_exported(name);
}
inline void* dispatcher_of(const Entry* found) {
  return found != nullptr && found->is_extension ? found->function : nullptr;
}

}  // namespace stasis::gl

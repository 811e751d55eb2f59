// Kinds of names that a program gives to objects.
#pragma once

#include <cstdint>

namespace stasis::gl {

enum NameType : uint32_t {
  kTexture,
  kBuffer,
  kFramebuffer,
  kRenderbuffer,
  kQuery,
  kProgram,
  kSampler,
  kVertexArrayName,
  kTransformFeedback,
  kList,
  kArbProgram,
  kNameTypes
};

}  // namespace stasis::gl

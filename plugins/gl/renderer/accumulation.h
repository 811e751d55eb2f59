// The accumulation buffer of a window: signed numbers of 16 bits a component, which go to the colours and
// back by glAccum alone.
#pragma once

#include <cstddef>
#include <functional>

#include "renderer/renderer.h"

namespace stasis::gl {

// It is images of so many bytes: what is positive and what is negative, as precisely as colours are, then
// what is left of both, and what is left of that.
constexpr int kAccumulationImages = 6;
constexpr size_t accumulation_image_bytes(GLint width, GLint height) {
  return static_cast<size_t>(width) * static_cast<size_t>(height) * 4;
}

// Puts such an image of the window's size into the buffer of colours that is drawn into.
using PutColors = std::function<void(const unsigned char* image)>;

// The window is bound, and its pixels are read without gaps. Both leave its colours as they were; the first
// also what is accumulated. False: the driver has none, or it cannot be had now.
bool read_accumulation(GLint width, GLint height, const PutColors& put, unsigned char* images);
void write_accumulation(GLint width, GLint height, const PutColors& put, const unsigned char* images);

}  // namespace stasis::gl

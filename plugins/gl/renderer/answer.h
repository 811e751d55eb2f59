// Answers to questions for what only the driver knows.
#pragma once

#include <GL/gl.h>

#include <string>

#include "wire/packet.h"

namespace stasis::gl {

struct PixelFormat {
  GLenum format, type;
  size_t pixel;  // bytes
};

// Room for one answer at the end of a text.
class Answer {
 public:
  Answer(std::string& into, const Contents& question, GLint level, GLint width, GLint height, GLint depth,
         size_t bytes)
      : into_(into), start_(into.size()) {
    into.resize(start_ + sizeof(Contents) + ((bytes + 7) & ~size_t{7}));
    Contents& made = header();
    made = question;
    made.header = {static_cast<uint32_t>(into.size() - start_), kOpContents, 0};
    made.level = level;
    made.width = width;
    made.height = height;
    made.depth = depth;
    made.bytes = static_cast<uint32_t>(bytes);
  }
  void describe(const PixelFormat& pixels, GLenum internal) {
    header().internal_format = internal;
    header().format = pixels.format;
    header().type = pixels.type;
  }
  void* pixels() { return into_.data() + start_ + sizeof(Contents); }
  // When the driver does not give it.
  void take_back() { into_.resize(start_); }

 private:
  Contents& header() { return *reinterpret_cast<Contents*>(into_.data() + start_); }

  std::string& into_;
  size_t start_;
};

}  // namespace stasis::gl

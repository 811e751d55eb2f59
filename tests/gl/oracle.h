// What gl_oracle's parts share: dice, and the objects that its random calls make.
#pragma once

#define GL_GLEXT_PROTOTYPES
#include <GL/gl.h>
#include <GL/glext.h>

#include <cstdint>
#include <iterator>
#include <string>
#include <vector>

// The same ones for the same seed.
class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15U + 1) {}
  uint32_t below(uint32_t count) {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    return static_cast<uint32_t>(state_ >> 33) % count;
  }
  GLint between(GLint low, GLint high) {
    return low + static_cast<GLint>(below(static_cast<uint32_t>(high - low + 1)));
  }
  bool once_in(uint32_t count) { return below(count) == 0; }
  GLfloat fraction() { return static_cast<GLfloat>(below(257)) / 256; }  // has no rounding
  template <typename List>
  auto& one_of(List& list) {
    return list[below(static_cast<uint32_t>(std::size(list)))];
  }
  GLenum one_of(std::initializer_list<GLenum> list) {
    return list.begin()[below(static_cast<uint32_t>(list.size()))];
  }
  std::vector<unsigned char> bytes(size_t count) {
    std::vector<unsigned char> made(count);
    for (unsigned char& byte : made) byte = static_cast<unsigned char>(below(256));
    return made;
  }

 private:
  uint64_t state_;
};

struct Texture {
  GLenum target;
  GLuint name;
  bool whole = false;  // it has an image that may be drawn into
};
struct Buffer {
  GLuint name;
  GLsizei size = 0;
};
struct Renderbuffer {
  GLuint name;
  bool depth = false;
};

struct World {
  bool core;
  std::vector<Texture> textures;
  std::vector<Buffer> buffers;
  std::vector<Renderbuffer> renderbuffers;
  std::vector<GLuint> framebuffers, samplers, arrays, queries, programs, lists;
};

constexpr GLuint kUnits = 4, kAttributes = 6, kColors = 4;

void set_up_objects(World& world);                // oracle_objects.cpp
void call_objects(World& world, Dice& dice);      // one random call, or some that belong together
void call_pixels(World& world, Dice& dice);       // oracle_pixels.cpp: of textures, and draws
bool may_draw(const World& world);                // without that anything is undefined
void call_state(const World& world, Dice& dice);  // oracle_state.cpp
void call_fixed(World& world, Dice& dice);        // of the fixed function
std::string tell_all(World& world);               // oracle_dump.cpp: all that GL can tell

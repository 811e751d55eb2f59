// A program that sets up a lot of OpenGL state once, and then draws with it whenever it is told: a line
// "draw" on standard input is answered with a hash of the picture. What it needs for a frame was said in a
// frame before, so a driver that got it from a log must have all of it. "extra" changes some of it, "begin"
// draws half of a frame and "more" the rest, and "swap" ends a frame.
#include "scene.h"

#include <cstdint>
#include <cstring>
#include <string>

#include "serve.h"

std::vector<unsigned char> pattern(int width, int height, int seed) {
  std::vector<unsigned char> bytes(static_cast<size_t>(width * height * 3));
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<unsigned char>((i * 7 + i / 16 * 31) ^ seed);
  return bytes;
}

void fullscreen(float left, float bottom, float right, float top, float depth) {
  glBegin(GL_TRIANGLE_STRIP);
  glTexCoord2f(0, 0);
  glVertex3f(left, bottom, depth);
  glTexCoord2f(1, 0);
  glVertex3f(right, bottom, depth);
  glTexCoord2f(0, 1);
  glVertex3f(left, top, depth);
  glTexCoord2f(1, 1);
  glVertex3f(right, top, depth);
  glEnd();
}

void filter(GLenum min) {
  glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, static_cast<GLint>(min));
  glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MAG_FILTER, GL_NEAREST);
}

void triangle(float shift, float depth) {
  glBegin(GL_TRIANGLES);
  glColor4f(0.9F, 0.2F + shift, 0.3F, 1);
  glVertex3f(-0.8F + shift, -0.9F, depth);
  glColor4f(0.1F, 0.8F, 0.4F, 0.5F);
  glVertex3f(0.9F, -0.5F + shift, depth);
  glColor4f(0.3F, 0.4F, 0.9F, 0.8F);
  glVertex3f(0.1F, 0.9F - shift, depth - 0.3F);
  glEnd();
}

namespace {

uint64_t hash_of_picture() {
  std::vector<unsigned char> pixels(kSize * kSize * 4);
  glReadPixels(0, 0, kSize, kSize, GL_RGBA, GL_UNSIGNED_BYTE, pixels.data());
  uint64_t hash = 14695981039346656037U;
  size_t lit = 0;
  for (unsigned char byte : pixels) {
    hash = (hash ^ byte) * 1099511628211U;
    lit += byte != 0 && byte != 255;
  }
  if (lit < 1000) die("the picture is empty");
  if (GLenum error = glGetError(); error != GL_NO_ERROR) {
    fprintf(stderr, "scene: error 0x%x\n", error);
    exit(1);
  }
  return hash;
}

struct Kind {
  const char* name;
  void (*set_up)();
  void (*draw)();
  void (*extra)();
};
constexpr Kind kKinds[] = {{"fixed", set_up_fixed, draw_fixed, extra_fixed},
                           {"core", set_up_core, draw_core, nullptr},
                           {"driver", set_up_driver, draw_driver, nullptr},
                           {"turning", set_up_turning, draw_turning, nullptr}};

std::string run_command(const std::string& command, const Kind& kind) {
  if (command == "extra" && kind.extra != nullptr) kind.extra();
  if (command == "begin") {
    begin_driver();
  } else if (command == "more") {
    more_driver();
  } else if (command != "swap") {
    kind.draw();
  }
  char text[32];
  snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash_of_picture()));
  if (command == "swap") end_frame();
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  const Kind* kind = kKinds;
  for (const Kind& one : kKinds) {
    if (argc > 1 && strcmp(argv[1], one.name) == 0) kind = &one;
  }
  open_window(strcmp(kind->name, "core") == 0);
  kind->set_up();
  end_frame();  // from now on all of it is in the log
  const auto run = [&](const std::string& command) { return run_command(command, *kind); };
  if (argc > 2) serve_directory(argv[2], run);
  serve_lines("ready", run);
  return 0;
}

// A program that makes state of OpenGL with random calls, and then tells all that OpenGL can tell of it: a
// test compares what it tells natively with what it tells when its driver has been exchanged in between.
// "calls" makes some; "tell" is answered with one line, whose facts end with semicolons.
#include "oracle.h"

#include <cstring>

#include "scene.h"
#include "serve.h"

int main(int argc, char** argv) {
  if (argc < 3) die("core or fixed, a seed, a directory");
  World world = {};
  world.core = strcmp(argv[1], "core") == 0;
  Dice dice(strtoull(argv[2], nullptr, 10));
  open_window(world.core);
  glClearStencil(0);
  glClear(GL_COLOR_BUFFER_BIT | GL_DEPTH_BUFFER_BIT | GL_STENCIL_BUFFER_BIT);
  set_up_objects(world);
  const auto run = [&](const std::string& command) -> std::string {
    if (command == "tell") return tell_all(world);
    constexpr int kCalls = 150;
    std::string errors;
    for (int i = 0; i < kCalls; ++i) {
      switch (dice.below(world.core ? 4 : 5)) {
        case 0:
          call_objects(world, dice);
          break;
        case 1:
        case 2:
          call_pixels(world, dice);
          break;
        case 3:
          call_state(world, dice);
          break;
        default:
          call_fixed(world, dice);
      }
      errors += std::to_string(glGetError()) + ";";
    }
    return errors;
  };
  if (argc > 3) serve_directory(argv[3], run);
  serve_lines("ready", run);
  return 0;
}

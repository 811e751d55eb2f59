// Starts a program in a session of its own.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "session/display.h"
#include "session/opengl.h"
#include "session/start.h"
#include "stasis/result.h"

namespace stasis::session {

struct LaunchRequest {
  std::string name;   // empty: made from the program's
  std::string store;  // empty: the default
  int64_t interval_ns = 0;
  uint32_t keep = 0;
  checkpoint::FilePolicy files;
  std::optional<DisplayRequest> display;  // a private X server; nothing: none
  OpenGlUse opengl = OpenGlUse::kAuto;
  bool private_network = false;      // one of its own, with nothing in it but loopback
  std::vector<std::string> without;  // plugins that are not wanted, by name
  Ground ground = Ground::kForeground;
  std::vector<std::string> command;
  std::function<void(const std::string& name)> announce;  // in the background, when the session runs
};

// The exit code to leave with. See supervisor.h for what happens until then.
Result<int> launch(const LaunchRequest& request);

// Whether launch() failed because the program cannot be executed; then the exit code to leave with, like
// env(1): 127 when it was not found, else 126.
std::optional<int> exec_failure_code(const Error& error);

}  // namespace stasis::session

// Connects the user's terminal to that of a running session.
#pragma once

#include <string>

#include "session/terminal_server.h"
#include "stasis/result.h"

namespace stasis::session {

inline constexpr char kDefaultDetachKey = ']' & 0x1f;  // ctrl-]

struct AttachRequest {
  std::string name;
  Attach manner = Attach::kPolitely;
  char detach_key = kDefaultDetachKey;
};

// The exit code to leave with: 0 when detached; that of the program when it ended meanwhile.
Result<int> attach(const AttachRequest& request);

// "ctrl-]", "^a", or one character.
Result<char> parse_detach_key(const std::string& text);

}  // namespace stasis::session

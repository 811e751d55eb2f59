// What is in the buffers of a pseudo-terminal: typed and not read yet, written and not shown yet.
#pragma once

#include <asm/termbits.h>

#include <optional>
#include <string>

#include "schema/kinds/terminal.pb.h"
#include "stasis/result.h"

namespace stasis::resource {

struct TerminalBuffers {
  schema::TerminalInput input;
  std::string output;
};

// No more fits into both of the kernel's buffers of one direction.
inline constexpr size_t kMostBuffered = 32 << 10;

// Looks into the buffers of the pty with this master, of which a slave is open, while nobody uses it.
//
// A terminal can only be read away, so what was read is put back, by a process of its own which goes on when
// the caller is killed. Nothing: it cannot be put back (output is stopped, the line discipline is another
// one).
std::optional<TerminalBuffers> look_into_buffers(int master);

// Puts content into empty buffers, as if it had been typed and written; the attributes of the terminal must
// be set already. `slave` must not block.
Result<void> fill_buffers(int master, int slave, const TerminalBuffers& content);

}  // namespace stasis::resource

#include "resource/terminal/session_terminal.h"

#include "resource/refusal.h"
#include "resource/reopen.h"
#include "resource/terminal/tty.h"

namespace stasis::resource {

KindInfo SessionTerminalKind::info() const {
  return {"session-terminal", "Terminals",
          "the terminal of launch, also as /dev/tty: replaced by that of restart"};
}

bool SessionTerminalKind::recognises(const OpenFile& file, const Observation& tree) const {
  return tree.session_terminal() != 0 && is_terminal(file) && !is_master(file) &&
         tty_device(file.duplicate.get()) == tree.session_terminal();
}

Result<std::string> SessionTerminalKind::observe(const OpenFile&, Observation&) const {
  return std::string();
}

// Each description opens the terminal for itself, so that the flags of one (O_NONBLOCK) are not those of all.
Result<Fd> SessionTerminalKind::make(const Record& record, Making& context) const {
  std::string path = context.terminal_path();
  auto fd = open_file(path.empty() ? "/dev/null" : path, open_flags(record.flags));
  if (!fd.ok()) return std::move(fd).error().within("restore " + record.describe());
  return fd;
}

}  // namespace stasis::resource

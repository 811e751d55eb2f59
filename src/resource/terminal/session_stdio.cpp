#include "resource/terminal/session_stdio.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "resource/payload.h"
#include "resource/refusal.h"
#include "resource/reopen.h"
#include "resource/socket/socket.h"
#include "resource/terminal/tty.h"
#include "schema/kinds/terminal.pb.h"

namespace stasis::resource {

KindInfo SessionStdioKind::info() const {
  return {"session-stdio", "Descriptors",
          "standard input, output and error of launch: replaced by those of restart"};
}

// A file or /dev/null, also as standard output, is opened again by its name; what has no name that could be
// opened again belongs to whoever started the session.
bool SessionStdioKind::recognises(const OpenFile& file, const Observation& tree) const {
  bool has_no_name = file.link.starts_with("pipe:") || is_socket(file) || is_terminal(file);
  return has_no_name && tree.session_stdio(file).has_value();
}

Result<std::string> SessionStdioKind::observe(const OpenFile& file, Observation& tree) const {
  schema::SessionStdio message;
  message.set_which(tree.session_stdio(file).value_or(0));
  return pack(message);
}

Result<Fd> SessionStdioKind::make(const Record& record, Making& context) const {
  STASIS_TRY(auto message, unpack<schema::SessionStdio>(record));
  int given = message.which() >= 0 && message.which() <= 2 ? context.stdio(message.which()) : -1;
  if (given < 0 || fcntl(given, F_GETFD) < 0) return open_file("/dev/null", open_flags(record.flags));
  // A description of its own: a program that sets O_NONBLOCK must not do so to the shell's. Not of a regular
  // file, whose position is in the description ("restart >> log"), and a socket cannot be opened.
  struct stat status = {};
  if (fstat(given, &status) == 0 && (S_ISCHR(status.st_mode) || S_ISFIFO(status.st_mode))) {
    auto own = reopen(given, open_flags(record.flags & ~static_cast<uint32_t>(O_DIRECT)));
    if (own.ok()) return own;
  }
  STASIS_TRY(Fd fd, duplicate(given));
  STASIS_CHECK(set_status_flags(fd.get(), record.flags));
  return fd;
}

}  // namespace stasis::resource

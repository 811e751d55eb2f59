// How init keeps the session's terminal and hands it out.
//
// Init holds the master, so no death of a supervisor or attacher can hang up the terminal. It listens at
// <session>/terminal.sock (SOCK_SEQPACKET). A client sends one packet:
//   'A'  attach, or be told that somebody else is attached      'S'  steal: the one who is attached is sent
//   away
// and gets one of
//   'O'  with the master as SCM_RIGHTS; its text is the number of bytes of earlier output that follow in 'D'
//   packets 'B'  busy; the connection is closed
// Later 'X' says that the terminal was stolen; an end of file says that the session is over. As long as a
// client is connected, it reads the master and init does not. Otherwise init reads it, so that the program
// does not block, and keeps the last of it for the next client.
#pragma once

#include <poll.h>

#include <string>
#include <vector>

#include "session/channel.h"

namespace stasis::session {

// The end that init has.
class TerminalServer {
 public:
  // `slave` is only held: while it is open, reading the master never fails for want of a writer, which would
  // otherwise have to be told from "not yet". `client` is already attached, or empty.
  TerminalServer(Fd master, Fd slave, Fd listener, Channel client);

  // Appends what to wait for; handle() gets the same entries.
  void prepare(std::vector<pollfd>& entries) const;
  void handle(const std::vector<pollfd>& entries, size_t first);
  std::vector<int> descriptors() const;

 private:
  void accept_client();
  void hear_newcomer(size_t index);
  void hand_out(Channel newcomer);
  void keep_output();

  Fd master_, slave_, listener_;
  Channel client_;
  std::vector<Channel> newcomers_;  // connected, but have not said yet what they want
  std::string backlog_;
};

inline constexpr const char* kTerminalSocket = "terminal.sock";

// The client's end.
struct Attachment {
  Channel channel;
  Fd master;
  std::string backlog;  // what was written while nobody was attached
};
enum class Attach { kPolitely, kSteal };
// kBusy when somebody is attached.
Result<Attachment> attach_to_terminal(const std::string& session_directory, Attach manner);

}  // namespace stasis::session

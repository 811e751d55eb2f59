// The session's own terminal, and the user's terminal that is connected to it for a while.
#pragma once

#include <poll.h>
#include <termios.h>

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::session {

struct TerminalPair {
  Fd master;  // non-blocking
  Fd slave;
  std::string slave_path;  // /dev/pts/N
  uint64_t device = 0;     // st_rdev of the slave
};
Result<TerminalPair> make_terminal();

// Which of the caller's descriptors leads to its user's terminal.
struct UserTerminal {
  int input = -1;    // to read keys from; -1: none
  int output = -1;   // to write to; -1: none
  int control = -1;  // for attributes and size; -1: no terminal
  static UserTerminal find();
};

// Gives `to` the attributes (as they are without us) and the window size of `from`.
void copy_terminal_settings(int from, int to);

// Puts the user's terminal into raw mode and, when destroyed or suspended, back. Does nothing while we are in
// the background of that terminal's job control: its attributes belong to the job in the foreground.
class RawMode {
 public:
  explicit RawMode(int control) : control_(control) {}
  ~RawMode() { restore(); }
  RawMode(const RawMode&) = delete;
  RawMode& operator=(const RawMode&) = delete;

  // True when the terminal is raw now, so that keys are for the program.
  bool enter();
  void restore();
  bool active() const { return active_; }

 private:
  int control_;
  bool active_ = false;
  struct termios saved_ = {};
};

// Carries bytes between the user's terminal and the session's. Used with the caller's own poll() loop.
class Relay {
 public:
  enum class Event {
    kNone,
    kDetach,      // the detach key was pressed
    kUserGone,    // the user's terminal was hung up, or nobody reads the output any more
    kMasterGone,  // the session's terminal does not exist any more
  };

  // Does not own `master`. `detach_key` is a byte to watch for in the input.
  Relay(int master, UserTerminal user, std::optional<char> detach_key = {});

  // Whether keys are read. They are not while we are in the background.
  void listen(bool on) { listening_ = on; }
  // Makes the session's terminal as large as the user's. The program gets SIGWINCH when that is a change.
  void resize() const;
  // As resize(), and makes the program draw again although the size is the same.
  void resize_and_redraw() const;

  // The entries for poll(): the user's input, the session's terminal.
  static constexpr size_t kEntries = 2;
  void prepare(std::array<pollfd, kEntries>& entries) const;
  Event handle(const std::array<pollfd, kEntries>& entries);
  // Carries what the program has written before its end.
  void drain();

 private:
  Event move_output();
  Event read_keys();

  int master_;
  UserTerminal user_;
  std::optional<char> detach_key_;
  bool listening_ = true;
  bool input_open_;
  bool input_is_terminal_;
  bool output_open_;
  std::string keys_;  // read, but not yet taken by the session's terminal
};

}  // namespace stasis::session

// Short messages between the processes that start a session: supervisor, builder and init.
#pragma once

#include <functional>
#include <string>

#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::session {

// One end of a SOCK_SEQPACKET pair: each message is one packet, and the death of the other side is an end of
// file. A message is a word of one letter with a text, or an Error.
class Channel {
 public:
  Channel() = default;
  explicit Channel(Fd fd) : fd_(std::move(fd)) {}
  static Result<std::pair<Channel, Channel>> make();

  int fd() const { return fd_.get(); }
  explicit operator bool() const { return static_cast<bool>(fd_); }
  void close() { fd_.reset(); }

  Result<void> send(char word, std::string_view text = {});
  // Best effort: when the other side is gone there is nobody to tell.
  void send_error(const Error& error);
  // The text of the message when it is `word`; the Error that was sent instead; kTaskGone when the other side
  // died.
  Result<std::string> expect(char word);
  // The same; messages of `aside` that come before go to `told`.
  Result<std::string> expect(char word, char aside, const std::function<void(const std::string&)>& told);

 private:
  Fd fd_;
};

}  // namespace stasis::session

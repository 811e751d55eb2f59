// How init keeps what one checkpoint leaves for the next about changes of memory (checkpoint/tracking.h): the
// trackers, which have to be open as long as the program runs and end with it, and a note of what they mean.
//
// Init listens at <session>/tracking.sock (SOCK_SEQPACKET). A client sends
//   'T'  take: gets 'N' with the note, 'D' with each tracker, and 'E'. The note is gone from then on: who
//   dies
//        before he leaves a new one leaves nothing known
//   'N'  with a note, 'D' with each tracker, and 'C': they replace all that there was; gets 'E'
// Without a note trackers are of no use, and are closed.
#pragma once

#include <poll.h>

#include <string>
#include <vector>

#include "checkpoint/tracking.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::session {

inline constexpr const char* kTrackingSocket = "tracking.sock";

// The end that init has.
class TrackingKeeper {
 public:
  explicit TrackingKeeper(Fd listener) : listener_(std::move(listener)) {}

  // Appends what to wait for; handle() gets the same entries.
  void prepare(std::vector<pollfd>& entries) const;
  void handle(const std::vector<pollfd>& entries, size_t first);
  int descriptor() const { return listener_.get(); }

 private:
  struct Kept {
    Fd note;
    std::vector<Fd> trackers;
  };
  void hear();
  void hand_out();

  Fd listener_, client_;  // one at a time: they hold the session's lock
  Kept kept_, coming_;
};

// The client's end. Nothing is known when init has nothing, or is of a version that knows nothing of this.
checkpoint::Tracking take_tracking(const std::string& session_directory);
// Best effort: what is not left is not known.
void leave_tracking(const std::string& session_directory, const checkpoint::Tracking& tracking);

}  // namespace stasis::session

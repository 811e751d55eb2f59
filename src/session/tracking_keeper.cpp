#include "session/tracking_keeper.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "session/descriptor_passing.h"

namespace stasis::session {
namespace {

// A note names at most some pieces for each page that a program has.
constexpr size_t kLongestNote = size_t{64} << 20;

}  // namespace

void TrackingKeeper::prepare(std::vector<pollfd>& entries) const {
  entries.push_back({.fd = listener_.get(), .events = POLLIN, .revents = 0});
  entries.push_back({.fd = client_ ? client_.get() : -1, .events = POLLIN, .revents = 0});
}

void TrackingKeeper::handle(const std::vector<pollfd>& entries, size_t first) {
  if (entries[first + 1].revents != 0) hear();
  if (entries[first].revents == 0) return;
  Fd newcomer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!newcomer) return;
  client_ = std::move(newcomer);
  coming_ = {};
}

void TrackingKeeper::hear() {
  auto received = receive_with_descriptor(client_.get());
  if (!received.ok() || received->message.empty()) {
    client_.reset();
    coming_ = {};
    return;
  }
  switch (received->message.front()) {
    case 'T':
      hand_out();
      break;
    case 'N':
      coming_ = {std::move(received->fd), {}};
      break;
    case 'D':
      // One that is missing would shift all that come after it.
      if (!received->fd) coming_.note.reset();
      coming_.trackers.push_back(std::move(received->fd));
      break;
    case 'C':
      kept_ = std::exchange(coming_, {});
      if (!kept_.note) kept_ = {};
      (void)send_with_descriptor(client_.get(), "E", -1);
      break;
    default:
      client_.reset();
  }
}

void TrackingKeeper::hand_out() {
  bool sent = true;
  if (kept_.note) {
    sent = send_with_descriptor(client_.get(), "N", kept_.note.get());
    for (const Fd& tracker : kept_.trackers)
      sent = sent && send_with_descriptor(client_.get(), "D", tracker.get());
  } else {
    kept_ = {};
  }
  kept_.note.reset();
  if (!sent || !send_with_descriptor(client_.get(), "E", -1)) client_.reset();
}

namespace {

Result<checkpoint::Tracking> take(const std::string& session_directory) {
  STASIS_TRY(Fd socket, connect_in(session_directory, kTrackingSocket));
  if (!send_with_descriptor(socket.get(), "T", -1)) return errno_error("take", "what was tracked");
  Fd note;
  std::vector<Fd> trackers;
  for (;;) {
    STASIS_TRY(Received received, receive_with_descriptor(socket.get()));
    const char word = received.message.empty() ? '\0' : received.message.front();
    if (word == 'E') break;
    if (word == 'N' && received.fd) {
      note = std::move(received.fd);
    } else if (word == 'D' && received.fd) {
      trackers.push_back(std::move(received.fd));
    } else {
      return Error{"take", "what was tracked", "unexpected message", {}};
    }
  }
  if (!note) return checkpoint::Tracking();
  if (::lseek(note.get(), 0, SEEK_SET) < 0) return errno_error("read", "what was tracked");
  STASIS_TRY(std::string text, read_all(note.get(), kLongestNote));
  auto tracking = checkpoint::decode(text);
  if (!tracking || tracking->processes.size() != trackers.size()) return checkpoint::Tracking();
  for (size_t i = 0; i < trackers.size(); ++i)
    tracking->processes[i].tracker = kernel::WriteTracker(std::move(trackers[i]));
  return std::move(*tracking);
}

Result<void> leave(const std::string& session_directory, const checkpoint::Tracking& tracking) {
  STASIS_TRY(Fd socket, connect_in(session_directory, kTrackingSocket));
  Fd note(::memfd_create("tracking", MFD_CLOEXEC));
  if (!note) return errno_error("note", "what is tracked");
  STASIS_CHECK(write_all(note.get(), checkpoint::encode(tracking)));
  bool sent = send_with_descriptor(socket.get(), "N", note.get());
  for (const auto& process : tracking.processes)
    sent = sent && send_with_descriptor(socket.get(), "D", process.tracker.fd());
  sent = sent && send_with_descriptor(socket.get(), "C", -1);
  if (!sent) return errno_error("leave", "what is tracked");
  // Only then are they certainly open somewhere else when we close ours.
  STASIS_TRY([[maybe_unused]] Received answer, receive_with_descriptor(socket.get()));
  return {};
}

}  // namespace

checkpoint::Tracking take_tracking(const std::string& session_directory) {
  auto tracking = take(session_directory);
  return tracking.ok() ? std::move(tracking).value() : checkpoint::Tracking();
}

void leave_tracking(const std::string& session_directory, const checkpoint::Tracking& tracking) {
  if (!leave(session_directory, tracking).ok()) return;
}

}  // namespace stasis::session

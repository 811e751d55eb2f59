#include "session/terminal_server.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "session/descriptor_passing.h"

namespace stasis::session {
namespace {

constexpr size_t kBacklog = 64 << 10;
constexpr size_t kChunk = 8 << 10;
constexpr size_t kMostNewcomers = 8;

}  // namespace

TerminalServer::TerminalServer(Fd master, Fd slave, Fd listener, Channel client)
    : master_(std::move(master)),
      slave_(std::move(slave)),
      listener_(std::move(listener)),
      client_(std::move(client)) {}

std::vector<int> TerminalServer::descriptors() const {
  std::vector<int> all = {master_.get(), slave_.get(), listener_.get()};
  if (client_) all.push_back(client_.fd());
  return all;
}

void TerminalServer::prepare(std::vector<pollfd>& entries) const {
  entries.push_back({.fd = listener_.get(), .events = POLLIN, .revents = 0});
  entries.push_back({.fd = client_ ? client_.fd() : -1, .events = POLLIN, .revents = 0});
  entries.push_back({.fd = client_ ? -1 : master_.get(), .events = POLLIN, .revents = 0});
  for (const Channel& newcomer : newcomers_)
    entries.push_back({.fd = newcomer.fd(), .events = POLLIN, .revents = 0});
}

void TerminalServer::handle(const std::vector<pollfd>& entries, size_t first) {
  size_t waiting = newcomers_.size();
  // A client has nothing to say: what comes is its end.
  if (entries[first + 1].revents != 0) client_.close();
  if (entries[first + 2].revents != 0) keep_output();
  for (size_t i = waiting; i-- > 0;)
    if (entries[first + 3 + i].revents != 0) hear_newcomer(i);
  if (entries[first].revents != 0) accept_client();
}

void TerminalServer::accept_client() {
  Fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (socket && newcomers_.size() < kMostNewcomers) newcomers_.emplace_back(std::move(socket));
}

void TerminalServer::hear_newcomer(size_t index) {
  Channel newcomer = std::move(newcomers_[index]);
  newcomers_.erase(newcomers_.begin() + static_cast<ptrdiff_t>(index));
  char wish = 0;
  if (::recv(newcomer.fd(), &wish, 1, MSG_DONTWAIT) != 1) return;
  if (client_ && wish != 'S') {
    if (!newcomer.send('B').ok()) return;
    return;
  }
  if (client_ && !client_.send('X').ok()) client_.close();
  hand_out(std::move(newcomer));
}

void TerminalServer::hand_out(Channel newcomer) {
  keep_output();
  // The kernel's buffer of a socket (some 200 KiB) takes the whole backlog, so this does not block.
  if (!send_with_descriptor(newcomer.fd(), "O" + std::to_string(backlog_.size()), master_.get())) return;
  for (size_t sent = 0; sent < backlog_.size(); sent += kChunk)
    if (!newcomer.send('D', std::string_view(backlog_).substr(sent, kChunk)).ok()) return;
  client_ = std::move(newcomer);
  backlog_.clear();
}

void TerminalServer::keep_output() {
  std::array<char, 4096> buffer;
  ssize_t size;
  // A bounded number of reads, so that a program that writes all the time does not keep init from its other
  // duties.
  for (int reads = 0; reads < 16 && (size = ::read(master_.get(), buffer.data(), buffer.size())) > 0; ++reads)
    backlog_.append(buffer.data(), static_cast<size_t>(size));
  if (backlog_.size() > kBacklog) backlog_.erase(0, backlog_.size() - kBacklog);
}

Result<Attachment> attach_to_terminal(const std::string& session_directory, Attach manner) {
  std::string path = session_directory + "/" + kTerminalSocket;
  STASIS_TRY(Fd socket, connect_in(session_directory, kTerminalSocket));

  Attachment attachment;
  attachment.channel = Channel(std::move(socket));
  STASIS_CHECK(attachment.channel.send(manner == Attach::kSteal ? 'S' : 'A'));
  STASIS_TRY(Received received, receive_with_descriptor(attachment.channel.fd()));
  const std::string& answer = received.message;
  attachment.master = std::move(received.fd);
  if (answer.empty()) return errno_error("attach to the session's terminal", path, ECONNRESET);
  if (answer.front() == 'B')
    return Error{"attach", session_directory.substr(session_directory.rfind('/') + 1), "somebody is attached",
                 "--steal sends them away", ErrorCode::kBusy};
  size_t expected = 0;
  std::from_chars(answer.data() + 1, answer.data() + answer.size(), expected);
  if (answer.front() != 'O' || !attachment.master || expected > kBacklog)
    return Error{"attach to the session's terminal", path, "unexpected answer", {}};
  while (attachment.backlog.size() < expected) {
    STASIS_TRY(std::string part, attachment.channel.expect('D'));
    attachment.backlog += part;
  }
  return attachment;
}

}  // namespace stasis::session

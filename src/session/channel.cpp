#include "session/channel.h"

#include <sys/socket.h>
#include <unistd.h>

#include <array>

namespace stasis::session {
namespace {

constexpr char kErrorWord = '!';
constexpr size_t kLongestMessage = 16384;

}  // namespace

Result<std::pair<Channel, Channel>> Channel::make() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
    return errno_error("create a socket pair", {});
  return std::pair{Channel(Fd(ends[0])), Channel(Fd(ends[1]))};
}

Result<void> Channel::send(char word, std::string_view text) {
  std::string message(1, word);
  message += text;
  if (::send(fd_.get(), message.data(), message.size(), MSG_NOSIGNAL) < 0)
    return errno_error("send to the process that starts the session", {});
  return {};
}

void Channel::send_error(const Error& error) {
  if (!send(kErrorWord, packed(error)).ok()) return;
}

Result<std::string> Channel::expect(char word) { return expect(word, word, {}); }

Result<std::string> Channel::expect(char word, char aside,
                                    const std::function<void(const std::string&)>& told) {
  std::array<char, kLongestMessage> buffer;
  for (;;) {
    ssize_t size;
    do size = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
    while (size < 0 && errno == EINTR);
    if (size < 0 && errno != ECONNRESET)
      return errno_error("hear from the process that starts the session", {});
    if (size <= 0)
      return Error{
          "start the session", {}, "the process that was doing it was killed", {}, ErrorCode::kTaskGone};
    std::string_view message(buffer.data(), static_cast<size_t>(size));
    if (message.front() == kErrorWord) return unpacked(message.substr(1));
    if (message.front() == word) return std::string(message.substr(1));
    if (!told || message.front() != aside)
      return Error{"start the session", {}, fmt::format("unexpected message '{}'", message.front()), {}};
    told(std::string(message.substr(1)));
  }
}

}  // namespace stasis::session

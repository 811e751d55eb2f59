// Whatever comes over the sockets between the processes of a session, and from one who attaches to its
// terminal: an error, never a crash or a wait without end. The input is a row of packets, each with its
// length before it.
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "session/channel.h"
#include "session/descriptor_passing.h"
#include "session/terminal_server.h"
#include "tests/fuzz/driver.h"

namespace {

using namespace stasis;

std::vector<std::string_view> packets_of(std::string_view input) {
  std::vector<std::string_view> packets;
  while (!input.empty() && packets.size() < 16) {
    const size_t size = static_cast<uint8_t>(input.front());
    packets.push_back(input.substr(1, size));
    input.remove_prefix(1 + packets.back().size());
  }
  return packets;
}

// What starts a session hears it from its parts.
void hear(const std::vector<std::string_view>& packets) {
  auto ends = session::Channel::make();
  if (!ends.ok()) abort();
  for (std::string_view packet : packets) {
    if (::send(ends->first.fd(), packet.data(), packet.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) break;
  }
  ends->first.close();
  for (size_t i = 0; i <= packets.size(); ++i) {
    auto heard = ends->second.expect('D');
    if (!heard.ok()) (void)heard.error().message();
  }
}

// Init hears it from whoever connects.
class Server {
 public:
  Server() {
    if (::mkdtemp(directory_) == nullptr) abort();
    master_ = ::posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    auto listener = session::listen_in(directory_, session::kTerminalSocket);
    if (master_ < 0 || !listener.ok()) abort();
    server_ = std::make_unique<session::TerminalServer>(Fd(master_), Fd(), std::move(*listener),
                                                        session::Channel());
  }
  ~Server() {
    ::unlink((std::string(directory_) + "/terminal.sock").c_str());
    ::rmdir(directory_);
  }

  void hear(const std::vector<std::string_view>& packets) {
    Fd client(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
    std::snprintf(address.sun_path, sizeof address.sun_path, "%s/terminal.sock", directory_);
    if (::connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) abort();
    turn();
    for (std::string_view packet : packets) {
      if (::send(client.get(), packet.data(), packet.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) break;
      turn();
    }
    client.reset();
    turn();
    turn();
  }

 private:
  void turn() {
    std::vector<pollfd> entries;
    server_->prepare(entries);
    if (::poll(entries.data(), entries.size(), 0) > 0) server_->handle(entries, 0);
  }

  char directory_[32] = "/tmp/stasis-fuzz-XXXXXX";
  int master_ = -1;
  std::unique_ptr<session::TerminalServer> server_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Server server;
  const auto packets = packets_of({reinterpret_cast<const char*>(data), size});
  hear(packets);
  server.hear(packets);
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  const std::string error = std::string("!7step\0object\0cause\0hint\0", 25);
  std::string row;
  for (const std::string& packet : {std::string("A"), std::string("S"), std::string("D123"), error})
    row += static_cast<char>(packet.size()) + packet;
  return {row, std::string("\1S\1A\1S", 6), std::string("\2!9", 3)};
}

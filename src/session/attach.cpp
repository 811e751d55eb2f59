#include "session/attach.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cctype>
#include <cstdio>
#include <cstdlib>

#include "session/record.h"
#include "session/signals.h"
#include "session/terminal.h"

namespace stasis::session {
namespace {

// The root's wait status as init left it; nothing while it lives.
std::optional<int> exit_status(const std::string& directory) {
  auto text = read_file(directory + "/exit", 64);
  if (!text.ok() || text->empty()) return {};
  return std::atoi(text->c_str());
}

enum class Ending { kDetached, kStolen, kOver, kHungUp };

Ending converse(Attachment& attachment, Relay& relay, RawMode& raw, int signals) {
  for (;;) {
    std::array<pollfd, Relay::kEntries> terminal;
    relay.prepare(terminal);
    std::array<pollfd, Relay::kEntries + 2> entries = {
        terminal[0], terminal[1], pollfd{.fd = attachment.channel.fd(), .events = POLLIN, .revents = 0},
        pollfd{.fd = signals, .events = POLLIN, .revents = 0}};
    if (::poll(entries.data(), entries.size(), -1) < 0) continue;
    terminal = {entries[0], entries[1]};
    switch (relay.handle(terminal)) {
      case Relay::Event::kNone:
        break;
      case Relay::Event::kDetach:
        return Ending::kDetached;
      case Relay::Event::kUserGone:
        return Ending::kHungUp;
      case Relay::Event::kMasterGone:
        return Ending::kOver;
    }
    if (entries[2].revents != 0) {
      if (attachment.channel.expect('X').ok()) return Ending::kStolen;
      relay.drain();
      return Ending::kOver;
    }
    signalfd_siginfo info;
    while (::read(signals, &info, sizeof(info)) == sizeof(info)) {
      if (info.ssi_signo == SIGWINCH) relay.resize();
      if (info.ssi_signo == SIGCONT) relay.listen(raw.enter());
      if (info.ssi_signo == SIGHUP || info.ssi_signo == SIGTERM) return Ending::kHungUp;
      if (info.ssi_signo == SIGTSTP) {
        raw.restore();
        ::raise(SIGSTOP);
      }
    }
  }
}

}  // namespace

Result<char> parse_detach_key(const std::string& text) {
  if (text.size() == 1) return text[0];
  size_t prefix = text.starts_with("ctrl-") ? 5 : (text.starts_with("^") ? 1 : 0);
  if (prefix > 0 && text.size() == prefix + 1) {
    char key = static_cast<char>(std::toupper(static_cast<unsigned char>(text[prefix])));
    if (key >= '@' && key <= '_') return static_cast<char>(key & 0x1f);
  }
  return Error{"attach", text, "not a key",
               "use ctrl-X with a letter or one of @ [ \\ ] ^ _, or one character", ErrorCode::kUsage};
}

Result<int> attach(const AttachRequest& request) {
  STASIS_TRY(Record record, load_live_record(request.name));
  STASIS_TRY(std::string directory, session_directory(request.name));
  if (record.terminal_device == 0)
    return Error{"attach", request.name, "this session has no terminal",
                 "it was started with its input and output in files or pipes", ErrorCode::kRefused};
  UserTerminal user = UserTerminal::find();
  if (user.input < 0)
    return Error{"attach", request.name, "standard input is not a terminal", {}, ErrorCode::kUsage};

  sigset_t blocked = supervised_signals();
  for (int number : {SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM}) ::sigdelset(&blocked, number);
  ::sigprocmask(SIG_BLOCK, &blocked, nullptr);
  Fd signals(::signalfd(-1, &blocked, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals) return errno_error("wait for signals", {});

  STASIS_TRY(Attachment attachment, attach_to_terminal(directory, request.manner));
  RawMode raw(user.control);
  Relay relay(attachment.master.get(), user, request.detach_key);
  relay.listen(raw.enter());
  STASIS_CHECK(write_all(user.output, attachment.backlog));
  relay.resize_and_redraw();
  Ending ending = converse(attachment, relay, raw, signals.get());
  raw.restore();
  switch (ending) {
    case Ending::kDetached:
      fmt::print(stderr, "\nstasis: detached from {0}; 'stasis attach {0}' comes back\n", request.name);
      return 0;
    case Ending::kStolen:
      fmt::print(stderr, "\nstasis: the terminal of {} was taken by 'stasis attach --steal'\n", request.name);
      return 0;
    case Ending::kHungUp:
      return 0;
    case Ending::kOver:
      break;
  }
  if (auto status = exit_status(directory)) return code_of_status(*status);
  return 0;
}

}  // namespace stasis::session

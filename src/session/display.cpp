#include "session/display.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdlib>
#include <map>
#include <memory>

#include "kernel/probe.h"
#include "kernel/proc.h"
#include "session/record.h"

namespace stasis::session {
namespace {

constexpr const char* kStep = "start the X server";
constexpr const char* kSocketDirectory = "/tmp/.X11-unix";  // X servers and clients have it built in
constexpr const char* kOwnDirectory = "/tmp/.stasis";
constexpr const char* kAuthority = "authority";
constexpr const char* kVncSocket = "vnc";
constexpr int kReadyFd = 3;  // of the server
constexpr int kPatience_ms = 30'000;
constexpr off_t kLogSize = 64 << 10;

Result<void> fill_randomly(void* to, size_t size) {
  if (::getrandom(to, size, 0) != static_cast<ssize_t>(size)) return errno_error(kStep, "random numbers");
  return {};
}

// Of another X server with that number, which our clients would prefer: an abstract name comes first.
bool is_taken(uint32_t number) {
  auto sockets = read_file("/proc/net/unix");
  return sockets.ok() &&
         sockets->find(fmt::format("@{}/X{}\n", kSocketDirectory, number)) != std::string::npos;
}

// As xauth(1) writes it, for a server on any host: host names change, also between a checkpoint and a
// restart. And of any number: who connects by the path of the socket is taken for one of number 0.
std::string authority_entry(const schema::Display& display) {
  constexpr uint16_t kAnyHost = 65535;
  std::string entry;
  const auto add_number = [&entry](size_t value) {
    entry += static_cast<char>(value >> 8 & 0xff);
    entry += static_cast<char>(value & 0xff);
  };
  const auto add = [&](const std::string& text) {
    add_number(text.size());
    entry += text;
  };
  add_number(kAnyHost);
  add({});
  add({});
  add("MIT-MAGIC-COOKIE-1");
  add(display.cookie());
  return entry;
}

void empty_directory(const std::string& path) {
  std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), ::closedir);
  while (const dirent* entry = directory ? ::readdir(directory.get()) : nullptr)
    ::unlinkat(::dirfd(directory.get()), entry->d_name, 0);
}

// The system makes it at boot, as does the first X server elsewhere: for all users, like /tmp.
Result<void> make_mount_point(const char* path) {
  if (::mkdir(path, 01777) == 0) {
    if (::chmod(path, 01777) < 0) return errno_error(kStep, path);
  } else if (errno != EEXIST) {
    return errno_error(kStep, path);
  }
  struct stat status;
  if (::lstat(path, &status) < 0) return errno_error(kStep, path);
  if (S_ISDIR(status.st_mode)) return {};
  return Error{kStep, path, "it is no directory", "remove it", ErrorCode::kUnsupported};
}

// Nothing of the user's: not the terminal, not what launch has ignored or blocked, no open files.
void become_a_service(int ready, int log) {
  ::setsid();
  sigset_t none;
  ::sigemptyset(&none);
  for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  Fd null(::open("/dev/null", O_RDWR));
  // Away from the numbers that they are to have.
  Fd ready_above(::fcntl(ready, F_DUPFD, kReadyFd + 1)), log_above(::fcntl(log, F_DUPFD, kReadyFd + 1));
  ::dup2(null.release(), 0);
  ::dup2(log_above.get(), 1);
  ::dup2(log_above.get(), 2);
  ::dup2(ready_above.get(), kReadyFd);
  ::syscall(SYS_close_range, kReadyFd + 1, ~0u, 0);
  if (::chdir("/") < 0) return;
}

const char* server_program(const schema::Display& display) { return display.vnc() ? "Xtigervnc" : "Xvfb"; }

std::vector<std::string> server_command(const schema::Display& display) {
  std::vector<std::string> words = {
      server_program(display), fmt::format(":{}", display.number()),
      // Where it says that it is ready. With it there is no /tmp/.X<number>-lock, which is for servers that
      // share a directory of sockets.
      "-displayfd", std::to_string(kReadyFd), "-nolisten", "tcp", "-nolisten",
      "local",  // the abstract name
      "-auth", fmt::format("{}/{}", kSocketDirectory, kAuthority),
      "-noreset"};  // the screen stays when the last client leaves
  const auto add = [&words](std::initializer_list<std::string> more) { words.insert(words.end(), more); };
  if (!display.vnc()) {
    // In a segment of the session's own IPC namespace: a checkpoint saves it and makes its picture of it.
    add({"-shmem", "-screen", "0", fmt::format("{}x{}x24", display.width(), display.height())});
    return words;
  }
  add({"-geometry", fmt::format("{}x{}", display.width(), display.height()), "-depth", "24"});
  // Like the X socket: for the owner of the directory, and of no number in which clones would meet.
  add({"-rfbport", "-1", "-rfbunixpath", fmt::format("{}/{}", kSocketDirectory, kVncSocket), "-rfbunixmode",
       "0600", "-SecurityTypes", "None"});
  return words;
}

}  // namespace

Result<DisplayRequest> parse_display(const std::string& text) {
  constexpr uint32_t kLeast = 16, kMost = 16384;
  constexpr std::string_view kVnc = "vnc";
  DisplayRequest request;
  std::string_view size = text;
  if (size.starts_with(kVnc)) {
    request.vnc = true;
    if (size == kVnc) return request;
    size.remove_prefix(kVnc.size());
    size = size.starts_with(':') ? size.substr(1) : "";
  }
  const char* end = size.data() + size.size();
  auto width = std::from_chars(size.data(), end, request.width);
  if (width.ec == std::errc() && width.ptr != end && *width.ptr == 'x') {
    auto height = std::from_chars(width.ptr + 1, end, request.height);
    if (height.ec == std::errc() && height.ptr == end && std::min(request.width, request.height) >= kLeast &&
        std::max(request.width, request.height) <= kMost)
      return request;
  }
  return Error{"launch", "--display=" + text, "this is no size of a screen",
               fmt::format("write WIDTHxHEIGHT, from {0}x{0} to {1}x{1}, vnc, or vnc:WIDTHxHEIGHT: "
                           "--display=800x600",
                           kLeast, kMost),
               ErrorCode::kUsage};
}

Result<schema::Display> choose_display(const DisplayRequest& request) {
  schema::Display display;
  display.set_vnc(request.vnc);
  if (const char* server = server_program(display); kernel::find_program(server).empty())
    return Error{kStep, server, "it is not installed",
                 request.vnc ? "apt-get install tigervnc-standalone-server" : "apt-get install xvfb",
                 ErrorCode::kUnsupported};
  display.set_server(kDisplayServer.value);
  display.set_width(request.width);
  display.set_height(request.height);
  std::array<char, 16> cookie;
  STASIS_CHECK(fill_randomly(cookie.data(), cookie.size()));
  display.set_cookie(cookie.data(), cookie.size());
  // Not a number that somebody would choose by hand.
  constexpr uint32_t kFirst = 1000, kEnd = 59'000;
  do {
    uint32_t random = 0;
    STASIS_CHECK(fill_randomly(&random, sizeof random));
    display.set_number(kFirst + random % (kEnd - kFirst));
  } while (is_taken(display.number()));
  return display;
}

std::string display_directory(const std::string& session_directory) { return session_directory + "/display"; }

std::string display_socket(const std::string& session_directory, const schema::Display& display) {
  return fmt::format("{}/X{}", display_directory(session_directory), display.number());
}

std::string display_authority(const std::string& session_directory) {
  return fmt::format("{}/{}", display_directory(session_directory), kAuthority);
}

std::string display_vnc_socket(const std::string& session_directory) {
  return fmt::format("{}/{}", display_directory(session_directory), kVncSocket);
}

Result<void> make_display_directory(const std::string& session_directory,
                                    const std::optional<schema::Display>& display) {
  STASIS_CHECK(make_mount_point(kSocketDirectory));
  if (!display) STASIS_CHECK(make_mount_point(kOwnDirectory));
  const std::string path = display_directory(session_directory);
  STASIS_CHECK(make_directories(path));
  empty_directory(path);
  if (!display) return {};
  STASIS_TRY(Fd file, open_file(display_authority(session_directory), O_WRONLY | O_CREAT | O_EXCL, 0600));
  return write_all(file.get(), authority_entry(*display));
}

void remove_display_directory(const std::string& session_directory) {
  const std::string path = display_directory(session_directory);
  empty_directory(path);
  ::rmdir(path.c_str());
}

const char* display_mount_point(bool has_display) { return has_display ? kSocketDirectory : kOwnDirectory; }

Result<void> mount_display(const std::string& session_directory, bool has_display) {
  const std::string path = display_directory(session_directory);
  const char* place = display_mount_point(has_display);
  if (::mount(path.c_str(), place, nullptr, MS_BIND | MS_REC, nullptr) < 0)
    return errno_error("give the session its own directory of X servers", place);
  return {};
}

Result<DisplayStart> DisplayStart::begin(const schema::Display& display) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) return errno_error(kStep, "pipe");
  Fd ready(ends[0]), report(ends[1]);
  // It cannot grow, however much the server complains.
  Fd log(::memfd_create("X server log", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!log || ::ftruncate(log.get(), kLogSize) < 0 ||
      ::fcntl(log.get(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
    return errno_error(kStep, "log");
  return DisplayStart(display, std::move(ready), std::move(report), std::move(log));
}

void DisplayStart::run_server() {
  become_a_service(report_.release(), log_.release());
  std::vector<std::string> words = server_command(display_);
  std::vector<char*> arguments;
  arguments.reserve(words.size() + 1);
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  ::execvp(arguments[0], arguments.data());
  ::dprintf(2, "%s: %s\n", arguments[0], std::strerror(errno));
  ::_exit(127);
}

Error DisplayStart::failure(std::string cause) const {
  std::string said(kLogSize, '\0');
  ssize_t size = ::pread(log_.get(), said.data(), said.size(), 0);
  said.resize(size < 0 ? 0 : strnlen(said.data(), static_cast<size_t>(size)));
  for (char& c : said)
    if (c == '\n') c = ' ';
  if (!said.empty()) cause += ": " + said;
  return Error{kStep, server_program(display_), std::move(cause),
               "'stasis check' tries whether there is one that works", ErrorCode::kUnsupported};
}

Result<void> DisplayStart::wait() {
  report_.reset();  // ours; the server's is the last one then
  // To the end of the line: who closes the pipe before it has written that makes the server end.
  for (char said = 0; said != '\n';) {
    pollfd entry = {.fd = ready_.get(), .events = POLLIN, .revents = 0};
    const int ready = ::poll(&entry, 1, kPatience_ms);
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) return failure("it has not said that it is ready");
    if (::read(ready_.get(), &said, 1) <= 0) return failure("it has ended");
  }
  ready_.reset();
  ::setenv("DISPLAY", fmt::format(":{}", display_.number()).c_str(), 1);
  ::setenv("XAUTHORITY", fmt::format("{}/{}", kSocketDirectory, kAuthority).c_str(), 1);
  // Others that toolkits would prefer, or that would lead out of the session.
  for (const char* name : {"WAYLAND_DISPLAY", "WAYLAND_SOCKET", "SESSION_MANAGER"}) ::unsetenv(name);
  ::setenv("XDG_SESSION_TYPE", "x11", 1);
  return {};
}

bool only_display_left(NsTid server) {
  auto numbers = kernel::list_numbers("");
  if (!numbers.ok()) return false;
  std::map<int, int> parents;
  for (int number : *numbers) {
    // In init, whose /proc is that of the session.
    if (auto stat = kernel::read_stat(HostTid{number}); stat.ok()) parents[number] = stat->parent.value;
  }
  for (auto [number, parent] : parents) {
    if (number == 1) continue;
    int ancestor = number;
    while (ancestor > 1 && ancestor != server.value) {
      auto next = parents.find(ancestor);
      ancestor = next == parents.end() ? 0 : next->second;
    }
    if (ancestor != server.value) return false;
  }
  return true;
}

}  // namespace stasis::session

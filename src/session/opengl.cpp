#include "session/opengl.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "session/display.h"
#include "session/processes.h"
#include "stasis/opengl_drivers.h"
#include "stasis/parts.h"

namespace stasis::session {

namespace {

constexpr const char* kStep = "OpenGL";
constexpr const char* kSocket = "stasis-gl";
constexpr const char* kLibrary = "libGLX_stasis.so.0";
constexpr const char* kEglVendor = "stasis_egl.json";
constexpr size_t kLongestText = 4096;  // of plugins/gl/reader

// The directory with the plugin's parts.
std::string parts_directory() {
  const std::string server = plugin::find_part("gl", "stasis-gl-server");
  return server.substr(0, server.rfind('/'));
}

std::string server_socket(const std::string& session_directory) {
  return display_directory(session_directory) + "/" + kSocket;
}

Error no_server(const std::string& socket) {
  return Error{kStep, socket, "its server has ended", "restart the session from its last checkpoint",
               ErrorCode::kNotFound};
}

Result<Fd> connect_to_server(const std::string& session_directory) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  // By the open directory, since a path may be too long for an address.
  STASIS_TRY(Fd directory, open_file(display_directory(session_directory), O_PATH | O_DIRECTORY));
  const std::string path = fmt::format("/proc/self/fd/{}/{}", directory.get(), kSocket);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  Fd connection(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (::connect(connection.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0)
    return no_server(server_socket(session_directory));
  return connection;
}

// What it says behind its "ok".
Result<std::string> ask(int server, const std::string& request, int file = -1) {
  iovec data{const_cast<char*>(request.c_str()), request.size() + 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (file >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &file, sizeof file);
  }
  char answer[kLongestText];
  if (::sendmsg(server, &message, MSG_NOSIGNAL) < 0) return errno_error(kStep, "its server");
  const ssize_t size = ::recv(server, answer, sizeof answer, 0);
  if (size <= 0) return no_server("its server");
  std::string text(answer, ::strnlen(answer, static_cast<size_t>(size)));
  if (text == "later") {
    return Error{kStep, "the driver", "it is in the middle of something", "try again in a moment",
                 ErrorCode::kRefusedNow};
  }
  if (!text.starts_with("ok")) return Error{kStep, request, text, {}};
  return text.substr(std::min<size_t>(text.size(), 3));
}

// Nothing of the user's terminal, and no descriptor of ours but for `out`, where it says that it is ready.
[[noreturn]] void become_server(const std::vector<std::string>& words, int out, int log) {
  ::setsid();
  sigset_t none;
  ::sigemptyset(&none);
  for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  const int null = ::open("/dev/null", O_RDWR);
  ::dup2(null, 0);
  ::dup2(out, 1);
  ::dup2(log, 2);
  ::syscall(SYS_close_range, 3, ~0U, 0);
  std::vector<char*> arguments;
  arguments.reserve(words.size() + 1);
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  ::execv(arguments[0], arguments.data());
  ::_exit(127);
}

Result<void> start_server(const std::vector<std::string>& words, const std::string& log_path) {
  constexpr int kPatience_ms = 10'000;
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) return errno_error(kStep, "pipe");
  Fd from(ends[0]), to(ends[1]);
  // Not on our error output: who waits for its end does not wait for the server's.
  STASIS_TRY(Fd log, open_file(log_path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600));
  const pid_t pid = ::fork();
  if (pid < 0) return errno_error(kStep, words[0]);
  if (pid == 0) {
    // A grandchild, which nobody of ours has to wait for.
    if (::fork() == 0) become_server(words, to.get(), log.get());
    ::_exit(0);
  }
  ::waitpid(pid, nullptr, 0);
  to.reset();
  std::string said;
  while (said.find('\n') == std::string::npos) {
    pollfd entry = {.fd = from.get(), .events = POLLIN, .revents = 0};
    char bytes[512];
    if (::poll(&entry, 1, kPatience_ms) == 0)
      return Error{kStep, words[0], "it has not said that it is ready", {}, ErrorCode::kUnsupported};
    const ssize_t size = ::read(from.get(), bytes, sizeof bytes);
    if (size <= 0) break;
    said.append(bytes, static_cast<size_t>(size));
  }
  if (said == "ready\n") return {};
  if (!said.empty()) said.pop_back();
  return Error{kStep, words[0], said.empty() ? "it has ended" : said, {}, ErrorCode::kUnsupported};
}

}  // namespace

Result<std::string> driver_settings(const std::string& driver) {
  if (driver.empty() || driver.find('=') != std::string::npos) return driver;
  for (const gl::Driver& one : gl::kDrivers) {
    if (one.name == driver) return fmt::format("{}{}", gl::kNoSettings, one.settings);
  }
  return Error{kStep, driver, "there is no driver of this name", driver_help(), ErrorCode::kUsage};
}

std::string driver_help() {
  std::string names;
  for (const gl::Driver& one : gl::kDrivers) names += fmt::format("{}, ", one.name);
  return fmt::format(
      "Driver for OpenGL: {}or settings for its environment (NAME=VALUE); 'stasis check' tries them", names);
}

Result<bool> choose_opengl(OpenGlUse use, bool has_display) {
  if (use == OpenGlUse::kOff) return false;
  if (use == OpenGlUse::kAuto) return has_display && !parts_directory().empty();
  STASIS_CHECK(require_opengl());
  return true;
}

Result<void> require_opengl() {
  if (!parts_directory().empty()) return {};
  return Error{kStep,
               "its parts",
               "the parts that record OpenGL are not installed beside the command",
               {},
               ErrorCode::kUnsupported};
}

Result<OpenGlServer> OpenGlServer::start(const std::string& session_directory, bool has_display) {
  std::vector<std::string> words = {parts_directory() + "/stasis-gl-server", server_socket(session_directory),
                                    "--display", display_directory(session_directory)};
  if (!has_display) words.emplace_back("--no-x");
  STASIS_CHECK(start_server(words, session_directory + "/" + kOpenGlLog));
  STASIS_TRY(Fd connection, connect_to_server(session_directory));
  return OpenGlServer(std::move(connection));
}

Result<void> OpenGlServer::attach(const Record& record) const {
  STASIS_TRY(std::string said, ask(connection_.get(), fmt::format("until {}", record.init.value)));
  return {};
}

Result<void> OpenGlServer::restore(const Record& record, const std::string& image,
                                   const std::string& settings) const {
  STASIS_CHECK(attach(record));
  std::string request = fmt::format("restore {}\n{}\n", image, settings);
  STASIS_TRY(auto processes, list_processes(record));
  for (const auto& process : processes) request += fmt::format("{} ", process.host_pid);
  if (request.size() >= kLongestText)
    return Error{kStep, record.name, "too many processes", {}, ErrorCode::kUnsupported};
  auto said = ask(connection_.get(), request);
  if (said.ok()) return {};
  Error error = std::move(said).error();
  error.object = settings.empty() ? "the driver" : settings;
  error.hint = "choose another driver (restart --gl-driver=softpipe); 'stasis check' says which work here";
  return error;
}

void set_opengl_environment(bool has_display) {
  ::setenv("STASIS_GL_SOCKET", fmt::format("{}/{}", display_mount_point(has_display), kSocket).c_str(), 1);
  ::setenv("__GLX_VENDOR_LIBRARY_NAME", "stasis", 1);
  const std::string directory = parts_directory();
  ::setenv("__EGL_VENDOR_LIBRARY_FILENAMES", (directory + "/" + kEglVendor).c_str(), 1);
  const char* before = ::getenv("LD_LIBRARY_PATH");
  // Where it is installed the loader finds it by itself.
  if (::access((directory + "/" + kLibrary).c_str(), R_OK) != 0) return;
  const std::string path = before != nullptr ? directory + ":" + before : directory;
  ::setenv("LD_LIBRARY_PATH", path.c_str(), 1);
}

// What the server holds back from now on it holds for this connection: until its end, or until it has saved.
Result<void> OpenGlSave::prepare(std::span<const HostTid>) {
  STASIS_TRY(server_, connect_to_server(directory_));
  STASIS_TRY(std::string said, ask(server_.get(), "prepare"));
  return {};
}

Result<void> OpenGlSave::save(plugin::ImageFiles& files) {
  STASIS_TRY(const std::string programs, ask(server_.get(), "programs"));
  programs_.clear();
  for (size_t at = 0; at < programs.size();) {
    const size_t end = std::min(programs.find(' ', at), programs.size());
    programs_.push_back(programs.substr(at, end - at));
    STASIS_TRY(Fd file, files.create(fmt::format("gl-{}.log", programs_.back())));
    STASIS_TRY(std::string said, ask(server_.get(), "save " + programs_.back(), file.get()));
    at = end + 1;
  }
  return {};
}

Result<std::vector<std::string>> OpenGlSave::finish() {
  std::vector<std::string> warnings;
  for (const std::string& program : programs_) {
    STASIS_TRY(std::string said, ask(server_.get(), "finish " + program));
    if (said == "incomplete")
      warnings.emplace_back(
          "OpenGL: not all that the driver has drawn or copied into textures or buffers could be read back; "
          "after a restart it is missing until the program draws it again");
  }
  return warnings;
}

Result<std::string> ask_opengl_server(const std::string& session_directory, const std::string& request) {
  STASIS_TRY(Fd server, connect_to_server(session_directory));
  return ask(server.get(), request);
}

}  // namespace stasis::session

// OpenGL in `stasis check`: are the parts there, and which drivers start here. What a session has of OpenGL
// is started by src/session/opengl.
#include "stasis/plugin.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "stasis/opengl_drivers.h"
#include "stasis/parts.h"

namespace stasis::gl {
namespace {

using Clock = std::chrono::steady_clock;
// Those that work need a tenth of it. All are tried at the same time.
constexpr auto kPatience = std::chrono::milliseconds(1500);

// The environment of a renderer that is to have a driver.
class Environment {
 public:
  Environment() {
    for (char** at = environ; *at != nullptr; ++at) set(*at);
    // In a session: not the library that records, but a driver.
    if (variables_.erase("STASIS_GL_SOCKET") != 0) variables_.erase("__EGL_VENDOR_LIBRARY_FILENAMES");
  }
  void apply(std::string_view settings) {
    while (!settings.empty()) {
      const size_t end = std::min(settings.find(' '), settings.size());
      set(settings.substr(0, end));
      settings.remove_prefix(std::min(end + 1, settings.size()));
    }
  }
  std::vector<std::string> words() const {
    std::vector<std::string> all;
    for (const auto& [name, value] : variables_) all.push_back(name + "=" + value);
    return all;
  }

 private:
  void set(std::string_view one) {
    const size_t sign = one.find('=');
    if (sign == std::string_view::npos) return;
    if (sign + 1 == one.size()) {
      variables_.erase(std::string(one.substr(0, sign)));
    } else {
      variables_.insert_or_assign(std::string(one.substr(0, sign)), std::string(one.substr(sign + 1)));
    }
  }
  std::map<std::string, std::string> variables_;
};

// A renderer that starts a driver, says which it is, and ends. Its destructor ends it.
class Trial {
 public:
  Trial(const std::string& renderer, const Driver& driver) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) return;
    from_.reset(ends[0]);
    Fd to(ends[1]);
    Environment environment;
    environment.apply(kNoSettings);
    environment.apply(driver.settings);
    std::vector<std::string> words = environment.words();
    std::vector<char*> variables;
    for (std::string& word : words) variables.push_back(word.data());
    variables.push_back(nullptr);
    std::string program = renderer, flag = "--try";
    char* arguments[] = {program.data(), flag.data(), nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0);
    posix_spawn_file_actions_adddup2(&actions, to.get(), 1);
    posix_spawn_file_actions_adddup2(&actions, to.get(), 2);
    if (::posix_spawn(&pid_, program.c_str(), &actions, nullptr, arguments, variables.data()) != 0) pid_ = -1;
    posix_spawn_file_actions_destroy(&actions);
    if (pid_ > 0) process_.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  }
  ~Trial() { end(); }
  Trial(const Trial&) = delete;
  Trial& operator=(const Trial&) = delete;

  // Waits for its end until then.
  void wait(Clock::time_point deadline) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd entry = {.fd = process_.get(), .events = POLLIN, .revents = 0};
    in_time_ = process_ && ::poll(&entry, 1, static_cast<int>(std::max<int64_t>(left, 0))) == 1;
    end();
    char bytes[16384];
    const ssize_t size = ::read(from_.get(), bytes, sizeof bytes);
    if (size > 0) said_.assign(bytes, static_cast<size_t>(size));
  }

  bool is_loaded() const { return !(WIFEXITED(status_) && WEXITSTATUS(status_) == 127); }
  bool has_started() const { return in_time_ && WIFEXITED(status_) && WEXITSTATUS(status_) == 0; }
  // The driver's first words when it has failed, and the last ones when it has not: those are its name.
  std::string reason() const {
    std::string_view text = said_;
    while (text.ends_with('\n')) text.remove_suffix(1);
    if (has_started()) return std::string(text.substr(text.rfind('\n') + 1));
    if (!in_time_) return fmt::format("it has not started within {} ms", kPatience.count());
    if (!text.empty()) return std::string(text.substr(0, text.find('\n')));
    return WIFSIGNALED(status_) ? fmt::format("it was ended by signal {}", WTERMSIG(status_))
                                : "it has ended";
  }

 private:
  void end() {
    if (pid_ <= 0) return;
    if (!in_time_) ::kill(pid_, SIGKILL);
    while (::waitpid(pid_, &status_, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
  }

  pid_t pid_ = -1;
  Fd process_, from_;
  bool in_time_ = false;
  int status_ = 1 << 8;
  std::string said_;
};

std::string_view remedy_of(const Driver& driver) {
  if (driver.name == "zink") return "install a driver for Vulkan (mesa-vulkan-drivers)";
  if (driver.name == "virpipe")
    return "install virgl-server, and start it (virgl_test_server --use-egl-surfaceless --multi-clients)";
  return "install Mesa's drivers (libgl1-mesa-dri, libegl-mesa0)";
}

plugin::Finding finding_of(const Driver& driver, const Trial& trial) {
  plugin::Finding found = {fmt::format("OpenGL: {}", driver.name), trial.has_started(), trial.reason(), {}};
  if (found.works && !found.reason.starts_with(driver.renderer)) {
    found.works = false;
    found.reason = fmt::format("there is {} in its place", found.reason);
  }
  if (!found.works) found.remedy = remedy_of(driver);
  return found;
}

class GlPlugin final : public plugin::Plugin {
 public:
  std::string_view name() const override { return "gl"; }
  // Whether a session records OpenGL is chosen with its display (launch --gl).
  bool is_wanted() const override { return false; }

  std::vector<plugin::Finding> check() const override {
    std::string missing;
    for (const char* part : {"stasis-gl-server", "stasis-gl-renderer", "stasis-gl-keeper",
                             "libGLX_stasis.so.0", "libEGL_stasis.so.0", "stasis_egl.json"}) {
      if (plugin::find_part("gl", part).empty()) missing += (missing.empty() ? "" : ", ") + std::string(part);
    }
    if (!missing.empty()) {
      return {{"OpenGL", false, "parts that record it are missing: " + missing,
               "install them beside the command. Without, only drivers that draw in software are saved"}};
    }
    const std::string renderer = plugin::find_part("gl", "stasis-gl-renderer");
    std::vector<plugin::Finding> all = {
        {"OpenGL", true, "recorded by the parts in " + renderer.substr(0, renderer.rfind('/')), {}}};
    std::vector<std::unique_ptr<Trial>> trials;
    for (const Driver& driver : kDrivers) trials.push_back(std::make_unique<Trial>(renderer, driver));
    const auto deadline = Clock::now() + kPatience;
    for (auto& trial : trials) trial->wait(deadline);
    // It is linked with all of GLVND, so that is what its loader does not find.
    if (!trials.front()->is_loaded()) {
      all.push_back({"OpenGL: GLVND", false, trials.front()->reason(),
                     "install GLVND and Xlib (libegl1, libglx0, libopengl0, libx11-6)"});
      return all;
    }
    all.push_back({"OpenGL: GLVND", true, "libEGL, libGLX and libOpenGL are there", {}});
    for (size_t i = 0; i < trials.size(); ++i) all.push_back(finding_of(kDrivers[i], *trials[i]));
    return all;
  }
};

}  // namespace

const plugin::Plugin& gl_plugin() {
  static const GlPlugin plugin;
  return plugin;
}

}  // namespace stasis::gl
